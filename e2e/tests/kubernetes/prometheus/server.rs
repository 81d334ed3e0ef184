//! The program Prometheus, beside the test, in the network of the cluster.

use std::{fs, net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use oxidask_e2e::{namespace::Namespace, operator, wait};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Ends with the test.
pub(crate) struct Prometheus {
    port: u16,
    folder: PathBuf,
    _child: Child,
}

impl Prometheus {
    /// Starts it, scraping the operator and the pods of this namespace.
    pub(crate) async fn start(namespace: &Namespace) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("oxidask-prometheus-{}", namespace.name));
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
        let configuration = folder.join("prometheus.yaml");
        fs::write(&configuration, jobs(namespace).await?)
            .context("failed to write the configuration")?;
        promtool(&[
            "check",
            "config",
            configuration.to_str().context("not UTF-8")?,
        ])
        .await?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(folder.join("log")).context("failed to make the log")?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start prometheus")?;
        let this = Self {
            port,
            folder,
            _child: child,
        };
        wait::until("Prometheus", START_DEADLINE, async || {
            Ok(this
                .query("1")
                .await
                .map(drop)
                .map_err(|error| format!("{error:#}")))
        })
        .await
        .with_context(|| fs::read_to_string(this.folder.join("log")).unwrap_or_default())?;
        Ok(this)
    }

    /// The series of an instant query.
    ///
    /// # Errors
    /// When it does not answer, or does not understand the expression.
    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let asking = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let body = format!("query={}", percent(expression));
            let request = format!(
                "POST /api/v1/query HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(ANSWER, asking)
            .await
            .context("no answer in time")??;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let answer: Value = serde_json::from_str(body).context("the answer is not JSON")?;
        ensure!(answer["status"] == "success", "{}", answer["error"]);
        let result = &answer["data"]["result"];
        Ok(result.as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // The program may still write there: what is left is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs promtool.
///
/// # Errors
/// When it finds something wrong; the message is its output.
pub(crate) async fn promtool(words: &[&str]) -> Result<()> {
    let output = Command::new("promtool")
        .args(words)
        .output()
        .await
        .context("failed to start promtool")?;
    if !output.status.success() {
        bail!(
            "promtool {}: {}{}",
            words.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// What the chart's ServiceMonitors and PodMonitor choose, by address: Debian's Prometheus does not ask Kubernetes.
async fn jobs(namespace: &Namespace) -> Result<String> {
    let client = namespace.cluster.client.clone();
    let operators = Api::namespaced(client, operator::NAMESPACE);
    let instance = "app.kubernetes.io/instance=operator";
    let own = namespace.api::<Pod>();
    let mut text = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:".to_owned();
    text += &job("operator", &operators, instance, "http", 1).await?;
    for (component, count) in [("scheduler", 1), ("worker", 2)] {
        let label = format!("dask.org/component={component}");
        text += &job(component, &own, &label, "http-dashboard", count).await?;
    }
    Ok(text)
}

/// A job with the pods of this label, once `count` of them have addresses.
async fn job(name: &str, pods: &Api<Pod>, label: &str, port: &str, count: usize) -> Result<String> {
    let label = ListParams::default().labels(label);
    let found = wait::until(format!("{count} {name}"), START_DEADLINE, async || {
        let pods = pods.list(&label).await?.items;
        let found: Vec<String> = pods.iter().filter_map(|pod| target(pod, port)).collect();
        Ok(if found.len() == count {
            Ok(found)
        } else {
            Err(format!("{} have an address", found.len()))
        })
    })
    .await?;
    // As the chart has it, the operator's metrics keep the namespaces that they tell of.
    let honors = name == "operator";
    Ok(format!(
        "\n- job_name: {name}\n  honor_labels: {honors}\n  static_configs:{}",
        found.concat()
    ))
}

/// Address and labels of a running pod with a port of this name.
fn target(pod: &Pod, port: &str) -> Option<String> {
    let address = pod.status.as_ref()?.pod_ip.as_deref()?;
    let containers = &pod.spec.as_ref()?.containers;
    let mut ports = containers.iter().flat_map(|one| one.ports.iter().flatten());
    let number = ports
        .find(|one| one.name.as_deref() == Some(port))?
        .container_port;
    let labels = pod.metadata.labels.as_ref()?;
    let cluster = labels
        .get("dask.org/cluster-name")
        .map_or("", String::as_str);
    let namespace = pod.metadata.namespace.as_deref()?;
    Some(format!(
        "\n  - {{targets: [\"{address}:{number}\"], labels: {{namespace: \"{namespace}\", dask_org_cluster_name: \"{cluster}\"}}}}"
    ))
}

/// For the body of a form.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
