//! The template of executors: an interpreter that forks them, so that each is there within milliseconds.
//!
//! `oxidask/worker/template.py` is the other end. Executors are children of the template, not of this process: the
//! template tells how they end, and the kernel kills them when the template dies.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::DecodeError;
use oxidask_protocol::msgpack::Reader;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::child::{Child, ChildError, ChildSettings, kill_group};
use crate::connection::{Connection, ConnectionError};
use crate::interpreter::Interpreter;
use crate::stderr::{self, Output};

/// How long a process that closed its sockets may take to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a fork may take. It takes milliseconds, after what the template imports first; a machine that swaps is
/// slower.
const FORK_TIMEOUT: Duration = Duration::from_secs(60);

/// A running template. The process ends with the last copy and the last executor.
#[derive(Debug, Clone)]
pub struct Template {
    orders: mpsc::UnboundedSender<Order>,
    /// What it has printed last, for errors.
    tail: stderr::Tail,
}

/// A process forked from a template. Dropping it kills the process and its whole process group.
#[derive(Debug)]
pub struct Forked {
    pid: u32,
    /// The wait status; closed without one if the template died, and the process with it.
    end: Option<oneshot::Receiver<i32>>,
    output: Output,
    /// The template lives as long as its executors.
    _template: Template,
}

#[derive(Debug)]
struct Order {
    descriptors: [OwnedFd; 3],
    reply: oneshot::Sender<Newborn>,
}

/// A process id, and where its end will be told.
type Newborn = (u32, oneshot::Receiver<i32>);

impl Template {
    /// Starts a template and waits until it has said who it is; it imports what it needs while others go on. Gives
    /// its first message too.
    ///
    /// # Errors
    /// If the interpreter cannot be used; the text names it.
    pub async fn start(
        interpreter: &Interpreter,
        settings: &ChildSettings,
    ) -> Result<(Self, Vec<Bytes>), ChildError> {
        let (mut child, mut connection) = Child::start(interpreter, settings).await?;
        let about = tokio::time::timeout(settings.start_timeout, connection.reader.read()).await;
        let Ok(Ok(about)) = about else {
            return Err(ChildError::Ended {
                interpreter: interpreter.to_string(),
                status: child.ended().await,
                output: child.output(),
            });
        };
        let (orders, ordered) = mpsc::unbounded_channel();
        let template = Self {
            orders,
            tail: child.tail(),
        };
        tokio::spawn(supervise(child, connection, ordered));
        Ok((template, about))
    }

    /// Forks a process. Gives it, its socket for tasks and its control socket.
    ///
    /// # Errors
    /// If the template has died, does not answer in time, or descriptors are short.
    pub async fn fork(&self) -> io::Result<(Forked, Connection, Connection)> {
        let (tasks, their_tasks) = StdUnixStream::pair()?;
        let (control, their_control) = StdUnixStream::pair()?;
        let (output, their_output) = io::pipe()?;
        let (reply, newborn) = oneshot::channel();
        let descriptors = [
            their_tasks.into(),
            their_control.into(),
            their_output.into(),
        ];
        let died = || {
            let output = self.tail.text();
            let colon = if output.is_empty() {
                ""
            } else {
                "; its last output was:\n"
            };
            io::Error::other(format!(
                "the template of executors has ended{colon}{output}"
            ))
        };
        self.orders
            .send(Order { descriptors, reply })
            .map_err(|_| died())?;
        let newborn = tokio::time::timeout(FORK_TIMEOUT, newborn).await;
        let (pid, end) = newborn
            .map_err(|_| io::Error::other("the template of executors does not answer"))?
            .map_err(|_| died())?;
        let connection = |socket: StdUnixStream| {
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket).map(Connection::new)
        };
        let forked = Forked {
            pid,
            end: Some(end),
            output: stderr::watch(output.into(), "executor", pid)?,
            _template: self.clone(),
        };
        Ok((forked, connection(tasks)?, connection(control)?))
    }
}

impl Forked {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The last lines that the process has printed.
    pub fn output(&self) -> String {
        self.output.tail.text()
    }

    /// Waits a moment for a process that has closed its sockets to end, kills it if it does not, and says how it
    /// ended: `exit status: 3`, `signal: 11 (SIGSEGV)`.
    pub async fn ended(&mut self) -> String {
        let Some(mut end) = self.end.take() else {
            return "killed".to_owned();
        };
        let status = match tokio::time::timeout(END_TIMEOUT, &mut end).await {
            Ok(status) => status,
            Err(_) => {
                kill_group(self.pid);
                end.await
            }
        };
        self.output.finish().await;
        status.map_or_else(
            |_| "the template of executors died, and its executors with it".to_owned(),
            |status| ExitStatus::from_raw(status).to_string(),
        )
    }

    /// Kills the process group; [`ended`](Self::ended) says when it is gone.
    pub fn kill(&self) {
        if self.end.is_some() {
            kill_group(self.pid);
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Passes orders on, and what the template says to those who wait for it, until nobody holds a copy of it or it dies.
async fn supervise(
    child: Child,
    mut connection: Connection,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut asked = VecDeque::new();
    let mut living: HashMap<u32, oneshot::Sender<i32>> = HashMap::new();
    let why = loop {
        tokio::select! {
            order = orders.recv() => {
                let Some(Order { descriptors, reply }) = order else { break None };
                let [tasks, control, output] = &descriptors;
                if let Err(error) = connection.writer.pass_fds([tasks.as_fd(), control.as_fd(), output.as_fd()]).await {
                    break Some(error);
                }
                asked.push_back(reply);
            }
            frames = connection.reader.read() => {
                match frames.and_then(|frames| Ok(read_news(&frames)?)) {
                    Ok(News::Forked(pid)) => {
                        let (end, receiver) = oneshot::channel();
                        living.insert(pid, end);
                        if let Some(Err(_)) = asked.pop_front().map(|reply: oneshot::Sender<Newborn>| reply.send((pid, receiver))) {
                            kill_group(pid);
                        }
                    }
                    Ok(News::Ended(pid, status)) => {
                        if let Some(end) = living.remove(&pid) {
                            // Whoever no longer waits does not want to know.
                            let _ = end.send(status);
                        }
                    }
                    Err(error) => break Some(error),
                }
            }
        }
    };
    if let Some(error) = why {
        tracing::error!(error = %crate::with_causes(&error), output = child.output(), "the template of executors is lost");
    }
}

enum News {
    Forked(u32),
    Ended(u32, i32),
}

fn read_news(frames: &[Bytes]) -> Result<News, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    let (mut op, mut pid, mut status) = (String::new(), 0, 0);
    for _ in 0..r.map()? {
        match r.str()? {
            "op" => op = r.str()?.to_owned(),
            "pid" => pid = r.uint()?,
            "status" => status = r.uint()?,
            _ => r.skip()?,
        }
    }
    let pid = u32::try_from(pid).unwrap_or_default();
    Ok(match op.as_str() {
        "forked" => News::Forked(pid),
        _ => News::Ended(pid, i32::try_from(status).unwrap_or_default()),
    })
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Io(error) => error,
            other => Self::other(other),
        }
    }
}
