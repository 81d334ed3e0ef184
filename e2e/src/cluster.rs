//! The Kubernetes cluster under test: found, reached, connected to.

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::{
    fs::{Mode, OFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde_json::Value;

use crate::tool::Tool;

/// A connection to the Kubernetes cluster under test.
#[derive(Clone)]
pub struct Cluster {
    /// For typed requests.
    pub client: Client,
    /// For what a user does at the shell.
    pub kubectl: Tool,
    /// For what a user does with the charts; the first one of `PATH`.
    pub helm: Tool,
    /// Where the API server writes what operators under test ask of it; only where `cargo xtask kind up` made it.
    pub audit_log: Option<PathBuf>,
    /// Whether programs that the test starts reach pods by their addresses.
    pub pods_can_be_reached: bool,
}

/// How the cluster is reached.
#[derive(Clone, Debug)]
struct Access {
    /// `None`: as kube and kubectl find it themselves.
    kubeconfig: Option<PathBuf>,
    /// The network namespace that alone can reach it.
    namespace: Option<PathBuf>,
    kubectl: PathBuf,
    audit_log: Option<PathBuf>,
}

/// Runs `test` on a thread that can reach the cluster, and panics with its error.
///
/// Everything that the test starts, programs included, is in the cluster's network namespace, because threads
/// and processes inherit it.
pub fn run(test: impl AsyncFnOnce(Cluster) -> Result<()> + Send) {
    let outcome = thread::scope(|scope| scope.spawn(|| connect_and_run(test)).join());
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn connect_and_run(test: impl AsyncFnOnce(Cluster) -> Result<()>) -> Result<()> {
    let access = Access::find()?;
    if let Some(namespace) = &access.namespace {
        enter(namespace)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to build the runtime")?;
    runtime.block_on(async {
        let cluster = access.connect().await?;
        test(cluster).await
    })
}

impl Access {
    /// `KUBECONFIG` first, then the cluster that `cargo xtask kind up` described.
    fn find() -> Result<Self> {
        if env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
            return Ok(Self {
                kubeconfig: None,
                namespace: None,
                kubectl: "kubectl".into(),
                audit_log: None,
            });
        }
        let path = description()?;
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "no cluster to test on: KUBECONFIG is not set and {} is not there; run `cargo xtask kind up`",
                path.display()
            )
        })?;
        Self::parse(&text).with_context(|| format!("failed to read {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let description: Value = serde_json::from_str(text).context("not JSON")?;
        let path = |field: &str| description[field].as_str().map(PathBuf::from);
        Ok(Self {
            kubeconfig: Some(path("kubeconfig").context("no field kubeconfig")?),
            namespace: path("network_namespace"),
            kubectl: path("kubectl").context("no field kubectl")?,
            audit_log: path("audit_log"),
        })
    }

    async fn connect(&self) -> Result<Cluster> {
        let config = match &self.kubeconfig {
            None => Config::infer()
                .await
                .context("failed to read the kubeconfig")?,
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path)
                    .with_context(|| format!("failed to read {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("failed to use {}", path.display()))?
            }
        };
        let client = Client::try_from(config).context("failed to make a Kubernetes client")?;
        let version = client
            .apiserver_version()
            .await
            .context("the API server does not answer; see `cargo xtask kind status`")?;
        if version.major != "1" {
            bail!(
                "the API server is of version {}.{}, the tests know 1.x",
                version.major,
                version.minor
            );
        }
        Ok(Cluster {
            client,
            kubectl: Tool::new(&self.kubectl, self.kubeconfig.as_deref()),
            helm: Tool::new(Path::new("helm"), self.kubeconfig.as_deref()),
            audit_log: self.audit_log.clone(),
            pods_can_be_reached: self.namespace.is_some(),
        })
    }
}

/// Where `cargo xtask kind up` says how to reach its cluster.
fn description() -> Result<PathBuf> {
    let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => Path::new(&home).join(".cache"),
        _ => bail!("no cluster to test on: none of KUBECONFIG, XDG_CACHE_HOME and HOME is set"),
    };
    Ok(cache.join("oxidask/kubernetes/cluster/cluster.json"))
}

/// Moves this thread into a network namespace.
fn enter(namespace: &Path) -> Result<()> {
    let file = rustix::fs::open(namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("failed to open {}", namespace.display()))?;
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )
    .with_context(|| {
        format!(
            "failed to enter the network namespace {}; are you root?",
            namespace.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_without_a_namespace_is_a_cluster_on_the_machines_own_network() {
        let access =
            Access::parse(r#"{"kubeconfig": "/k", "network_namespace": null, "kubectl": "/b"}"#)
                .unwrap();
        assert_eq!(access.kubeconfig.unwrap(), Path::new("/k"));
        assert_eq!(access.namespace, None);
    }

    #[test]
    fn damaged_description_is_an_error_that_names_the_field() {
        let error = Access::parse("{}").unwrap_err();
        assert!(error.to_string().contains("kubeconfig"), "{error}");
    }
}
