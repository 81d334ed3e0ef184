//! `cargo xtask soak versions`: the smoke run of each supported version of dask, with one side ours and the other stock.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binaries::Binaries;
use crate::stage::Tally;
use crate::workspace;

/// The oldest that is supported, and one from each year since; the newest is the project's own environment.
const VERSIONS: &[&str] = &["2025.4.1", "2025.12.0", "2026.3.0"];

/// What the smoke run computes with.
const PACKAGES: &[&str] = &["numpy", "pandas", "pyarrow", "lz4"];

/// Runs those named, or all.
pub(crate) fn soak(tally: &mut Tally, names: &[String]) -> Result<()> {
    let binaries = Binaries::build()?;
    let scheduler = binaries.scheduler.context("no scheduler to test")?;
    let worker = binaries.worker.context("no worker to test")?;
    let scheduler = format!(
        "{} --host {{host}} --port {{port}} --no-dashboard",
        scheduler.display()
    );
    let worker = format!(
        "{} {{scheduler}} --no-nanny --host {{host}} --nthreads {{nthreads}} --name {{name}} --no-dashboard \
         --local-directory {{folder}}",
        worker.display()
    );
    for version in VERSIONS
        .iter()
        .filter(|v| names.is_empty() || names.iter().any(|n| n == *v))
    {
        let python = environment(version)?.join("bin/python");
        for (flag, ours) in [("--scheduler", &scheduler), ("--worker", &worker)] {
            let mut command = workspace::command(&python);
            command
                .args(["-m", "versions", flag, ours])
                .env("PYTHONPATH", workspace::root().join("e2e/python"))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("OXIDASK_PYTHON", &python);
            tally.run(&mut command)?;
        }
    }
    Ok(())
}

/// The environment of a version, in `OXIDASK_CACHE` or else in `.cache` of the workspace; made if there is none.
fn environment(version: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("OXIDASK_CACHE")
        .map_or_else(|| workspace::root().join(".cache"), PathBuf::from);
    let venv = cache.join(format!("dask-{version}"));
    let complete = venv.join(".complete");
    if complete.exists() {
        return Ok(venv);
    }
    eprintln!("making {} (once)", venv.display());
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv))?;
    let pinned = ["dask", "distributed"].map(|name| format!("{name}=={version}"));
    run(pip(&venv).args(pinned).args(PACKAGES))?;
    std::fs::write(&complete, "")
        .with_context(|| format!("failed to write {}", complete.display()))?;
    Ok(venv)
}

fn pip(venv: &Path) -> Command {
    let mut command = Command::new(venv.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check"]);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("failed to start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
