//! The resource types of `kubernetes.dask.org/v1`, and [`ScalingExperiment`]
//! of `oxidask.io/v1alpha1`.
//!
//! Drop-in for the types of dask-kubernetes: every manifest that its CRDs
//! accept is accepted here and reads back equal. [`crds()`] gives the CRDs;
//! `cargo xtask crds` writes them to `crds/`.
//!
//! Pod and Service specs are carried as the JSON that the user wrote
//! ([`PodSpec`], [`ServiceSpec`]); the API server validates them against the
//! full schema of Kubernetes 1.34. So a field that is newer than this crate
//! passes through untouched, and no object can fail to decode and hide the
//! others of its list.

// Two printer columns may well have the same type.
#![allow(clippy::duplicated_attributes)]

mod autoscaler;
mod cluster;
mod common;
mod crds;
pub mod experiment;
mod job;
mod options;
mod pod_schema;
mod worker_group;

pub use autoscaler::{DaskAutoscaler, DaskAutoscalerSpec, DaskAutoscalerStatus};
pub use cluster::{
    DaskCluster, DaskClusterSpec, DaskClusterStatus, IdleAction, Phase, SchedulerSpec,
};
pub use common::{PodSpec, ServiceSpec, SubMetadata, WorkerSpec};
pub use crds::crds;
pub use experiment::{ScalingExperiment, ScalingExperimentSpec, ScalingExperimentStatus};
pub use job::{DaskJob, DaskJobSpec, DaskJobStatus, JobClusterSpec, JobPodSpec};
pub use options::{
    GroupBounds, GroupTarget, NetworkPolicySpec, PodDisruptionBudgetSpec, RustSpec, TlsSpec,
};
pub use worker_group::{DaskWorkerGroup, DaskWorkerGroupSpec, DaskWorkerGroupStatus};

/// The API group of dask-kubernetes' kinds.
pub const GROUP: &str = "kubernetes.dask.org";
/// The only version, served and stored.
pub const VERSION: &str = "v1";
