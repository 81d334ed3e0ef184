//! Exceptions that a request answers with, as stock Dask raises them.

use std::fmt;

use oxidask_protocol::Value;
use oxidask_protocol::exception;
use oxidask_protocol::message::rpc::Failure;

/// An exception for the caller: its class and its one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    module: &'static str,
    class: &'static str,
    text: String,
}

impl Raised {
    /// A builtin exception.
    pub fn builtin(class: &'static str, text: impl Into<String>) -> Self {
        Self {
            module: "builtins",
            class,
            text: text.into(),
        }
    }

    /// `KeyError(text)`.
    pub fn key_error(text: impl Into<String>) -> Self {
        Self::builtin("KeyError", text)
    }

    /// The `TimeoutError` that callers catch; before Python 3.11 asyncio's is another class than the builtin one.
    pub fn timeout(text: impl Into<String>) -> Self {
        Self {
            module: "asyncio.exceptions",
            class: "TimeoutError",
            text: text.into(),
        }
    }

    /// The class, without its module.
    pub fn class(&self) -> &'static str {
        self.class
    }

    /// The argument.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The reply to send.
    pub fn failure(&self) -> Failure {
        Failure {
            exception: Value::Bin(exception::of_class(self.module, self.class, &self.text)),
            ..Failure::builtin(self.class, &self.text)
        }
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:?})", self.class, self.text)
    }
}
