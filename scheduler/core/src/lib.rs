//! Dask scheduler state machine without I/O.
