//! Measurements against stock Dask.
