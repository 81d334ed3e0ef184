//! The dask-scheduler binary.

pub mod extensions;
pub mod graph;
