//! One graph helper: a child interpreter that serves one client at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oxidask_python::{Child, ChildSettings, ConnectionError, ConnectionReader, Interpreter};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::answer::{Answer, Body, Graph, StructureError};
use super::intake::{Shared, State};
use super::queue::Pending;
use super::request::{self, Message};
use super::{GraphEnd, GraphError, GraphErrorKind, GraphEvent};

/// Requests that are sent before the first of them is answered.
const WINDOW: usize = 64;

/// Bytes of requests that are sent before the first of them is answered.
const WINDOW_BYTES: u64 = 8 << 20;

/// How long a helper keeps serving one client while others wait.
const TURN: Duration = Duration::from_millis(100);

/// How long a client waits before a helper beyond the usual number is started for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a working helper is looked at. Bounds the error of deadlines.
const LOOK: Duration = Duration::from_millis(250);

/// How long a graph may go on that nobody waits for any more.
const ABANDONED: Duration = Duration::from_secs(5);

/// Serves clients until the intake is closed, or until there is nothing to do for a while.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut helper = Helper {
        shared: Arc::clone(&shared),
        process: None,
        request_id: 0,
    };
    // An intake is often warmed: the process starts although nobody waits yet.
    let nobody_waits = shared.state().queues.oldest_wait().is_none();
    if nobody_waits && let Err(error) = helper.start().await {
        tracing::warn!(error = %error, "no Python for graphs yet");
    }
    while let Some(client) = next_client(&shared, helper.process.is_some()).await {
        helper.serve(&client).await;
        let waits = shared.state().queues.release(&client);
        if waits {
            shared.wake.notify_waiters();
        }
    }
    shared.state().helpers -= 1;
}

/// Waits for a client to serve. `None` ends the helper.
async fn next_client(shared: &Arc<Shared>, has_process: bool) -> Option<Arc<str>> {
    loop {
        let woken = shared.wake.notified();
        tokio::pin!(woken);
        // From here on a call to `notify_waiters` counts, so nothing falls between the look and the wait.
        woken.as_mut().enable();
        {
            let mut state = shared.state();
            if state.closed {
                fail_all(&mut state);
                return None;
            }
            if let Some(client) = state.queues.lease() {
                return Some(client);
            }
            state.idle += 1;
        }
        let idle_timeout = shared.config.idle_timeout;
        let rested = timeout(idle_timeout, woken).await.is_err();
        let mut state = shared.state();
        state.idle -= 1;
        if rested && state.queues.oldest_wait().is_none() && (state.helpers > 1 || !has_process) {
            return None;
        }
    }
}

/// Fails what waits at the end.
fn fail_all(state: &mut State) {
    while let Some(client) = state.queues.lease() {
        while let Some(pending) = state.queues.pop(&client) {
            let error =
                GraphError::ours(GraphErrorKind::ShutDown, "the scheduler shuts down".into());
            // Nobody may be listening any more, which is as well.
            let _ = pending.events.send(GraphEvent::Failed(error));
        }
        state.queues.release(&client);
    }
}

struct Helper {
    shared: Arc<Shared>,
    process: Option<Process>,
    request_id: u64,
}

struct Process {
    child: Child,
    reader: ConnectionReader,
    /// To the task that writes, so that reading never waits for writing.
    outbox: mpsc::UnboundedSender<Message>,
    /// As far as this process knows the plugins.
    plugin_changes: u64,
    plugins: Vec<(String, Bytes)>,
    /// What the error texts call it.
    interpreter: String,
}

/// A request that has been sent.
struct Active {
    id: u64,
    pending: Pending,
    graph: Option<Graph>,
    /// Nodes have been passed on, so that it cannot begin again.
    begun: bool,
    /// It has failed already; what the helper still sends is passed over.
    refused: bool,
}

/// How serving a client came to its end.
enum End {
    /// Nothing is left, or it is another's turn.
    Done,
    /// The process is unusable; what was sent and not answered goes back into the queue.
    Lost(GraphErrorKind, String),
    /// The process has ended by itself after its last answer.
    Left,
}

impl Helper {
    /// Answers requests of a leased client until there are none, or until it is another's turn.
    async fn serve(&mut self, client: &str) {
        if self.process.is_none()
            && let Err(error) = self.start().await
        {
            let mut state = self.shared.state();
            while let Some(pending) = state.queues.pop(client) {
                let _ = pending.events.send(GraphEvent::Failed(error.clone()));
            }
            return;
        }
        let mut active = VecDeque::new();
        match self.exchange(client, &mut active).await {
            End::Done => {}
            End::Left => {
                self.process = None;
                self.shared
                    .state()
                    .queues
                    .put_back(client, active.into_iter().map(|a: Active| a.pending));
            }
            End::Lost(kind, text) => self.blame(client, active, kind, text).await,
        }
    }

    async fn exchange(&mut self, client: &str, active: &mut VecDeque<Active>) -> End {
        let shared = Arc::clone(&self.shared);
        let Some(process) = &mut self.process else {
            return End::Done;
        };
        let began = Instant::now();
        let mut head_since = began;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.reset();
        loop {
            let woken = shared.wake.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if active.is_empty() {
                head_since = Instant::now();
            }
            process.top_up(&shared, client, began, &mut self.request_id, active);
            if active.is_empty() {
                return End::Done;
            }
            let frames = tokio::select! {
                biased;
                frames = process.reader.read() => frames,
                () = woken => {
                    if shared.state().closed {
                        return End::Lost(GraphErrorKind::ShutDown, "the scheduler shuts down".into());
                    }
                    continue;
                }
                _ = look.tick() => {
                    if let Some(end) = process.look(&shared, active, head_since) {
                        return end;
                    }
                    continue;
                }
            };
            let before = active.len();
            match frames
                .map_err(|error| lost(&error))
                .and_then(|frames| process.take(&frames, active))
            {
                Ok(Taken::More) => {}
                Ok(Taken::Left) => return End::Left,
                Err((kind, text)) => return End::Lost(kind, text),
            }
            if active.len() != before {
                head_since = Instant::now();
            }
        }
    }

    async fn start(&mut self) -> Result<(), GraphError> {
        let config = &self.shared.config;
        let interpreter = Interpreter::find(config.python.as_deref())
            .map_err(|error| GraphError::ours(GraphErrorKind::NoInterpreter, error.to_string()))?;
        let mut settings = ChildSettings::new("graph");
        settings.memory_limit = config.memory_limit;
        // Graphs are taken apart, not computed: threads of BLAS would only take memory.
        for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
            if std::env::var_os(name).is_none() {
                settings.environment.push((name.into(), "1".into()));
            }
        }
        let (child, connection) = Child::start(&interpreter, &settings)
            .await
            .map_err(|error| {
                GraphError::ours(
                    GraphErrorKind::NoInterpreter,
                    oxidask_python::with_causes(&error),
                )
            })?;
        let outbox = connection.writer.into_outbox(WINDOW);
        self.process = Some(Process {
            child,
            reader: connection.reader,
            outbox,
            plugin_changes: 0,
            plugins: Vec::new(),
            interpreter: interpreter.to_string(),
        });
        Ok(())
    }

    /// Deals with the requests that were with a process when it was lost.
    async fn blame(
        &mut self,
        client: &str,
        mut active: VecDeque<Active>,
        kind: GraphErrorKind,
        text: String,
    ) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let status = match kind {
            GraphErrorKind::Crashed => process.child.ended().await,
            _ => {
                process.child.kill().await;
                String::new()
            }
        };
        // A process that dies by itself is tried again: it may have been killed from outside, or by what an
        // earlier request did. One that has to be killed has shown what it would do.
        let certain = kind != GraphErrorKind::Crashed && active.len() == 1;
        let guilty = active
            .front()
            .is_some_and(|head| head.begun || head.pending.suspect || certain);
        if guilty && let Some(head) = active.pop_front() {
            let mut text = format!("the graph helper ({}) {text}", process.interpreter);
            if !status.is_empty() {
                text.push_str(&format!(" ({status})"));
            }
            let output = process.child.output();
            if !output.is_empty() {
                text.push_str(&format!("; its last output was:\n{output}"));
            }
            tracing::warn!(client, error = text, "graph failed");
            let _ = head
                .pending
                .events
                .send(GraphEvent::Failed(GraphError::ours(kind, text)));
        }
        let suspect = !guilty;
        let rest = active.into_iter().map(|mut active| {
            active.pending.suspect |= suspect;
            active.pending
        });
        self.shared.state().queues.put_back(client, rest);
    }
}

enum Taken {
    More,
    Left,
}

impl Process {
    /// Sends as many requests as fit.
    fn top_up(
        &mut self,
        shared: &Shared,
        client: &str,
        began: Instant,
        request_id: &mut u64,
        active: &mut VecDeque<Active>,
    ) {
        let mut state = shared.state();
        let mut bytes: u64 = active
            .iter()
            .map(|active| active.pending.request.expr.nbytes())
            .sum();
        loop {
            let full = active.len() >= WINDOW || bytes >= WINDOW_BYTES;
            let anothers_turn = began.elapsed() > TURN && state.queues.oldest_wait().is_some();
            let next_is_suspect = state.queues.peek(client).is_some_and(|next| next.suspect);
            let alone = next_is_suspect || active.iter().any(|active| active.pending.suspect);
            if full || anothers_turn || alone && !active.is_empty() {
                return;
            }
            let Some(pending) = state.queues.pop(client) else {
                return;
            };
            if pending.events.is_closed() {
                continue;
            }
            if self.plugin_changes != state.plugin_changes {
                self.send_plugins(&state);
            }
            *request_id += 1;
            bytes += pending.request.expr.nbytes();
            self.send(request::materialise(*request_id, &pending.request));
            active.push_back(Active {
                id: *request_id,
                pending,
                graph: None,
                begun: false,
                refused: false,
            });
        }
    }

    fn send(&self, message: Message) {
        // The writer ends only with the process, which the reader notices.
        let _ = self.outbox.send(message);
    }

    fn send_plugins(&mut self, state: &State) {
        let gone = self
            .plugins
            .iter()
            .filter(|known| !state.plugins.contains(known));
        let stops: Vec<Message> = gone.map(|(name, _)| request::plugin(name, None)).collect();
        let new = state
            .plugins
            .iter()
            .filter(|wanted| !self.plugins.contains(wanted));
        let starts: Vec<Message> = new
            .map(|(name, pickle)| request::plugin(name, Some(pickle)))
            .collect();
        stops
            .into_iter()
            .chain(starts)
            .for_each(|message| self.send(message));
        self.plugins = state.plugins.clone();
        self.plugin_changes = state.plugin_changes;
    }

    /// Passes an answer on.
    fn take(
        &mut self,
        frames: &[Bytes],
        active: &mut VecDeque<Active>,
    ) -> Result<Taken, (GraphErrorKind, String)> {
        let malformed = |error: oxidask_protocol::DecodeError| {
            (
                GraphErrorKind::Crashed,
                format!("sent a malformed answer: {error}"),
            )
        };
        let answer = Answer::read(frames).map_err(malformed)?;
        let Some(head) = active.front_mut().filter(|head| head.id == answer.id) else {
            return Err((
                GraphErrorKind::Crashed,
                format!("answered request {} out of turn", answer.id),
            ));
        };
        let nodes = match answer.body {
            Body::Failed { error, ends } => {
                if let Some(head) = active.pop_front() {
                    let _ = head.pending.events.send(GraphEvent::Failed(error));
                }
                return Ok(if ends { Taken::Left } else { Taken::More });
            }
            Body::Structure(mut structure) => {
                let nodes = structure.nodes.take();
                let asks_order = structure.asks_order;
                match Graph::new(structure, &head.pending.request) {
                    Ok(graph) => head.graph = Some(graph),
                    Err(StructureError::Malformed(error)) => return Err(malformed(error)),
                    Err(StructureError::Refused(error)) => {
                        let _ = head.pending.events.send(GraphEvent::Failed(*error));
                        head.refused = true;
                    }
                }
                if asks_order {
                    let positions = head
                        .graph
                        .as_ref()
                        .and_then(Graph::sequence)
                        .unwrap_or_default();
                    let _ = self.outbox.send(request::order(head.id, positions));
                }
                nodes
            }
            Body::Nodes(nodes) => Some(nodes),
        };
        let Some(nodes) = nodes else {
            return Ok(Taken::More);
        };
        if head.refused {
            if nodes.last {
                active.pop_front();
            }
            return Ok(Taken::More);
        }
        let Some(graph) = &mut head.graph else {
            return Err((
                GraphErrorKind::Crashed,
                "sent nodes before their structure".into(),
            ));
        };
        let last = nodes.last;
        let nodes = graph.nodes(nodes).map_err(malformed)?;
        head.begun |= !nodes.is_empty();
        let _ = head.pending.events.send(GraphEvent::Nodes(nodes));
        if last {
            let end = GraphEnd {
                nodes: graph.received(),
            };
            if let Some(head) = active.pop_front() {
                let _ = head.pending.events.send(GraphEvent::Done(end));
            }
        }
        Ok(Taken::More)
    }

    /// Checks time, memory and those who wait.
    fn look(
        &self,
        shared: &Arc<Shared>,
        active: &VecDeque<Active>,
        head_since: Instant,
    ) -> Option<End> {
        let config = &shared.config;
        let abandoned = active
            .iter()
            .all(|active| active.pending.events.is_closed());
        let limit = if abandoned {
            config.timeout.min(ABANDONED)
        } else {
            config.timeout
        };
        if head_since.elapsed() > limit {
            let text = format!(
                "did not finish a graph within {} s (oxidask.graph.timeout)",
                limit.as_secs()
            );
            return Some(End::Lost(GraphErrorKind::TimedOut, text));
        }
        // The limit makes allocations fail by itself; this is for memory that it does not count, such as files in
        // /dev/shm. A quarter more leaves room for code and libraries.
        let most = config.memory_limit + config.memory_limit / 4;
        if config.memory_limit > 0
            && self
                .child
                .resident()
                .is_some_and(|resident| resident > most)
        {
            let text =
                format!("used more than {most} bytes of memory (oxidask.graph.memory-limit)");
            return Some(End::Lost(GraphErrorKind::OutOfMemory, text));
        }
        if shared
            .state()
            .queues
            .oldest_wait()
            .is_some_and(|since| since.elapsed() > PATIENCE)
        {
            shared.add_helper(true);
        }
        None
    }
}

fn lost(error: &ConnectionError) -> (GraphErrorKind, String) {
    let text = match error {
        ConnectionError::Closed | ConnectionError::Io(_) => {
            "died while it worked on a graph".to_owned()
        }
        ConnectionError::Decode(error) => format!("sent a malformed answer: {error}"),
    };
    (GraphErrorKind::Crashed, text)
}
