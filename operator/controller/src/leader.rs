//! One process acts at a time: a Lease, taken and renewed.
//!
//! A process that cannot renew its lease in time ends itself, before another
//! can take the lease over.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use crate::run::Operator;

/// Name of the lease.
const NAME: &str = "oxidask-operator";
/// How long a lease is good without renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// After how long without renewal a process stops to act.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often a process without the lease looks for it.
const RETRY: Duration = Duration::from_secs(2);

/// Another process may act from now on.
#[derive(Debug, thiserror::Error)]
#[error("the lease was lost")]
pub struct Lost;

/// Has the operator act while the lease is ours.
///
/// # Errors
/// [`Lost`]: whatever the operator was doing has been dropped by then, and this
/// process must not act again.
pub async fn lead(
    mut leader: Leader,
    operator: &Operator,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Result<(), Lost> {
    operator.stand_by(true);
    let acquired = shutdown.run_until_cancelled(leader.acquire()).await;
    if acquired.is_none() {
        return Ok(());
    }
    operator.stand_by(false);
    metrics.leading(true);
    let stop = shutdown.child_token();
    let mut running = std::pin::pin!(operator.run(stop.clone()));
    tokio::select! {
        () = &mut running => {
            leader.release().await;
            Ok(())
        }
        () = leader.hold() => {
            metrics.leading(false);
            Err(Lost)
        }
    }
}

/// A candidate for the lease.
pub struct Leader {
    api: Api<Lease>,
    identity: String,
    /// The last renewal by somebody else: its text, and when we first saw it.
    /// Our own clock counts, because clocks of nodes differ.
    seen: Option<(Value, Instant)>,
}

impl Leader {
    /// A candidate in that namespace. `identity` must be its own alone.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            identity,
            seen: None,
        }
    }

    /// Waits until the lease is ours.
    pub async fn acquire(&mut self) {
        info!(identity = self.identity, "waiting for the lease {NAME}");
        loop {
            match self.attempt().await {
                Ok(true) => {
                    info!(identity = self.identity, "this process leads");
                    return;
                }
                Ok(false) => debug!("the lease is another's"),
                Err(error) => warn!(%error, "the lease cannot be had"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the lease until it is lost.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW.min(GIVE_UP.saturating_sub(renewed.elapsed()))).await;
            let attempt =
                tokio::time::timeout(GIVE_UP.saturating_sub(renewed.elapsed()), self.attempt())
                    .await;
            match attempt {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    warn!("another process took the lease");
                    return;
                }
                Ok(Err(error)) => warn!(%error, "the lease could not be renewed"),
                Err(_) => warn!("the lease could not be renewed in time"),
            }
            if renewed.elapsed() >= GIVE_UP {
                return;
            }
        }
    }

    /// Gives the lease back, so that the next process need not wait.
    pub async fn release(&self) {
        let patch = json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}});
        let done = self
            .api
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        if let Err(error) = done {
            debug!(%error, "the lease could not be given back");
        }
    }

    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let lease = serde_json::from_value(json!({
                "metadata": {"name": NAME},
                "spec": self.claim(0),
            }))
            .map_err(kube::Error::SerdeError)?;
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity
            && !holder.is_empty()
            && !self.is_expired(&json!([holder, spec.renew_time]))
        {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0) + i32::from(holder != self.identity);
        // The version makes the write fail if somebody else was faster.
        let patch = json!({
            "metadata": {"resourceVersion": lease.metadata.resource_version},
            "spec": self.claim(transitions),
        });
        match self
            .api
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_expired(&mut self, renewal: &Value) -> bool {
        match &self.seen {
            Some((seen, since)) if seen == renewal => since.elapsed() > DURATION,
            _ => {
                self.seen = Some((renewal.clone(), Instant::now()));
                false
            }
        }
    }

    fn claim(&self, transitions: i32) -> Value {
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
            .to_string();
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        })
    }
}
