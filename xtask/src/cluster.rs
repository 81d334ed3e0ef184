//! A scheduler and its workers on free ports of the loopback, ours or stock.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::binaries::Binaries;
use crate::env::Python;
use crate::process::Process;

/// Time from the start of a scheduler to its open port. Stock needs up to 3 s on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a demo without options uses our worker.
const OUR_WORKER_BY_DEFAULT: bool = true;

/// Which side is the stock one, and how large the cluster is.
#[derive(clap::Args)]
pub(crate) struct ClusterArgs {
    /// Use `dask scheduler` of the Python environment instead of ours
    #[arg(long)]
    stock_scheduler: bool,
    /// Use `dask worker` of the Python environment instead of ours
    #[arg(long)]
    stock_worker: bool,
    /// Use our worker even where the default is the stock one
    #[arg(long, conflicts_with = "stock_worker")]
    our_worker: bool,
    /// Number of workers
    #[arg(long, default_value_t = 2)]
    pub(crate) workers: u32,
    /// Slots of each worker
    #[arg(long, default_value_t = 1)]
    nthreads: u32,
}

/// Running processes; dropping it stops them all, workers first.
pub(crate) struct Cluster {
    pub(crate) address: String,
    pub(crate) dashboard: String,
    /// What runs, as a sentence for the person at the terminal.
    pub(crate) description: String,
    processes: Vec<Process>,
}

impl Cluster {
    /// Starts the processes with their output in `folder`, and waits for the scheduler's port.
    pub(crate) fn start(
        args: &ClusterArgs,
        binaries: &Binaries,
        python: &Python,
        folder: &Path,
    ) -> Result<Self> {
        let scheduler = side(
            args.stock_scheduler,
            binaries.scheduler.as_deref(),
            python,
            "scheduler",
        );
        let stock_worker = args.stock_worker || !(args.our_worker || OUR_WORKER_BY_DEFAULT);
        let worker = side(stock_worker, binaries.worker.as_deref(), python, "worker");
        if args.our_worker && binaries.worker.is_none() {
            bail!("--our-worker: the workspace has no program dask-worker");
        }
        let port = free_port()?;
        let dashboard_port = free_port()?;
        let env = [
            ("PATH", python.path()),
            ("OMP_NUM_THREADS", "1".into()),
            ("OPENBLAS_NUM_THREADS", "1".into()),
        ];

        let mut arguments = scheduler.arguments.clone();
        arguments.extend(
            [
                "--host",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--dashboard-address",
                &format!("127.0.0.1:{dashboard_port}"),
            ]
            .map(OsString::from),
        );
        let mut cluster = Self {
            address: format!("tcp://127.0.0.1:{port}"),
            dashboard: format!("http://127.0.0.1:{dashboard_port}/"),
            description: format!(
                "{} scheduler, {} {} workers",
                scheduler.kind, args.workers, worker.kind
            ),
            processes: vec![Process::spawn(
                "scheduler",
                &scheduler.program,
                &arguments,
                &env,
                &folder.join("scheduler.log"),
            )?],
        };
        cluster.wait_for_port(port)?;

        for number in 0..args.workers {
            let name = format!("worker-{number}");
            let mut arguments = worker.arguments.clone();
            arguments.push(cluster.address.clone().into());
            arguments.extend(
                [
                    "--host",
                    "127.0.0.1",
                    "--nthreads",
                    &args.nthreads.to_string(),
                    "--name",
                    &name,
                    "--no-dashboard",
                    "--local-directory",
                ]
                .map(OsString::from),
            );
            arguments.push(folder.join(&name).into());
            let log = folder.join(format!("{name}.log"));
            cluster.processes.push(Process::spawn(
                &name,
                &worker.program,
                &arguments,
                &env,
                &log,
            )?);
        }
        Ok(cluster)
    }

    /// An error with the process's last output, if one has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        for process in &mut self.processes {
            if let Some(status) = process.ended() {
                bail!(
                    "{} ended with {status}; the end of its output:\n{}",
                    process.name(),
                    process.log_tail(20)
                );
            }
        }
        Ok(())
    }

    /// The last output of each process.
    pub(crate) fn logs(&self) -> String {
        self.processes
            .iter()
            .map(|process| format!("{}:\n{}", process.name(), process.log_tail(30)))
            .collect()
    }

    fn wait_for_port(&mut self, port: u16) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            self.check_alive()?;
            if Instant::now() > deadline {
                bail!(
                    "the scheduler does not listen on {address} after {START_TIMEOUT:?}; its output:\n{}",
                    self.logs()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Workers first, so that none of them looks for a scheduler that has gone; all are asked
        // before one is waited for.
        for process in self.processes.iter().skip(1) {
            process.terminate();
        }
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

/// How one side is started.
struct Side {
    kind: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
}

fn side(stock: bool, ours: Option<&Path>, python: &Python, name: &str) -> Side {
    match ours {
        Some(program) if !stock => Side {
            kind: "our",
            program: program.to_path_buf(),
            arguments: Vec::new(),
        },
        _ => Side {
            kind: "stock",
            program: python.program("dask"),
            arguments: vec![name.into()],
        },
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("failed to bind a port of the loopback")?;
    Ok(listener
        .local_addr()
        .context("failed to read the bound port")?
        .port())
}
