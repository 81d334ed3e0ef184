//! The operator under test: installed by its chart, taken away, brought back, its log.

mod process;

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use process::Process;

use crate::{cluster::Cluster, image, namespace::Namespace};

/// Namespace that the operator runs in.
pub const NAMESPACE: &str = "oxidask-system";

/// Name of the chart's release.
const RELEASE: &str = "operator";

const STOCK: &str = include_str!("operator/stock.yaml");

/// How long the operator may take until its first answer on `/healthz`.
const READY_DEADLINE: &str = "--timeout=120s";

/// What became of the operator in this process: its tests share it.
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

/// Installs CRDs and operator, starts the newest image, and waits until it is available; once for each process.
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
    match Whose::wanted()? {
        Whose::Program(_) => return apply_crds(cluster).await,
        Whose::Ours => {
            let stock = ["delete", "--ignore-not-found", "--wait", "-f", "-"];
            cluster.kubectl.feed(&stock, STOCK).await?;
            install(cluster, &[]).await?;
        }
        Whose::Stock => {
            uninstall(cluster).await?;
            let namespace =
                format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}");
            cluster
                .kubectl
                .feed(&["apply", "-f", "-"], &namespace)
                .await?;
            let manifest = STOCK.replace("@OPERATOR@", &image("dask-kubernetes"));
            cluster
                .kubectl
                .feed(&["apply", "-f", "-"], &manifest)
                .await?;
        }
    }
    // The tag of the image stays the same from build to build.
    let restart = ["-n", NAMESPACE, "rollout", "restart", deployment()?];
    cluster.kubectl.run(&restart).await?;
    until_available(cluster).await
}

async fn apply_crds(cluster: &Cluster) -> Result<()> {
    let crds = in_workspace("crds")?;
    let words = ["apply", "--server-side", "--force-conflicts", "-f", &crds];
    cluster.kubectl.run(&words).await?;
    // A type is served a moment after it was applied.
    let kinds = "daskclusters,daskworkergroups,daskjobs,daskautoscalers,scalingexperiments";
    let deadline = std::time::Duration::from_secs(60);
    crate::wait::until("the resource types", deadline, async || {
        let shown = cluster.kubectl.run(&["get", kinds, "-n", "default"]).await;
        Ok(shown.map(drop).map_err(|error| format!("{error:#}")))
    })
    .await
}

/// Installs or upgrades the release of the chart by which every test has its operator, with more of `--set`.
///
/// # Errors
/// When helm refuses.
pub async fn install(cluster: &Cluster, more: &[&str]) -> Result<()> {
    let chart = chart()?;
    let operator = image("operator");
    let (name, tag) = operator.rsplit_once(':').context("the image has no tag")?;
    let (name, tag) = (format!("image.name={name}"), format!("image.tag={tag}"));
    let binaries = format!("binariesImage={}", image("binaries"));
    let mut words = vec!["upgrade", "--install", RELEASE, &chart, "-n", NAMESPACE];
    words.push("--create-namespace");
    // CRDs that were there before, by `kubectl apply` or from the stock chart, come into the release.
    words.extend(["--take-ownership", "--force-conflicts"]);
    words.extend([
        "--set",
        "fullnameOverride=operator",
        "--set",
        &name,
        "--set",
        &tag,
        "--set",
        &binaries,
        // The namespaces that the tests make.
        "--set",
        "kopfArgs={--namespace=e2e-*}",
    ]);
    words.extend(more);
    if let Err(error) = cluster.helm.run(&words).await {
        // What a helm that was killed half-way leaves behind holds every later one up.
        if !format!("{error:#}").contains("another operation") {
            return Err(error);
        }
        uninstall(cluster).await?;
        cluster.helm.run(&words).await?;
    }
    until_available(cluster).await
}

/// Uninstalls the chart's release, if it is there.
///
/// # Errors
/// When helm fails.
pub async fn uninstall(cluster: &Cluster) -> Result<()> {
    let words = [
        "uninstall",
        RELEASE,
        "-n",
        NAMESPACE,
        "--ignore-not-found",
        "--wait",
    ];
    cluster.helm.run(&words).await.map(drop)
}

/// The Deployment of the operator under test, as kubectl takes it.
fn deployment() -> Result<&'static str> {
    Ok(match Whose::wanted()? {
        Whose::Ours => "deployment/operator",
        Whose::Stock => "deployment/stock-operator",
        Whose::Program(path) => bail!("{} is no Deployment", path.display()),
    })
}

/// Path of the chart of our operator.
///
/// # Errors
/// When the workspace's path is not UTF-8.
pub fn chart() -> Result<String> {
    in_workspace("charts/oxidask-operator")
}

fn in_workspace(path: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path);
    path.to_str()
        .map(str::to_owned)
        .context("the path of the workspace is not UTF-8")
}

/// Held by a test for which the operator must stay as it is.
pub type Shared = RwLockReadGuard<'static, ()>;

/// Held by a test that takes the operator away, or changes how it is installed.
pub type Alone = RwLockWriteGuard<'static, ()>;

static USE: RwLock<()> = RwLock::const_new(());

/// Waits until no test changes the operator, and keeps it so.
pub async fn shared() -> Shared {
    USE.read().await
}

/// Waits until no other test uses the operator, and keeps it so.
pub async fn alone() -> Alone {
    USE.write().await
}

/// Pods of either operator.
const PODS: &str = "app.kubernetes.io/instance in (operator, stock-operator)";

/// Takes the operator away until [`start_again`].
///
/// # Errors
/// When its pod does not end within two minutes.
pub async fn stop(namespace: &Namespace, _alone: &Alone) -> Result<()> {
    if let Some(process) = namespace.operator.lock().await.as_mut() {
        return process.kill().await;
    }
    let cluster = &namespace.cluster;
    scale(cluster, "--replicas=0").await?;
    let words = ["wait", "pods", "-l", PODS, "--for=delete", READY_DEADLINE];
    cluster
        .kubectl
        .run(&[&["-n", NAMESPACE], &words[..]].concat())
        .await
        .map(drop)
}

/// Brings the operator back.
///
/// # Errors
/// When it does not become available within two minutes.
pub async fn start_again(namespace: &Namespace, _alone: &Alone) -> Result<()> {
    if let Some(process) = namespace.operator.lock().await.as_mut() {
        return process.start().await;
    }
    let cluster = &namespace.cluster;
    scale(cluster, "--replicas=1").await?;
    until_available(cluster).await
}

/// Ends the operator in the middle of what it does; another one begins at once.
///
/// # Errors
/// When there is none, or none begins.
pub async fn kill(namespace: &Namespace, _alone: &Alone) -> Result<()> {
    if let Some(process) = namespace.operator.lock().await.as_mut() {
        process.kill().await?;
        return process.start().await;
    }
    let words = ["-n", NAMESPACE, "delete", "pods", "-l", PODS];
    let now = ["--grace-period=0", "--force"];
    let kubectl = &namespace.cluster.kubectl;
    kubectl.run(&[&words[..], &now[..]].concat()).await?;
    until_available(&namespace.cluster).await
}

async fn scale(cluster: &Cluster, replicas: &str) -> Result<()> {
    let words = ["-n", NAMESPACE, "scale", deployment()?, replicas];
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
            deployment()?,
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
    let words = ["-n", NAMESPACE, "logs", deployment()?, "--tail=100"];
    namespace.cluster.kubectl.run(&words).await
}
