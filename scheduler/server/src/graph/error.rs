//! Why a graph could not be had, ready to be sent to the client.

use bytes::Bytes;
use oxidask_protocol::Payload;
use oxidask_protocol::exception;

/// The class of a failure, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GraphErrorKind {
    /// Python code raised: the expression cannot be unpickled, materialised or pickled, or an annotation is wrong.
    Raised,
    /// The tasks of the graph need each other in a circle.
    BadGraph,
    /// There is no interpreter that could do it.
    NoInterpreter,
    /// The helper process died while it worked on the graph.
    Crashed,
    /// The helper did not answer before the deadline.
    TimedOut,
    /// The helper exceeded its memory limit.
    OutOfMemory,
    /// The intake was shut down.
    ShutDown,
}

/// A failure as `task-erred` says it: pickles that the client opens, and texts for logs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{exception_text}")]
pub struct GraphError {
    /// Its class.
    pub kind: GraphErrorKind,
    /// The pickled exception.
    pub exception: Payload,
    /// The pickled traceback, if there is one that can be sent.
    pub traceback: Option<Payload>,
    /// `repr` of the exception.
    pub exception_text: String,
    /// The traceback in words; may be empty.
    pub traceback_text: String,
}

impl GraphError {
    /// An exception that Python code raised.
    pub(super) fn raised(
        exception: Bytes,
        traceback: Option<Bytes>,
        text: String,
        traceback_text: String,
    ) -> Self {
        Self {
            kind: GraphErrorKind::Raised,
            exception: Payload::of_bytes(exception),
            traceback: traceback.map(Payload::of_bytes),
            exception_text: text,
            traceback_text,
        }
    }

    /// A failure on our side, as the exception of the standard library that fits best.
    pub(super) fn ours(kind: GraphErrorKind, text: String) -> Self {
        let class = match kind {
            GraphErrorKind::TimedOut => "TimeoutError",
            GraphErrorKind::OutOfMemory => "MemoryError",
            GraphErrorKind::Raised => "ValueError",
            GraphErrorKind::BadGraph
            | GraphErrorKind::NoInterpreter
            | GraphErrorKind::Crashed
            | GraphErrorKind::ShutDown => "RuntimeError",
        };
        Self {
            kind,
            exception: Payload::of_bytes(exception::builtin(class, &text)),
            traceback: None,
            exception_text: format!("{class}({text:?})"),
            traceback_text: String::new(),
        }
    }
}
