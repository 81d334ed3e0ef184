//! The dask-worker binary.
