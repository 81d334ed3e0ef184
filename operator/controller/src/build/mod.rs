//! The child objects of each kind, as pure functions of the resource.
//!
//! They are JSON, because what the user wrote in a pod or Service spec goes
//! into them untouched. Names, labels, environment and owners are upstream's
//! to the letter; `tests/upstream_builders.rs` compares every field with what
//! upstream's own builders give. What is different, and why:
//!
//! * a new Deployment selects on labels that never change, upstream on all;
//! * the scheduler's Deployment replaces its pod (`Recreate`): at no time are
//!   there two scheduler pods, which clients refuse;
//! * the pod template carries labels and annotations only; upstream's also
//!   has a name and owners that the API server ignores;
//! * our own annotation [`SPEC_HASH`](crate::labels::SPEC_HASH).

mod command;
mod drain;
mod env;
pub(crate) mod experiment;
mod group;
mod guard;
mod job;
mod programs;
mod scheduler;
mod tls;
mod worker;

use kube::Resource;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use crate::labels::Map;

pub use group::default_group;
pub use guard::{group_budget, network_policies, scheduler_budget};
pub use job::{job_cluster, job_runner};
pub use scheduler::{scheduler_deployment, scheduler_service};
pub use worker::{WorkerParent, worker_deployment};

pub(crate) use command::{Program, find};
pub(crate) use group::group_hash;
pub(crate) use scheduler::{scheduler_hash, service_hash};
pub(crate) use tls::{Certificates, KEYS as TLS_KEYS, secret, secret_name};
pub(crate) use worker::worker_hash;

/// What a builder has to know of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// The image that brings our programs into others.
    pub programs_image: String,
}

/// The field manager of everything that the operator applies.
pub const MANAGER: &str = "oxidask-operator";

/// The owner reference to a resource, so that the child goes when it goes.
///
/// # Panics
/// If the resource has no name or uid: those that the API server gave have.
pub fn owner<K: Resource<DynamicType = ()>>(resource: &K) -> Value {
    let mut reference = resource
        .controller_owner_ref(&())
        .expect("a resource from the API server has a name and a uid");
    reference.block_owner_deletion = Some(true);
    json!(reference)
}

fn metadata(
    name: &str,
    namespace: Option<&str>,
    labels: &Map,
    annotations: &Map,
    owner: Value,
) -> Value {
    json!({
        "name": name,
        "namespace": namespace,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owner],
    })
}

fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or("default")
}
