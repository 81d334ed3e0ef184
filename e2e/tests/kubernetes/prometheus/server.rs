//! The program Prometheus, beside the test, in the network of the cluster.

use std::{fs, net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
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
        fs::write(&configuration, jobs(namespace)?).context("failed to write the configuration")?;
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

/// What the chart's ServiceMonitors and PodMonitor say, in Prometheus' own words.
fn jobs(namespace: &Namespace) -> Result<String> {
    let kubeconfig = namespace.cluster.kubectl.kubeconfig();
    let kubeconfig = kubeconfig.context("the cluster has no kubeconfig of its own")?;
    let job = |name: &str, of: &str, label: &str, value: &str, port: &str| {
        format!(
            "
- job_name: {name}
  kubernetes_sd_configs:
  - role: pod
    kubeconfig_file: {}
    namespaces: {{names: [{of}]}}
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_label_{label}], regex: {value}, action: keep}}
  - {{source_labels: [__meta_kubernetes_pod_container_port_name], regex: {port}, action: keep}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_label_dask_org_cluster_name], target_label: dask_org_cluster_name}}",
            kubeconfig.display()
        )
    };
    let instance = "app_kubernetes_io_instance";
    let component = "dask_org_component";
    Ok([
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:".to_owned(),
        job(
            "operator",
            operator::NAMESPACE,
            instance,
            "operator",
            "http",
        ),
        job(
            "scheduler",
            &namespace.name,
            component,
            "scheduler",
            "http-dashboard",
        ),
        job(
            "worker",
            &namespace.name,
            component,
            "worker",
            "http-dashboard",
        ),
    ]
    .concat())
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
