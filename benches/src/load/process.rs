//! The scheduler under load: started, looked at, ended.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use oxidask_protocol::address::{Address, Scheme};

/// Clock ticks of a second in `/proc`.
const TICKS: f64 = 100.0;

/// Time that a scheduler may take to listen.
const START: Duration = Duration::from_secs(60);

/// A scheduler process. Killed when it is dropped.
pub(crate) struct Scheduler {
    child: Child,
    pub(crate) address: Address,
}

impl Scheduler {
    /// Starts a command whose word `{port}` is replaced by a free port of the loopback.
    pub(crate) fn start(command: &str) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let command = command.replace("{port}", &port.to_string());
        let mut words = command.split_whitespace();
        let program = words
            .next()
            .context("the command of a scheduler is empty")?;
        let child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        let scheduler = Self {
            child,
            address: Address {
                scheme: Scheme::Tcp,
                host: "127.0.0.1".to_owned(),
                port,
            },
        };
        let deadline = Instant::now() + START;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                bail!("`{command}` does not listen");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(scheduler)
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default()
    }

    /// A line of its status. Unit: bytes.
    fn status(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
        words.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Resident memory now. Unit: bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS")
    }

    /// Most resident memory since [`forget_peak`](Self::forget_peak). Unit: bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM")
    }

    pub(crate) fn forget_peak(&self) {
        // Where the kernel does not allow it, the peak is that since the start.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }

    /// CPU time of the process and of those below it. Unit: seconds.
    pub(crate) fn cpu(&self) -> (f64, f64) {
        let own = cpu_of(self.child.id());
        (own, children(self.child.id()).map(cpu_of).sum())
    }

    /// Waits until it has next to nothing to do, at most so long.
    pub(crate) async fn settle(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let total = || {
            let (own, below) = self.cpu();
            own + below
        };
        let mut last = total();
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = total();
            // Heartbeats of a thousand workers cost something all the time.
            if now - last < 0.15 {
                return;
            }
            last = now;
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processes that a process has started.
fn children(parent: u32) -> impl Iterator<Item = u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(move |pid| {
            fields(*pid)
                .get(1)
                .is_some_and(|field| *field == parent.to_string())
        })
}

/// What the kernel says of a process, from its state on.
fn fields(pid: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything; the state follows its last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().map(str::to_owned).collect()
}

fn cpu_of(pid: u32) -> f64 {
    let fields = fields(pid);
    let ticks = fields.iter().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / TICKS
}
