//! The pool of graph helpers, as the rest of the scheduler sees it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};

use super::helper;
use super::queue::{Pending, Queues};
use super::{GraphEvent, MaterialiseRequest};

/// The events of one request, in order; see [`GraphEvent`].
pub type GraphEvents = mpsc::UnboundedReceiver<GraphEvent>;

/// How graphs are taken in.
#[derive(Debug, Clone)]
pub struct IntakeConfig {
    /// The interpreter as named on the command line; see [`oxidask_python::Interpreter::find`].
    pub python: Option<PathBuf>,
    /// Helper processes that may work at the same time.
    pub helpers: usize,
    /// Helper processes on top of that, for clients that wait while others' graphs take long.
    pub extra_helpers: usize,
    /// How long one graph may take (`oxidask.graph.timeout`).
    pub timeout: Duration,
    /// Memory of one helper (`oxidask.graph.memory-limit`). Unit: bytes; 0 for no limit.
    pub memory_limit: u64,
    /// How long a helper that has nothing to do is kept; one is kept for ever.
    pub idle_timeout: Duration,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            python: None,
            helpers: cores.min(2),
            extra_helpers: 6,
            timeout: Duration::from_secs(600),
            memory_limit: oxidask_python::default_memory_limit(),
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// Turns graphs of Python clients into nodes.
///
/// Cheap to make and to clone: no process runs before the first request or [`warm`](Self::warm). Dropping the
/// last clone ends all helpers; requests that wait then fail.
#[derive(Debug, Clone)]
pub struct GraphIntake {
    guard: Arc<Guard>,
}

/// Ends the helpers when the last intake is gone; helpers hold only [`Shared`].
#[derive(Debug)]
struct Guard {
    shared: Arc<Shared>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_waiters();
    }
}

/// What the intake and its helpers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: IntakeConfig,
    state: Mutex<State>,
    /// Told when a client waits, when a leased client has a new request, and at the end.
    pub(super) wake: Notify,
    /// Whether the first helper has started, or could not.
    pub(super) tried: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queues: Queues,
    /// Helper tasks, with or without a running process.
    pub(super) helpers: usize,
    /// Helper tasks that wait for a client.
    pub(super) idle: usize,
    /// The scheduler plugins that each helper must have started, with the pickle of each.
    pub(super) plugins: Vec<(String, Bytes)>,
    /// Counts changes of `plugins`.
    pub(super) plugin_changes: u64,
    /// Packages of the interpreter that the helpers run, once one has.
    pub(super) versions: Vec<(String, String)>,
    pub(super) closed: bool,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a helper task if clients wait and none is idle. `extra`: beyond the usual number.
    pub(super) fn add_helper(self: &Arc<Self>, extra: bool) {
        let most = self.config.helpers.max(1) + if extra { self.config.extra_helpers } else { 0 };
        {
            let mut state = self.state();
            if state.idle > 0 || state.helpers >= most || state.closed {
                return;
            }
            state.helpers += 1;
        }
        tokio::spawn(helper::run(Arc::clone(self)));
    }
}

impl GraphIntake {
    /// An intake whose helpers are started when they are needed.
    pub fn new(config: IntakeConfig) -> Self {
        let shared = Shared {
            config,
            state: Mutex::default(),
            wake: Notify::new(),
            tried: watch::Sender::new(false),
        };
        Self {
            guard: Arc::new(Guard {
                shared: Arc::new(shared),
            }),
        }
    }

    /// Queues a graph behind the earlier ones of the same client. Must be called inside a tokio runtime.
    ///
    /// Dropping the receiver gives the request up if it has not begun.
    pub fn submit(&self, client: &str, request: MaterialiseRequest) -> GraphEvents {
        let (events, receiver) = mpsc::unbounded_channel();
        let shared = &self.guard.shared;
        let pending = Pending {
            request,
            events,
            suspect: false,
        };
        let waits = shared.state().queues.push(client, pending);
        if waits {
            shared.add_helper(false);
        }
        // A helper that serves this client listens too.
        shared.wake.notify_waiters();
        receiver
    }

    /// Starts one helper if there is none, so that the first graph need not wait for Python to start.
    pub fn warm(&self) {
        if self.guard.shared.state().helpers == 0 {
            self.guard.shared.add_helper(false);
        }
    }

    /// Waits until the first helper has started, or could not. Starts it if there is none.
    pub async fn ready(&self) {
        self.warm();
        let mut tried = self.guard.shared.tried.subscribe();
        // The sender lives as long as the intake, which this borrows.
        let _ = tried.wait_for(|tried| *tried).await;
    }

    /// Packages of the interpreter, by name; empty before it has run.
    pub fn versions(&self) -> Vec<(String, String)> {
        self.guard.shared.state().versions.clone()
    }

    /// Has a pickled scheduler plugin started (`None`: taken away) in every helper before its next graph, since
    /// graphs may need what it sets up: `Client.upload_file` puts modules on the path this way.
    pub fn set_plugin(&self, name: &str, pickle: Option<Bytes>) {
        let mut state = self.guard.shared.state();
        state.plugins.retain(|(known, _)| known != name);
        if let Some(pickle) = pickle {
            state.plugins.push((name.to_owned(), pickle));
        }
        state.plugin_changes += 1;
    }
}
