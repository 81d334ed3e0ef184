//! An operator that runs beside the test, for its namespace alone: a change can be tested without an image of it.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{cluster::Cluster, image, wait};

/// How long the program may take until it listens.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A program that can be ended and started again; ended when dropped.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    namespace: String,
    child: Option<Child>,
}

impl Process {
    /// One that is not started yet.
    pub(crate) fn new(program: &Path, cluster: &Cluster, namespace: &str) -> Self {
        Self {
            program: program.to_path_buf(),
            kubeconfig: cluster.kubectl.kubeconfig().map(Path::to_path_buf),
            namespace: namespace.to_owned(),
            child: None,
        }
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let port = free_port()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .context("failed to open the operator's log")?;
        let mut command = Command::new(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let child = command
            .arg(format!("--namespace={}", self.namespace))
            .arg(format!("--liveness=http://127.0.0.1:{port}/healthz"))
            .arg(format!("--binaries-image={}", image("binaries")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", self.program.display()))?;
        self.child = Some(child);
        wait::until("the operator's HTTP port", START_DEADLINE, async || {
            if let Some(ended) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                bail!("the operator ended: {ended}; {}", self.log());
            }
            Ok(TcpStream::connect(("127.0.0.1", port))
                .await
                .map(drop)
                .map_err(|error| error.to_string()))
        })
        .await
    }

    /// Ends it in the middle of what it does.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await.context("failed to end the operator"),
            None => Ok(()),
        }
    }

    /// The last lines that it wrote.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(100)..].join("\n")
    }

    fn log_file(&self) -> PathBuf {
        std::env::temp_dir().join(format!("oxidask-operator-{}.log", self.namespace))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It was printed if somebody wants it.
        let _ = fs::remove_file(self.log_file());
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("failed to find a free port")?;
    Ok(listener.local_addr()?.port())
}
