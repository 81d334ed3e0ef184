//! The client: connect, submit, gather.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::comm::{Comm, Tls, connect};
use oxidask_protocol::frame::Limits;
use oxidask_protocol::message::client::{ClientKeys, FromClient, UpdateNativeGraph};
use oxidask_protocol::message::decode_one;
use oxidask_protocol::msgpack::Writer;
use oxidask_protocol::wire::{Encode as _, KeySet, Omit, Seconds};
use oxidask_protocol::{Key, Value};
use oxidask_worker_kernels::{Chunk, Kernel};
use tokio::sync::Mutex;

use crate::array::Array;
use crate::graph::token;
use crate::link::Link;
use crate::{ClientError, Future, Graph, Task};

/// How to connect.
#[derive(Debug, Clone)]
pub struct Options {
    /// Certificates, for `tls://`.
    pub tls: Option<Tls>,
    /// How long connecting and each answer may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// A connection to a scheduler of oxidask. It lives until dropped.
pub struct Client {
    address: Address,
    options: Options,
    link: Arc<Link>,
    /// Connections for requests on which nothing is under way.
    idle: Mutex<Vec<Comm>>,
}

impl Client {
    /// Connects to the scheduler at an address such as `tcp://127.0.0.1:8786`.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn connect(address: &str) -> Result<Self, ClientError> {
        Self::connect_with(address, Options::default()).await
    }

    /// Connects with options.
    ///
    /// # Errors
    /// If there is no scheduler, or one that is not of oxidask.
    pub async fn connect_with(address: &str, options: Options) -> Result<Self, ClientError> {
        let parsed = Address::parse(address, Scheme::Tcp, Some(8786)).map_err(|error| {
            ClientError::Address {
                address: address.to_owned(),
                text: error.to_string(),
            }
        })?;
        let open = || {
            connect(
                &parsed,
                options.tls.as_ref(),
                Limits::default(),
                options.timeout,
            )
        };
        let mut rpc = open().await?;
        // A stock scheduler refuses the request, because of a field that it does not know.
        let identity = request(&mut rpc, "identity", Vec::new(), options.timeout).await;
        let is_ours = match &identity {
            Ok(identity) => identity.field("oxidask").is_some(),
            Err(ClientError::Refused { .. }) => false,
            Err(_) => true,
        };
        if !is_ours {
            return Err(ClientError::NotOxidask(address.to_owned()));
        }
        identity?;
        let mut stream = open().await?;
        let register = Value::map([
            ("op", Value::from("register-client")),
            ("client", format!("Client-oxidask-{}", token()).into()),
            ("reply", false.into()),
            ("versions", Value::Map(Vec::new())),
            ("native", true.into()),
        ]);
        stream.writer.send(&register).await?;
        // The first answer says that the stream is open; nothing may be said before.
        let started = tokio::time::timeout(options.timeout, stream.reader.read()).await;
        match started {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => {
                return Err(ClientError::Closed("at registration".to_owned()));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                return Err(ClientError::Timeout {
                    what: "registration".to_owned(),
                    seconds: options.timeout.as_secs_f64(),
                });
            }
        }
        Ok(Self {
            link: Link::start(stream.reader, stream.writer),
            address: parsed,
            options,
            idle: Mutex::new(vec![rpc]),
        })
    }

    /// Submits a graph; the futures are of the wanted keys, in their order.
    ///
    /// They fail with [`ClientError::Full`] if the scheduler does not read and a million tasks wait for it already.
    pub fn submit(&self, graph: Graph, wanted: &[Key]) -> Vec<Future> {
        let futures = wanted
            .iter()
            .map(|key| Future::new(key.clone(), &self.link).0)
            .collect();
        let message = UpdateNativeGraph {
            tasks: graph.into_nodes(),
            keys: KeySet {
                keys: wanted.to_vec(),
                is_set: false,
            },
            fifo_timeout: Seconds(Some(0.0)),
        };
        self.link
            .say(FromClient::UpdateNativeGraph(message), wanted);
        futures
    }

    /// Runs each kernel as a task of its own with the same arguments; keys begin with `name`.
    pub fn map(
        &self,
        name: &str,
        kernels: impl IntoIterator<Item = Kernel>,
        inputs: &[Key],
    ) -> Vec<Future> {
        self.map_on(name, kernels, inputs, &[])
    }

    /// As [`map`](Self::map), on these workers alone; anywhere if none is named.
    pub fn map_on(
        &self,
        name: &str,
        kernels: impl IntoIterator<Item = Kernel>,
        inputs: &[Key],
        workers: &[String],
    ) -> Vec<Future> {
        let name = format!("{name}-{}", token());
        let graph: Graph = kernels
            .into_iter()
            .enumerate()
            .map(|(at, kernel)| {
                let key = Key::tuple([Key::from(name.as_str()), Key::from(at as i64)]);
                Task::new(key, kernel, inputs.to_vec())
            })
            .collect();
        let keys: Vec<Key> = graph.tasks.iter().map(|task| task.key.clone()).collect();
        self.submit(graph.on(workers), &keys)
    }

    /// Has all chunks of an array computed and kept on the cluster; the futures are in C order of the chunks.
    pub fn persist(&self, array: &Array) -> Vec<Future> {
        self.submit(array.graph(), array.keys())
    }

    /// The whole array, computed and gathered.
    ///
    /// # Errors
    /// If a task fails or the array cannot be put together here.
    pub async fn compute(&self, array: &Array) -> Result<Chunk, ClientError> {
        let futures = self.persist(array);
        let chunks = self.gather(&futures).await?;
        array.assemble(chunks)
    }

    /// A future of a key that the cluster knows from elsewhere, such as a Python client.
    pub fn future(&self, key: Key) -> Future {
        let (future, fresh) = Future::new(key.clone(), &self.link);
        if fresh {
            let message = ClientKeys {
                keys: KeySet {
                    keys: vec![key.clone()],
                    is_set: false,
                },
                client: Omit(None),
            };
            self.link
                .say(FromClient::ClientDesiresKeys(message), &[key]);
        }
        future
    }

    /// Waits for all futures.
    ///
    /// # Errors
    /// With the first failure, in their order.
    pub async fn wait(&self, futures: &[Future]) -> Result<(), ClientError> {
        for future in futures {
            future.wait().await?;
        }
        Ok(())
    }

    /// Asks the scheduler something.
    ///
    /// # Errors
    /// If the connection fails, or the answer is an error.
    pub async fn request(
        &self,
        op: &'static str,
        fields: Vec<(&str, Value)>,
    ) -> Result<Value, ClientError> {
        let mut comm = self.comm().await?;
        let answer = request(&mut comm, op, fields, self.options.timeout).await?;
        self.idle.lock().await.push(comm);
        Ok(answer)
    }

    pub(crate) async fn comm(&self) -> Result<Comm, ClientError> {
        if let Some(comm) = self.idle.lock().await.pop() {
            return Ok(comm);
        }
        let options = &self.options;
        Ok(connect(
            &self.address,
            options.tls.as_ref(),
            Limits::default(),
            options.timeout,
        )
        .await?)
    }

    pub(crate) async fn give_back(&self, comm: Comm) {
        self.idle.lock().await.push(comm);
    }

    /// Waits until exactly `n` workers are connected.
    ///
    /// # Errors
    /// If that is not so within `timeout`.
    pub async fn wait_for_workers(&self, n: usize, timeout: Duration) -> Result<(), ClientError> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let workers = self.workers().await?.len();
            if workers == n {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ClientError::Timeout {
                    what: format!("{n} workers ({workers} are connected)"),
                    seconds: timeout.as_secs_f64(),
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Workers that are connected: address and what the scheduler says of each.
    ///
    /// # Errors
    /// If the connection fails.
    pub async fn workers(&self) -> Result<Vec<(String, Value)>, ClientError> {
        let identity = self.request("identity", Vec::new()).await?;
        let workers = identity.field("workers").and_then(Value::as_map);
        let pairs = workers.unwrap_or_default().iter();
        Ok(pairs
            .filter_map(|(address, about)| Some((address.as_str()?.to_owned(), about.clone())))
            .collect())
    }
}

/// One request and its answer.
pub(crate) async fn request(
    comm: &mut Comm,
    op: &'static str,
    fields: Vec<(&str, Value)>,
    timeout: Duration,
) -> Result<Value, ClientError> {
    let frames = exchange(comm, op, fields, timeout).await?;
    let answer: Value =
        decode_one(&frames).map_err(|source| ClientError::Malformed { op, source })?;
    let failed = answer
        .field("status")
        .and_then(Value::as_str)
        .is_some_and(|status| status.ends_with("error"));
    if failed {
        let text = answer.field("exception_text").and_then(Value::as_str);
        return Err(ClientError::Refused {
            op,
            text: text.unwrap_or("an error without a text").to_owned(),
        });
    }
    Ok(answer)
}

async fn exchange(
    comm: &mut Comm,
    op: &'static str,
    fields: Vec<(&str, Value)>,
    timeout: Duration,
) -> Result<Vec<Bytes>, ClientError> {
    let mut pairs = vec![
        ("op", Value::from(op)),
        ("reply", true.into()),
        ("native", true.into()),
    ];
    pairs.extend(fields);
    let mut w = Writer::new();
    Value::map(pairs).encode(&mut w);
    comm.writer.write(&w.into_frames()).await?;
    match tokio::time::timeout(timeout, comm.reader.read()).await {
        Ok(Ok(Some(frames))) => Ok(frames),
        Ok(Ok(None)) => Err(ClientError::Closed(format!("no answer to {op}"))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ClientError::Timeout {
            what: format!("an answer to {op}"),
            seconds: timeout.as_secs_f64(),
        }),
    }
}
