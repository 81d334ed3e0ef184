//! A scheduler and workers of ours as processes, for tests that need no Kubernetes.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to say where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A scheduler and the workers that were started for it; all end when it is dropped.
pub struct Processes {
    /// Where the scheduler listens.
    pub address: String,
    children: Vec<Child>,
    folder: PathBuf,
}

/// A program of ours: named by `OXIDASK_SCHEDULER` or `OXIDASK_WORKER`, else the one built beside this test.
pub fn program(name: &str) -> PathBuf {
    let variable = match name {
        "dask-scheduler" => "OXIDASK_SCHEDULER",
        "dask-worker" => "OXIDASK_WORKER",
        _ => "OXIDASK_CLI",
    };
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let beside = test.ancestors().nth(2).map(|folder| folder.join(name));
    beside.expect("tests are built in a folder of a target folder")
}

impl Processes {
    /// A scheduler without workers.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn start() -> Self {
        let port = free_port();
        let folder =
            std::env::temp_dir().join(format!("oxidask-e2e-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
        let mut command = Command::new(program("dask-scheduler"));
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--dashboard-address", "127.0.0.1:0"]);
        let address = format!("tcp://127.0.0.1:{port}");
        let mut processes = Self {
            address,
            children: Vec::new(),
            folder,
        };
        processes.spawn(command);
        let deadline = Instant::now() + START_TIMEOUT;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the scheduler does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        processes
    }

    /// Starts a worker of ours that puts its executor off.
    pub fn native_worker(&mut self, name: &str, nthreads: usize) {
        let mut command = Command::new(program("dask-worker"));
        command.args([
            &self.address,
            "--name",
            name,
            "--no-dashboard",
            "--lazy-executor",
        ]);
        command.args(["--host", "127.0.0.1", "--nthreads", &nthreads.to_string()]);
        command.arg("--local-directory").arg(self.folder.join(name));
        self.spawn(command);
    }

    /// Starts a program that joins the cluster.
    pub fn spawn(&mut self, mut command: Command) -> u32 {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env("RUST_LOG", "warn")
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// Kills the worker that was started as number `n`, from 0.
    pub fn kill_worker(&mut self, n: usize) {
        // The scheduler is the first child.
        if let Some(child) = self.children.get_mut(n + 1) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Processes below those started here: name and number of each.
    pub fn descendants(&self) -> Vec<(String, u32)> {
        let roots: Vec<u32> = self.children.iter().map(Child::id).collect();
        let mut found = Vec::new();
        let mut open = roots;
        while let Some(parent) = open.pop() {
            for (pid, name) in children_of(parent) {
                found.push((name, pid));
                open.push(pid);
            }
        }
        found
    }

    /// Python interpreters among the processes.
    pub fn interpreters(&self) -> Vec<(String, u32)> {
        let all = self.descendants().into_iter();
        all.filter(|(name, _)| name.contains("python")).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.expect("the loopback has free ports").port()
}

/// Children of a process, by what the kernel says of each of its threads.
fn children_of(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
        return found;
    };
    for thread in threads.flatten() {
        let Ok(file) = std::fs::File::open(thread.path().join("children")) else {
            continue;
        };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            for pid in line.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                found.push((pid, name.unwrap_or_default().trim().to_owned()));
            }
        }
    }
    found
}
