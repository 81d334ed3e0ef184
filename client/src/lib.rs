//! A client of oxidask clusters in Rust: graphs of native tasks, which need no interpreter anywhere.
//!
//! [`Client`] submits graphs and gathers results; a [`Future`] keeps a result on the cluster as long as it lives;
//! [`mod@array`] builds graphs of chunked arrays. The wire is Dask's own (`docs/protocol.md`) with one operation more
//! for native graphs, so results can be shared with Python clients by their keys.
//!
//! ```no_run
//! # async fn pi() -> Result<(), oxidask_client::ClientError> {
//! use oxidask_client::{Client, array::Array};
//!
//! let client = Client::connect("tcp://127.0.0.1:8786").await?;
//! let x = Array::uniform(1, &[4000, 4000], &[1000, 1000])?;
//! let trace = x.matmul(&x.transpose())?.sum(None)?;
//! println!("{:?}", client.compute(&trace).await?);
//! # Ok(())
//! # }
//! ```

pub mod array;
mod client;
mod error;
mod future;
mod gather;
mod graph;
mod link;
mod numpy;
mod outbox;

pub use client::{Client, Options};
pub use error::ClientError;
pub use future::Future;
pub use graph::{Graph, Task};
pub use oxidask_protocol::{Key, Value};
pub use oxidask_worker_kernels::{Binary, Chunk, DType, Kernel, Range, Reduction, Scalar, Unary};
