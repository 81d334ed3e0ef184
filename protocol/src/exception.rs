//! Pickles of exceptions that a scheduler or worker raises by itself, written without Python.
//!
//! A client unpickles what it is sent as `exception`. These are constant opcodes around texts and keys; nothing here reads a pickle.

use bytes::Bytes;

use crate::msgpack::Reader;
use crate::{DecodeError, Key};

/// Texts are cut here; nobody reads further. Unit: bytes.
const LONGEST: usize = 1 << 20;

/// `class(text)` for a builtin exception class.
pub fn builtin(class: &str, text: &str) -> Bytes {
    call("builtins", class, |p| p.text(text))
}

/// `module.class(text)`.
pub fn of_class(module: &str, class: &str, text: &str) -> Bytes {
    call(module, class, |p| p.text(text))
}

/// `distributed.scheduler.KilledWorker`: workers died while they ran this task.
///
/// Its text reads attributes of the last worker, here an object with `address`, `name` and `host`.
pub fn killed_worker(
    key: &Key,
    address: &str,
    name: &str,
    host: &str,
    allowed_failures: u32,
) -> Bytes {
    call("distributed.scheduler", "KilledWorker", |p| {
        p.key(key);
        p.global("types", "SimpleNamespace");
        p.raw(b")R}(");
        for (field, value) in [("address", address), ("name", name), ("host", host)] {
            p.text(field);
            p.text(value);
        }
        p.raw(b"ub");
        p.int(i64::from(allowed_failures));
    })
}

/// `distributed.scheduler.NoWorkerError`: no worker was there for this task in time.
pub fn no_worker(key: &Key, timeout_seconds: f64) -> Bytes {
    call("distributed.scheduler", "NoWorkerError", |p| {
        p.key(key);
        p.float(timeout_seconds);
    })
}

/// `distributed.scheduler.NoValidWorkerError`: workers were there, but none that this task may run on.
pub fn no_valid_worker(
    key: &Key,
    workers: &[String],
    resources: &[(String, f64)],
    timeout_seconds: f64,
) -> Bytes {
    call("distributed.scheduler", "NoValidWorkerError", |p| {
        p.key(key);
        p.raw(b"\x8f");
        p.raw(b"\x8f(");
        workers.iter().for_each(|worker| p.text(worker));
        p.raw(b"\x90}(");
        for (name, amount) in resources {
            p.text(name);
            p.float(*amount);
        }
        p.raw(b"u");
        p.float(timeout_seconds);
    })
}

/// `dask._task_spec.Task(key, exec, code)`: a task that runs a line of Python, for peers that open what they
/// should not have been given.
pub(crate) fn raising_task(key: &Key, code: &str) -> Bytes {
    call("dask._task_spec", "Task", |p| {
        p.key(key);
        p.global("builtins", "exec");
        p.text(code);
    })
}

struct Pickler(Vec<u8>);

/// `module.name(*arguments)`; `write` leaves the arguments on the stack.
fn call(module: &str, name: &str, write: impl FnOnce(&mut Pickler)) -> Bytes {
    let mut p = Pickler(b"\x80\x04".to_vec());
    p.global(module, name);
    p.raw(b"(");
    write(&mut p);
    p.raw(b"tR.");
    p.0.into()
}

impl Pickler {
    fn raw(&mut self, opcodes: &[u8]) {
        self.0.extend_from_slice(opcodes);
    }

    fn global(&mut self, module: &str, name: &str) {
        self.raw(b"c");
        self.raw(module.as_bytes());
        self.raw(b"\n");
        self.raw(name.as_bytes());
        self.raw(b"\n");
    }

    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(LONGEST)];
        self.raw(b"X");
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    fn int(&mut self, value: i64) {
        self.raw(b"\x8a\x08");
        self.raw(&value.to_le_bytes());
    }

    fn float(&mut self, value: f64) {
        self.raw(b"G");
        self.raw(&value.to_be_bytes());
    }

    fn key(&mut self, key: &Key) {
        let document = Bytes::copy_from_slice(key.wire());
        if self.value(&mut Reader::new(&document, &[])).is_err() {
            self.text(&key.to_string());
        }
    }

    fn value(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        match r.peek()? {
            0xa0..=0xbf | 0xd9..=0xdb => {
                let text = r.str()?;
                self.text(text);
            }
            0xc4..=0xc6 => {
                let bytes = r.bin()?;
                let bytes = &bytes[..bytes.len().min(LONGEST)];
                self.raw(b"B");
                self.raw(&(bytes.len() as u32).to_le_bytes());
                self.raw(bytes);
            }
            0xc0 => {
                r.take_nil()?;
                self.raw(b"N");
            }
            0xc2 | 0xc3 => {
                let value = r.bool()?;
                self.raw(if value { b"\x88" } else { b"\x89" });
            }
            0xca | 0xcb => {
                let value = r.f64()?;
                self.float(value);
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                let length = r.array()?;
                self.raw(b"(");
                for _ in 0..length {
                    self.value(r)?;
                }
                self.raw(b"t");
            }
            _ => {
                let value = r.int()?;
                self.raw(b"\x8a\x09");
                self.raw(&value.to_le_bytes()[..9]);
            }
        }
        Ok(())
    }
}
