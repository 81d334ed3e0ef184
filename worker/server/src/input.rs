//! All that reaches the driver.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use oxidask_protocol::{Key, Payload, native::NativeTask};
use tokio::sync::{
    mpsc::{Receiver, Sender, channel},
    oneshot,
};

use crate::{
    executor::{
        Newborn,
        native::NativeOutcome,
        wire::{ControlMessage, TaskMessage},
    },
    shared::Shared,
    store::SpillFile,
    stream::StreamMessage,
    transfer::TransferOutcome,
};

/// Something for the driver to deal with.
pub(crate) enum Input {
    /// A batch of the scheduler's stream.
    Scheduler(Vec<StreamMessage>),
    /// The scheduler's stream ended.
    SchedulerLost(String),
    /// The executor reports runs.
    Runs {
        generation: u64,
        message: TaskMessage,
    },
    /// The executor says something else.
    Control {
        generation: u64,
        message: ControlMessage,
    },
    /// The executor's process ended.
    ExecutorEnded {
        generation: u64,
        status: String,
        output: String,
    },
    /// Values that a task needs and another executor has are in this process's hands, or will not come.
    InputsSealed { id: u64 },
    /// The arguments of a native task are there; none if they will not come.
    NativeReady {
        id: u64,
        task: NativeTask,
        values: Option<GetDataReply>,
    },
    /// A native task ended.
    Native { id: u64, outcome: NativeOutcome },
    /// A new executor is there to be put to work, or could not be had.
    ExecutorStarted {
        executor: usize,
        started: anyhow::Result<Box<Newborn>>,
    },
    /// A transfer from a peer ended.
    Transfer {
        worker: Arc<str>,
        outcome: TransferOutcome,
    },
    /// A value was written to disk, or could not be.
    Spilled {
        id: u64,
        written: std::io::Result<Arc<SpillFile>>,
    },
    /// A spilled value was read for a peer.
    Unspilled {
        id: u64,
        read: std::io::Result<Payload>,
    },
    /// A peer or client asks.
    Request(Request),
    /// Come back with nothing in memory.
    Restart,
    /// Stop: gracefully, or at once.
    Stop { graceful: bool, reason: String },
}

/// What a connection asks of the driver, with where the answer goes.
pub(crate) enum Request {
    /// Values for a peer; none if too many are being served.
    GetData {
        keys: Vec<Key>,
        reply: oneshot::Sender<GetDataReply>,
    },
    /// Take in these values.
    UpdateData {
        data: Vec<(Key, Payload)>,
        stimulus_id: String,
        reply: oneshot::Sender<Vec<(Key, u64)>>,
    },
    /// As the stream's `free-keys`.
    FreeKeys { keys: Vec<Key>, stimulus_id: String },
    /// An operation that Python answers: the message goes there as it came.
    Relay {
        op: String,
        frames: Vec<Bytes>,
        reply: oneshot::Sender<Result<Vec<Bytes>, String>>,
    },
    /// An operation that the driver answers from what it knows.
    Query {
        query: Query,
        reply: oneshot::Sender<oxidask_protocol::Value>,
    },
}

/// Questions about the driver's state.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    Identity,
    Keys,
    Metrics {
        /// For a heartbeat: counts since the last one start anew.
        take: bool,
    },
    Executing,
    /// What the worker has done since its start.
    Work,
    Extensions,
    Story(Vec<Key>),
    State,
}

/// The answer to `get_data`.
pub(crate) enum GetDataReply {
    /// The values that are here. The guard counts the transfer until it is dropped.
    Data(Vec<Shared>, ServeGuard),
    /// Too many transfers run.
    Busy,
}

/// Counts a transfer to a peer as running until it is dropped.
pub(crate) struct ServeGuard(pub(crate) Arc<AtomicUsize>);

impl Drop for ServeGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the inputs of the driver of the moment are sent: it changes when the worker restarts.
#[derive(Clone)]
pub(crate) struct CurrentInputs(Arc<RwLock<Inputs>>);

impl CurrentInputs {
    pub(crate) fn new(inputs: Inputs) -> Self {
        Self(Arc::new(RwLock::new(inputs)))
    }

    pub(crate) fn set(&self, inputs: Inputs) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = inputs;
    }

    pub(crate) fn get(&self) -> Inputs {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Inputs that may wait for the driver. Whoever brings more waits until it has caught up.
const WAITING: usize = 1024;

/// Where inputs are sent.
#[derive(Clone)]
pub(crate) struct Inputs(Sender<Input>);

impl Inputs {
    /// A new queue: where inputs are sent, and where the driver takes them.
    pub(crate) fn channel() -> (Self, Receiver<Input>) {
        let (sender, receiver) = channel(WAITING);
        (Self(sender), receiver)
    }

    /// Sends an input, once there is room for it. Lost if the driver has ended: then the process ends too.
    ///
    /// Never to be awaited by the driver itself, which makes the room.
    pub(crate) async fn send(&self, input: Input) {
        let _ = self.0.send(input).await;
    }

    /// As [`send`](Self::send), from a thread that may block.
    pub(crate) fn send_blocking(&self, input: Input) {
        let _ = self.0.blocking_send(input);
    }
}
