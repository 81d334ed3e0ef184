//! Requests to a scheduler, and what they carry.

use bytes::Bytes;

use super::{
    EventWait, MultiLockAcquire, MultiLockRelease, PublishNames, PublishPut, QueueCreate, QueueGet,
    QueuePut, SemaphoreAcquire, SemaphoreName, SemaphoreRefresh, SemaphoreRegister,
    SemaphoreRelease, ShuffleBarrier, ShuffleGet, ShuffleGetOrCreate, ShuffleRestrictTask,
    VariableGet, VariableSet,
};
use crate::message::client::{Empty, Named, NamedByKey, Topic, UpdateData};
use crate::message::worker::{HeartbeatWorker, RegisterWorker};
use crate::wire::{Name, Omit, Pairs, Seconds};
use crate::{Key, Payload, Value};

wire_struct! {
    /// First message of a client: the connection becomes its stream.
    pub struct RegisterClient {
        /// Its id, `Client-…`.
        client: String,
        /// Versions of its Python packages.
        versions: Value,
    }
    /// Who is there?
    pub struct Identity {
        /// Workers to list: −1 or absent for all, 0 for none.
        n_workers: Omit<i64>,
    }
    /// Fetch results through the scheduler.
    pub struct Gather {
        /// The keys.
        keys: Vec<Key>,
        /// Serialisation families allowed for the values.
        serializers: Omit<Value>,
    }
    /// Put data on workers.
    pub struct Scatter {
        /// The values.
        data: Pairs<Key, Payload>,
        /// Workers that may take them.
        workers: Option<Vec<Name>>,
        /// The client that wants them.
        client: Option<String>,
        /// Copies: a bool for all, or a number.
        broadcast: Value,
        /// Time to wait for a worker.
        timeout: Seconds = Seconds(Some(2.0)),
    }
    /// Keys to ask about, or all.
    pub struct MaybeKeys {
        /// The keys.
        keys: Option<Vec<Key>>,
    }
    /// Workers to ask about, or all.
    pub struct MaybeWorkers {
        /// Addresses or names.
        workers: Option<Vec<Name>>,
    }
    /// Sizes of results.
    pub struct Nbytes {
        /// The keys.
        keys: Option<Vec<Key>>,
        /// Sum by prefix.
        summary: bool = true,
    }
    /// Call trees of running tasks.
    pub struct Profile {
        /// Prefix of the tasks.
        key: Value,
        /// Workers to ask.
        workers: Value,
        /// One tree instead of one per worker.
        merge_workers: bool = true,
        /// Unit: Unix seconds.
        start: Value,
        /// Unit: Unix seconds.
        stop: Value,
        /// Of the workers' event loops.
        server: bool = false,
        /// Of the scheduler.
        scheduler: bool = false,
    }
    /// Last lines of the log.
    pub struct Logs {
        /// How many.
        n: Option<i64>,
    }
    /// Last lines of the log of workers.
    pub struct WorkerLogs {
        /// How many.
        n: Option<i64>,
        /// Workers to ask.
        workers: Option<Vec<Name>>,
        /// Ask the nannies instead.
        nanny: bool = false,
    }
    /// Log an event.
    pub struct LogEventRequest {
        /// The topic, or several.
        topic: Value,
        /// The message.
        msg: Value,
    }
    /// Logged events.
    pub struct Events {
        /// The topic, or all.
        topic: Option<String>,
    }
    /// Versions of the packages.
    pub struct Versions {
        /// Further packages.
        packages: Value,
    }
    /// Send a request to workers.
    pub struct Broadcast {
        /// The request.
        msg: Value,
        /// Addresses or names; all if nil.
        workers: Option<Vec<Name>>,
        /// Hosts whose workers are meant too.
        hosts: Option<Vec<String>>,
        /// Send to the nannies instead.
        nanny: bool = false,
        /// `raise`, `return`, `return_pickle` or `ignore`.
        on_error: String = String::from("raise"),
    }
    /// Send a request to one worker.
    pub struct Proxy {
        /// The request.
        msg: Value,
        /// Its address.
        worker: Name,
    }
    /// Run a function in the scheduler's Python process.
    pub struct RunFunction {
        /// The pickled function.
        function: Bytes,
        /// The pickled tuple of arguments.
        args: Omit<Bytes>,
        /// The pickled dict of arguments.
        kwargs: Omit<Bytes>,
        /// Wait for the result.
        wait: bool = true,
    }
    /// Move data between workers.
    pub struct Rebalance {
        /// The keys, or all.
        keys: Option<Vec<Key>>,
        /// The workers, or all.
        workers: Option<Vec<Name>>,
    }
    /// Make copies of data.
    pub struct Replicate {
        /// The keys.
        keys: Vec<Key>,
        /// Copies of each; one on every worker if nil.
        n: Option<u64>,
        /// Workers that may hold them.
        workers: Option<Vec<Name>>,
        /// Copies made from one copy at a time.
        branching_factor: u64 = 2,
        /// Drop copies beyond `n`.
        delete: bool = true,
    }
    /// Try failed tasks again.
    pub struct Retry {
        /// The keys.
        keys: Vec<Key>,
        /// The client.
        client: Omit<String>,
    }
    /// Forget everything and restart the workers.
    pub struct Restart {
        /// Time to wait for the workers.
        timeout: Seconds = Seconds(Some(30.0)),
        /// Wait until they are back.
        wait_for_workers: bool = true,
        /// Names the stimulus in stories.
        stimulus_id: String = String::from("restart"),
    }
    /// Restart some workers.
    pub struct RestartWorkers {
        /// Addresses or names.
        workers: Option<Vec<Name>>,
        /// Time to wait.
        timeout: Seconds = Seconds(Some(30.0)),
        /// `raise` or `return`.
        on_error: String = String::from("raise"),
        /// Names the stimulus in stories.
        stimulus_id: String = String::from("restart-workers"),
    }
    /// Take workers out of service, their data moved first; or choose them as [`WorkersToClose`] does.
    pub struct RetireWorkers {
        /// Addresses; clusters of `distributed.deploy` send names here, numbers too.
        workers: Option<Vec<Name>>,
        /// Names.
        names: Option<Vec<Name>>,
        /// Ask them to shut down.
        close_workers: bool = false,
        /// Forget them.
        remove: bool = true,
        /// Names the stimulus in stories.
        stimulus_id: String = String::from("retire-workers"),
        /// See [`WorkersToClose::memory_ratio`].
        memory_ratio: Option<f64>,
        /// See [`WorkersToClose::n`].
        n: Option<u64>,
        /// See [`WorkersToClose::key`].
        key: Value,
        /// See [`WorkersToClose::minimum`].
        minimum: Option<u64>,
        /// See [`WorkersToClose::target`].
        target: Option<u64>,
        /// See [`WorkersToClose::attribute`].
        attribute: Omit<String>,
    }
    /// Which workers could go?
    pub struct WorkersToClose {
        /// Memory limits of those that stay, over data held. Default 2.
        memory_ratio: Option<f64>,
        /// How many shall go.
        n: Option<u64>,
        /// A pickled callable that groups workers.
        key: Value,
        /// How many stay at least.
        minimum: Option<u64>,
        /// How many shall stay.
        target: Option<u64>,
        /// What of each worker to answer with.
        attribute: String = String::from("address"),
    }
    /// How many workers would be right?
    pub struct AdaptiveTarget {
        /// Time in which the present work should be done.
        target_duration: Seconds,
    }
    /// Metadata under a path of keys.
    pub struct GetMetadata {
        /// The path.
        keys: Vec<Value>,
        /// What to answer where there is none.
        default: Omit<Value>,
    }
    /// Metadata under a path of keys.
    pub struct SetMetadata {
        /// The path.
        keys: Vec<Value>,
        /// The value.
        value: Value,
    }
    /// A worker's resources change.
    pub struct SetResources {
        /// Its address.
        worker: String,
        /// The amounts.
        resources: Pairs<String, f64>,
    }
    /// Restrict tasks to workers.
    pub struct SetRestrictions {
        /// Addresses for each key.
        worker: Pairs<Key, Value>,
    }
    /// Tasks that have finished, for the task stream.
    pub struct GetTaskStream {
        /// Unix seconds, or a duration before now.
        start: Value,
        /// Unix seconds, or a duration before now.
        stop: Value,
        /// How many at most.
        count: Option<u64>,
        /// Index of the first.
        start_index: Omit<u64>,
    }
    /// Transitions of keys or of stimuli.
    pub struct GetStory {
        /// Keys or stimulus ids.
        keys_or_stimuli: Vec<Value>,
    }
    /// The whole state.
    pub struct GetClusterState {
        /// Parts to leave out.
        exclude: Value,
    }
    /// A plugin to install.
    pub struct RegisterPlugin {
        /// The pickled plugin.
        plugin: Bytes,
        /// Its name.
        name: Option<String>,
        /// Do nothing if the name exists.
        idempotent: Option<bool>,
    }
    /// One key.
    pub struct OneKey {
        /// The key.
        key: Key,
    }
    /// A stream of what a function finds out now and then.
    pub struct Feed {
        /// Pickled function called first, or nil.
        setup: Option<Bytes>,
        /// Pickled function called at every interval.
        function: Option<Bytes>,
        /// Pickled function called last, or nil.
        teardown: Option<Bytes>,
        /// Time between calls.
        interval: Seconds = Seconds(Some(1.0)),
    }
    /// Profiles over time.
    pub struct ProfileMetadata {
        /// Workers to ask, or all.
        workers: Option<Vec<Name>>,
        /// Unix seconds.
        start: Value,
        /// Unix seconds.
        stop: Value,
        /// Samples of one such interval are counted together.
        profile_cycle_interval: Seconds = Seconds(None),
    }
    /// A report of what was done since a moment.
    pub struct PerformanceReport {
        /// Unix seconds.
        start: f64 = 0.0,
        /// Measurements of the system to pass over.
        last_count: Value,
        /// Source code to show.
        code: String = String::new(),
        /// How the page gets its scripts, as bokeh has it.
        mode: Value,
    }
    /// Commands for the active memory manager.
    pub struct AmmHandler {
        /// `start`, `stop`, `run_once` or `running`.
        method: String,
    }
    /// Begin to sample memory.
    pub struct MemorySamplerStart {
        /// The client.
        client: String,
        /// Time between samples.
        interval: Seconds = Seconds(Some(0.5)),
        /// Which memory, `process` by default.
        measure: Omit<String>,
    }
    /// End sampling.
    pub struct MemorySamplerStop {
        /// As answered by the start.
        key: String,
    }
    /// An address.
    pub struct Address {
        /// The address.
        address: String,
        /// Names the stimulus in stories.
        stimulus_id: Omit<String>,
        /// Whether the worker was meant to go.
        safe: Omit<bool>,
    }
    /// A named recording of task metadata.
    pub struct TaskMetadata {
        /// Its name.
        name: String,
    }
    /// Data to send back.
    pub struct Echo {
        /// The data.
        data: Value,
    }
    /// Copies that a worker holds.
    pub struct AddKeys {
        /// The worker.
        worker: String,
        /// The keys.
        keys: Vec<Key>,
        /// Names the stimulus in stories.
        stimulus_id: String = String::new(),
    }
}

/// The arguments of a request as they came, a map, for operations whose caller chooses them freely.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Whole(pub Value);

impl crate::wire::Decode for Whole {
    fn decode(r: &mut crate::msgpack::Reader<'_>) -> Result<Self, crate::DecodeError> {
        let Value::Map(mut pairs) = Value::decode(r)? else {
            return Ok(Self::default());
        };
        pairs.retain(|(name, _)| {
            !matches!(
                name.as_str(),
                Some("op" | "reply" | "close" | "serializers")
            )
        });
        Ok(Self(Value::Map(pairs)))
    }
}

impl Whole {
    fn fields(&self) -> &[(Value, Value)] {
        self.0.as_map().unwrap_or_default()
    }

    pub(crate) fn count_fields(&self) -> usize {
        self.fields().len()
    }

    pub(crate) fn encode_fields(&self, w: &mut crate::msgpack::Writer) {
        for (name, value) in self.fields() {
            crate::wire::Encode::encode(name, w);
            crate::wire::Encode::encode(value, w);
        }
    }
}

#[cfg(test)]
impl crate::sample::Sample for Whole {
    fn sample(source: &mut crate::sample::Source<'_>) -> Self {
        let value = crate::sample::Sample::sample(source);
        Self(Value::map([("argument", value)]))
    }
}

#[cfg(test)]
impl Whole {
    pub(crate) fn described_fields() -> Vec<String> {
        vec!["any".to_owned()]
    }
}

wire_ops! {
    /// Requests to a scheduler.
    pub enum ToScheduler {
        /// Become a client's stream.
        "register-client" => RegisterClient(RegisterClient),
        /// Become a worker's stream.
        "register-worker" => RegisterWorker(RegisterWorker),
        /// Plugins for a nanny; the connection stays open until its worker is up.
        "register_nanny" => RegisterNanny(Address),
        /// A worker leaves.
        "unregister" => Unregister(Address),
        /// Sign of life.
        "heartbeat_worker" => HeartbeatWorker(HeartbeatWorker),
        /// Who is there?
        "identity" => Identity(Identity),
        /// Answer with the given data.
        "echo" => Echo(Echo),
        /// Close the connection.
        "close" => Close(Empty),
        /// Shut the scheduler down.
        "terminate" => Terminate(Empty),
        /// Results through the scheduler.
        "gather" => Gather(Gather),
        /// Data to workers.
        "scatter" => Scatter(Scatter),
        /// Data that are on workers already.
        "update_data" => UpdateData(UpdateData),
        /// Holders of keys.
        "who_has" => WhoHas(MaybeKeys),
        /// Keys of workers.
        "has_what" => HasWhat(MaybeWorkers),
        /// Threads of workers.
        "ncores" => Ncores(MaybeWorkers),
        /// Threads of workers that run.
        "ncores_running" => NcoresRunning(MaybeWorkers),
        /// Tasks assigned to workers.
        "processing" => Processing(MaybeWorkers),
        /// Sizes of results.
        "nbytes" => Nbytes(Nbytes),
        /// States of tasks.
        "get_task_status" => GetTaskStatus(MaybeKeys),
        /// Counts of states by prefix.
        "get_task_prefix_states" => GetTaskPrefixStates(Empty),
        /// Stacks of running tasks.
        "call_stack" => CallStack(MaybeKeys),
        /// Profile of tasks.
        "profile" => Profile(Profile),
        /// Profile over time.
        "profile_metadata" => ProfileMetadata(ProfileMetadata),
        /// A report as HTML.
        "performance_report" => PerformanceReport(PerformanceReport),
        /// The scheduler's log.
        "logs" => Logs(Logs),
        /// The scheduler's log.
        "get_logs" => GetLogs(Logs),
        /// Logs of workers.
        "worker_logs" => WorkerLogs(WorkerLogs),
        /// Log an event.
        "log_event" => LogEvent(LogEventRequest),
        /// Logged events.
        "events" => Events(Events),
        /// Versions of packages.
        "versions" => Versions(Versions),
        /// A request to many workers.
        "broadcast" => Broadcast(Broadcast),
        /// A request to one worker.
        "proxy" => Proxy(Proxy),
        /// A function for the scheduler's Python process.
        "run_function" => RunFunction(RunFunction),
        /// Move data between workers.
        "rebalance" => Rebalance(Rebalance),
        /// Copies of data.
        "replicate" => Replicate(Replicate),
        /// Failed tasks again.
        "retry" => Retry(Retry),
        /// Everything anew.
        "restart" => Restart(Restart),
        /// Some workers anew.
        "restart_workers" => RestartWorkers(RestartWorkers),
        /// Workers out of service.
        "retire_workers" => RetireWorkers(RetireWorkers),
        /// Which workers could go.
        "workers_to_close" => WorkersToClose(WorkersToClose),
        /// How many workers would be right.
        "adaptive_target" => AdaptiveTarget(AdaptiveTarget),
        /// Since when nothing is to do.
        "check_idle" => CheckIdle(Empty),
        /// Become a stream of workers that come and go.
        "subscribe_worker_status" => SubscribeWorkerStatus(Empty),
        /// Read metadata.
        "get_metadata" => GetMetadata(GetMetadata),
        /// Write metadata.
        "set_metadata" => SetMetadata(SetMetadata),
        /// Change the resources of a worker.
        "set_resources" => SetResources(SetResources),
        /// Restrict tasks to workers.
        "set_restrictions" => SetRestrictions(SetRestrictions),
        /// The task stream.
        "get_task_stream" => GetTaskStream(GetTaskStream),
        /// Index of the end of the task stream.
        "get_task_stream_index" => GetTaskStreamIndex(Empty),
        /// Record metadata of tasks.
        "start_task_metadata" => StartTaskMetadata(TaskMetadata),
        /// End a recording of metadata of tasks.
        "stop_task_metadata" => StopTaskMetadata(TaskMetadata),
        /// Transitions.
        "get_story" => GetStory(GetStory),
        /// The whole state.
        "get_cluster_state" => GetClusterState(GetClusterState),
        /// The scheduler's state alone.
        "dump_state" => DumpState(GetClusterState),
        /// The whole state into a file.
        "dump_cluster_state_to_url" => DumpClusterStateToUrl(Whole),
        /// Speed of disk, memory, network.
        "benchmark_hardware" => BenchmarkHardware(Empty),
        /// A plugin for workers.
        "register_worker_plugin" => RegisterWorkerPlugin(RegisterPlugin),
        /// Remove a plugin for workers.
        "unregister_worker_plugin" => UnregisterWorkerPlugin(Named),
        /// A plugin for nannies.
        "register_nanny_plugin" => RegisterNannyPlugin(RegisterPlugin),
        /// Remove a plugin for nannys.
        "unregister_nanny_plugin" => UnregisterNannyPlugin(Named),
        /// A plugin for the scheduler.
        "register_scheduler_plugin" => RegisterSchedulerPlugin(RegisterPlugin),
        /// Remove a plugin for the scheduler.
        "unregister_scheduler_plugin" => UnregisterSchedulerPlugin(Named),
        /// The node of a key.
        "get_runspec" => GetRunspec(OneKey),
        /// The key that is to blame.
        "get_error_cause" => GetErrorCause(MaybeKeys),
        /// Become a stream of what a function finds.
        "feed" => Feed(Feed),
        /// Commands for the active memory manager.
        "amm_handler" => AmmHandler(AmmHandler),
        /// Begin to sample memory.
        "memory_sampler_start" => MemorySamplerStart(MemorySamplerStart),
        /// End sampling memory.
        "memory_sampler_stop" => MemorySamplerStop(MemorySamplerStop),
        /// Store data sets.
        "publish_put" => PublishPut(PublishPut),
        /// Read data sets.
        "publish_get" => PublishGet(PublishNames),
        /// Names of data sets.
        "publish_list" => PublishList(Empty),
        /// Remove data sets.
        "publish_delete" => PublishDelete(PublishNames),
        /// Wait for the stream, from clients before 2026.8.
        "publish_wait_flush" => PublishWaitFlush(PublishNames),
        /// Set a variable.
        "variable_set" => VariableSet(VariableSet),
        /// Read a variable.
        "variable_get" => VariableGet(VariableGet),
        /// Make a queue.
        "queue_create" => QueueCreate(QueueCreate),
        /// Append to a queue.
        "queue_put" => QueuePut(QueuePut),
        /// Take from a queue.
        "queue_get" => QueueGet(QueueGet),
        /// Length of a queue.
        "queue_qsize" => QueueQsize(NamedByKey),
        /// Wait for an event.
        "event_wait" => EventWait(EventWait),
        /// Set an event.
        "event_set" => EventSet(NamedByKey),
        /// Clear an event.
        "event_clear" => EventClear(NamedByKey),
        /// Is an event set?
        "event_is_set" => EventIsSet(NamedByKey),
        /// Make a semaphore.
        "semaphore_register" => SemaphoreRegister(SemaphoreRegister),
        /// Take a lease of a semaphore.
        "semaphore_acquire" => SemaphoreAcquire(SemaphoreAcquire),
        /// Give a lease back.
        "semaphore_release" => SemaphoreRelease(SemaphoreRelease),
        /// Leases of a semaphore in use.
        "semaphore_value" => SemaphoreValue(SemaphoreName),
        /// End a semaphore.
        "semaphore_close" => SemaphoreClose(SemaphoreName),
        /// Keep leases alive.
        "semaphore_refresh_leases" => SemaphoreRefreshLeases(SemaphoreRefresh),
        /// Take several locks.
        "multi_lock_acquire" => MultiLockAcquire(MultiLockAcquire),
        /// Give the locks back.
        "multi_lock_release" => MultiLockRelease(MultiLockRelease),
        /// Join or begin a shuffle.
        "shuffle_get_or_create" => ShuffleGetOrCreate(ShuffleGetOrCreate),
        /// Join a shuffle.
        "shuffle_get" => ShuffleGet(ShuffleGet),
        /// All input has been sent.
        "shuffle_barrier" => ShuffleBarrier(ShuffleBarrier),
        /// Tie an output task to a worker.
        "shuffle_restrict_task" => ShuffleRestrictTask(ShuffleRestrictTask),
        /// Copies that a worker holds.
        "add_keys" => AddKeys(AddKeys),
        /// Events of a topic.
        "subscribe_topic" => SubscribeTopic(Topic),
    }
}
