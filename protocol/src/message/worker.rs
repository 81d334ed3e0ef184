//! The stream between a worker and the scheduler (`register-worker` and after).

use bytes::Bytes;

use super::client::Empty;
use crate::wire::{Name, Omit, Pairs};
use crate::{Key, Payload, Value};

wire_struct! {
    /// First message of a worker. The answer is a [`RegisterWorkerReply`], a bare map.
    pub struct RegisterWorker {
        /// False: the answer comes on what is a stream from here on.
        reply: bool = false,
        /// Address where the worker listens, its identity.
        address: String,
        /// Its state, usually `init`.
        status: String,
        /// Tasks that it runs at once.
        nthreads: u64,
        /// Its name: text, a number, or its address.
        name: Name,
        /// Its clock. Unit: Unix seconds.
        now: f64 = 0.0,
        /// Amounts of the resources it offers.
        resources: Pairs<String, f64> = Pairs(Vec::new()),
        /// Bytes of memory that it may use; nil without limit.
        memory_limit: Option<u64>,
        /// Folder for its files.
        local_directory: Omit<String>,
        /// Ports of its HTTP services.
        services: Value,
        /// Address of its nanny.
        nanny: Option<String>,
        /// Its process id.
        pid: Value,
        /// Versions of its Python packages.
        versions: Value,
        /// First measurements; see [`HeartbeatWorker::metrics`].
        metrics: Value,
        /// What its plugins add to its identity.
        extra: Value,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
        /// Names the process.
        server_id: Omit<String>,
    }
    /// The answer to [`RegisterWorker`].
    pub struct RegisterWorkerReply {
        /// `OK`.
        status: String,
        /// The scheduler's clock. Unit: Unix seconds.
        time: f64,
        /// Unit: seconds.
        heartbeat_interval as "heartbeat-interval": f64,
        /// Pickled plugins by name.
        worker_plugins as "worker-plugins": Pairs<String, Bytes>,
        /// A warning to log, or an empty text.
        warning: Omit<String>,
        /// An error to log, or an empty text.
        error: Omit<String>,
    }
    /// Sign of life with measurements (a request, not on the stream).
    pub struct HeartbeatWorker {
        /// The worker.
        address: String,
        /// Its clock. Unit: Unix seconds.
        now: f64 = 0.0,
        /// Memory, CPU, bandwidth, counts of tasks.
        metrics: Value,
        /// Seconds that each executing task has run.
        executing: Pairs<Key, f64> = Pairs(Vec::new()),
        /// What extensions send along.
        extensions: Value,
    }
    /// Run a task.
    ///
    /// A stock worker takes exactly these fields; [`duration`](Self::duration) only up to distributed 2024.12.
    pub struct ComputeTask {
        /// The key.
        key: Key,
        /// Names this attempt; results of other attempts are ignored.
        run_id: i64,
        /// Smaller runs first.
        priority: (PriorityPart, PriorityPart, PriorityPart),
        /// Names the stimulus in stories.
        stimulus_id: String,
        /// Holders of each direct dependency, at least one.
        who_has: Pairs<Key, Vec<String>>,
        /// Bytes of each direct dependency.
        nbytes: Pairs<Key, u64>,
        /// The pickled graph node.
        run_spec: Payload,
        /// Resources that it needs while running.
        resource_restrictions: Option<Pairs<String, f64>>,
        /// Whether the result stays as an actor.
        actor: bool,
        /// Annotations of the task.
        annotations: Value,
        /// The span it belongs to.
        span_id: Option<String>,
        /// Expected seconds, for workers up to distributed 2024.12.
        duration: Omit<f64>,
    }
    /// Keys, with the stimulus.
    pub struct Keys {
        /// The keys.
        keys: Vec<Key>,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
    /// Fetch copies of keys from other workers.
    pub struct AcquireReplicas {
        /// Holders of each key.
        who_has: Pairs<Key, Vec<String>>,
        /// Bytes of each key.
        nbytes: Pairs<Key, u64>,
        /// Names the stimulus in stories.
        stimulus_id: String,
    }
    /// Where keys are now.
    pub struct RefreshWhoHas {
        /// Holders of each key.
        who_has: Pairs<Key, Vec<String>>,
        /// Names the stimulus in stories.
        stimulus_id: String,
    }
    /// A key, with the stimulus.
    pub struct KeyStimulus {
        /// The key.
        key: Key,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
    /// A worker's state.
    pub struct StatusChange {
        /// `running`, `paused`, `closing_gracefully`, …
        status: String,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
    /// A worker is gone.
    pub struct RemoveWorker {
        /// Its address.
        worker: String,
        /// Names the stimulus in stories.
        stimulus_id: String,
    }
    /// Shut down.
    pub struct Close {
        /// Why.
        reason: Omit<String>,
    }
    /// A shuffle has ended or failed.
    pub struct ShuffleFail {
        /// The shuffle.
        shuffle_id: String,
        /// Its attempt.
        run_id: i64,
        /// Why.
        message: String,
    }
}

/// One part of a priority, written as an int where it is whole.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Default)]
pub struct PriorityPart(pub f64);

impl crate::wire::Decode for PriorityPart {
    fn decode(r: &mut crate::msgpack::Reader<'_>) -> Result<Self, crate::DecodeError> {
        let at = r.position();
        let part = r.f64()?;
        if part.is_nan() {
            // It has no place in any order.
            return r.fail_at(at, crate::DecodeErrorKind::OutOfRange("priority"));
        }
        Ok(Self(part))
    }
}

impl crate::wire::Encode for PriorityPart {
    fn encode(&self, w: &mut crate::msgpack::Writer) {
        if self.0.fract() == 0.0 && self.0.abs() < 9e15 {
            w.int(self.0 as i64);
        } else {
            w.f64(self.0);
        }
    }
}

wire_ops! {
    /// Scheduler → worker, on the worker's stream.
    pub enum ToWorker {
        /// Run a task.
        "compute-task" => ComputeTask(ComputeTask),
        /// Forget keys.
        "free-keys" => FreeKeys(Keys),
        /// Drop copies of keys.
        "remove-replicas" => RemoveReplicas(Keys),
        /// Fetch copies of keys.
        "acquire-replicas" => AcquireReplicas(AcquireReplicas),
        /// Give a task back if it has not begun.
        "steal-request" => StealRequest(KeyStimulus),
        /// Where keys are now.
        "refresh-who-has" => RefreshWhoHas(RefreshWhoHas),
        /// Stop a task (not sent by 2026.8).
        "cancel-compute" => CancelCompute(KeyStimulus),
        /// Change state.
        "worker-status-change" => StatusChange(StatusChange),
        /// Another worker is gone.
        "remove-worker" => RemoveWorker(RemoveWorker),
        /// Shut down, nanny included.
        "close" => Close(Close),
        /// The stream ends.
        "close-stream" => CloseStream(Empty),
        /// A shuffle has ended or failed.
        "shuffle-fail" => ShuffleFail(ShuffleFail),
    }
}

wire_struct! {
    /// When something was done for a task.
    pub struct StartStop {
        /// `compute`, `transfer`, `disk-read`, `disk-write` or `deserialize`.
        action: String,
        /// Unit: Unix seconds.
        start: f64,
        /// Unit: Unix seconds.
        stop: f64,
        /// Where data came from.
        source: Omit<String>,
    }
    /// A task has a result.
    pub struct TaskFinished {
        /// The key.
        key: Key,
        /// The attempt, as in `compute-task`.
        run_id: i64,
        /// `OK`.
        status: Omit<String>,
        /// Bytes of the result as Python's `sizeof` estimates them.
        nbytes: Option<u64>,
        /// Pickled class of the result.
        type_ as "type": Option<Bytes>,
        /// Name of that class.
        typename: String = String::new(),
        /// What the task said about itself.
        metadata: Value,
        /// Thread that ran it.
        thread: Value,
        /// What was done when.
        startstops: Option<Vec<StartStop>>,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
    /// A task raised an exception.
    pub struct TaskErred {
        /// The key.
        key: Key,
        /// The attempt, as in `compute-task`.
        run_id: i64,
        /// `error`.
        status: Omit<String>,
        /// The pickled exception in a payload.
        exception: Value,
        /// The pickled traceback in a payload, or nil.
        traceback: Value,
        /// The exception as text.
        exception_text: String = String::new(),
        /// The traceback as text.
        traceback_text: String = String::new(),
        /// Thread that ran it.
        thread: Value,
        /// What was done when.
        startstops: Option<Vec<StartStop>>,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
    /// A task left its slot and goes on (`secede`).
    pub struct LongRunning {
        /// The key.
        key: Key,
        /// The attempt; absent from workers before 2025.2.
        run_id: Omit<i64>,
        /// Seconds that it ran so far.
        compute_duration: Option<f64>,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
    /// Answer to a steal request.
    pub struct StealResponse {
        /// The key.
        key: Key,
        /// The worker's state of the task; nil if it does not know it.
        state: Option<String>,
        /// The stimulus of the request.
        stimulus_id: String,
    }
    /// An event to log.
    pub struct LogEvent {
        /// The topic, or several.
        topic: Value,
        /// The message.
        msg: Value,
    }
}

wire_ops! {
    /// Worker → scheduler, on the worker's stream.
    pub enum FromWorker {
        /// A result is there.
        "task-finished" => TaskFinished(TaskFinished),
        /// A task raised an exception.
        "task-erred" => TaskErred(TaskErred),
        /// A task asks to be placed anew.
        "reschedule" => Reschedule(KeyStimulus),
        /// A task left its slot.
        "long-running" => LongRunning(LongRunning),
        /// Copies were fetched.
        "add-keys" => AddKeys(Keys),
        /// A key is no longer here.
        "release-worker-data" => ReleaseWorkerData(KeyStimulus),
        /// Where are these keys?
        "request-refresh-who-has" => RequestRefreshWhoHas(Keys),
        /// Answer to a steal request.
        "steal-response" => StealResponse(StealResponse),
        /// The worker changed state.
        "worker-status-change" => StatusChange(StatusChange),
        /// An event to log.
        "log-event" => LogEvent(LogEvent),
        /// Sign of life of the stream.
        "keep-alive" => KeepAlive(Empty),
        /// The stream ends.
        "close-stream" => CloseStream(Empty),
    }
}
