//! A child interpreter: started, asked who it is, watched, killed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::DecodeError;
use oxidask_protocol::msgpack::Reader;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::UnixStream;

use crate::connection::{Connection, ConnectionError};
use crate::interpreter::Interpreter;
use crate::stderr::{self, Output, Tail};
use crate::{archive, launch, memory};

/// What runs before our own code can be imported. The socket comes as standard input and the zip as standard
/// output, since those need no descriptors to be inherited beside the usual three; both move out of the way of
/// what users print (to standard error, our log) or read (nothing).
const LAUNCHER: &str = "\
import os,sys
s,z,n=os.dup(0),os.dup(1),os.open(os.devnull,os.O_RDONLY)
os.dup2(n,0);os.dup2(2,1);os.close(n)
sys.path[:1]=[f'/proc/self/fd/{z}']
from oxidask.boot import main
main(s,sys.argv[1],int(sys.argv[2]),int(sys.argv[3]))";

/// How a child is started.
#[derive(Debug, Clone)]
pub struct ChildSettings {
    /// Which service it runs: `graph`, `aside` or `template`.
    pub role: &'static str,
    /// Private writable memory past which allocations fail in the child. Unit: bytes; 0 for no limit.
    pub memory_limit: u64,
    /// Environment variables beside those of this process.
    pub environment: Vec<(String, String)>,
    /// How long the interpreter may take until it is ready, imports included.
    pub start_timeout: Duration,
}

impl ChildSettings {
    /// A child for `role` with nothing limited but its start, at one minute.
    pub fn new(role: &'static str) -> Self {
        Self {
            role,
            memory_limit: 0,
            environment: Vec::new(),
            start_timeout: Duration::from_secs(60),
        }
    }
}

/// Who a child says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// `sys.executable`.
    pub executable: String,
    /// Versions of `python`, `dask`, `distributed`, `msgpack` and `cloudpickle`.
    pub versions: Vec<(String, String)>,
}

/// Why a child cannot be had. Each text names the interpreter.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The process could not be started.
    #[error("failed to start Python interpreter {interpreter}")]
    Start {
        /// The program.
        interpreter: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The interpreter lacks a module or has a version that does not fit.
    #[error("Python interpreter {interpreter} cannot be used: {text}")]
    Refused {
        /// The program.
        interpreter: String,
        /// `module`, `version`, `python` or `role`.
        kind: String,
        /// The module that is missing or does not fit.
        module: String,
        /// What is wrong, in words.
        text: String,
    },
    /// The process ended or closed its socket before it was ready.
    #[error(
        "Python interpreter {interpreter} ended before it was ready ({status}){}",
        with_output(output)
    )]
    Ended {
        /// The program.
        interpreter: String,
        /// Exit code or signal.
        status: String,
        /// The last lines that it printed.
        output: String,
    },
    /// The process was not ready in time.
    #[error("Python interpreter {interpreter} was not ready within {} s{}", timeout.as_secs(), with_output(output))]
    Slow {
        /// The program.
        interpreter: String,
        /// What was waited.
        timeout: Duration,
        /// The last lines that it printed.
        output: String,
    },
}

fn with_output(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!("; its last output was:\n{output}")
    }
}

/// A running interpreter. Dropping it kills the process and its whole process group.
#[derive(Debug)]
pub struct Child {
    process: Option<std::process::Child>,
    pid: u32,
    hello: Hello,
    output: Output,
}

impl Child {
    /// Starts an interpreter and waits until it says that it is ready.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the program cannot be started, lacks what the role needs, or is not ready in time.
    pub async fn start(
        interpreter: &Interpreter,
        settings: &ChildSettings,
    ) -> Result<(Self, Connection), ChildError> {
        let failed = |source| ChildError::Start {
            interpreter: interpreter.to_string(),
            source,
        };
        let (mut child, mut connection) =
            Self::launch(interpreter, settings).await.map_err(failed)?;
        let first = tokio::time::timeout(settings.start_timeout, connection.reader.read()).await;
        let interpreter = interpreter.to_string();
        match first {
            Err(_) => {
                let output = child.output.tail.text();
                child.kill().await;
                Err(ChildError::Slow {
                    interpreter,
                    timeout: settings.start_timeout,
                    output,
                })
            }
            Ok(Err(ConnectionError::Io(source))) => Err(ChildError::Start {
                interpreter,
                source,
            }),
            Ok(Err(ConnectionError::Closed | ConnectionError::Decode(_))) => {
                let status = child.ended().await;
                Err(ChildError::Ended {
                    interpreter,
                    status,
                    output: child.output.tail.text(),
                })
            }
            Ok(Ok(frames)) => match read_greeting(&frames) {
                Ok(Greeting::Hello(hello)) => {
                    tracing::debug!(role = settings.role, pid = child.pid, executable = %hello.executable, "Python child ready");
                    child.hello = hello;
                    Ok((child, connection))
                }
                Ok(Greeting::Refused {
                    kind,
                    module,
                    text,
                    executable,
                }) => {
                    child.ended().await;
                    let interpreter = if executable == interpreter {
                        interpreter
                    } else {
                        format!("{interpreter} ({executable})")
                    };
                    Err(ChildError::Refused {
                        interpreter,
                        kind,
                        module,
                        text,
                    })
                }
                Err(error) => {
                    child.kill().await;
                    Err(ChildError::Ended {
                        interpreter,
                        status: error.to_string(),
                        output: child.output.tail.text(),
                    })
                }
            },
        }
    }

    async fn launch(
        interpreter: &Interpreter,
        settings: &ChildSettings,
    ) -> io::Result<(Self, Connection)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(interpreter.program());
        command
            // Unbuffered, so that what is printed is in the log when the process dies.
            .args(["-u", "-c", LAUNCHER, settings.role])
            .arg(std::process::id().to_string())
            .arg(settings.memory_limit.to_string())
            .envs(
                settings
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(archive::open()?))
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is for us to handle, and a kill must reach what the child has started.
            .process_group(0);
        let mut process = launch::spawn(command).await?;
        let pid = process.id();
        let stderr = process.stderr.take();
        let mut child = Self {
            process: Some(process),
            pid,
            hello: Hello::default(),
            output: Output::default(),
        };
        if let Some(stderr) = stderr {
            child.output = stderr::watch(stderr.into(), settings.role, pid)?;
        }
        Ok((child, Connection::new(UnixStream::from_std(ours)?)))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the child said about itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The last lines that the child has printed.
    pub fn output(&self) -> String {
        self.output.tail.text()
    }

    /// The same, for whoever outlives the child.
    pub(crate) fn tail(&self) -> Tail {
        self.output.tail.clone()
    }

    /// Forgets what the child has printed, so that [`output`](Self::output) is about what comes now.
    pub fn forget_output(&self) {
        self.output.tail.clear();
    }

    /// Resident memory. Unit: bytes; `None` once the process has ended.
    pub fn resident(&self) -> Option<u64> {
        memory::resident(self.pid)
    }

    /// Waits a moment for a child that has closed its socket to end, kills it if it does not, and says how it
    /// ended: `exit status: 3`, `signal: 11 (SIGSEGV)`.
    pub async fn ended(&mut self) -> String {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
        loop {
            let status = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().ok().flatten());
            if let Some(status) = status {
                self.process = None;
                self.output.finish().await;
                return status.to_string();
            }
            if self.process.is_none() || tokio::time::Instant::now() >= deadline {
                return self
                    .kill()
                    .await
                    .map_or_else(|| "killed".into(), |status| status.to_string());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Kills the process group and waits for the process. `None` if it was gone before.
    pub async fn kill(&mut self) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        kill_group(self.pid);
        tokio::task::spawn_blocking(move || process.wait().ok())
            .await
            .ok()
            .flatten()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            kill_group(self.pid);
            // SIGKILL cannot be refused; only a process inside a system call that cannot be interrupted is slow
            // to go, and a thread of its own waits for that.
            std::thread::spawn(move || process.wait());
        }
    }
}

pub(crate) fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only if all processes of the group have ended.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

enum Greeting {
    Hello(Hello),
    Refused {
        kind: String,
        module: String,
        text: String,
        executable: String,
    },
}

fn read_greeting(frames: &[Bytes]) -> Result<Greeting, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    let mut op = "";
    let mut hello = Hello::default();
    let (mut kind, mut module, mut text) = (String::new(), String::new(), String::new());
    for _ in 0..r.map()? {
        match r.str()? {
            "op" => op = r.str()?,
            "executable" => hello.executable = r.str()?.to_owned(),
            "kind" => kind = r.str()?.to_owned(),
            "module" => module = r.str()?.to_owned(),
            "text" => text = r.str()?.to_owned(),
            "versions" => {
                for _ in 0..r.map()? {
                    hello
                        .versions
                        .push((r.str()?.to_owned(), r.str()?.to_owned()));
                }
            }
            _ => r.skip()?,
        }
    }
    Ok(if op == "hello" {
        Greeting::Hello(hello)
    } else {
        Greeting::Refused {
            kind,
            module,
            text,
            executable: hello.executable,
        }
    })
}
