//! A cluster's demand for workers: heard where the scheduler tells it, asked
//! for where it does not.

use std::collections::HashMap;
use std::sync::Mutex;

use futures::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::context::Context;
use crate::queue::Key;
use crate::scheduler::{Demand, Demands, Endpoint, GroupOffer, SchedulerError};

/// The schedulers that are listened to, by autoscaler.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<HashMap<Key, Watch>>);

#[derive(Debug)]
struct Watch {
    /// The scheduler's pod and the groups that it was asked about: for others
    /// it is asked anew.
    about: (String, Vec<GroupOffer>),
    /// What it said last. `None`: it says nothing and must be asked.
    latest: Option<Demand>,
    /// Ends the listening.
    _end: Option<DropGuard>,
}

impl Watches {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Watch>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Stops listening for an autoscaler that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }
}

/// What a scheduler asks for at this moment.
pub(super) async fn demand(
    context: &Context,
    key: &Key,
    at: &Endpoint,
    groups: &[GroupOffer],
) -> Result<Demand, SchedulerError> {
    let about = (at.pod.clone(), groups.to_vec());
    let watches = &context.memory.watches;
    let known = {
        let known = watches.lock();
        let watch = known.get(key).filter(|watch| watch.about == about);
        watch.map(|watch| watch.latest.clone())
    };
    match known {
        Some(Some(latest)) => return Ok(latest),
        Some(None) => return context.scheduler.desired_workers(at, groups).await,
        None => {}
    }
    let demands = context.scheduler.watch_desired_workers(at, groups).await?;
    let now = context.scheduler.desired_workers(at, groups).await?;
    let watch = match demands {
        None => Watch {
            about,
            latest: None,
            _end: None,
        },
        Some(demands) => {
            let end = CancellationToken::new();
            listen(context, key, about.clone(), demands, end.clone());
            Watch {
                about,
                latest: Some(now.clone()),
                _end: Some(end.drop_guard()),
            }
        }
    };
    watches.lock().insert(key.clone(), watch);
    Ok(now)
}

/// Keeps what the scheduler says up to date, and has the autoscaler looked at
/// whenever it says something else.
fn listen(
    context: &Context,
    key: &Key,
    about: (String, Vec<GroupOffer>),
    mut demands: Demands,
    end: CancellationToken,
) {
    let (context, key) = (context.clone(), key.clone());
    let operator_ends = context.end.clone();
    let task = async move {
        loop {
            let next = demands.next().await;
            let mut watches = context.memory.watches.lock();
            let Some(watch) = watches.get_mut(&key).filter(|watch| watch.about == about) else {
                return;
            };
            match next {
                Some(Ok(demand)) => {
                    let is_news = watch.latest.as_ref() != Some(&demand);
                    watch.latest = Some(demand);
                    drop(watches);
                    if is_news {
                        context.queue.add(key.clone());
                    }
                }
                ended => {
                    // The next look asks, and listens anew if it can.
                    watches.remove(&key);
                    drop(watches);
                    debug!(
                        namespace = key.namespace,
                        name = key.name,
                        ?ended,
                        "the scheduler tells its demand no longer"
                    );
                    context.queue.add(key.clone());
                    return;
                }
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            () = end.cancelled() => {}
            () = operator_ends.cancelled() => {}
        }
    });
}
