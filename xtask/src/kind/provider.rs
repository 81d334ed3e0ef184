//! The two ways to run kind: on the user's container engine, or on a podman and a node image of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{
    cache::Cache,
    go, namespaces,
    node_image::{NodeImage, node_image},
    packages, process,
};
use crate::workspace;

/// Published node image of the newest Kubernetes 1.34 that kind's releases name with a digest.
const PUBLISHED_NODE_IMAGE: &str =
    "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a";

/// podman's network of the nodes.
const NETWORK: &str = "oxidask";

/// What must be on the machine to build node images and to run nodes from packages.
const NEEDED: [packages::Needed; 15] = [
    ("podman", "podman"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
    ("runc", "runc"),
    ("containerd", "containerd"),
    ("buildah", "buildah"),
    ("/usr/lib/cni", "containernetworking-plugins"),
    ("mmdebstrap", "mmdebstrap"),
    ("jq", "jq"),
    ("zstd", "zstd"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("cc", "gcc"),
    ("/usr/include/stdlib.h", "libc6-dev"),
];

/// How nodes are run and images are built on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// A container engine that can pull images.
    Engine,
    /// Debian packages, Go modules, podman with private state, a network namespace of its own.
    Packages,
}

impl Provider {
    /// What `OXIDASK_KIND_PROVIDER` says (`engine` or `packages`), else `Engine` where a docker daemon answers.
    ///
    /// # Errors
    /// When the variable has another value.
    pub(crate) fn detect() -> Result<Self> {
        match std::env::var("OXIDASK_KIND_PROVIDER").as_deref() {
            Ok("engine") => Ok(Self::Engine),
            Ok("packages") => Ok(Self::Packages),
            Ok(other) => {
                bail!("OXIDASK_KIND_PROVIDER is {other:?}, it must be `engine` or `packages`")
            }
            Err(_) if process::succeeds(Command::new("docker").arg("info")) => Ok(Self::Engine),
            Err(_) => Ok(Self::Packages),
        }
    }

    /// Readies the machine and returns the name of the node image for `kind create cluster --image`.
    ///
    /// # Errors
    /// When packages are missing and cannot be installed, or the node image cannot be built or imported.
    pub(crate) fn prepare(self, cache: &Cache) -> Result<String> {
        match self {
            Self::Engine => Ok(PUBLISHED_NODE_IMAGE.into()),
            Self::Packages => {
                ensure_packages()?;
                let image = node_image(cache)?;
                write_settings(cache)?;
                namespaces::make()?;
                // kind mounts this folder into each node, and podman refuses a source that does not exist.
                fs::create_dir_all("/lib/modules").context("failed to make /lib/modules")?;
                import(cache, &image)?;
                Ok(image.name)
            }
        }
    }

    /// A command that reaches the cluster: in its network namespace, with its kubeconfig and its engine's settings.
    pub(crate) fn command(self, cache: &Cache, program: impl AsRef<Path>) -> Command {
        let mut command = match self {
            Self::Engine => Command::new(program.as_ref()),
            Self::Packages => {
                let mut command = namespaces::inside(program.as_ref());
                engine_settings(&mut command, cache);
                command
                    .env("KIND_EXPERIMENTAL_PROVIDER", "podman")
                    .env("KIND_EXPERIMENTAL_PODMAN_NETWORK", NETWORK);
                command
            }
        };
        command.env("KUBECONFIG", kubeconfig(cache));
        command
    }

    /// The network namespace of the cluster, if it has one.
    pub(crate) fn namespace(self) -> Option<PathBuf> {
        match self {
            Self::Engine => None,
            Self::Packages => Some(namespaces::network()),
        }
    }

    /// The program kind; on a machine with an engine the one on the path is good enough.
    ///
    /// # Errors
    /// When it must be built and cannot.
    pub(crate) fn kind(self, cache: &Cache) -> Result<PathBuf> {
        match self {
            Self::Engine if packages::found("kind") => Ok("kind".into()),
            Self::Engine | Self::Packages => go::tool(cache, "kind"),
        }
    }

    /// Removes what [`Self::prepare`] made outside the cache, and what a killed run may have left there.
    ///
    /// # Errors
    /// When something is still in use.
    pub(crate) fn clean(self, cache: &Cache) -> Result<()> {
        match self {
            Self::Engine => Ok(()),
            Self::Packages => clean(cache),
        }
    }
}

/// Installs what the machine lacks to run nodes and build images from packages.
///
/// # Errors
/// When something is missing and cannot be installed.
pub(crate) fn ensure_packages() -> Result<()> {
    packages::ensure(&NEEDED)
}

/// Where kind writes how to reach the cluster.
pub(crate) fn kubeconfig(cache: &Cache) -> PathBuf {
    cache.cluster().join("kubeconfig")
}

/// Makes `command` use the containers' storage that belongs to the cluster (podman and buildah alike).
pub(crate) fn engine_settings(command: &mut Command, cache: &Cache) {
    command
        .env("CONTAINERS_CONF", cache.path("podman/containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", cache.path("podman/storage.conf"))
        .env("BUILDAH_ISOLATION", "chroot");
}

/// Writes the settings that [`engine_settings`] names.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn write_settings(cache: &Cache) -> Result<()> {
    let state = cache.path("podman");
    for folder in [&*state, Cache::runtime()] {
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
    }
    for name in ["containers.conf", "storage.conf"] {
        let source = workspace::root().join("e2e/kind").join(name);
        let text = fs::read_to_string(&source)
            .with_context(|| format!("failed to read {}", source.display()))?
            .replace("@STATE@", &state.display().to_string())
            .replace("@RUN@", &Cache::runtime().display().to_string());
        let target = state.join(name);
        fs::write(&target, text)
            .with_context(|| format!("failed to write {}", target.display()))?;
    }
    Ok(())
}

fn podman(cache: &Cache) -> Command {
    let mut command = Command::new("podman");
    engine_settings(&mut command, cache);
    command
}

fn import(cache: &Cache, image: &NodeImage) -> Result<()> {
    if process::succeeds(podman(cache).args(["image", "exists", &image.name])) {
        return Ok(());
    }
    println!("importing {}", image.name);
    let mut unpack = Command::new("zstd")
        .args(["-q", "-d", "-c"])
        .arg(&image.archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start zstd")?;
    let tar = unpack
        .stdout
        .take()
        .context("zstd has no standard output")?;
    let imported = podman(cache)
        .args(["import", "--quiet"])
        .args([
            "-c",
            r#"ENTRYPOINT ["/usr/local/bin/entrypoint","/sbin/init"]"#,
        ])
        .args(["-c", "ENV container=docker", "-c", "STOPSIGNAL SIGRTMIN+3"])
        .args(["-", &image.name])
        .stdin(tar)
        .status()
        .context("failed to start podman import")?;
    let unpacked = unpack.wait().context("lost sight of zstd")?;
    if !imported.success() || !unpacked.success() {
        bail!(
            "failed to import {} (podman {imported}, zstd {unpacked}); remove it to have it built anew",
            image.archive.display()
        );
    }
    Ok(())
}

fn clean(cache: &Cache) -> Result<()> {
    let known = packages::found("podman") && cache.path("podman/storage.conf").exists();
    if namespaces::exist() {
        // What still makes a cluster belongs to a run that was killed.
        namespaces::kill_inside(&|name| name == "kind" || name == "podman")?;
        if known {
            let mut remove = namespaces::inside("podman");
            engine_settings(&mut remove, cache);
            // What it cannot remove it can once its mounts are gone.
            let _ =
                process::succeeds(remove.args(["rm", "--all", "--force", "--volumes", "--time=0"]));
        }
    }
    namespaces::remove()?;
    if known {
        write_settings(cache)?;
        process::read(podman(cache).args(["rm", "--all", "--force", "--volumes", "--time=0"]))?;
        // Storage may have containers that podman does not know, whose names would be taken.
        let ids = process::read(podman(cache).args(["ps", "--all", "--external", "--quiet"]))?;
        for id in ids.split_whitespace() {
            process::read(podman(cache).args(["rm", "--force", id]))?;
        }
        process::read(podman(cache).args(["volume", "prune", "--force"]))?;
        let _ = process::succeeds(podman(cache).args(["network", "rm", "--force", NETWORK]));
        let _ = fs::remove_dir_all(Cache::runtime());
    }
    // Only if nothing is in it: then it is the one that was made for kind's mount.
    let _ = fs::remove_dir("/lib/modules");
    remove_empty_cgroups();
    Ok(())
}

/// podman leaves empty folders `libpod_parent` in the cgroup hierarchies.
fn remove_empty_cgroups() {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else {
        return;
    };
    for hierarchy in hierarchies.flatten() {
        remove_empty_folders(&hierarchy.path().join("libpod_parent"));
    }
}

fn remove_empty_folders(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        remove_empty_folders(&entry.path());
    }
    // A cgroup with processes in it refuses, which is right.
    let _ = fs::remove_dir(folder);
}
