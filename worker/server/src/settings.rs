//! What this worker was told: arguments first, then Dask's configuration, then Dask's defaults.

use std::{path::PathBuf, sync::Arc, time::Duration};

use oxidask_protocol::{Value, wire::Seconds};

/// Everything the parts need to know, decided once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Scheduler address, `tcp://host:port`.
    pub(crate) scheduler: String,
    /// Name for the scheduler; the own address if none was given.
    pub(crate) name: Option<String>,
    /// Process identity, `Worker-<uuid>`.
    pub(crate) server_id: String,
    pub(crate) nthreads: usize,
    pub(crate) resources: Vec<(Arc<str>, f64)>,
    /// Bytes; none without limit.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) local_directory: PathBuf,
    /// Fractions of the memory limit; none switches the threshold off.
    pub(crate) thresholds: Thresholds,
    /// Transfers to peers served at once.
    pub(crate) outgoing_connections: usize,
    /// Peers asked at once.
    pub(crate) incoming_connections: usize,
    pub(crate) message_bytes: u64,
    /// Fraction of the memory limit that may be in flight to this worker.
    pub(crate) incoming_fraction: f64,
    pub(crate) allowed_failures: u32,
    /// How long to wait for a connection.
    pub(crate) connect_timeout: Duration,
    /// How long a peer may send nothing before its transfer is given up.
    pub(crate) stall_timeout: Duration,
    /// Exit when the scheduler cannot be reached for this long.
    pub(crate) death_timeout: Option<Duration>,
}

/// Memory thresholds as fractions of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    pub(crate) target: Option<f64>,
    pub(crate) spill: Option<f64>,
    pub(crate) pause: Option<f64>,
    pub(crate) terminate: Option<f64>,
}

/// Reads `distributed.<path>` of the configuration that the interpreter found.
pub(crate) struct Configuration<'a>(pub(crate) &'a Value);

impl Configuration<'_> {
    pub(crate) fn value(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(self.0, |value, name| value.field(name))
            .filter(|value| **value != Value::Nil)
    }

    pub(crate) fn uint(&self, path: &str, default: u64) -> u64 {
        self.value(path).and_then(Value::as_u64).unwrap_or(default)
    }

    pub(crate) fn bytes(&self, path: &str, default: u64) -> u64 {
        match self.value(path) {
            Some(Value::Str(text)) => parse_bytes(text).unwrap_or(default),
            Some(value) => value.as_u64().unwrap_or(default),
            None => default,
        }
    }

    pub(crate) fn duration(&self, path: &str, default: Duration) -> Duration {
        let seconds = match self.value(path) {
            Some(Value::Str(text)) => Seconds::parse(text),
            Some(value) => value.as_f64(),
            None => None,
        };
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(default)
    }

    /// A fraction; `false` or 0 switches it off.
    pub(crate) fn fraction(&self, path: &str, default: f64) -> Option<f64> {
        match self.value(path) {
            Some(Value::Bool(false)) => None,
            Some(value) => value.as_f64().filter(|fraction| *fraction > 0.0),
            None => Some(default),
        }
    }

    pub(crate) fn thresholds(&self) -> Thresholds {
        Thresholds {
            target: self.fraction("worker.memory.target", 0.6),
            spill: self.fraction("worker.memory.spill", 0.7),
            pause: self.fraction("worker.memory.pause", 0.8),
            terminate: self.fraction("worker.memory.terminate", 0.95),
        }
    }
}

/// Bytes as Dask's users write them: `"4GiB"`, `"100 MB"`, `"1e9"`. Without unit: bytes.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let split = text
        .char_indices()
        .find(|(at, c)| c.is_alphabetic() && !is_exponent(&text[*at..]))
        .map_or(text.len(), |(at, _)| at);
    let (number, unit) = text.split_at(split);
    let number: f64 = if number.is_empty() {
        1.0
    } else {
        number.parse().ok()?
    };
    let factor: f64 = match unit.to_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "p" | "pb" => 1e15,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1_048_576.0,
        "gi" | "gib" => 1_073_741_824.0,
        "ti" | "tib" => 1_099_511_627_776.0,
        "pi" | "pib" => 1_125_899_906_842_624.0,
        _ => return None,
    };
    Some((number * factor) as u64)
}

/// `e` followed by a number continues a float.
fn is_exponent(rest: &str) -> bool {
    let mut chars = rest.chars();
    chars.next().is_some_and(|c| c == 'e' || c == 'E')
        && chars
            .next()
            .is_some_and(|c| c.is_ascii_digit() || c == '-' || c == '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_dask_reads_them() {
        for (text, bytes) in [
            ("100", 100),
            ("100 MB", 100_000_000),
            ("5 GiB", 5_368_709_120),
            ("1e6", 1_000_000),
            ("1kB", 1000),
            ("1.5e3 B", 1500),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        assert_eq!(parse_bytes("5 apples"), None);
    }

    #[test]
    fn thresholds_can_be_switched_off() {
        let memory = Value::map([("target", Value::Bool(false)), ("pause", Value::Float(0.5))]);
        let config = Value::map([("worker", Value::map([("memory", memory)]))]);
        let thresholds = Configuration(&config).thresholds();
        assert_eq!(
            (thresholds.target, thresholds.pause, thresholds.spill),
            (None, Some(0.5), Some(0.7))
        );
    }
}
