//! The Python that runs in child processes, and how they are run.
//!
//! Neither the scheduler nor the worker embeds an interpreter: what needs Python runs in a child that may fail,
//! hang or be killed without taking its parent along. This crate holds both halves:
//!
//! * `oxidask/`, the Python package, packed into the binary and read by the interpreter from a memory file
//!   ([`archive`]), so that an environment needs its own dask and nothing of ours;
//! * [`Interpreter`] (which Python), [`Child`] (start, watch, kill) and [`Connection`] (messages).
//!
//! What is said over the connection is up to the two ends: `graph.py` and `aside.py` with the scheduler's
//! modules of the same names, the executor with the worker's.

pub mod archive;
mod child;
mod connection;
mod interpreter;
mod launch;
mod memory;
mod stderr;
mod template;

pub use child::{Child, ChildError, ChildSettings, Hello};
pub use connection::{Connection, ConnectionError, ConnectionReader, ConnectionWriter};
pub use interpreter::{Interpreter, InterpreterError, PYTHON_VARIABLE};
pub use memory::default_memory_limit;
pub use template::{Forked, Template};

/// An error and its causes on one line, for a text that goes to a user.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
