//! The dask-scheduler binary.

pub mod aside;
pub mod extensions;
pub mod graph;
