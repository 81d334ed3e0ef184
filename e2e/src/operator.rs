//! The operator under test: its CRDs, its Deployment, its log.

mod process;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tokio::sync::Mutex;

pub use process::Process;

use crate::{cluster::Cluster, image, namespace::Namespace};

/// Namespace that the operator runs in.
pub const NAMESPACE: &str = "oxidask-system";

/// How long the operator may take until its first answer on `/healthz`.
const READY_DEADLINE: &str = "--timeout=120s";

/// What became of the operator in this process: its tests run beside each other and share it.
static OUTCOME: Mutex<Option<Result<(), String>>> = Mutex::const_new(None);

/// Whose operator the tests look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The one of this workspace.
    Ours,
    /// The one of the package dask-kubernetes: a test of ours that it passes asks for nothing new, and the
    /// figures of both are of one run.
    Stock,
    /// This program, started by each test for its own namespace.
    Program(PathBuf),
}

impl Whose {
    /// What `OXIDASK_E2E_OPERATOR` says: `ours` (also when unset), `stock`, or the path of a program.
    ///
    /// # Errors
    /// When it says something else.
    pub fn wanted() -> Result<Self> {
        match env::var("OXIDASK_E2E_OPERATOR").as_deref() {
            Ok("ours") | Err(_) => Ok(Self::Ours),
            Ok("stock") => Ok(Self::Stock),
            Ok(path) if path.contains('/') => Ok(Self::Program(path.into())),
            Ok(other) => bail!(
                "OXIDASK_E2E_OPERATOR is {other:?}, it must be `ours`, `stock` or the path of a program"
            ),
        }
    }
}

/// Applies CRDs and operator, starts the newest image, and waits until it is available; once for each process.
///
/// # Errors
/// When the API server refuses something, or the operator does not become available within two minutes; then at
/// once for every later test of this process.
pub async fn ensure(cluster: &Cluster) -> Result<()> {
    let mut outcome = OUTCOME.lock().await;
    if outcome.is_none() {
        *outcome = Some(start(cluster).await.map_err(|error| format!("{error:#}")));
    }
    match &*outcome {
        Some(Err(error)) => bail!("there is no operator to test: {error}"),
        Some(Ok(())) | None => Ok(()),
    }
}

async fn start(cluster: &Cluster) -> Result<()> {
    let kubectl = &cluster.kubectl;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    let crds = crds
        .to_str()
        .context("the path of the workspace is not UTF-8")?;
    kubectl
        .run(&["apply", "--server-side", "--force-conflicts", "-f", crds])
        .await?;
    let whose = Whose::wanted()?;
    if let Whose::Program(_) = whose {
        return Ok(());
    }
    kubectl
        .feed(&["apply", "-f", "-"], include_str!("operator/account.yaml"))
        .await?;
    let (manifest, image) = match whose {
        Whose::Program(_) => unreachable!("returned above"),
        Whose::Ours => (include_str!("operator/ours.yaml"), image("operator")),
        Whose::Stock => (
            include_str!("operator/stock.yaml"),
            image("dask-kubernetes"),
        ),
    };
    kubectl
        .feed(
            &["apply", "-f", "-"],
            &manifest
                .replace("@OPERATOR@", &image)
                .replace("@BINARIES@", &crate::image("binaries")),
        )
        .await?;
    // The tag of the image stays the same from build to build.
    kubectl
        .run(&["-n", NAMESPACE, "rollout", "restart", "deployment/operator"])
        .await?;
    until_available(cluster).await
}

/// Takes the operator away until [`start_again`]. Only for tests that run alone.
///
/// # Errors
/// When its pod does not end within two minutes.
pub async fn stop(namespace: &Namespace) -> Result<()> {
    if let Some(process) = namespace.operator.lock().await.as_mut() {
        return process.kill().await;
    }
    let cluster = &namespace.cluster;
    scale(cluster, "--replicas=0").await?;
    let gone = [
        "wait",
        "pods",
        "-l",
        "app=operator",
        "--for=delete",
        READY_DEADLINE,
    ];
    cluster
        .kubectl
        .run(&[&["-n", NAMESPACE], &gone[..]].concat())
        .await
        .map(drop)
}

/// Brings the operator back.
///
/// # Errors
/// When it does not become available within two minutes.
pub async fn start_again(namespace: &Namespace) -> Result<()> {
    if let Some(process) = namespace.operator.lock().await.as_mut() {
        return process.start().await;
    }
    let cluster = &namespace.cluster;
    scale(cluster, "--replicas=1").await?;
    until_available(cluster).await
}

/// Ends the operator in the middle of what it does; another one begins at once. Only for tests that run alone.
///
/// # Errors
/// When there is none, or none begins.
pub async fn kill(namespace: &Namespace) -> Result<()> {
    if let Some(process) = namespace.operator.lock().await.as_mut() {
        process.kill().await?;
        return process.start().await;
    }
    let words = ["-n", NAMESPACE, "delete", "pods", "-l", "app=operator"];
    let now = ["--grace-period=0", "--force"];
    let kubectl = &namespace.cluster.kubectl;
    kubectl.run(&[&words[..], &now[..]].concat()).await?;
    until_available(&namespace.cluster).await
}

async fn scale(cluster: &Cluster, replicas: &str) -> Result<()> {
    let words = ["-n", NAMESPACE, "scale", "deployment/operator", replicas];
    cluster.kubectl.run(&words).await.map(drop)
}

async fn until_available(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl
        .run(&[
            "-n",
            NAMESPACE,
            "rollout",
            "status",
            "deployment/operator",
            READY_DEADLINE,
        ])
        .await
        .map(drop)
        .context("it did not become available")
}

/// The last lines of the operator's log.
///
/// # Errors
/// When there is no operator.
pub async fn log(namespace: &Namespace) -> Result<String> {
    if let Some(process) = namespace.operator.lock().await.as_ref() {
        return Ok(process.log());
    }
    let cluster = &namespace.cluster;
    cluster
        .kubectl
        .run(&["-n", NAMESPACE, "logs", "deployment/operator", "--tail=100"])
        .await
}
