//! Which crate of ours may depend on which.

use crate::metadata::{Metadata, Package};

/// Crates that each crate may build on. Tests (dev-dependencies) may use any library crate.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("oxidask-protocol", &[]),
    ("oxidask-control", &[]),
    ("oxidask-operator-api", &[]),
    ("oxidask-python", &["oxidask-protocol"]),
    ("oxidask-settings", &["oxidask-protocol"]),
    ("oxidask-worker-kernels", &[]),
    ("oxidask-scheduler-core", &["oxidask-protocol"]),
    ("oxidask-worker-core", &["oxidask-protocol"]),
    (
        "oxidask-client",
        &["oxidask-protocol", "oxidask-worker-kernels"],
    ),
    (
        "oxidask-scheduler-server",
        &[
            "oxidask-scheduler-core",
            "oxidask-protocol",
            "oxidask-control",
            "oxidask-python",
            "oxidask-settings",
        ],
    ),
    (
        "oxidask-worker-server",
        &[
            "oxidask-worker-core",
            "oxidask-worker-kernels",
            "oxidask-protocol",
            "oxidask-python",
            "oxidask-settings",
        ],
    ),
    (
        "oxidask-operator",
        &[
            "oxidask-operator-api",
            "oxidask-control",
            "oxidask-protocol",
            "oxidask-settings",
        ],
    ),
    (
        "oxidask-cli",
        &[
            "oxidask-client",
            "oxidask-control",
            "oxidask-operator-api",
            "oxidask-settings",
            "oxidask-worker-kernels",
        ],
    ),
    (
        "oxidask-sim",
        &[
            "oxidask-scheduler-core",
            "oxidask-worker-core",
            "oxidask-protocol",
        ],
    ),
];

/// Crates that may use all others, and that none may use.
const AT_THE_EDGE: &[&str] = &["oxidask-e2e", "oxidask-benches", "xtask"];

/// Packages that would let a process of ours open user data or run user code in itself.
const NEVER: &[&str] = &[
    "pyo3",
    "cpython",
    "serde-pickle",
    "serde_pickle",
    "inline-python",
    "rustpython",
];

pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let members = metadata.members();
    let mut findings = Vec::new();
    for (name, package) in &members {
        let edge = AT_THE_EDGE.contains(name);
        let allowed = MAY_DEPEND_ON
            .iter()
            .find(|(crate_name, _)| crate_name == name)
            .map(|(_, allowed)| *allowed);
        if !edge && allowed.is_none() {
            findings.push(format!(
                "{name} has no row in xtask/src/tidy/directions.rs; add one with the crates it may depend on, as docs/architecture.md has them"
            ));
        }
        for dependency in &package.dependencies {
            let target = dependency.name.as_str();
            if !members.contains_key(target) || target == *name {
                continue;
            }
            if AT_THE_EDGE.contains(&target) {
                findings.push(format!("{name} depends on {target}, on which nothing may depend; move what is shared into a library crate"));
            } else if !edge
                && dependency.kind.as_deref() != Some("dev")
                && !allowed.unwrap_or(&[]).contains(&target)
            {
                findings.push(format!(
                    "{name} depends on {target}, against the arrows of docs/architecture.md; move the code to where both may reach it, or change the table with a decision record"
                ));
            }
        }
        findings.extend(never_linked(metadata, name, package));
        findings.extend(shares_the_lints(name, package));
    }
    findings
}

fn never_linked(metadata: &Metadata, name: &str, package: &Package) -> Vec<String> {
    let linked = metadata.linked_into(package);
    NEVER
        .iter()
        .filter(|never| linked.contains(*never))
        .map(|never| format!("{name} links {never}: our processes never open user data; what needs Python runs in a child process (crate oxidask-python)"))
        .collect()
}

fn shares_the_lints(name: &str, package: &Package) -> Option<String> {
    let manifest = std::fs::read_to_string(&package.manifest_path).unwrap_or_default();
    let shared = manifest
        .split("[lints]")
        .nth(1)
        .is_some_and(|rest| rest.trim_start().starts_with("workspace = true"));
    (!shared).then(|| format!("{name} does not share the workspace's lints; add `[lints]` with `workspace = true` to its Cargo.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_cycle() {
        // Each row may name only crates whose own rows come earlier, so arrows point one way.
        for (index, (name, allowed)) in MAY_DEPEND_ON.iter().enumerate() {
            for target in *allowed {
                let earlier = MAY_DEPEND_ON[..index]
                    .iter()
                    .any(|(crate_name, _)| crate_name == target);
                assert!(earlier, "{name} -> {target}");
            }
        }
    }
}
