//! The stream of a client: graphs and interest in keys in, reports out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::comm::{Comm, CommError};
use oxidask_protocol::exception;
use oxidask_protocol::message::client::{FromClient, StreamStart, ToClient, UpdateNativeGraph};
use oxidask_protocol::message::rpc::RegisterClient;
use oxidask_protocol::message::{decode_batch, encode_batch};
use oxidask_protocol::{Payload, Value};
use oxidask_scheduler_core::{ClientId, Event, heartbeat_interval};
use tracing::{debug, info, warn};

use super::backlog::{Backlog, Item, PendingGraph};
use super::outbox::Outbox;
use crate::clock::unix_time;
use crate::coordinate;
use crate::driver::Driver;
use crate::graph::{GraphError, Node, native_nodes};
use crate::graph_log::{self, Coming};
use crate::peers::range;
use crate::server::Server;
use crate::translate::graph::Plan;
use crate::translate::{graph, to_client};
use crate::versions;

/// Time that a client waits for the first interpreter before it is told that it is connected. Clients whose
/// `comm.timeouts.connect` is 5 s, as in distributed's own tests, must not give up before.
const PATIENCE: Duration = Duration::from_secs(4);

/// One client's stream.
struct Stream {
    server: Arc<Server>,
    client: ClientId,
    name: Arc<str>,
    outbox: Arc<Outbox>,
    backlog: Backlog,
    /// As the client stated them: they decide which interpreter opens its graphs.
    versions: Value,
}

/// Registers a client and handles what it says until its stream ends. `native`: its graphs need no interpreter.
pub async fn stream(
    server: Arc<Server>,
    comm: Comm,
    body: RegisterClient,
    native: bool,
) -> Result<(), CommError> {
    let peer = comm.remote;
    // Connected means that graphs are taken in. If Python takes long to start, they will wait, but the client need not.
    if !native {
        let _ = tokio::time::timeout(PATIENCE, server.intake.ready()).await;
    }
    let outbox = Outbox::new(
        comm.writer,
        Arc::clone(&server.flusher),
        server.settings.outbox,
    );
    let refusal = range::refusal(&body.versions, &body.client);
    // The client wants this one alone in its array.
    let warning = {
        let driver = server.driver();
        let workers = driver.workers.iter().map(|peer| &peer.versions);
        versions::warning(&body.versions, "Client", workers, &server.intake.versions())
    };
    let start = ToClient::StreamStart(StreamStart {
        warning,
        error: refusal.clone().unwrap_or_default(),
    });
    outbox.send_message(&encode_batch(std::iter::once(&start)));
    if let Some(text) = refusal {
        warn!(%peer, "{text}");
        outbox.close();
        // The client leaves because of it, or the connection is broken: nobody is there to be told.
        let _ = outbox.pump().await;
        return Ok(());
    }
    let name: Arc<str> = body.client.into();
    let versions = body.versions.detached();
    let client = server
        .driver()
        .add_client(&name, Some(Arc::clone(&outbox)), versions.clone());
    info!(client = %name, %peer, "client connected");
    log_client(&server, &mut server.driver(), "add-client", &name);
    let mut stream = Stream {
        server: Arc::clone(&server),
        client,
        name: Arc::clone(&name),
        outbox,
        backlog: Backlog::default(),
        versions,
    };
    let reason = stream.run(comm.reader).await;
    info!(client = %name, reason, "client left");
    let mut driver = server.driver();
    driver.remove_client(client);
    coordinate::client_left(&server, &mut driver, &name);
    log_client(&server, &mut driver, "remove-client", &name);
    Ok(())
}

fn log_client(server: &Server, driver: &mut Driver, action: &str, name: &str) {
    let message = Value::map([("action", Value::from(action)), ("client", name.into())]);
    coordinate::log_event(server, driver, &["all", name], &message);
}

impl Stream {
    async fn run(&mut self, mut reader: oxidask_protocol::comm::CommReader) -> String {
        loop {
            tokio::select! {
                biased;
                ended = self.outbox.pump() => return match ended {
                    Ok(()) => "closed by the scheduler".to_owned(),
                    Err(error) => error.to_string(),
                },
                (graph, outcome) = self.backlog.next_graph() => {
                    match outcome {
                        Ok(_) => self.submit(graph.plan, graph.nodes, graph.began).await,
                        Err(error) => self.fail(&graph, error),
                    }
                    self.server.driver().graph_opened(self.client);
                    while let Some(message) = self.backlog.pop_message() {
                        if !self.message(message).await {
                            return "closed by the client".to_owned();
                        }
                    }
                }
                frames = reader.read(), if !self.backlog.is_full() => match frames {
                    Ok(Some(frames)) => match self.frames(frames).await {
                        Ok(true) => {}
                        Ok(false) => return "closed by the client".to_owned(),
                        Err(reason) => return reason,
                    },
                    Ok(None) => return "end of stream".to_owned(),
                    Err(error) => return error.to_string(),
                },
            }
        }
    }

    /// Handles what one array holds, as far as no graph stands before it. False when the client leaves.
    async fn frames(&mut self, frames: Vec<Bytes>) -> Result<bool, String> {
        let batch = decode_batch::<FromClient>(&frames).map_err(|error| {
            self.server.malformed.fetch_add(1, Ordering::Relaxed);
            format!("malformed message: {error}")
        })?;
        drop(frames);
        for message in batch {
            match message {
                FromClient::UpdateGraph(message) => {
                    let (request, plan) = graph::question(message);
                    let intake = self.server.intake.of(&self.versions);
                    let events = intake.submit(&self.name, request);
                    self.server.driver().graph_opens(self.client);
                    self.backlog.push(Item::Graph(Box::new(PendingGraph {
                        events,
                        plan,
                        nodes: Vec::new(),
                        began: unix_time(),
                    })));
                }
                message if self.backlog.is_empty() => {
                    if !self.message(message).await {
                        return Ok(false);
                    }
                }
                message => self.backlog.push(Item::Message(Box::new(message))),
            }
        }
        Ok(true)
    }

    /// Hands a graph in and waits until the core has taken it in, so that what the client sends next finds it there.
    /// `began`: when it came. Unit: Unix seconds.
    async fn submit(&self, plan: Plan, nodes: Vec<Vec<Node>>, began: f64) {
        let tasks: usize = nodes.iter().map(Vec::len).sum();
        debug!(client = %self.name, tasks, wanted = plan.wanted.len(), "graph");
        let stimulus_id: Arc<str> = format!("update-graph-{began}").into();
        let coming = Coming {
            client: Arc::clone(&self.name),
            began,
            materialised: unix_time(),
        };
        self.server
            .driver()
            .observers
            .task_metadata
            .wanted(&plan.wanted);
        let event = graph::event(self.client, plan, nodes, Arc::clone(&stimulus_id));
        {
            let mut driver = self.server.driver();
            driver.graph_comes(self.client, stimulus_id, coming);
            driver.handle(event);
            graph_log::write(&self.server, &mut driver);
            coordinate::keys_changed(&self.server, &mut driver);
        }
        self.server.take_in(self.client).await;
    }

    /// Each wanted key must be answered, or the client waits for ever.
    fn fail(&self, graph: &PendingGraph, error: Option<GraphError>) {
        let (exception, traceback) = match error {
            Some(error) => {
                warn!(client = %self.name, error = error.exception_text, traceback = error.traceback_text, "graph failed");
                (
                    Value::Payload(error.exception),
                    error.traceback.map_or(Value::Nil, Value::Payload),
                )
            }
            None => {
                warn!(client = %self.name, "graph lost: graph intake is shut down");
                let text = "the scheduler is shutting down";
                let pickle = exception::builtin("RuntimeError", text);
                (Value::Payload(Payload::of_bytes(pickle)), Value::Nil)
            }
        };
        self.report_erred(&graph.plan, &exception, &traceback);
        self.log_failed_graph(graph.began);
    }

    fn report_erred(&self, plan: &Plan, exception: &Value, traceback: &Value) {
        for key in &plan.wanted {
            self.outbox
                .send(|w| to_client::task_erred(w, key, exception, traceback));
        }
    }

    /// A graph of native tasks needs no helper.
    async fn native_graph(&self, message: UpdateNativeGraph) {
        let (tasks, plan) = graph::native(message);
        let began = unix_time();
        match native_nodes(tasks, &plan.wanted) {
            Ok(nodes) => self.submit(plan, vec![nodes], began).await,
            Err(error) => {
                warn!(client = %self.name, %error, "native graph refused");
                let pickle = exception::builtin("ValueError", &error.to_string());
                let exception = Value::Payload(Payload::of_bytes(pickle));
                self.report_erred(&plan, &exception, &Value::Nil);
                self.log_failed_graph(began);
            }
        }
    }

    fn log_failed_graph(&self, began: f64) {
        let event = Value::map([
            ("action", Value::from("update-graph")),
            ("stimulus_id", format!("update-graph-{began}").into()),
            ("status", "error".into()),
        ]);
        let mut driver = self.server.driver();
        let topics = ["scheduler", &*self.name];
        coordinate::log_event(&self.server, &mut driver, &topics, &event);
    }

    /// Handles one message, to its end. False when the client leaves.
    async fn message(&self, message: FromClient) -> bool {
        let message = match message {
            FromClient::UpdateNativeGraph(message) => {
                self.native_graph(message).await;
                return true;
            }
            message => message,
        };
        let stays = self.event(message);
        self.server.take_in(self.client).await;
        stays
    }

    /// Hands one message that is no graph in. False when the client leaves.
    fn event(&self, message: FromClient) -> bool {
        let client = self.client;
        let mut driver = self.server.driver();
        match message {
            FromClient::UpdateGraph(_) | FromClient::UpdateNativeGraph(_) => {
                unreachable!("graphs are taken out before messages are handled")
            }
            FromClient::ClientReleasesKeys(body) => {
                let client = body.client.0.map_or(client, |name| driver.client(&name));
                driver.handle(Event::ClientReleasesKeys {
                    client,
                    keys: body.keys.keys,
                });
            }
            FromClient::ClientDesiresKeys(body) => {
                let client = body.client.0.map_or(client, |name| driver.client(&name));
                driver.handle(Event::ClientDesiresKeys {
                    client,
                    keys: body.keys.keys,
                });
                coordinate::keys_changed(&self.server, &mut driver);
            }
            FromClient::CancelKeys(body) => {
                let event = Value::map([
                    ("action", Value::from("cancel")),
                    ("count", body.keys.keys.len().into()),
                    ("force", body.force.into()),
                ]);
                coordinate::log_event(&self.server, &mut driver, &[&*self.name], &event);
                driver.handle(Event::CancelKeys {
                    client,
                    keys: body.keys.keys,
                    force: body.force,
                    reason: body.reason,
                    message: body.msg,
                });
            }
            FromClient::ReportKey(body) => driver.handle(Event::ReportKey {
                client,
                key: body.key,
            }),
            FromClient::UpdateData(body) => {
                let client = body.client.0.map_or(client, |name| driver.client(&name));
                crate::rpc::data::data_added(
                    &self.server,
                    &mut driver,
                    Some(client),
                    &body.who_has,
                    &body.nbytes,
                );
            }
            FromClient::HeartbeatClient(_) => {
                if let Some(peer) = driver.clients.get_mut(client) {
                    peer.last_seen = unix_time();
                }
                let interval =
                    10.0 * heartbeat_interval(driver.clients.connected().count()).as_secs_f64();
                self.outbox
                    .send(|w| to_client::heartbeat_interval(w, interval));
            }
            FromClient::CloseClient(_) | FromClient::CloseStream(_) => return false,
            other => match coordinate::stream_message(&self.server, &mut driver, &self.name, other)
            {
                None => {}
                Some(unknown) => {
                    warn!(client = %self.name, op = unknown.op(), "unknown operation on a client's stream is ignored");
                }
            },
        }
        true
    }
}
