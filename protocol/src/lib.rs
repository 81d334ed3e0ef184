//! Dask's comm protocol.
