//! `cargo xtask kind`: a real Kubernetes cluster for the tests.
//!
//! Three nodes, all schedulable, by `kind`. Where a container engine can pull the published node image,
//! that is used; elsewhere the node image is built from Debian packages and Go modules, and the nodes run on
//! a podman with a state of its own, in a network namespace of their own. The two ways are
//! [`Provider`]s; everything else is the same.

mod cache;
mod cluster;
mod go;
mod lock;
mod namespaces;
mod node_image;
pub(crate) mod packages;
pub(crate) mod process;
mod prometheus;
mod provider;

pub(crate) use self::{
    cache::Cache,
    cluster::{down, down_at_once, is_up, load, path_with_tools, reaching, up},
    provider::{Provider, engine_settings, ensure_packages, write_settings},
};

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use crate::{images, kubernetes};

/// What to do with the test cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Kind {
    /// Makes the cluster, or leaves it as it is when all its nodes are ready.
    Up,
    /// Removes the cluster with its processes, namespaces, mounts and volumes; what was built stays cached.
    Down,
    /// Loads an image archive (docker's format) into every node.
    Load {
        /// Archive as written by `docker save` or `buildah push … docker-archive:FILE`.
        archive: PathBuf,
    },
    /// Says where the cluster is and how its nodes are.
    Status,
    /// Builds one of the tools in e2e/tools and prints its path.
    Tool {
        /// Name of the program, for example helm, kubectl or kwok.
        name: String,
    },
    /// Makes the cluster if there is none, builds and loads the images, and runs the tests on it.
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
        /// Whose operator: `ours`, or `stock` for the one of dask-kubernetes.
        #[arg(long, default_value = "ours")]
        operator: String,
        /// Take the images that are loaded.
        #[arg(long)]
        no_build: bool,
    },
    /// Runs a command with KUBECONFIG set, in the cluster's network namespace where it has one.
    #[command(trailing_var_arg = true)]
    Exec {
        /// The command and its arguments.
        #[arg(required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// The program that plays kubelet for fake nodes, and the folder of its module.
pub(crate) struct Kwok {
    pub(crate) program: PathBuf,
    /// Has the stages by which it acts, which the program alone does not have.
    pub(crate) module: PathBuf,
}

/// Builds kwok, if the cache has no build of it.
///
/// # Errors
/// When Go fails.
pub(crate) fn kwok(cache: &Cache) -> Result<Kwok> {
    Ok(Kwok {
        program: go::tool(cache, "kwok")?,
        module: go::module_folder(cache, "kwok", "sigs.k8s.io/kwok")?,
    })
}

/// Carries out one `kind` command.
///
/// # Errors
/// When a program that the step needs is missing or fails; the message names the step and the command line.
pub(crate) fn run(command: Kind) -> Result<()> {
    let cache = Cache::open()?;
    match command {
        Kind::Up => up(&cache),
        Kind::Down => down(&cache),
        Kind::Load { archive } => load(&cache, &archive),
        Kind::Status => cluster::status(&cache),
        Kind::Tool { name } => {
            println!("{}", go::tool(&cache, &name)?.display());
            Ok(())
        }
        Kind::Test {
            filter,
            operator,
            no_build,
        } => {
            up(&cache)?;
            if !no_build {
                images::build_and_load(images::TESTED)?;
            }
            kubernetes::run(&cache, filter.as_deref(), &operator)
        }
        Kind::Exec { command } => cluster::exec(&cache, &command),
    }
}
