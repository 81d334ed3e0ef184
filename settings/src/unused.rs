//! Keys that the user set and that have no effect.

use crate::literal::interpret;
use crate::{Config, ConfigError, Tree, parse_bytes, parse_duration};

/// A key and what a program does with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyRow {
    /// The key; what stands below it is meant too.
    pub key: &'static str,
    /// The default, as a Python literal or plain text.
    pub default: &'static str,
    /// What is done with it.
    pub treatment: Treatment,
}

/// What a program does with a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Treatment {
    /// It has the effect that it has in stock Dask.
    Honoured,
    /// It has no effect; another value than the default is worth a warning.
    Ignored,
    /// It has no effect in stock Dask's program of this kind either.
    Elsewhere,
    /// Another value than the default is an error, as passing over it would be unsafe; with what to do instead.
    Unsafe(&'static str),
}

impl Config {
    /// Keys under `section` that are set to something else than their default and have no effect, sorted. Keys that
    /// no row knows are among them.
    ///
    /// # Errors
    /// If a key that is unsafe to pass over is set.
    pub fn without_effect(
        &self,
        section: &str,
        rows: &[KeyRow],
    ) -> Result<Vec<String>, ConfigError> {
        let mut keys = Vec::new();
        for (path, value) in self.tree().leaves() {
            let key = path.replace('_', "-");
            if *value == Tree::Nil || !is_below(&key, section) {
                continue;
            }
            let row = rows
                .iter()
                .filter(|row| is_below(&key, row.key))
                .max_by_key(|row| row.key.len());
            match row.map(|row| (row, row.treatment)) {
                None => keys.push(path),
                Some((_, Treatment::Honoured | Treatment::Elsewhere)) => {}
                Some((row, _)) if is_default(row, &key, value) => {}
                Some((_, Treatment::Ignored)) => keys.push(path),
                Some((_, Treatment::Unsafe(reason))) => {
                    return Err(ConfigError::Unsafe {
                        key: path,
                        value: value.to_string(),
                        reason,
                    });
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }
}

fn is_below(key: &str, parent: &str) -> bool {
    key.strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a value says the same as the row's default; `1s` and `1000 ms` do.
fn is_default(row: &KeyRow, key: &str, value: &Tree) -> bool {
    let default = interpret(row.default);
    let inner = key.strip_prefix(row.key).unwrap_or_default();
    let default = match inner.strip_prefix('.') {
        None => Some(&default),
        Some(path) => default.get(path),
    };
    let Some(default) = default else { return false };
    if default == value {
        return true;
    }
    match (default, value) {
        (Tree::Int(a), Tree::Float(b)) | (Tree::Float(b), Tree::Int(a)) => *a as f64 == *b,
        (Tree::Text(a), Tree::Text(b)) => {
            let same = |x: Option<u128>, y: Option<u128>| x.is_some() && x == y;
            same(
                parse_duration(a).map(|d| d.as_nanos()),
                parse_duration(b).map(|d| d.as_nanos()),
            ) || same(
                parse_bytes(a).map(u128::from),
                parse_bytes(b).map(u128::from),
            )
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[KeyRow] = &[
        KeyRow {
            key: "distributed.scheduler.worker-ttl",
            default: "5 minutes",
            treatment: Treatment::Honoured,
        },
        KeyRow {
            key: "distributed.comm.shard",
            default: "64MiB",
            treatment: Treatment::Ignored,
        },
        KeyRow {
            key: "distributed.comm.retry",
            default: "{'count': 0, 'delay': {'min': '1s'}}",
            treatment: Treatment::Ignored,
        },
        KeyRow {
            key: "distributed.worker",
            default: "",
            treatment: Treatment::Elsewhere,
        },
        KeyRow {
            key: "distributed.comm.tls.ciphers",
            default: "None",
            treatment: Treatment::Unsafe("leave it out"),
        },
    ];

    fn check(yaml: &str) -> Result<Vec<String>, String> {
        let tree = Tree::parse_yaml(yaml).unwrap();
        Config::from(tree)
            .without_effect("distributed", ROWS)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_keys_that_were_changed_and_do_nothing_are_named() {
        let yaml = "
distributed:
  scheduler: {worker_ttl: 1s, no-such-key: 1, unset: null}
  comm: {shard: 64 MiB, retry: {count: 3, delay: {min: 1000 ms}}, tls: {ciphers: null}}
  worker: {anything: 1}
array: {chunk-size: 1}
";
        assert_eq!(
            check(yaml).unwrap(),
            [
                "distributed.comm.retry.count",
                "distributed.scheduler.no-such-key"
            ]
        );
    }

    #[test]
    fn what_is_unsafe_to_pass_over_is_an_error() {
        assert_eq!(
            check("distributed: {comm: {tls: {ciphers: HIGH}}}").unwrap_err(),
            "configuration distributed.comm.tls.ciphers is set to \"HIGH\", which is not supported here: leave it out"
        );
    }
}
