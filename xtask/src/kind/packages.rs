//! Debian packages that the machine must have.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use super::process;

/// A program and the Debian package that brings it.
pub(crate) type Needed = (&'static str, &'static str);

/// Installs the packages of those programs that are not found; does nothing where all are there.
///
/// # Errors
/// When something is missing and this is not a Debian machine or not root: the message lists the packages.
pub(crate) fn ensure(needed: &[Needed]) -> Result<()> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    let root = process::read(Command::new("id").arg("-u"))? == "0";
    if !root || !found("apt-get") {
        bail!(
            "these packages are missing, install them first: {}",
            missing.join(" ")
        );
    }
    println!("installing {}", missing.join(" "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    process::run(apt().arg("update"))?;
    process::run(
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing),
    )
}

fn missing(needed: &[Needed]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needed
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

/// Whether `program` is on the path, or, when it is itself a path, exists.
pub(crate) fn found(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_missing() {
        let needed = [
            ("sh", "dash"),
            ("no-such-program", "a"),
            ("/no/such/path", "b"),
        ];
        assert_eq!(missing(&needed), ["a", "b"]);
    }
}
