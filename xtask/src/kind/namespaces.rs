//! The network and mount namespaces in which nodes are made and run.
//!
//! The network namespace has loopback and what podman adds, and no way out. The mount namespace hides the folders
//! in which podman keeps names that all podmans of a machine would share. All that a cluster mounts and names is
//! inside, so it goes with the namespaces, whatever state a killed run left it in.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::{cache::Cache, process};

const NAME: &str = "oxidask-kubernetes";

/// Folders where podman keeps networks, addresses and names of network namespaces, wherever its state lies.
const HIDDEN: [&str; 2] = ["/run/containers", "/run/netns"];

/// How long killed processes may take to leave the mount namespace.
const EXIT_DEADLINE: Duration = Duration::from_secs(10);

/// The file that names the network namespace.
pub(crate) fn network() -> PathBuf {
    Path::new("/run/netns").join(NAME)
}

fn mounts() -> PathBuf {
    Cache::runtime().join("mounts")
}

/// A command that runs in both namespaces.
pub(crate) fn inside(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", network().display()))
        .arg(format!("--mount={}", mounts().display()))
        .arg("--wd=.")
        .arg(program.as_ref());
    command
}

/// Whether both namespaces are there.
pub(crate) fn exist() -> bool {
    process::succeeds(&mut inside("true"))
}

/// Makes both namespaces; there must be none.
///
/// # Errors
/// When a step fails, for example because this is not root.
pub(crate) fn make() -> Result<()> {
    let runtime = Cache::runtime();
    fs::create_dir_all(runtime).with_context(|| format!("failed to make {}", runtime.display()))?;
    process::run(Command::new("ip").args(["netns", "add", NAME]))?;
    process::run(Command::new("ip").args(["-n", NAME, "link", "set", "lo", "up"]))?;
    // The kernel takes the name of a mount namespace only on a mount that is not shared.
    process::run(
        Command::new("mount")
            .arg("--bind")
            .arg(runtime)
            .arg(runtime),
    )?;
    process::run(Command::new("mount").arg("--make-private").arg(runtime))?;
    let name = mounts();
    fs::write(&name, "").with_context(|| format!("failed to write {}", name.display()))?;
    process::run(
        Command::new("unshare")
            .arg(format!("--mount={}", name.display()))
            .args(["--propagation", "slave", "true"]),
    )?;
    for folder in HIDDEN {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {folder}"))?;
        process::run(
            Command::new("nsenter")
                .arg(format!("--mount={}", name.display()))
                .args(["mount", "-t", "tmpfs", "tmpfs", folder]),
        )?;
    }
    Ok(())
}

/// Ends what still runs in the mount namespace and removes both namespaces, as far as they are there.
///
/// # Errors
/// When processes do not end when killed, or a name cannot be removed.
pub(crate) fn remove() -> Result<()> {
    kill_inside(&|_| true)?;
    let runtime = Cache::runtime();
    // Twice at most: the name of the namespace, and below it the folder itself.
    for path in [mounts(), runtime.to_path_buf()] {
        while process::succeeds(Command::new("mountpoint").arg("--quiet").arg(&path)) {
            process::run(Command::new("umount").arg("--lazy").arg(&path))?;
        }
    }
    if network().exists() {
        process::run(Command::new("ip").args(["netns", "delete", NAME]))?;
    }
    match fs::remove_dir_all(runtime) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", runtime.display()))
        }
        _ => Ok(()),
    }
}

/// Kills the processes in the mount namespace whose names are chosen, and waits for their end.
///
/// # Errors
/// When one is still there after ten seconds.
pub(crate) fn kill_inside(chosen: &dyn Fn(&str) -> bool) -> Result<()> {
    let Ok(inode) = fs::metadata(mounts()).map(|file| file.ino()) else {
        return Ok(());
    };
    let started = Instant::now();
    loop {
        let left: Vec<_> = processes(inode)
            .into_iter()
            .filter(|(_, name)| chosen(name))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > EXIT_DEADLINE {
            bail!("these processes do not end: {left:?}");
        }
        for (pid, _) in left {
            // One that has ended by itself meanwhile is as good.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes in a mount namespace, with their names.
fn processes(inode: u64) -> Vec<(Pid, String)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            fs::metadata(entry.path().join("ns/mnt")).is_ok_and(|file| file.ino() == inode)
        })
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((pid, name.trim_end().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_in_its_own_mount_namespace() {
        let own = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
        let me = Pid::from_raw(std::process::id().cast_signed()).unwrap();
        assert!(processes(own).iter().any(|(pid, _)| *pid == me));
    }
}
