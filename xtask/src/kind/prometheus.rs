//! Prometheus and promtool: those of the machine, else taken out of Debian's package without installing it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{cache::Cache, packages, process};

/// The folder that holds both programs; `None` when they are on the path already.
///
/// # Errors
/// When they are not, and this machine has no Debian packages.
pub(crate) fn folder(cache: &Cache) -> Result<Option<PathBuf>> {
    if packages::found("prometheus") && packages::found("promtool") {
        return Ok(None);
    }
    let folder = cache.path("tools/prometheus");
    if folder.join("prometheus").exists() {
        return Ok(Some(folder));
    }
    if !packages::found("apt-get") {
        bail!("prometheus and promtool are not on the path, and there is no apt-get to get them");
    }
    println!("getting Prometheus from its Debian package");
    let work = cache.path("work/prometheus");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).with_context(|| format!("failed to make {}", work.display()))?;
    let download = || {
        let mut command = Command::new("apt-get");
        command
            .current_dir(&work)
            .args(["-qq", "download", "prometheus"]);
        command
    };
    // A new machine has no lists of packages yet.
    if !process::succeeds(&mut download()) {
        process::run(Command::new("apt-get").args(["-qq", "update"]))?;
        process::run(&mut download())?;
    }
    let package = fs::read_dir(&work)
        .with_context(|| format!("failed to read {}", work.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        .context("apt-get downloaded no package")?;
    process::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&package)
            .arg(&work),
    )?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(work.join("usr/bin"), &folder)
        .with_context(|| format!("failed to make {}", folder.display()))?;
    fs::remove_dir_all(&work).with_context(|| format!("failed to remove {}", work.display()))?;
    Ok(Some(folder))
}
