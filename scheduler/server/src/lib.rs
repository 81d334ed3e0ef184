//! The dask-scheduler binary.

pub mod graph;
