//! No task is handed out until none is executing.

use std::sync::Arc;
use std::time::Duration;

use oxidask_control::v1;
use oxidask_scheduler_core::Event;
use tokio::time::Instant;
use tracing::info;

use super::convert::count;
use super::progress::deadline_after;
use super::watch::Answers;
use crate::server::Server;

/// Time between two looks at what is executing.
const LOOK: Duration = Duration::from_millis(50);

/// Drains, or ends a drain, and tells how it goes.
pub(super) fn drain(server: Arc<Server>, request: v1::DrainRequest) -> Answers<v1::DrainProgress> {
    if request.resume {
        set(&server, false);
        let resumed = progress(v1::DrainState::Resumed, executing(&server));
        return Box::pin(futures::stream::iter([Ok(resumed)]));
    }
    set(&server, true);
    let drain = Drain {
        server,
        deadline: request.timeout_ms.map(deadline_after),
        told: None,
        has_ended: false,
    };
    Box::pin(futures::stream::unfold(drain, |mut drain| async {
        let next = drain.next().await?;
        Some((Ok(next), drain))
    }))
}

/// A drain that a caller waits for. Dropped before its end, tasks are handed out again.
struct Drain {
    server: Arc<Server>,
    deadline: Option<Instant>,
    /// What the caller was told last.
    told: Option<u32>,
    has_ended: bool,
}

impl Drain {
    async fn next(&mut self) -> Option<v1::DrainProgress> {
        if self.has_ended {
            return None;
        }
        loop {
            let executing = executing(&self.server);
            let end = if !self.server.driver().core().is_draining() {
                // Somebody else resumed.
                Some(v1::DrainState::Resumed)
            } else if executing == 0 {
                Some(v1::DrainState::Drained)
            } else if self
                .deadline
                .is_some_and(|deadline| deadline <= Instant::now())
            {
                Some(v1::DrainState::Deadline)
            } else {
                None
            };
            if let Some(end) = end {
                self.has_ended = true;
                return Some(progress(end, executing));
            }
            if self.told != Some(executing) {
                self.told = Some(executing);
                return Some(progress(v1::DrainState::Draining, executing));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        if !self.has_ended {
            set(&self.server, false);
        }
    }
}

fn set(server: &Server, draining: bool) {
    let mut driver = server.driver();
    if driver.core().is_draining() != draining {
        info!(draining, "handing out tasks is stopped or goes on");
        driver.handle(Event::DrainingSet { draining });
    }
}

fn executing(server: &Server) -> u32 {
    count(server.driver().core().assigned_tasks())
}

fn progress(state: v1::DrainState, executing: u32) -> v1::DrainProgress {
    v1::DrainProgress {
        state: state.into(),
        executing,
    }
}
