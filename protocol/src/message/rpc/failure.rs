//! The answer to a request that failed.

use crate::key::repr;
use crate::{Value, exception};

wire_struct! {
    /// The answer to a request that failed.
    pub struct Failure {
        /// `uncaught-error`, or `error` where the request's own handler caught it.
        status: String,
        /// A payload, a pickle in bytes, or a text that becomes an `Exception`.
        exception: Value,
        /// A payload or nil.
        traceback: Value,
        /// For callers that do not unpickle.
        exception_text: String,
        /// For callers that do not unpickle.
        traceback_text: String,
    }
}

impl Failure {
    /// A failure that the caller raises as the builtin exception `class` with this text.
    pub fn builtin(class: &str, text: &str) -> Self {
        Self {
            status: "uncaught-error".to_owned(),
            exception: Value::Bin(exception::builtin(class, text)),
            traceback: Value::Nil,
            exception_text: format!("{class}({})", repr(text)),
            traceback_text: String::new(),
        }
    }
}
