//! A cluster of processes on this machine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a process may take to be there.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long processes may take to end when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Worker processes.
    pub workers: usize,
    /// Slots of each.
    pub threads: usize,
    /// As `dask-worker --memory-limit` takes it.
    pub memory_limit: String,
    /// Address that all listen at.
    pub host: String,
    /// Port of the scheduler, 0 for any.
    pub port: u16,
    /// Port of its status page, 0 for any.
    pub dashboard_port: u16,
    /// Workers start no interpreter before they need one.
    pub lazy_executor: bool,
    /// Worker N runs on CPU N alone.
    pub pin: bool,
}

/// A scheduler and its workers, which end when this is dropped.
pub struct LocalCluster {
    /// Where the scheduler listens.
    pub address: String,
    /// Where its status page is.
    pub dashboard: String,
    children: Vec<Child>,
    folder: tempfile::TempDir,
}

impl LocalCluster {
    /// Starts all processes and waits until the scheduler listens; workers register when they are up.
    ///
    /// # Errors
    /// If a program is missing, or the scheduler does not listen in time.
    pub fn start(plan: &Plan) -> Result<Self> {
        let host = plan.host.as_str();
        let (port, dashboard) = (free(host, plan.port)?, free(host, plan.dashboard_port)?);
        let folder = tempfile::tempdir().context("no folder for temporary files")?;
        let mut cluster = Self {
            address: format!("tcp://{host}:{port}"),
            dashboard: format!("http://{host}:{dashboard}"),
            children: Vec::new(),
            folder,
        };
        let mut scheduler = Command::new(program("dask-scheduler")?);
        scheduler.args(["--host", host, "--port", &port.to_string()]);
        scheduler.args(["--dashboard-address", &format!("{host}:{dashboard}")]);
        cluster.spawn(scheduler)?;
        for number in 0..plan.workers {
            cluster.start_worker(plan, number)?;
        }
        let deadline = Instant::now() + START_TIMEOUT;
        while std::net::TcpStream::connect((host, port)).is_err() {
            if let Some(status) = cluster.children[0].try_wait()? {
                bail!("the scheduler ended at once: {status}");
            }
            ensure!(
                Instant::now() < deadline,
                "the scheduler does not listen on port {port}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(cluster)
    }

    fn start_worker(&mut self, plan: &Plan, number: usize) -> Result<()> {
        let worker = program("dask-worker")?;
        let mut command = if plan.pin {
            let cpus = std::thread::available_parallelism()?.get();
            let mut command = Command::new("taskset");
            command
                .args(["-c", &(number % cpus).to_string()])
                .arg(worker);
            command
        } else {
            Command::new(worker)
        };
        command.args([&self.address, "--host", &plan.host, "--no-dashboard"]);
        command.args([
            "--name",
            &number.to_string(),
            "--nthreads",
            &plan.threads.to_string(),
        ]);
        command.args(["--memory-limit", &plan.memory_limit]);
        command
            .arg("--local-directory")
            .arg(self.folder.path().join(number.to_string()));
        if plan.lazy_executor {
            command.arg("--lazy-executor");
        }
        self.spawn(command)
    }

    fn spawn(&mut self, mut command: Command) -> Result<()> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into()),
            )
            .spawn()
            .with_context(|| format!("failed to start {}", command.get_program().display()))?;
        self.children.push(child);
        Ok(())
    }

    /// Whether a process has ended, and how.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn ended(&mut self) -> Result<Option<String>> {
        for (number, child) in self.children.iter_mut().enumerate() {
            if let Some(status) = child.try_wait()? {
                let who = match number {
                    0 => "the scheduler".to_owned(),
                    number => format!("worker {}", number - 1),
                };
                return Ok(Some(format!("{who} ended: {status}")));
            }
        }
        Ok(None)
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // Workers first, so that none of them waits for a scheduler that has gone.
        for child in self.children.iter_mut().rev() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        for child in self.children.iter_mut().rev() {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program of ours: beside this one, or on the path.
///
/// # Errors
/// If it is in neither place.
pub fn program(name: &str) -> Result<PathBuf> {
    let variable = match name {
        "dask-scheduler" => "OXIDASK_SCHEDULER",
        _ => "OXIDASK_WORKER",
    };
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!(
                "{name} is neither beside {} nor on PATH; install it, or name it in {variable}",
                own.display()
            )
        })
}

fn free(host: &str, port: u16) -> Result<u16> {
    let listener = std::net::TcpListener::bind((host, port)).with_context(|| {
        format!("{host}:{port} cannot be listened at; choose another port, or 0 for any free one")
    })?;
    Ok(listener.local_addr()?.port())
}
