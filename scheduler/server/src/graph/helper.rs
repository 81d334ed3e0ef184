//! One graph helper: a child interpreter that serves one client at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use oxidask_python::{Child, ChildSettings, Interpreter};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::intake::{Shared, State};
use super::process::{Active, End, Process, Taken, WINDOW, lost};
use super::{GraphError, GraphErrorKind, GraphEvent};

/// How often a working helper is looked at. Bounds the error of deadlines.
const LOOK: Duration = Duration::from_millis(250);

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
    shared.tried.send_replace(true);
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
                process.child.forget_output();
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
        self.shared.state().versions = child.hello().versions.clone();
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
