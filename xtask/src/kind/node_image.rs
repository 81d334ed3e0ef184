//! The node image built from packages: what goes in, and when it must be built anew.

use std::{fs, path::PathBuf, process::Command, time::Instant};

use anyhow::{Context, Result};

use super::{
    cache::{Cache, digest},
    go, process,
};
use crate::workspace;

const BINARIES: [&str; 9] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
    "coredns",
    "etcd",
];

/// A node image in the cache: a compressed root file system, and the name it gets in podman's storage.
#[derive(Debug)]
pub(crate) struct NodeImage {
    pub(crate) archive: PathBuf,
    pub(crate) name: String,
}

/// Builds the node image, or finds it in the cache.
///
/// # Errors
/// When a tool cannot be built or `e2e/kind/node-image.sh` fails.
pub(crate) fn node_image(cache: &Cache) -> Result<NodeImage> {
    let version = go::kubernetes_version()?;
    let digest = digest(&recipe())?;
    let archive = cache.path(format!("node-image/{version}-{digest}.tar.zst"));
    let name = format!("localhost/oxidask/node:{version}-{digest}");
    if archive.exists() {
        return Ok(NodeImage { archive, name });
    }
    let started = Instant::now();
    let binaries = cache.path("work/binaries");
    let _ = fs::remove_dir_all(&binaries);
    fs::create_dir_all(&binaries)
        .with_context(|| format!("failed to make {}", binaries.display()))?;
    for name in BINARIES {
        let tool = go::tool(cache, name)?;
        std::os::unix::fs::symlink(&tool, binaries.join(name))
            .with_context(|| format!("failed to link {}", tool.display()))?;
    }
    let kind_module = go::module_folder(cache, "kind", "sigs.k8s.io/kind")?;
    println!("building the node image of Kubernetes {version}");
    process::run(
        Command::new(workspace::root().join("e2e/kind/node-image.sh"))
            .env("BIN", &binaries)
            .env("KIND_FILES", kind_module.join("images/base/files"))
            .env("WORK", cache.path("work/node-image"))
            .env("OUT", &archive)
            .env("VERSION", &version),
    )?;
    println!("built the node image in {} s", started.elapsed().as_secs());
    Ok(NodeImage { archive, name })
}

/// Every file of the clone that decides what the image holds.
fn recipe() -> Vec<PathBuf> {
    let mut files: Vec<_> = [
        "node-image.sh",
        "node-network.sh",
        "node-network.yaml",
        "pause.c",
    ]
    .map(|file| workspace::root().join("e2e/kind").join(file))
    .into();
    for folder in ["kubernetes", "coredns", "etcd", "kind"] {
        let folder = workspace::root().join("e2e/tools").join(folder);
        files.extend([folder.join("go.mod"), folder.join("go.sum")]);
    }
    files
}
