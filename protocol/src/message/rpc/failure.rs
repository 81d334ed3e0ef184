//! The answer to a request that failed.

use bytes::Bytes;

use crate::Value;
use crate::key::repr;

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
            exception: Value::Bin(pickled_builtin(class, text)),
            traceback: Value::Nil,
            exception_text: format!("{class}({})", repr(text)),
            traceback_text: String::new(),
        }
    }
}

/// The pickle (protocol 2) of a builtin exception with one text argument, such as `KeyError("x")`.
pub fn pickled_builtin(class: &str, text: &str) -> Bytes {
    pickled_call("builtins", class, text)
}

/// The pickle (protocol 2) of `module.name(text)`.
pub fn pickled_call(module: &str, name: &str, text: &str) -> Bytes {
    let mut out = Vec::with_capacity(32 + module.len() + name.len() + text.len());
    out.extend_from_slice(b"\x80\x02c");
    out.extend_from_slice(module.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\nX");
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\x85R.");
    out.into()
}
