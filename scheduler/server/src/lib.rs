//! The dask-scheduler binary.
