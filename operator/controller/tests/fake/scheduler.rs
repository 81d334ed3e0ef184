//! A scheduler whose workers are the fake server's pods.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use oxidask_operator::scheduler::{
    Demand, Demands, Endpoint, GroupOffer, Moved, Retired, SchedulerApi, SchedulerError, WorkerInfo,
};

use super::{Fake, PODS};

/// What the scheduler knows, kept beside the server's state.
#[derive(Default)]
pub struct Book {
    /// Bytes of results by worker; workers without an entry have one byte.
    pub bytes: BTreeMap<String, u64>,
    /// Tasks by worker.
    pub processing: BTreeMap<String, u64>,
    /// Workers retired so far.
    pub retired: BTreeSet<String>,
    /// Set while children of a deleted object are deleted: nothing counts as lost.
    pub doomed: bool,
    /// How many workers it would like.
    pub desired: i64,
    /// Since when it is idle.
    pub idle_since: Option<f64>,
    /// Whether it answers at all.
    pub silent: bool,
    /// Workers that are connected, if not all of those whose pods are ready.
    pub connected: Option<BTreeSet<String>>,
    /// How long moving results takes, in seconds.
    pub moving: u64,
}

impl Book {
    /// Whether the end of a worker loses something.
    pub fn would_lose(&self, worker: &str) -> bool {
        !self.retired.contains(worker)
    }
}

pub struct FakeScheduler(pub Fake);

impl FakeScheduler {
    fn silent(&self, at: &Endpoint) -> Result<(), SchedulerError> {
        if self.0.with(|state| state.scheduler.silent) {
            return Err(SchedulerError::Answer {
                question: format!("a question to {}", at.host),
                answer: "none".to_owned(),
            });
        }
        Ok(())
    }

    fn known(&self) -> Vec<WorkerInfo> {
        self.0.with(|state| {
            let pods = state.objects.iter().filter(|(path, pod)| {
                path.0 == PODS
                    && pod["metadata"]["labels"]["dask.org/component"] == "worker"
                    && (pod["status"]["conditions"][0]["status"] == "True"
                        || !pod["metadata"]["deletionTimestamp"].is_null())
            });
            let workers = pods.map(|(path, pod)| {
                (
                    path.2.trim_end_matches("-abc-xyz").to_owned(),
                    pod["status"]["podIP"].clone(),
                )
            });
            let connected = &state.scheduler.connected;
            workers
                .filter(|(name, _)| connected.as_ref().is_none_or(|names| names.contains(name)))
                .map(|(name, ip)| WorkerInfo {
                    address: format!("tcp://{}:4000", ip.as_str().unwrap()),
                    processing: state.scheduler.processing.get(&name).copied().unwrap_or(0),
                    nthreads: None,
                    results: 1,
                    bytes: state.scheduler.bytes.get(&name).copied().unwrap_or(1),
                    name,
                })
                .collect()
        })
    }
}

impl SchedulerApi for FakeScheduler {
    fn workers<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Vec<WorkerInfo>, SchedulerError>> {
        async move { self.silent(at).map(|()| self.known()) }.boxed()
    }

    fn retire<'a>(
        &'a self,
        at: &'a Endpoint,
        addresses: &'a [String],
        timeout: Duration,
        moved: Moved<'a>,
    ) -> BoxFuture<'a, Result<Retired, SchedulerError>> {
        async move {
            self.silent(at)?;
            let moving = Duration::from_secs(self.0.with(|state| state.scheduler.moving));
            moved(0, 10);
            tokio::time::sleep(moving.min(timeout)).await;
            if moving > timeout {
                return Ok(Retired {
                    done: Vec::new(),
                    left: addresses.to_vec(),
                });
            }
            let known = self.known();
            self.0.with(|state| {
                for info in known
                    .into_iter()
                    .filter(|info| addresses.contains(&info.address))
                {
                    state.scheduler.retired.insert(info.name);
                }
            });
            Ok(Retired {
                done: addresses.to_vec(),
                left: Vec::new(),
            })
        }
        .boxed()
    }

    fn remove<'a>(
        &'a self,
        at: &'a Endpoint,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<(), SchedulerError>> {
        async move { self.silent(at) }.boxed()
    }

    fn desired_workers<'a>(
        &'a self,
        at: &'a Endpoint,
        _: &'a [GroupOffer],
    ) -> BoxFuture<'a, Result<Demand, SchedulerError>> {
        async move {
            let total = self
                .silent(at)
                .map(|()| self.0.with(|state| state.scheduler.desired))?;
            Ok(Demand {
                total,
                ..Demand::default()
            })
        }
        .boxed()
    }

    fn watch_desired_workers<'a>(
        &'a self,
        _: &'a Endpoint,
        _: &'a [GroupOffer],
    ) -> BoxFuture<'a, Result<Option<Demands>, SchedulerError>> {
        async move { Ok(None) }.boxed()
    }

    fn idle_since<'a>(
        &'a self,
        at: &'a Endpoint,
    ) -> BoxFuture<'a, Result<Option<f64>, SchedulerError>> {
        async move {
            self.silent(at)
                .map(|()| self.0.with(|state| state.scheduler.idle_since))
        }
        .boxed()
    }
}
