//! Pickled exceptions for errors that arise on our side, written without an interpreter.
//!
//! A client unpickles what it is sent as `exception`. The classes that Dask's users catch have simple
//! arguments, so a few opcodes of pickle protocol 0 say them, and an error about a missing interpreter needs none.

use bytes::Bytes;

/// An argument of an exception.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// `None`.
    None,
    /// A str.
    Str(String),
    /// An int.
    Int(i64),
    /// A float.
    Float(f64),
    /// A set of str.
    Set(Vec<String>),
    /// A dict with str keys.
    Dict(Vec<(String, Self)>),
    /// A `types.SimpleNamespace`, for an object of which only attributes are read.
    Object(Vec<(String, Self)>),
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

/// `module.class(*arguments)` as a pickle.
///
/// The class must be importable where the pickle is opened: `builtins` and `distributed` are.
pub fn pickle(module: &str, class: &str, arguments: &[Argument]) -> Bytes {
    let mut out = Vec::new();
    call(&mut out, module, class, |out| {
        arguments.iter().for_each(|argument| push(out, argument))
    });
    out.push(b'.');
    out.into()
}

/// An exception of the standard library with a text, such as `builtin("RuntimeError", "…")`.
pub fn builtin(class: &str, text: &str) -> Bytes {
    pickle("builtins", class, &[text.into()])
}

/// `distributed.scheduler.KilledWorker`: a task whose workers died `allowed_failures` + 1 times.
pub fn killed_worker(task: &str, last_worker: &str, allowed_failures: i64) -> Bytes {
    // Its text reads `last_worker.address`; the scheduler's own object cannot be had here.
    let worker = Argument::Object(vec![("address".into(), last_worker.into())]);
    pickle(
        "distributed.scheduler",
        "KilledWorker",
        &[task.into(), worker, Argument::Int(allowed_failures)],
    )
}

/// Pushes `module.class(*arguments)`.
fn call(out: &mut Vec<u8>, module: &str, class: &str, arguments: impl FnOnce(&mut Vec<u8>)) {
    out.extend(format!("c{module}\n{class}\n(").bytes());
    arguments(out);
    out.extend(b"tR");
}

fn push(out: &mut Vec<u8>, argument: &Argument) {
    match argument {
        Argument::None => out.push(b'N'),
        Argument::Str(text) => text_opcode(out, text),
        Argument::Int(value) => out.extend(format!("I{value}\n").bytes()),
        Argument::Float(value) => {
            out.push(b'G');
            out.extend(value.to_be_bytes());
        }
        Argument::Set(texts) => call(out, "builtins", "set", |out| {
            out.push(b'(');
            texts.iter().for_each(|text| text_opcode(out, text));
            out.push(b'l');
        }),
        Argument::Dict(pairs) => dict(out, pairs),
        Argument::Object(attributes) => {
            call(out, "types", "SimpleNamespace", |_| ());
            dict(out, attributes);
            out.push(b'b');
        }
    }
}

fn dict(out: &mut Vec<u8>, pairs: &[(String, Argument)]) {
    out.push(b'(');
    for (name, value) in pairs {
        text_opcode(out, name);
        push(out, value);
    }
    out.push(b'd');
}

/// `BINUNICODE`, which needs no escapes.
fn text_opcode(out: &mut Vec<u8>, text: &str) {
    // A pickle holds at most 4 GiB here; error texts are cut long before.
    let text = text
        .get(..text.floor_char_boundary(1 << 20))
        .unwrap_or(text);
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}
