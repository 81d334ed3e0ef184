//! `cargo xtask wheel`: the Python package with our programs in it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{binaries::Binaries, env::Python, metadata::Metadata, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder for the wheel; else target/wheel
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    build(args.output.clone()).map(|_| ())
}

/// Builds the programs and packs the wheel, into target/wheel if no folder is given. Gives its path.
///
/// # Errors
/// If a program does not compile, or the wheel is too large.
pub(crate) fn build(output: Option<PathBuf>) -> Result<PathBuf> {
    let target = Metadata::read()?.target_directory;
    let output = output.unwrap_or_else(|| target.join("wheel"));
    let binaries = Binaries::build()?;
    let programs = target.join("wheel-programs");
    fs::create_dir_all(&programs)
        .with_context(|| format!("failed to make {}", programs.display()))?;
    for program in [binaries.scheduler, binaries.worker, binaries.command] {
        let program = program.context("a program of the wheel does not exist")?;
        let name = program.file_name().context("a program has no name")?;
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(programs.join(name))
            .arg(&program)
            .status()
            .context("failed to start strip, which comes with binutils")?;
        ensure!(
            stripped.success(),
            "strip {} failed: {stripped}",
            program.display()
        );
    }
    let python = Python::ensure()?;
    let script = workspace::root().join("python").join("wheel.py");
    let packed = python
        .command(&[&*script.to_string_lossy()])
        .arg("--binaries")
        .arg(&programs)
        .args(["--version", env!("CARGO_PKG_VERSION")])
        .arg("--output")
        .arg(&output)
        .status()
        .context("failed to start Python")?;
    ensure!(packed.success(), "the wheel could not be packed: {packed}");
    let (version, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    Ok(output.join(format!("oxidask-{version}-py3-none-linux_{machine}.whl")))
}
