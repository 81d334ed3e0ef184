//! The kubernetes.dask.org/v1 resource types.
