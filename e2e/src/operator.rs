//! The operator under test: its CRDs, its Deployment, its log.

use std::{env, path::Path};

use anyhow::{Context, Result, bail};
use tokio::sync::Mutex;

use crate::{cluster::Cluster, image};

/// Namespace that the operator runs in.
pub const NAMESPACE: &str = "oxidask-system";

/// How long the operator may take until its first answer on `/healthz`.
const READY_DEADLINE: &str = "--timeout=120s";

/// What became of the operator in this process: its tests run beside each other and share it.
static OUTCOME: Mutex<Option<Result<(), String>>> = Mutex::const_new(None);

/// Whose operator the tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The one of this workspace.
    Ours,
    /// The one of the package dask-kubernetes: a test of ours that it passes asks for nothing new, and the
    /// figures of both are of one run.
    Stock,
}

impl Whose {
    /// What `OXIDASK_E2E_OPERATOR` says: `ours` (also when unset) or `stock`.
    ///
    /// # Errors
    /// When it says something else.
    pub fn wanted() -> Result<Self> {
        match env::var("OXIDASK_E2E_OPERATOR").as_deref() {
            Ok("ours") | Err(_) => Ok(Self::Ours),
            Ok("stock") => Ok(Self::Stock),
            Ok(other) => bail!("OXIDASK_E2E_OPERATOR is {other:?}, it must be `ours` or `stock`"),
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
    kubectl
        .feed(&["apply", "-f", "-"], include_str!("operator/account.yaml"))
        .await?;
    let (manifest, image) = match Whose::wanted()? {
        Whose::Ours => (include_str!("operator/ours.yaml"), image("operator")),
        Whose::Stock => (
            include_str!("operator/stock.yaml"),
            image("dask-kubernetes"),
        ),
    };
    kubectl
        .feed(
            &["apply", "-f", "-"],
            &manifest.replace("@OPERATOR@", &image),
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
pub async fn stop(cluster: &Cluster) -> Result<()> {
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
pub async fn start_again(cluster: &Cluster) -> Result<()> {
    scale(cluster, "--replicas=1").await?;
    until_available(cluster).await
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
pub async fn log(cluster: &Cluster) -> Result<String> {
    cluster
        .kubectl
        .run(&["-n", NAMESPACE, "logs", "deployment/operator", "--tail=100"])
        .await
}
