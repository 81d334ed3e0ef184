//! The project's own Python environment, kept in an ignored folder or the user's cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// The pinned packages; its content names the environment.
const REQUIREMENTS: &str = "e2e/python/requirements.txt";

/// A file written when all packages are in, so that a broken install is made anew.
const COMPLETE: &str = ".complete";

/// An interpreter that has the project's packages.
pub(crate) struct Python {
    /// The folder that holds `python`, `dask`, `pytest`, `ruff`.
    bin: PathBuf,
}

impl Python {
    /// The environment that serves these requirements; made if there is none.
    ///
    /// `OXIDASK_VENV` names one to use as it is. Otherwise `venv-HASH` is looked for in
    /// `OXIDASK_CACHE`, in the user's cache folder and in `.cache` of the workspace, and made in
    /// `OXIDASK_CACHE` or else in `.cache`.
    pub(crate) fn ensure() -> Result<Self> {
        if let Some(venv) = std::env::var_os("OXIDASK_VENV") {
            let bin = PathBuf::from(venv).join("bin");
            ensure!(
                bin.join("python").exists(),
                "OXIDASK_VENV: no interpreter at {}",
                bin.join("python").display()
            );
            return Ok(Self { bin });
        }
        let requirements = workspace::root().join(REQUIREMENTS);
        let wanted = std::fs::read(&requirements)
            .with_context(|| format!("failed to read {}", requirements.display()))?;
        let folder = format!(
            "venv-{:016x}",
            hash(&[&wanted, interpreter_version()?.as_bytes()])
        );
        let shared = std::env::var_os("OXIDASK_CACHE").map(PathBuf::from);
        let local = workspace::root().join(".cache");
        let venv = [shared.clone(), user_cache(), Some(local.clone())]
            .into_iter()
            .flatten()
            .map(|cache| cache.join(&folder))
            .find(|venv| venv.join(COMPLETE).exists());
        let venv = match venv {
            Some(venv) => venv,
            None => make(&shared.unwrap_or(local).join(&folder), &requirements)?,
        };
        Ok(Self {
            bin: venv.join("bin"),
        })
    }

    pub(crate) fn interpreter(&self) -> PathBuf {
        self.bin.join("python")
    }

    /// A program of the environment, such as `dask` or `ruff`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// `python args…` in the workspace's root, with the environment first in PATH.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = workspace::command(self.interpreter());
        command
            .args(args)
            .env("PATH", self.path())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// PATH with the environment's programs first: whoever looks for `python3` finds this one.
    pub(crate) fn path(&self) -> OsString {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        std::env::join_paths(std::iter::once(self.bin.clone()).chain(std::env::split_paths(&rest)))
            .unwrap_or(rest)
    }
}

/// `cargo xtask env`.
pub(crate) fn print() -> Result<()> {
    println!("{}", Python::ensure()?.interpreter().display());
    Ok(())
}

fn make(venv: &Path, requirements: &Path) -> Result<PathBuf> {
    eprintln!(
        "making the Python environment {} (a few minutes, once)",
        venv.display()
    );
    if venv.exists() {
        std::fs::remove_dir_all(venv)
            .with_context(|| format!("failed to remove the unfinished {}", venv.display()))?;
    }
    run(
        Command::new("python3").args(["-m", "venv"]).arg(venv),
        "python3 -m venv",
    )?;
    let pip = venv.join("bin/pip");
    run(
        Command::new(pip)
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .arg(requirements),
        "pip install",
    )?;
    let marker = venv.join(COMPLETE);
    std::fs::write(&marker, "").with_context(|| format!("failed to write {}", marker.display()))?;
    Ok(venv.to_path_buf())
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("failed to start {what}"))?;
    ensure!(status.success(), "{what} failed: {status}");
    Ok(())
}

/// Python's own version text: packages built for one minor version do not load in another.
fn interpreter_version() -> Result<String> {
    let output = Command::new("python3")
        .arg("--version")
        .output()
        .context("failed to run python3; install Python 3.11 or later")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn user_cache() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))?;
    Some(base.join("oxidask"))
}

/// FNV-1a over the parts: the name must be the same in every build of this program.
fn hash(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .copied()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_fnv_1a() {
        assert_eq!(hash(&[b"a"]), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(&[b"foo", b"bar"]), 0x8594_4171_f739_67e8);
    }
}
