//! Our programs as release builds.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::metadata::Metadata;
use crate::workspace;

/// The programs that exist in this workspace, with the crate that builds them.
pub(crate) struct Binaries {
    /// `None` while the workspace has no such program.
    pub(crate) scheduler: Option<PathBuf>,
    /// `None` while the workspace has no such program.
    pub(crate) worker: Option<PathBuf>,
    /// `None` while the workspace has no such program.
    pub(crate) command: Option<PathBuf>,
}

/// The command `oxidask` alone as a release build, or nothing while the workspace has no such program.
pub(crate) fn command() -> Result<Option<PathBuf>> {
    const PROGRAM: &str = "oxidask";
    let metadata = Metadata::read()?;
    if !metadata.has_binary(PROGRAM) {
        return Ok(None);
    }
    build(&["build", "--release", "--locked", "--bin", PROGRAM])?;
    let folder = metadata.target_directory.join("release");
    Ok(Some(folder.join(PROGRAM)))
}

fn build(arguments: &[&str]) -> Result<()> {
    let status = workspace::cargo(arguments)
        .status()
        .context("failed to start cargo build")?;
    ensure!(
        status.success(),
        "cargo {} failed: {status}",
        arguments.join(" ")
    );
    Ok(())
}

impl Binaries {
    /// Builds them optimised, as a user would run them.
    pub(crate) fn build() -> Result<Self> {
        let metadata = Metadata::read()?;
        let binary = |name: &str| {
            metadata
                .has_binary(name)
                .then(|| metadata.target_directory.join("release").join(name))
        };
        let (scheduler, worker) = (binary("dask-scheduler"), binary("dask-worker"));
        let command = binary("oxidask");
        let mut arguments = vec!["build", "--release", "--locked"];
        for (present, name) in [
            (scheduler.is_some(), "dask-scheduler"),
            (worker.is_some(), "dask-worker"),
            (command.is_some(), "oxidask"),
        ] {
            if present {
                arguments.extend(["--bin", name]);
            }
        }
        if scheduler.is_some() || worker.is_some() {
            build(&arguments)?;
        }
        Ok(Self {
            scheduler,
            worker,
            command,
        })
    }
}
