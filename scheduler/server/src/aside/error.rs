//! Why something did not come of a call to the process beside the scheduler.

use bytes::Bytes;
use oxidask_protocol::Payload;
use oxidask_protocol::exception;

/// An exception, ready to be sent to a client.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{exception_text}")]
pub struct AsideError {
    /// The pickled exception.
    pub exception: Payload,
    /// The pickled traceback, if there is one.
    pub traceback: Option<Payload>,
    /// `repr` of the exception.
    pub exception_text: String,
    /// The traceback in words; may be empty.
    pub traceback_text: String,
}

impl AsideError {
    /// What user code raised.
    pub(super) fn raised(
        exception: Bytes,
        traceback: Option<Bytes>,
        text: String,
        traceback_text: String,
    ) -> Self {
        Self {
            exception: Payload::of_bytes(exception),
            traceback: traceback.map(Payload::of_bytes),
            exception_text: text,
            traceback_text,
        }
    }

    /// A `RuntimeError` of our own.
    pub(super) fn unavailable(text: &str) -> Self {
        Self {
            exception: Payload::of_bytes(exception::builtin("RuntimeError", text)),
            traceback: None,
            exception_text: format!("RuntimeError({text:?})"),
            traceback_text: String::new(),
        }
    }
}
