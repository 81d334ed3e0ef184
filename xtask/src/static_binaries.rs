//! Our programs as static executables, which run in any image whatever its C library.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    kind::{packages, process},
    metadata::Metadata,
    workspace,
};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds these programs and copies them into `folder`, without symbols: they are downloaded more often than looked into.
///
/// # Errors
/// When the target or musl's compiler cannot be installed, or a program does not exist or compile.
pub(crate) fn build(programs: &[&str], folder: &Path) -> Result<()> {
    packages::ensure(&[("musl-gcc", "musl-tools"), ("strip", "binutils")])?;
    add_target()?;
    // A folder of their own: cargo would make this build and every other release build wait for each other.
    let folder_of_builds = Metadata::read()?.target_directory.join("static");
    let mut arguments = vec!["build", "--release", "--locked", "--target", TARGET];
    for program in programs {
        arguments.extend(["--bin", program]);
    }
    process::run(workspace::cargo(&arguments).env("CARGO_TARGET_DIR", &folder_of_builds))?;
    let built = folder_of_builds.join(TARGET).join("release");
    for program in programs {
        let target = folder.join(program);
        fs::copy(built.join(program), &target)
            .with_context(|| format!("failed to copy {program} to {}", target.display()))?;
        process::run(Command::new("strip").arg("--strip-all").arg(&target))?;
    }
    Ok(())
}

fn add_target() -> Result<()> {
    let installed = process::read(Command::new("rustup").args(["target", "list", "--installed"]))?;
    if installed.lines().any(|line| line == TARGET) {
        return Ok(());
    }
    process::run(Command::new("rustup").args(["target", "add", TARGET]))
}
