//! What user code beside the scheduler wants to know of it.

use bytes::Bytes;
use oxidask_protocol::msgpack::{Reader, Writer};
use oxidask_protocol::wire::{Decode, Encode};
use oxidask_protocol::{DecodeError, Key, Payload, Value};
use tokio::sync::oneshot;

use super::Message;
use super::call::document_of;

/// A question, to be answered by sending to its `reply`.
#[derive(Debug)]
pub enum Question {
    /// An operation that clients may call too: the frames of its message, answered with those of the reply.
    Rpc {
        /// A map with `op`.
        message: Message,
        /// The reply as a client would get it, an `uncaught-error` map if it fails.
        reply: oneshot::Sender<Message>,
    },
    /// Number of tasks.
    TaskCount {
        /// Number of tasks in any state.
        reply: oneshot::Sender<u64>,
    },
    /// Keys of all tasks.
    TaskKeys {
        /// In any order.
        reply: oneshot::Sender<Vec<Key>>,
    },
    /// What is known of tasks.
    Tasks {
        /// Which tasks.
        keys: Vec<Key>,
        /// Also of all tasks that these depend on, directly or not.
        closure: bool,
        /// The tasks that exist, each once.
        reply: oneshot::Sender<Vec<TaskInfo>>,
    },
    /// Other hooks are wanted than before ([`super::Aside::wants`] says which). User code goes on when this is
    /// answered, and counts on being told of all that happens from then on.
    HooksChanged {
        /// Answered when what happens is reported accordingly.
        reply: oneshot::Sender<()>,
    },
    /// Copies of results shall come and go, as a policy of the memory manager suggests.
    Replicas {
        /// Key and address of the worker that shall fetch it.
        acquire: Vec<(Key, String)>,
        /// Key and address of the worker that shall drop it.
        drop: Vec<(Key, String)>,
        /// Answered when the workers have been told.
        reply: oneshot::Sender<()>,
    },
    /// An attribute of the scheduler by its Python name: `address`, `id`, `clients`, `idle_since`, `idle_timeout`,
    /// `generation`, `unrunnable`, `total_memory`…
    Attribute {
        /// The name.
        name: String,
        /// `None` if there is no such attribute.
        reply: oneshot::Sender<Option<Value>>,
    },
}

/// A task as user code may see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInfo {
    /// Its key.
    pub key: Key,
    /// Its state by Dask's name.
    pub state: &'static str,
    /// What it needs.
    pub dependencies: Vec<Key>,
    /// What needs it.
    pub dependents: Vec<Key>,
    /// Addresses of workers that have its result.
    pub who_has: Vec<String>,
    /// Ids of clients that want it.
    pub who_wants: Vec<String>,
    /// Address of the worker that runs it.
    pub processing_on: Option<String>,
    /// Size of its result. Unit: bytes.
    pub nbytes: Option<u64>,
    /// Its priority, smaller first.
    pub priority: Vec<f64>,
    /// The exception with which it erred.
    pub exception: Option<Payload>,
    /// The exception in words.
    pub exception_text: Option<String>,
    /// What else is known, by the names that Dask gives to it.
    pub more: Vec<(&'static str, Value)>,
}

impl TaskInfo {
    /// As a map; the exception's frames go to `parts` and the map says where.
    fn into_value(self, parts: &mut Vec<Bytes>) -> Value {
        let strings = |texts: Vec<String>| Value::array(texts);
        let keys = |keys: &[Key]| Value::array(keys.iter().map(Value::from));
        let exception = self.exception.map(|payload| {
            let first = parts.len();
            let frames = payload.frames.as_slice();
            parts.push(payload.header.clone());
            parts.extend_from_slice(frames);
            Value::array([first as u64, frames.len() as u64])
        });
        let fields = [
            ("key", Value::from(&self.key)),
            ("state", self.state.into()),
            ("dependencies", keys(&self.dependencies)),
            ("dependents", keys(&self.dependents)),
            ("who_has", strings(self.who_has)),
            ("who_wants", strings(self.who_wants)),
            ("processing_on", self.processing_on.into()),
            ("nbytes", self.nbytes.into()),
            ("priority", Value::array(self.priority)),
            ("exception", exception.into()),
            ("exception_text", self.exception_text.into()),
        ];
        Value::map(fields.into_iter().chain(self.more).collect::<Vec<_>>())
    }
}

/// A question as it comes from the process.
pub(super) struct Asked {
    pub(super) id: u64,
    pub(super) what: String,
    /// Names of hooks, which the driver notes before it passes the question on.
    pub(super) hooks: Vec<String>,
    keys: Vec<Key>,
    /// Addresses, one for each of `keys`.
    workers: Vec<String>,
    /// How many of `keys` are to be fetched; the others are to be dropped.
    acquire: u64,
    closure: bool,
    name: String,
    parts: Vec<Bytes>,
}

impl Asked {
    pub(super) fn read(frames: &[Bytes]) -> Result<Self, DecodeError> {
        let mut r = Reader::of_message(frames)?;
        let mut asked = Self {
            id: 0,
            what: String::new(),
            hooks: Vec::new(),
            keys: Vec::new(),
            workers: Vec::new(),
            acquire: 0,
            closure: false,
            name: String::new(),
            parts: frames.get(1..).unwrap_or_default().to_vec(),
        };
        for _ in 0..r.map()? {
            match r.str()? {
                "id" => asked.id = r.uint()?,
                "what" => asked.what = r.str()?.to_owned(),
                "hooks" => asked.hooks = Vec::decode(&mut r)?,
                "keys" => asked.keys = Vec::decode(&mut r)?,
                "workers" => asked.workers = Vec::decode(&mut r)?,
                "acquire" => asked.acquire = r.uint()?,
                "closure" => asked.closure = r.bool()?,
                "name" => asked.name = r.str()?.to_owned(),
                _ => r.skip()?,
            }
        }
        Ok(asked)
    }

    /// The question for the scheduler, and what turns its answer into a message; `None` if it is unknown.
    pub(super) fn pose(self) -> Option<(Question, impl Future<Output = Message> + Send + 'static)> {
        let id = self.id;
        let (question, waiting) = match self.what.as_str() {
            "rpc" => {
                let (reply, answer) = oneshot::channel();
                (
                    Question::Rpc {
                        message: self.parts,
                        reply,
                    },
                    Waiting::Rpc(answer),
                )
            }
            "task_count" => {
                let (reply, answer) = oneshot::channel();
                (Question::TaskCount { reply }, Waiting::Count(answer))
            }
            "task_keys" => {
                let (reply, answer) = oneshot::channel();
                (Question::TaskKeys { reply }, Waiting::Keys(answer))
            }
            "tasks" => {
                let (reply, answer) = oneshot::channel();
                (
                    Question::Tasks {
                        keys: self.keys,
                        closure: self.closure,
                        reply,
                    },
                    Waiting::Tasks(answer),
                )
            }
            "hooks" => {
                let (reply, answer) = oneshot::channel();
                (Question::HooksChanged { reply }, Waiting::Done(answer))
            }
            "replicas" => {
                let (reply, answer) = oneshot::channel();
                let mut acquire: Vec<_> = self.keys.into_iter().zip(self.workers).collect();
                let count = usize::try_from(self.acquire).unwrap_or(usize::MAX);
                let drop = acquire.split_off(count.min(acquire.len()));
                (
                    Question::Replicas {
                        acquire,
                        drop,
                        reply,
                    },
                    Waiting::Done(answer),
                )
            }
            "attribute" => {
                let (reply, answer) = oneshot::channel();
                (
                    Question::Attribute {
                        name: self.name,
                        reply,
                    },
                    Waiting::Attribute(answer),
                )
            }
            _ => return None,
        };
        Some((question, async move { waiting.message(id).await }))
    }
}

enum Waiting {
    Rpc(oneshot::Receiver<Message>),
    Count(oneshot::Receiver<u64>),
    Keys(oneshot::Receiver<Vec<Key>>),
    Tasks(oneshot::Receiver<Vec<TaskInfo>>),
    Attribute(oneshot::Receiver<Option<Value>>),
    Done(oneshot::Receiver<()>),
}

impl Waiting {
    async fn message(self, id: u64) -> Message {
        let mut parts = Vec::new();
        let value = match self {
            Self::Rpc(answer) => {
                parts = answer.await.unwrap_or_else(|_| vec![not_offered()]);
                Value::Nil
            }
            Self::Count(answer) => answer.await.unwrap_or_default().into(),
            Self::Keys(answer) => {
                Value::array(answer.await.unwrap_or_default().iter().map(Value::from))
            }
            Self::Tasks(answer) => {
                let tasks = answer.await.unwrap_or_default();
                Value::Array(
                    tasks
                        .into_iter()
                        .map(|task| task.into_value(&mut parts))
                        .collect(),
                )
            }
            Self::Done(answer) => {
                // Dropped: nothing is done any more, since the scheduler ends.
                let _ = answer.await;
                Value::Nil
            }
            Self::Attribute(answer) => match answer.await {
                Ok(Some(value)) => Value::Array(vec![true.into(), value]),
                _ => Value::Array(vec![false.into(), Value::Nil]),
            },
        };
        answer(id, value, parts)
    }
}

/// An answer as a message.
pub(super) fn answer(id: u64, value: Value, parts: Vec<Bytes>) -> Message {
    let mut w = Writer::new();
    w.map(3);
    w.str("op");
    w.str("answer");
    w.str("id");
    w.uint(id);
    w.str("value");
    value.encode(&mut w);
    let mut message = vec![w.into_document()];
    message.extend(parts);
    message
}

/// What an operation gives that the scheduler drops.
fn not_offered() -> Bytes {
    document_of(&Value::map([
        ("status", Value::from("uncaught-error")),
        (
            "exception",
            "the scheduler does not offer this operation to functions that run beside it".into(),
        ),
        ("traceback", Value::Nil),
    ]))
}
