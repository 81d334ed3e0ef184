//! The cluster itself: made, removed, loaded with images, looked at.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    cache::Cache,
    go, lock, namespaces, process, prometheus,
    provider::{Provider, kubeconfig},
};
use crate::workspace;

/// kind's name for the cluster; its nodes are called `oxidask-control-plane`, `oxidask-worker`, `oxidask-worker2`.
const NAME: &str = "oxidask";

/// How long nodes and DNS may take to become ready, once kind is done: they need 20 s on an idle machine.
const READY_DEADLINE: Duration = Duration::from_secs(180);

/// Makes the cluster unless it is there and ready.
///
/// # Errors
/// When a step fails; what was made until then is removed by the next `up` or `down`.
pub(crate) fn up(cache: &Cache) -> Result<()> {
    let started = Instant::now();
    let _lock = lock::take(cache)?;
    let provider = Provider::detect()?;
    if is_ready(cache, provider) {
        return status(cache);
    }
    remove(cache, provider)?;
    let image = provider.prepare(cache)?;
    let kubectl = go::tool(cache, "kubectl")?;
    let kind = provider.kind(cache)?;
    println!(
        "ready to make the cluster after {} s",
        started.elapsed().as_secs()
    );
    fs::create_dir_all(cache.cluster())
        .with_context(|| format!("failed to make {}", cache.cluster().display()))?;
    process::run(&mut process::tied(
        provider
            .command(cache, &kind)
            .args(["create", "cluster", "--name", NAME, "--image", &image])
            .arg("--kubeconfig")
            .arg(kubeconfig(cache))
            .arg("--config")
            .arg(configuration(cache)?),
    ))?;
    let kubectl = || provider.command(cache, &kubectl);
    // Where kind left the taint on: it removes it itself from a cluster of one node.
    let _ = process::succeeds(kubectl().args([
        "taint",
        "nodes",
        "--all",
        "node-role.kubernetes.io/control-plane-",
    ]));
    if provider.namespace().is_some() {
        let corefile = process::read(kubectl().args([
            "-n",
            "kube-system",
            "get",
            "configmap/coredns",
            "-o",
            "json",
        ]))?;
        process::feed(
            kubectl().args(["replace", "-f", "-"]),
            &without_forwarding(&corefile)?,
        )?;
        process::read(kubectl().args([
            "-n",
            "kube-system",
            "rollout",
            "restart",
            "deployment/coredns",
        ]))?;
    }
    if provider.namespace().is_some() {
        reach_pods(&mut kubectl())?;
    }
    let deadline = format!("--timeout={}s", READY_DEADLINE.as_secs());
    process::read(kubectl().args(["wait", "nodes", "--all", "--for=condition=Ready", &deadline]))?;
    process::read(kubectl().args([
        "-n",
        "kube-system",
        "rollout",
        "status",
        "deployment/coredns",
        &deadline,
    ]))?;
    describe(cache, provider)?;
    println!("cluster ready after {} s", started.elapsed().as_secs());
    status(cache)
}

/// Lets programs in the network namespace reach pods by their addresses, as those on a node can.
fn reach_pods(kubectl: &mut Command) -> Result<()> {
    let nodes = r#"jsonpath={range .items[*]}{.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}"#;
    for line in process::read(kubectl.args(["get", "nodes", "-o", nodes]))?.lines() {
        let Some((subnet, node)) = line.split_once(' ') else {
            bail!("a node has no subnet or no address: {line:?}")
        };
        process::run(namespaces::inside("ip").args(["route", "replace", subnet, "via", node]))?;
    }
    Ok(())
}

/// Writes kind's configuration, and the folder that it mounts into the control plane's node.
fn configuration(cache: &Cache) -> Result<PathBuf> {
    let source = workspace::root().join("e2e/kind");
    let audit = audit(cache);
    fs::create_dir_all(&audit).with_context(|| format!("failed to make {}", audit.display()))?;
    let policy = source.join("audit-policy.yaml");
    fs::copy(&policy, audit.join("policy.yaml"))
        .with_context(|| format!("failed to copy {}", policy.display()))?;
    let template = source.join("cluster.yaml");
    let text = fs::read_to_string(&template)
        .with_context(|| format!("failed to read {}", template.display()))?
        .replace("@AUDIT@", &audit.display().to_string());
    let target = cache.cluster().join("kind.yaml");
    fs::write(&target, text).with_context(|| format!("failed to write {}", target.display()))?;
    Ok(target)
}

/// The folder of the API server's audit log, which has what operators under test ask for.
fn audit(cache: &Cache) -> PathBuf {
    cache.cluster().join("audit")
}

/// Removes the cluster and everything that a killed run may have left.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn down(cache: &Cache) -> Result<()> {
    let _lock = lock::take(cache)?;
    remove(cache, Provider::detect()?)
}

/// As [`down`], by a process that may be in the middle of making the cluster, and so waits for nobody.
///
/// # Errors
/// As [`down`].
pub(crate) fn down_at_once(cache: &Cache) -> Result<()> {
    remove(cache, Provider::detect()?)
}

/// Loads an image archive into every node; one that was loaded before into this cluster is passed over.
///
/// # Errors
/// When there is no cluster, or the archive is no image archive.
pub(crate) fn load(cache: &Cache, archive: &Path) -> Result<()> {
    let _lock = lock::take(cache)?;
    let provider = running(cache)?;
    let started = Instant::now();
    let sum = process::read(Command::new("sha256sum").arg("--").arg(archive))?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    let list = cache.cluster().join("loaded");
    let loaded = fs::read_to_string(&list).unwrap_or_default();
    if loaded.lines().any(|line| line == sum) {
        println!("{} is already on the nodes", archive.display());
        return Ok(());
    }
    process::run(
        provider
            .command(cache, provider.kind(cache)?)
            .args(["load", "image-archive", "--name", NAME])
            .arg(archive),
    )?;
    fs::write(&list, format!("{loaded}{sum}\n"))
        .with_context(|| format!("failed to write {}", list.display()))?;
    println!(
        "loaded {} in {} s",
        archive.display(),
        started.elapsed().as_secs()
    );
    Ok(())
}

/// Prints where the cluster is, and its nodes.
///
/// # Errors
/// When there is no cluster, or it does not answer.
pub(crate) fn status(cache: &Cache) -> Result<()> {
    let provider = running(cache)?;
    println!("kubeconfig         {}", kubeconfig(cache).display());
    match provider.namespace() {
        Some(path) => println!("network namespace  {}", path.display()),
        None => println!("network namespace  the machine's own"),
    }
    let kubectl = go::tool(cache, "kubectl")?;
    process::run(provider.command(cache, kubectl).args([
        "--request-timeout=10s",
        "get",
        "nodes",
        "-o",
        "wide",
    ]))
}

/// Runs a command where the cluster can be reached.
///
/// # Errors
/// When there is no cluster, or the command fails.
pub(crate) fn exec(cache: &Cache, command: &[String]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command was given")
    };
    let status = reaching(cache, Path::new(program))?
        .args(arguments)
        .status()
        .with_context(|| format!("failed to start {program}"))?;
    if !status.success() {
        bail!("{program} ended with {status}");
    }
    Ok(())
}

/// A program that can reach the cluster, with the tools first in its PATH.
///
/// # Errors
/// When there is no cluster.
pub(crate) fn reaching(cache: &Cache, program: &Path) -> Result<Command> {
    let mut command = running(cache)?.command(cache, program);
    command.env("PATH", path_with_tools(cache)?);
    Ok(command)
}

/// PATH with kubectl, helm and Prometheus first.
///
/// # Errors
/// When one of them cannot be had.
pub(crate) fn path_with_tools(cache: &Cache) -> Result<OsString> {
    let mut folders = Vec::new();
    for name in ["kubectl", "helm"] {
        let tool = go::tool(cache, name)?;
        let folder = tool.parent().context("a tool lies in no folder")?;
        folders.push(folder.to_path_buf());
    }
    folders.extend(prometheus::folder(cache)?);
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    std::env::join_paths(folders).context("PATH has an entry with a colon")
}

/// The provider of the running cluster, as written down when it was made.
fn running(cache: &Cache) -> Result<Provider> {
    let path = cache.cluster().join("cluster.json");
    let text = fs::read_to_string(&path)
        .context("there is no cluster: make one with `cargo xtask kind up`")?;
    let description: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged: run `cargo xtask kind down`", path.display()))?;
    Ok(if description["network_namespace"].is_null() {
        Provider::Engine
    } else {
        Provider::Packages
    })
}

/// Tells the tests where the cluster is.
fn describe(cache: &Cache, provider: Provider) -> Result<()> {
    let path = cache.cluster().join("cluster.json");
    let description = json!({
        "kubeconfig": kubeconfig(cache),
        "network_namespace": provider.namespace(),
        "kubectl": go::tool(cache, "kubectl")?,
        "audit_log": audit(cache).join("log"),
    });
    fs::write(&path, format!("{description:#}\n"))
        .with_context(|| format!("failed to write {}", path.display()))
}

/// Whether there is a cluster whose nodes are all ready.
///
/// # Errors
/// When `OXIDASK_KIND_PROVIDER` has a wrong value.
pub(crate) fn is_up(cache: &Cache) -> Result<bool> {
    Ok(is_ready(cache, Provider::detect()?))
}

fn is_ready(cache: &Cache, provider: Provider) -> bool {
    running(cache).is_ok_and(|made_by| made_by == provider)
        && go::tool(cache, "kubectl").is_ok_and(|kubectl| {
            process::succeeds(provider.command(cache, kubectl).args([
                "wait",
                "nodes",
                "--all",
                "--for=condition=Ready",
                "--timeout=10s",
            ]))
        })
}

fn remove(cache: &Cache, provider: Provider) -> Result<()> {
    if provider == Provider::Engine {
        process::run(
            provider
                .command(cache, provider.kind(cache)?)
                .args(["delete", "cluster", "--name", NAME]),
        )?;
    }
    provider.clean(cache)?;
    match fs::remove_dir_all(cache.cluster()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", cache.cluster().display()))
        }
        _ => Ok(()),
    }
}

/// The ConfigMap of CoreDNS without its `forward` block.
///
/// The namespace has no name server outside: each name that is not the cluster's would wait for one for seconds.
fn without_forwarding(config_map: &str) -> Result<String> {
    let mut object: Value =
        serde_json::from_str(config_map).context("CoreDNS' ConfigMap is not JSON")?;
    let corefile = object["data"]["Corefile"]
        .as_str()
        .context("CoreDNS has no Corefile")?;
    let mut kept = String::new();
    let mut inside = false;
    for line in corefile.lines() {
        let word = line.trim();
        if word.starts_with("forward ") {
            inside = word.ends_with('{');
        } else if inside {
            inside = word != "}";
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    object["data"]["Corefile"] = kept.into();
    Ok(object.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corefile_without_forwarding(corefile: &str) -> String {
        let object = json!({"data": {"Corefile": corefile}}).to_string();
        let changed: Value = serde_json::from_str(&without_forwarding(&object).unwrap()).unwrap();
        changed["data"]["Corefile"].as_str().unwrap().to_owned()
    }

    #[test]
    fn forward_block_is_taken_out_of_the_corefile_and_nothing_else() {
        let corefile = ".:53 {\n    errors\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n    cache 30 {\n       disable success\n    }\n}\n";
        assert_eq!(
            corefile_without_forwarding(corefile),
            ".:53 {\n    errors\n    cache 30 {\n       disable success\n    }\n}\n"
        );
    }

    #[test]
    fn forward_line_without_a_block_is_taken_out_alone() {
        assert_eq!(
            corefile_without_forwarding(".:53 {\n    forward . 10.0.0.1\n    loop\n}\n"),
            ".:53 {\n    loop\n}\n"
        );
    }
}
