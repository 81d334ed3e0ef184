//! Dask worker state machine without I/O.
