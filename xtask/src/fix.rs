//! `cargo xtask fix`: the only command that writes to the sources.

use anyhow::{Context, Result, ensure};

use crate::env::Python;
use crate::workspace;

pub(crate) fn run() -> Result<()> {
    let python = Python::ensure()?;
    let mut ruff_format = workspace::command(python.program("ruff"));
    ruff_format.args(["format", "."]);
    let mut ruff_fix = workspace::command(python.program("ruff"));
    ruff_fix.args(["check", "--fix", "."]);
    let mut steps = [
        workspace::cargo(&[
            "clippy",
            "--quiet",
            "--fix",
            "--allow-dirty",
            "--workspace",
            "--all-targets",
        ]),
        workspace::cargo(&["fmt", "--all"]),
        ruff_fix,
        ruff_format,
    ];
    for step in &mut steps {
        let shown = format!("{step:?}");
        let status = step
            .status()
            .with_context(|| format!("failed to start {shown}"))?;
        ensure!(status.success(), "{shown} failed: {status}");
    }
    Ok(())
}
