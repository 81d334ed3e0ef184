//! The operator: makes what `DaskCluster`, `DaskWorkerGroup`, `DaskJob`,
//! `DaskAutoscaler` and `ScalingExperiment` ask for, and keeps it so.
//!
//! The way of a change: [`watch`] puts it into a [`store`] and the resource it
//! concerns into the [`queue`]; [`run`] takes it from there to the controller
//! of its kind, which reads the stores (dereference), checks (validate), makes
//! manifests ([`build`]), applies them, and writes the status. A controller
//! looks at what is, never at what happened: it may be called at any time and
//! any number of times.

mod api;
pub mod args;
mod autoscaler;
pub mod build;
pub mod client;
pub mod clock;
mod cluster;
mod conditions;
mod connected;
pub mod context;
pub mod error;
pub mod events;
mod experiment;
mod guards;
mod job;
pub mod labels;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod namespaces;
mod owners;
pub mod queue;
pub mod run;
pub mod scheduler;
pub mod server;
pub mod spec_hash;
pub mod store;
pub mod stores;
mod takeover;
mod validate;
pub mod views;
pub mod watch;
mod worker_group;
