//! The operator: makes what `DaskCluster`, `DaskWorkerGroup`, `DaskJob` and
//! `DaskAutoscaler` ask for, and keeps it so.

pub mod build;
pub mod labels;
pub mod names;
pub mod spec_hash;
