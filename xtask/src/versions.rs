//! `cargo xtask soak versions`: the smoke run of each supported version of dask, with one side ours and the other stock.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binaries::Binaries;
use crate::env::Python;
use crate::stage::Tally;
use crate::workspace;

/// The oldest and the newest that are supported, and some between. The newest is that of the project's own environment.
const VERSIONS: &[&str] = &["2025.4.1", "2025.12.0", "2026.3.0", NEWEST];
const NEWEST: &str = "2026.8.0";

/// What the smoke run and the tutorial compute with.
const PACKAGES: &[&str] = &[
    "numpy",
    "pandas",
    "pyarrow",
    "lz4",
    "scikit-learn",
    "joblib",
    "dask-ml",
    "xgboost-cpu",
    "h5py",
    "zarr",
    "pillow",
];

/// The version that `cargo xtask test` tries, without the tutorial: the oldest, which differs most.
pub(crate) fn oldest(tally: &mut Tally, python: &Python) -> Result<()> {
    run(tally, python, &VERSIONS[..1], false)
}

/// Runs those named, or all, with the tutorial.
pub(crate) fn soak(tally: &mut Tally, python: &Python, names: &[String]) -> Result<()> {
    for name in names {
        ensure!(
            VERSIONS.contains(&name.as_str()),
            "{name} is none of {}",
            VERSIONS.join(", ")
        );
    }
    let wanted: Vec<&str> = VERSIONS
        .iter()
        .copied()
        .filter(|version| names.is_empty() || names.iter().any(|name| name == version))
        .collect();
    run(tally, python, &wanted, true)
}

fn run(tally: &mut Tally, own: &Python, versions: &[&str], tutorial: bool) -> Result<()> {
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
    for version in versions {
        let python = match *version {
            NEWEST => own.interpreter(),
            version => environment(version)?.join("bin/python"),
        };
        // Our scheduler runs on the project's environment and is told of the other one, where it opens the graphs of
        // this client; our worker runs tasks in the environment of the client.
        for (flag, ours, interpreter) in [
            ("--scheduler", &scheduler, own.interpreter()),
            ("--worker", &worker, python.clone()),
        ] {
            let mut command = workspace::command(&python);
            command
                .args(["-m", "versions", flag, ours])
                .args(tutorial.then_some("--tutorial"))
                .env("PYTHONPATH", workspace::root().join("e2e/python"))
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("OXIDASK_PYTHON", interpreter)
                .env(
                    "DASK_OXIDASK__GRAPH__INTERPRETERS",
                    format!("[{:?}]", python.display().to_string()),
                );
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
    make(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    let pinned = ["dask", "distributed"].map(|name| format!("{name}=={version}"));
    make(pip(&venv).args(pinned).args(PACKAGES))?;
    std::fs::write(&complete, "")
        .with_context(|| format!("failed to write {}", complete.display()))?;
    Ok(venv)
}

fn pip(venv: &Path) -> Command {
    let mut command = Command::new(venv.join("bin/pip"));
    command.args(["install", "--quiet", "--disable-pip-version-check"]);
    command
}

fn make(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("failed to start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
