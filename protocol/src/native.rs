//! Native tasks: a kernel and its parameters in msgpack, run by our workers without an interpreter.
//!
//! A native task travels as any other, in `run_spec`, so schedulers need to know nothing of it: a `__Pickled__`
//! payload whose header has one field more, `native`, which our workers look for first. The pickle beside it is
//! what a stock worker opens: a task that raises an error which says what is wrong (`docs/adr/0005`).

use bytes::Bytes;

use crate::exception;
use crate::key::repr;
use crate::msgpack::{Reader, Writer};
use crate::{DecodeError, Key, Payload, PayloadKind};

/// The field of a `run_spec` header that holds a native task.
const FIELD: &str = "native";

/// Most inputs of one task. Trees of reductions have tens; the limit keeps a hostile header from being read on.
pub const MAX_INPUTS: usize = 1 << 16;

/// What to run: opaque to everyone but the worker's kernels.
#[derive(Clone, Debug, PartialEq)]
pub struct NativeTask {
    /// Kernel and parameters, a msgpack value.
    pub kernel: Bytes,
    /// Keys of the kernel's arguments in order; one may stand there twice.
    pub inputs: Vec<Key>,
}

impl NativeTask {
    /// The task as a `run_spec` for the task `key`.
    pub fn run_spec(&self, key: &Key) -> Payload {
        let mut native = Writer::new();
        native.array(2);
        native.bin(&self.kernel);
        native.array(self.inputs.len());
        self.inputs.iter().for_each(|key| native.raw(key.wire()));
        let mut w = Writer::new();
        w.map(4);
        w.str(FIELD);
        w.bin(&native.into_document());
        w.str("pickled-obj");
        w.bin(&exception::raising_task(key, &for_stock_workers(key)));
        w.str("compression");
        w.array(0);
        w.str("num-sub-frames");
        w.uint(0);
        Payload::new(PayloadKind::Pickled, w.into_document(), Vec::new())
    }

    /// The native task in a `run_spec`; `None` if it is one for Python.
    ///
    /// # Errors
    /// If there is one and it is damaged.
    pub fn of_run_spec(run_spec: &Payload) -> Result<Option<Self>, DecodeError> {
        let mut header = Reader::new(&run_spec.header, &[]);
        for _ in 0..header.map()? {
            if header.str_or_skip()? == Some(FIELD) {
                return Self::read(&header.shared_bin()?).map(Some);
            }
            header.skip()?;
        }
        Ok(None)
    }

    fn read(document: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(document, &[]);
        if r.array()? != 2 {
            return r.fail(crate::DecodeErrorKind::Unexpected {
                expected: "kernel and inputs of a native task",
                found: "an array of another length",
            });
        }
        let kernel = r.shared_bin()?;
        let inputs = r.array()?;
        if inputs > MAX_INPUTS {
            return r.fail(crate::DecodeErrorKind::Limit {
                what: "inputs of a native task",
                declared: inputs as u64,
                limit: MAX_INPUTS as u64,
            });
        }
        let inputs = r.collect(inputs, Key::read)?;
        r.finish()?;
        Ok(Self { kernel, inputs })
    }
}

/// What a user of stock workers reads.
fn for_stock_workers(key: &Key) -> String {
    format!(
        "raise RuntimeError({})",
        repr(&format!(
            "task {key} is a native task of oxidask and this is a stock Dask worker, which has no kernels: \
             run native graphs on a cluster whose workers are all oxidask's (`dask-worker --version` tells)"
        ))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> NativeTask {
        NativeTask {
            kernel: Bytes::from_static(b"\xa6matmul"),
            inputs: vec![Key::from("a"), Key::tuple([Key::from("b"), Key::from(1)])],
        }
    }

    #[test]
    fn a_native_task_comes_back_out_of_its_run_spec() {
        let run_spec = task().run_spec(&Key::from("x"));
        assert_eq!(NativeTask::of_run_spec(&run_spec), Ok(Some(task())));
    }

    #[test]
    fn a_pickled_task_is_no_native_one() {
        let python = Payload::pickled(b"\x80\x04N.", Vec::new()).unwrap();
        assert_eq!(NativeTask::of_run_spec(&python), Ok(None));
    }

    #[test]
    fn a_damaged_native_task_is_an_error() {
        let mut w = Writer::new();
        w.map(1);
        w.str(FIELD);
        w.bin(b"\x93\xc4\x00\x90\x90");
        let payload = Payload::new(PayloadKind::Pickled, w.into_document(), Vec::new());
        assert!(NativeTask::of_run_spec(&payload).is_err());
    }
}
