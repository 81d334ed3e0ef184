//! What can go wrong between a client and its cluster.

use oxidask_protocol::{DecodeError, Key, comm::CommError};
use oxidask_worker_kernels::KernelError;

/// What can go wrong between a client and its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("{address:?} is no address of a scheduler: {text}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        text: String,
    },
    /// The connection failed.
    #[error("connection to the scheduler failed")]
    Comm(#[from] CommError),
    /// The scheduler is of another make.
    #[error(
        "{0} is no scheduler of oxidask, so it does not take native graphs; connect to one started with oxidask's dask-scheduler"
    )]
    NotOxidask(String),
    /// The scheduler sent something that is no answer.
    #[error("the scheduler's answer to {op:?} is malformed")]
    Malformed {
        /// The request.
        op: &'static str,
        /// What is wrong, and where.
        #[source]
        source: DecodeError,
    },
    /// The scheduler refuses a request.
    #[error("the scheduler answers {op:?} with: {text}")]
    Refused {
        /// The request.
        op: &'static str,
        /// What it says.
        text: String,
    },
    /// The stream to the scheduler ended.
    #[error("the connection to the scheduler is closed: {0}")]
    Closed(String),
    /// The scheduler does not read.
    #[error(
        "not submitted: {0} tasks and keys wait for the scheduler to read them already; wait for earlier futures first"
    )]
    Full(usize),
    /// A task failed.
    #[error("task {key} failed: {text}")]
    Erred {
        /// The task.
        key: Key,
        /// Its exception, as far as it can be read without Python.
        text: String,
    },
    /// A task was cancelled.
    #[error("task {key} was cancelled: {text}")]
    Cancelled {
        /// The task.
        key: Key,
        /// Why.
        text: String,
    },
    /// A result is no array that this client reads.
    #[error("the result of {key} cannot be read: {text}")]
    Value {
        /// The task.
        key: Key,
        /// What it is.
        text: String,
    },
    /// A graph of arrays makes no sense.
    #[error("{0}")]
    Array(String),
    /// A wait came to its end.
    #[error("not within {seconds} s: {what}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// Unit: seconds.
        seconds: f64,
    },
    /// A kernel that was run here failed.
    #[error("a kernel failed")]
    Kernel(#[from] KernelError),
}
