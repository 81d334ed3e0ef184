//! The two cores decide without a runtime, a clock, or an order that depends on a hash.

use std::path::Path;

use super::sources::Source;
use crate::metadata::{self, Metadata};

/// The pure crates: name and folder.
const CORES: &[(&str, &str)] = &[
    ("oxidask-scheduler-core", "scheduler/core"),
    ("oxidask-worker-core", "worker/core"),
];

/// What a core may name in its manifest.
const ALLOWED: &[&str] = &[
    "oxidask-protocol",
    "bytes",
    "foldhash",
    "hashbrown",
    "indexmap",
    "rustc-hash",
    "smallvec",
    "thiserror",
    "tracing",
];

/// Packages that bring I/O, time or chance, wherever they come from.
const RUNTIMES: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "rand",
    "getrandom",
    "rustix",
    "nix",
    "reqwest",
    "hyper",
];

/// Text that must not stand in a core's code, and what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime", "take `now` as an argument"),
    (
        "std::time::Instant",
        "use the core's own time type, which a log can hold",
    ),
    (
        "std::collections::HashMap",
        "its order is random; use IndexMap, BTreeMap, or FxHashMap without iterating over it",
    ),
    (
        "std::collections::HashSet",
        "its order is random; use IndexSet, BTreeSet, or FxHashSet without iterating over it",
    ),
    (
        "std::collections::hash_map",
        "its order is random; use IndexMap or BTreeMap",
    ),
    ("RandomState", "its seed is random; use FxBuildHasher"),
    ("std::fs", "return an action that asks the driver"),
    ("std::net", "return an action that asks the driver"),
    ("std::io", "return an action that asks the driver"),
    ("std::process", "return an action that asks the driver"),
    (
        "std::thread",
        "the core has one owner; return an action or a deadline",
    ),
    ("std::env", "take the setting as an argument"),
    ("println!", "use tracing"),
];

/// Modules and types of the protocol crate that are values, not messages or codecs.
const PROTOCOL_VALUES: &[&str] = &[
    "Key",
    "KeyError",
    "Payload",
    "PayloadKind",
    "Value",
    "Frames",
    "Address",
    "key",
    "payload",
    "exception",
];

pub(super) fn check_dependencies(metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let mut findings = Vec::new();
    for (name, _) in CORES {
        let Some(package) = members.get(name) else {
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        {
            if !ALLOWED.contains(&dependency.name.as_str()) {
                findings.push(format!(
                    "{name} depends on {}, which is not on the list in xtask/src/tidy/cores.rs; keep I/O in the server crate, or add a pure crate to the list",
                    dependency.name
                ));
            }
        }
        // Not from `metadata`, which turns on whatever feature any crate of the workspace asks for.
        let linked = match metadata::linked_alone(name) {
            Ok(linked) => linked,
            Err(error) => {
                findings.push(format!("{name}: its packages cannot be listed: {error:#}"));
                continue;
            }
        };
        for runtime in RUNTIMES.iter().filter(|runtime| linked.contains(**runtime)) {
            findings.push(format!("{name} links {runtime} through a dependency; find it with `cargo tree -p {name} -e normal -i {runtime}` and turn off the feature"));
        }
    }
    findings
}

pub(super) fn check_sources(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for (_, folder) in CORES {
        for file in files.iter().filter(|file| file.is_code_of(folder)) {
            for (number, line) in file.code_lines() {
                findings.extend(check_line(&file.path, number, line));
            }
        }
    }
    findings
}

fn check_line(path: &Path, number: usize, line: &str) -> Vec<String> {
    let place = format!("{}:{number}", path.display());
    let mut findings: Vec<String> = FORBIDDEN
        .iter()
        .filter(|(text, _)| line.contains(text))
        .map(|(text, instead)| format!("{place}: a core may not use {text}: {instead}"))
        .collect();
    for taken in protocol_items(line) {
        if !PROTOCOL_VALUES.contains(&taken) {
            findings.push(format!("{place}: a core takes value types of the protocol only, not {taken}; translate messages in the server crate"));
        }
    }
    findings
}

/// The first names after `oxidask_protocol::` in a line.
fn protocol_items(line: &str) -> Vec<&str> {
    let Some((_, rest)) = line.split_once("oxidask_protocol::") else {
        return Vec::new();
    };
    let rest = rest.strip_prefix('{').unwrap_or(rest);
    let single = !line.contains("oxidask_protocol::{");
    rest.split([',', '}', ';'])
        .map(|item| {
            item.trim()
                .split(|c: char| !(c.is_alphanumeric() || c == '_'))
                .next()
                .unwrap_or_default()
        })
        .filter(|item| !item.is_empty())
        .take(if single { 1 } else { usize::MAX })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(line: &str) -> Vec<String> {
        check_line(Path::new("scheduler/core/src/lib.rs"), 7, line)
    }

    #[test]
    fn a_clock_in_a_core_is_found_and_the_way_out_is_named() {
        assert_eq!(
            findings("    let now = Instant::now();"),
            [
                "scheduler/core/src/lib.rs:7: a core may not use Instant::now: take `now` as an argument"
            ]
        );
    }

    #[test]
    fn messages_of_the_protocol_are_found_and_values_are_not() {
        assert_eq!(
            findings("use oxidask_protocol::{Key, Payload};"),
            Vec::<String>::new()
        );
        assert_eq!(
            findings("use oxidask_protocol::message::worker::ComputeTask;").len(),
            1
        );
        assert_eq!(findings("use oxidask_protocol::{Key, message};").len(), 1);
        assert_eq!(
            findings("fn f(key: &oxidask_protocol::Key, n: u32) {}"),
            Vec::<String>::new()
        );
    }
}
