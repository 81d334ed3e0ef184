//! Requests to a worker or its nanny, and what they carry.

use bytes::Bytes;

use super::{Echo, GetClusterState, GetStory, Identity, Logs, MaybeKeys, Profile, Versions};
use crate::message::client::{Empty, Named};
use crate::message::worker::Keys;
use crate::wire::{KeySet, Omit, Pairs, Seconds};
use crate::{Key, Payload, Value};

wire_struct! {
    /// Fetch values from a worker. The requester answers the data with a bare `"OK"`.
    pub struct GetData {
        /// The keys.
        keys: KeySet,
        /// Who asks; nil for schedulers and clients.
        who: Option<String>,
        /// Serialisation families allowed for the values.
        serializers: Omit<Value>,
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
