//! Requests on a connection of their own, one at a time, each with an answer.

use bytes::Bytes;

use super::client::{Empty, Named, Topic, UpdateData};
use super::worker::{HeartbeatWorker, Keys, RegisterWorker};
use super::{Operation, read_op};
use crate::msgpack::Reader;
use crate::wire::{Decode, KeySet, Name, Omit, Pairs, Seconds};
use crate::{DecodeError, DecodeErrorKind, Key, Payload, Value};

wire_struct! {
    /// What every request may say about its answer.
    pub struct Envelope {
        /// Whether an answer is wanted.
        reply: bool = true,
        /// Whether the listener closes the connection after it.
        close: bool = false,
        /// Serialisation families allowed in the answer.
        serializers: Omit<Value>,
    }
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
        /// Addresses.
        workers: Option<Vec<String>>,
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
    /// Commands for the active memory manager.
    pub struct AmmHandler {
        /// `start`, `stop`, `run_once` or `running`.
        method: String,
    }
    /// Begin to sample memory.
    pub struct MemorySamplerStart {
        /// The client.
        client: String,
        /// Unit: seconds.
        interval: f64,
        /// Which memory, `process` by default.
        measure: Omit<String>,
    }
    /// End sampling.
    pub struct MemorySamplerStop {
        /// As answered by the start.
        key: String,
    }
    /// Store data sets under names.
    pub struct PublishPut {
        /// The names; one `name` from clients before 2026.8.
        names: Omit<Vec<Value>>,
        /// Older form of `names`.
        name: Omit<Value>,
        /// Keys of each data set.
        keys: Value,
        /// The pickled collections.
        data: Value,
        /// Replace what is there.
        r#override as "override": bool = false,
        /// The client.
        client: Omit<String>,
        /// Names the flush marker to wait for.
        uid: Omit<String>,
    }
    /// Data sets by name.
    pub struct PublishNames {
        /// The names.
        names: Omit<Vec<Value>>,
        /// Older form of `names`.
        name: Omit<Value>,
        /// The client.
        client: Omit<String>,
        /// Names the flush marker to wait for.
        uid: Omit<String>,
    }
    /// Set a variable.
    pub struct VariableSet {
        /// Its name.
        name: String,
        /// A future's key.
        key: Option<Key>,
        /// Or a plain value.
        data: Value,
        /// The client.
        client: Omit<String>,
        /// Time to wait for the key to be known.
        timeout: Seconds,
    }
    /// Read a variable.
    pub struct VariableGet {
        /// Its name.
        name: String,
        /// The client.
        client: Omit<String>,
        /// Time to wait for it to be set.
        timeout: Seconds,
    }
    /// Make a queue.
    pub struct QueueCreate {
        /// Its name.
        name: String,
        /// Longest length, 0 for none.
        maxsize: u64 = 0,
    }
    /// Append to a queue.
    pub struct QueuePut {
        /// Its name.
        name: String,
        /// A future's key.
        key: Option<Key>,
        /// Or a plain value.
        data: Value,
        /// Time to wait for room.
        timeout: Seconds,
    }
    /// Take from a queue.
    pub struct QueueGet {
        /// Its name.
        name: String,
        /// Time to wait for an item.
        timeout: Seconds,
        /// False for one, true for all there are, or a number.
        batch: Value,
    }
    /// Wait for an event.
    pub struct EventWait {
        /// Its name.
        name: String,
        /// Time to wait.
        timeout: Seconds,
    }
    /// Make a semaphore.
    pub struct SemaphoreRegister {
        /// Its name.
        name: Value,
        /// Leases at once.
        max_leases: u64,
        /// Time after which a lease that is not refreshed ends.
        lease_timeout: Seconds = Seconds(Some(30.0)),
    }
    /// Take a lease.
    pub struct SemaphoreAcquire {
        /// The semaphore.
        name: Value,
        /// Time to wait.
        timeout: Seconds,
        /// Names the lease.
        lease_id: Value,
    }
    /// Give a lease back.
    pub struct SemaphoreRelease {
        /// The semaphore.
        name: Value,
        /// The lease.
        lease_id: Value,
    }
    /// A semaphore by name.
    pub struct SemaphoreName {
        /// The name.
        name: Value,
    }
    /// Keep leases alive.
    pub struct SemaphoreRefresh {
        /// The semaphore.
        name: Value,
        /// The leases.
        lease_ids: Vec<Value>,
    }
    /// Take several locks at once.
    pub struct MultiLockAcquire {
        /// Their names.
        locks: Vec<Value>,
        /// Names the taker.
        id: Value,
        /// Time to wait.
        timeout: Seconds,
        /// How many of them suffice.
        num_locks: Omit<u64>,
    }
    /// Give locks back.
    pub struct MultiLockRelease {
        /// The taker.
        id: Value,
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
    /// Join a shuffle, begin it if it is new.
    pub struct ShuffleGetOrCreate {
        /// The shuffle.
        shuffle_id: String,
        /// The transfer task that asks.
        key: Key,
        /// Its worker.
        worker: String,
    }
    /// Join a shuffle that exists.
    pub struct ShuffleGet {
        /// The shuffle.
        id: String,
        /// The worker.
        worker: String,
    }
    /// All input of a shuffle has been sent.
    pub struct ShuffleBarrier {
        /// The shuffle.
        id: String,
        /// Its attempt.
        run_id: i64,
        /// Whether all transfers belong to this attempt.
        consistent: bool = true,
    }
    /// Tie an output task to the worker that has its partition.
    pub struct ShuffleRestrictTask {
        /// The shuffle.
        id: String,
        /// Its attempt.
        run_id: i64,
        /// The output task.
        key: Key,
        /// The worker.
        worker: String,
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
        "profile_metadata" => ProfileMetadata(Empty),
        /// A report as HTML.
        "performance_report" => PerformanceReport(Empty),
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
        /// The whole state into a file.
        "dump_cluster_state_to_url" => DumpClusterStateToUrl(GetClusterState),
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
        "queue_qsize" => QueueQsize(Named),
        /// Wait for an event.
        "event_wait" => EventWait(EventWait),
        /// Set an event.
        "event_set" => EventSet(Named),
        /// Clear an event.
        "event_clear" => EventClear(Named),
        /// Is an event set?
        "event_is_set" => EventIsSet(Named),
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

wire_struct! {
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
    /// Fetch values from a worker. The requester answers the data with a bare `"OK"`.
    pub struct GetData {
        /// The keys.
        keys: KeySet,
        /// Who asks; nil for schedulers and clients.
        who: Option<String>,
    }
    /// Put values on a worker.
    pub struct PutData {
        /// The values.
        data: Pairs<Key, Payload>,
        /// Names the stimulus in stories.
        stimulus_id: Omit<String>,
    }
    /// Let a worker fetch values from its peers.
    pub struct GatherFrom {
        /// Holders of each key.
        who_has: Pairs<Key, Vec<String>>,
    }
    /// Run a function in the worker's Python process.
    pub struct Run {
        /// The pickled function.
        function: Bytes,
        /// The pickled tuple of arguments.
        args: Omit<Bytes>,
        /// The pickled dict of arguments.
        kwargs: Omit<Bytes>,
        /// Wait for the result.
        wait: bool = true,
    }
    /// Install a plugin.
    pub struct PluginAdd {
        /// The pickled plugin.
        plugin: Bytes,
        /// Its name.
        name: Option<String>,
    }
    /// Call a method of an actor.
    pub struct ActorExecute {
        /// The actor.
        actor: Key,
        /// The method.
        function: String,
        /// Arguments.
        args: Value,
        /// Arguments by name.
        kwargs: Value,
    }
    /// Read an attribute of an actor.
    pub struct ActorAttribute {
        /// The actor.
        actor: Key,
        /// The attribute.
        attribute: String,
    }
    /// Data for a shuffle.
    pub struct ShuffleReceive {
        /// The shuffle.
        shuffle_id: String,
        /// Its attempt.
        run_id: i64,
        /// Partitions.
        data: Payload,
    }
    /// No more data will come for a shuffle.
    pub struct ShuffleInputsDone {
        /// The shuffle.
        shuffle_id: String,
        /// Its attempt.
        run_id: i64,
    }
    /// Shut down or restart, with a reason.
    pub struct Reasoned {
        /// Why.
        reason: Omit<String>,
        /// Time to wait.
        timeout: Seconds,
    }
    /// Write and load a module or archive.
    pub struct UploadFile {
        /// Its name.
        filename: String,
        /// Its bytes or text.
        data: Value,
        /// Import it.
        load: bool = true,
    }
}

wire_ops! {
    /// Requests to a worker, or to its nanny.
    pub enum ToWorkerRpc {
        /// Fetch values.
        "get_data" => GetData(GetData),
        /// Put values.
        "update_data" => UpdateData(PutData),
        /// Fetch values from peers.
        "gather" => Gather(GatherFrom),
        /// Forget keys.
        "free_keys" => FreeKeys(Keys),
        /// Run a function.
        "run" => Run(Run),
        /// Run a coroutine function.
        "run_coroutine" => RunCoroutine(Run),
        /// Install a plugin.
        "plugin-add" => PluginAdd(PluginAdd),
        /// Remove a plugin.
        "plugin-remove" => PluginRemove(Named),
        /// Install a nanny plugin.
        "plugin_add" => NannyPluginAdd(PluginAdd),
        /// Remove a nanny plugin.
        "plugin_remove" => NannyPluginRemove(Named),
        /// Call a method of an actor.
        "actor_execute" => ActorExecute(ActorExecute),
        /// Read an attribute of an actor.
        "actor_attribute" => ActorAttribute(ActorAttribute),
        /// Data for a shuffle.
        "shuffle_receive" => ShuffleReceive(ShuffleReceive),
        /// No more data will come.
        "shuffle_inputs_done" => ShuffleInputsDone(ShuffleInputsDone),
        /// Who is there?
        "identity" => Identity(Identity),
        /// Answer with the given data.
        "echo" => Echo(Echo),
        /// Sign of life.
        "ping" => Ping(Empty),
        /// Keys held.
        "keys" => Keys(Empty),
        /// Versions of packages.
        "versions" => Versions(Versions),
        /// The log.
        "get_logs" => GetLogs(Logs),
        /// Transitions.
        "get_story" => GetStory(GetStory),
        /// Stacks of running tasks.
        "call_stack" => CallStack(MaybeKeys),
        /// Profile of tasks.
        "profile" => Profile(Profile),
        /// Profile over time.
        "profile_metadata" => ProfileMetadata(Empty),
        /// Measurements of the process.
        "get_monitor_info" => GetMonitorInfo(Empty),
        /// Write and load a module.
        "upload_file" => UploadFile(UploadFile),
        /// Speed of the disk.
        "benchmark_disk" => BenchmarkDisk(Empty),
        /// Speed of the memory.
        "benchmark_memory" => BenchmarkMemory(Empty),
        /// Speed of the network.
        "benchmark_network" => BenchmarkNetwork(Empty),
        /// The whole state.
        "dump_state" => DumpState(GetClusterState),
        /// Start the worker process (nanny).
        "instantiate" => Instantiate(Empty),
        /// Kill the worker process (nanny).
        "kill" => Kill(Reasoned),
        /// Restart the worker process (nanny).
        "restart" => Restart(Reasoned),
        /// Shut down.
        "terminate" => Terminate(Reasoned),
        /// Shut down after the data have moved.
        "close_gracefully" => CloseGracefully(Reasoned),
        /// Close the connection.
        "close" => Close(Empty),
    }
}

/// A request with what it says about its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<T> {
    /// Whether and how to answer.
    pub envelope: Envelope,
    /// The request.
    pub call: T,
}

impl<T: Operation> Decode for Request<T> {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut probe = r.clone();
        let (mut op, mut envelope) = (None, Envelope::default());
        for _ in 0..probe.map()? {
            match probe.field()? {
                b"op" => op = Some(read_op(&mut probe)?),
                b"reply" => envelope.reply = field(&mut probe, "reply")?,
                b"close" => envelope.close = field(&mut probe, "close")?,
                b"serializers" => envelope.serializers = field(&mut probe, "serializers")?,
                _ => probe.skip()?,
            }
        }
        let Some(op) = op else {
            return r.fail(DecodeErrorKind::NoOp);
        };
        let call = T::decode_op(op, r)?;
        Ok(Self { envelope, call })
    }
}

fn field<T: Decode>(r: &mut Reader<'_>, name: &'static str) -> Result<T, DecodeError> {
    T::decode(r).map_err(|error| error.in_field(name))
}

impl Default for Envelope {
    /// What holds for a request that says nothing.
    fn default() -> Self {
        Self {
            reply: true,
            close: false,
            serializers: Omit(None),
        }
    }
}

wire_struct! {
    /// The answer to a request that failed.
    pub struct Failure {
        /// `uncaught-error`, or `error` where the request's own handler caught it.
        status: String,
        /// A payload, a pickle in bytes, or a text that becomes an `Exception`.
        exception: Value,
        /// A payload or nil.
        traceback: Value,
        /// For callers that do not unpickle.
        exception_text: String,
        /// For callers that do not unpickle.
        traceback_text: String,
    }
}

impl Failure {
    /// A failure that the caller raises as the builtin exception `class` with this text.
    pub fn builtin(class: &str, text: &str) -> Self {
        Self {
            status: "uncaught-error".to_owned(),
            exception: Value::Bin(pickled_builtin(class, text)),
            traceback: Value::Nil,
            exception_text: format!("{class}({text:?})"),
            traceback_text: String::new(),
        }
    }
}

/// The pickle (protocol 2) of a builtin exception with one text argument, such as `KeyError("x")`.
pub fn pickled_builtin(class: &str, text: &str) -> Bytes {
    pickled_call("builtins", class, text)
}

/// The pickle (protocol 2) of `module.name(text)`.
pub fn pickled_call(module: &str, name: &str, text: &str) -> Bytes {
    let mut out = Vec::with_capacity(32 + module.len() + name.len() + text.len());
    out.extend_from_slice(b"\x80\x02c");
    out.extend_from_slice(module.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\nX");
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\x85R.");
    out.into()
}
