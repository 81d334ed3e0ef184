//! The stream between a client and the scheduler (`register-client` and after).

use bytes::Bytes;

use crate::wire::{KeySet, Omit, Pairs, Seconds};
use crate::{Key, Payload, Value};

wire_struct! {
    /// A graph to compute. The expression is a pickle that only Python can open.
    pub struct UpdateGraph {
        /// The pickled expression.
        expr_ser: Payload,
        /// Keys that the client wants.
        keys: KeySet,
        /// Order of the tasks, smaller first; computed by the receiver where it is nil.
        internal_priority: Option<Pairs<Key, i64>>,
        /// The task from inside which the graph was submitted.
        submitting_task: Option<Key>,
        /// Graphs submitted within this time share a generation. Unit: seconds.
        fifo_timeout: Seconds = Seconds(Some(0.0)),
        /// Which tasks are actors: a bool for all wanted keys, or keys.
        actors: Value,
        /// Source lines for the dashboard, a pickle.
        code: Value,
        /// `dask.annotate` of the call, a pickle of a dict.
        annotations: Value,
        /// Names of the collections, a pickle of a dict.
        span_metadata: Value,
        /// Set by older clients; newer ones put `priority` into the annotations.
        user_priority: Omit<Value>,
    }
    /// A graph of native tasks to compute, which no interpreter need open.
    pub struct UpdateNativeGraph {
        /// The tasks, in any order.
        tasks: Vec<NativeNode>,
        /// Keys that the client wants.
        keys: KeySet,
        /// Graphs submitted within this time share a generation. Unit: seconds.
        fifo_timeout: Seconds = Seconds(Some(0.0)),
    }
    /// One task of a native graph.
    pub struct NativeNode {
        /// Its key.
        key: Key,
        /// Kernel and parameters in msgpack; only workers read it.
        kernel: Bytes,
        /// Keys of the kernel's arguments in order, in this graph or known from an earlier one, native or not.
        inputs: Vec<Key>,
        /// Addresses, names or hosts of workers where alone it may run.
        workers: Omit<Vec<Value>>,
        /// How often it is run again after an error.
        retries: Omit<u64>,
    }
    /// Keys, and the client in whose name something is done to them.
    pub struct ClientKeys {
        /// The keys.
        keys: KeySet,
        /// Another name than that of the stream, such as `fire-and-forget`.
        client: Omit<String>,
    }
    /// Stop computing keys.
    pub struct CancelKeys {
        /// The keys.
        keys: KeySet,
        /// Also if other clients want them.
        force: bool = false,
        /// Shown in `CancelledError`.
        reason: Option<String>,
        /// Shown in `CancelledError`.
        msg: Option<String>,
    }
    /// Tell the state of a key again.
    pub struct ReportKey {
        /// The key.
        key: Key,
    }
    /// Data that the client put on workers by itself.
    pub struct UpdateData {
        /// Addresses that hold each key.
        who_has: Pairs<Key, Vec<String>>,
        /// Bytes of each key.
        nbytes: Pairs<Key, u64>,
        /// The client that wants them.
        client: Omit<String>,
    }
    /// A message without fields.
    pub struct Empty {}
    /// A topic of events.
    pub struct Topic {
        /// Its name.
        topic: String,
        /// The client.
        client: Omit<String>,
    }
    /// Marks the point of the stream that a publish call waits for.
    pub struct PublishFlush {
        /// Names the call.
        uid: String,
    }
    /// An event, variable or queue by name; as in Python, anything hashable may be one.
    pub struct NamedByKey {
        /// The name.
        name: Key,
    }
    /// Something by name, such as a plugin.
    pub struct Named {
        /// The name.
        name: String,
    }
    /// The client has taken a future out of a variable.
    pub struct VariableFutureReceived {
        /// The variable.
        name: Key,
        /// The future's key.
        key: Key,
        /// The token given by `variable_get`.
        token: String,
    }
    /// The client has taken a future out of a queue.
    pub struct QueueFutureRelease {
        /// The queue.
        name: Key,
        /// The future's key.
        key: Key,
    }
}

wire_ops! {
    /// Client → scheduler, on the client's stream.
    pub enum FromClient {
        /// Compute a graph.
        "update-graph" => UpdateGraph(UpdateGraph),
        /// Compute a graph of native tasks. Of oxidask alone.
        "oxidask-update-native-graph" => UpdateNativeGraph(UpdateNativeGraph),
        /// Interest in keys ends.
        "client-releases-keys" => ClientReleasesKeys(ClientKeys),
        /// Interest in keys begins.
        "client-desires-keys" => ClientDesiresKeys(ClientKeys),
        /// Stop computing keys.
        "cancel-keys" => CancelKeys(CancelKeys),
        /// Report the state of a key again.
        "report-key" => ReportKey(ReportKey),
        /// Data put on workers directly.
        "update-data" => UpdateData(UpdateData),
        /// Sign of life.
        "heartbeat-client" => HeartbeatClient(Empty),
        /// The client leaves.
        "close-client" => CloseClient(Empty),
        /// The stream ends.
        "close-stream" => CloseStream(Empty),
        /// Events of a topic are wanted.
        "subscribe-topic" => SubscribeTopic(Topic),
        /// Events of a topic are no longer wanted.
        "unsubscribe-topic" => UnsubscribeTopic(Topic),
        /// Earlier messages of the stream have arrived.
        "publish_flush_batched_send" => PublishFlush(PublishFlush),
        /// A variable is deleted.
        "variable_delete" => VariableDelete(NamedByKey),
        /// A variable's future has been taken over.
        "variable-future-received-confirm" => VariableFutureReceived(VariableFutureReceived),
        /// A variable's future has been taken over, as clients before 2024.12 say it.
        "variable-future-release" => VariableFutureRelease(VariableFutureReceived),
        /// A queue's future has been taken over.
        "queue-future-release" => QueueFutureRelease(QueueFutureRelease),
        /// A `Queue` object is gone.
        "queue_release" => QueueRelease(NamedByKey),
    }
}

wire_struct! {
    /// The stream is open.
    pub struct StreamStart {
        /// A warning to show, or an empty text.
        warning: String,
        /// An error to raise, or an empty text.
        error: String,
    }
    /// A result is ready.
    pub struct KeyInMemory {
        /// The key.
        key: Key,
        /// Pickled class of the result.
        type_ as "type": Omit<Bytes>,
        /// Addresses that hold it.
        workers: Omit<Vec<String>>,
    }
    /// A task failed.
    pub struct TaskErredReport {
        /// The key.
        key: Key,
        /// The exception: a payload, a pickle in bytes, or a text that becomes an `Exception`.
        exception: Value,
        /// The traceback.
        traceback: Value,
    }
    /// One key.
    pub struct KeyOnly {
        /// The key.
        key: Key,
    }
    /// Keys that will not be computed.
    pub struct CancelledKeys {
        /// The keys.
        keys: Vec<Key>,
        /// Why.
        reason: Omit<String>,
        /// Text of the error.
        msg: Omit<String>,
    }
    /// Something happened in a topic.
    pub struct EventReport {
        /// The topic.
        topic: String,
        /// Unix time and message.
        event: (f64, Value),
    }
    /// How often the client shall give a sign of life.
    pub struct HeartbeatInterval {
        /// Unit: seconds.
        interval: f64,
    }
    /// An error to log.
    pub struct ErrorReport {
        /// The text.
        exception: Value,
    }
}

wire_ops! {
    /// Scheduler → client, on the client's stream.
    pub enum ToClient {
        /// First message of the stream, alone in its array.
        "stream-start" => StreamStart(StreamStart),
        /// A result is ready.
        "key-in-memory" => KeyInMemory(KeyInMemory),
        /// A task failed.
        "task-erred" => TaskErred(TaskErredReport),
        /// A result was lost and will be computed again.
        "lost-data" => LostData(KeyOnly),
        /// A failed task is tried again.
        "task-retried" => TaskRetried(KeyOnly),
        /// Keys will not be computed.
        "cancelled-keys" => CancelledKeys(CancelledKeys),
        /// The cluster was restarted: all futures are cancelled.
        "restart" => Restart(Empty),
        /// An event of a topic.
        "event" => Event(EventReport),
        /// How often to give a sign of life.
        "adjust-heartbeat-interval" => AdjustHeartbeatInterval(HeartbeatInterval),
        /// An error to log.
        "error" => Error(ErrorReport),
        /// The stream ends.
        "stream-closed" => StreamClosed(Empty),
        /// The stream ends.
        "close" => Close(Empty),
    }
}
