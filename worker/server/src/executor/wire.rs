//! Messages to and from the executor; `oxidask/worker/tasks.py` and `control.py` are the other end.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::{
    DecodeError, Key, Payload, Value,
    msgpack::{Reader, Writer},
    wire::Decode,
};

use crate::store::Segment;

/// A dependency as the executor gets it with a task.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// It has the value already.
    Resident,
    /// The value's header and frames, sent along.
    Inline(Payload),
    /// The value's frames lie in a memory file of ours, named by its descriptor.
    MemoryFile {
        header: Bytes,
        fd: i32,
        places: Vec<(u64, u64)>,
    },
    /// Some of the value's frames lie in segments of ours; the others are sent along.
    Segments {
        payload: Payload,
        segments: Vec<Arc<Segment>>,
    },
    /// The value's frames lie in a file.
    File {
        header: Bytes,
        path: String,
        places: Vec<(u64, u64)>,
    },
}

/// One task for the executor.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Number of the run, and of the value if it succeeds.
    pub(crate) id: u64,
    pub(crate) key: Key,
    pub(crate) pickle: Bytes,
    pub(crate) buffers: Vec<Bytes>,
    /// Key, number of the value, how it comes.
    pub(crate) dependencies: Vec<(Key, u64, Input)>,
    /// msgpack of a map.
    pub(crate) annotations: Bytes,
    pub(crate) span: Option<Arc<str>>,
    pub(crate) actor: bool,
    /// Expected to take so little time that a report may wait for it.
    pub(crate) short: bool,
}

/// The message that brings tasks.
pub(crate) fn encode_runs(runs: &[Run]) -> Vec<Bytes> {
    let mut w = Writer::new();
    let mut parts = Vec::new();
    w.map(2);
    w.str("op");
    w.str("run");
    w.str("tasks");
    w.array(runs.len());
    for run in runs {
        w.array(9);
        w.uint(run.id);
        w.raw(run.key.wire());
        w.bin(&run.pickle);
        w.uint(run.buffers.len() as u64);
        parts.extend(run.buffers.iter().cloned());
        w.array(run.dependencies.len());
        for (key, id, input) in &run.dependencies {
            encode_input(&mut w, &mut parts, key, *id, input);
        }
        w.raw(&run.annotations);
        match &run.span {
            Some(span) => w.str(span),
            None => w.nil(),
        }
        w.bool(run.actor);
        w.bool(run.short);
    }
    let mut frames = vec![w.into_document()];
    frames.append(&mut parts);
    frames
}

fn encode_input(w: &mut Writer, parts: &mut Vec<Bytes>, key: &Key, id: u64, input: &Input) {
    let length = match input {
        Input::Resident => 3,
        Input::Inline(_) => 5,
        Input::MemoryFile { .. } | Input::File { .. } => 6,
        Input::Segments { .. } => 5,
    };
    w.array(length);
    w.raw(key.wire());
    w.uint(id);
    match input {
        Input::Resident => w.uint(0),
        Input::Inline(payload) => {
            w.uint(1);
            w.bin(&payload.header);
            w.uint(payload.frames.as_slice().len() as u64);
            parts.extend(payload.frames.as_slice().iter().cloned());
        }
        Input::MemoryFile { header, fd, places } => {
            w.uint(2);
            w.bin(header);
            w.int(i64::from(*fd));
            encode_places(w, places);
        }
        Input::Segments { payload, segments } => {
            w.uint(3);
            w.bin(&payload.header);
            w.array(payload.frames.as_slice().len());
            for frame in payload.frames.as_slice() {
                encode_place(w, parts, frame, segments);
            }
        }
        Input::File {
            header,
            path,
            places,
        } => {
            w.uint(2);
            w.bin(header);
            w.str(path);
            encode_places(w, places);
        }
    }
}

/// Segment, descriptor, offset and length of a frame that lies in a segment; nil for one that is sent along.
fn encode_place(w: &mut Writer, parts: &mut Vec<Bytes>, frame: &Bytes, segments: &[Arc<Segment>]) {
    let place = segments
        .iter()
        .find_map(|segment| Some((segment, segment.offset(frame)?)));
    let Some((segment, offset)) = place else {
        w.nil();
        parts.push(frame.clone());
        return;
    };
    w.array(4);
    w.uint(segment.id());
    w.int(i64::from(segment.fd()));
    w.uint(offset);
    w.uint(frame.len() as u64);
}

pub(crate) fn encode_places(w: &mut Writer, places: &[(u64, u64)]) {
    w.array(places.len());
    for (offset, length) in places {
        w.array(2);
        w.uint(*offset);
        w.uint(*length);
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// With a value, which the executor keeps under the number of the run.
    Value {
        nbytes: u64,
        typename: String,
        type_: Bytes,
        start: f64,
        stop: f64,
        thread: u64,
        /// Seconds of CPU of the task's thread.
        cpu: f64,
        /// The value's pickle, if it is small and plain.
        inline: Option<Bytes>,
    },
    Erred {
        exception: Bytes,
        traceback: Option<Bytes>,
        exception_text: String,
        traceback_text: String,
    },
    Reschedule,
    /// It did not start: the executor lacks these values.
    Absent(Vec<u64>),
    /// It needs what only the worker's first executor has.
    NeedsPrimary,
}

/// What the socket for tasks brings.
#[derive(Clone, Debug)]
pub(crate) enum TaskMessage {
    Done(Vec<(u64, Outcome)>),
    /// A thread wants to be woken up with a message.
    Wake,
}

/// Reads a message of the socket for tasks.
pub(crate) fn decode_task_message(frames: &[Bytes]) -> Result<TaskMessage, DecodeError> {
    let mut r = Reader::of_message(frames)?;
    let mut runs = None;
    for _ in 0..r.map()? {
        match r.str()? {
            "runs" => {
                let count = r.array()?;
                runs = Some(
                    (0..count)
                        .map(|_| decode_report(&mut r))
                        .collect::<Result<_, _>>()?,
                );
            }
            _ => r.skip()?,
        }
    }
    Ok(runs.map_or(TaskMessage::Wake, TaskMessage::Done))
}

fn decode_report(r: &mut Reader<'_>) -> Result<(u64, Outcome), DecodeError> {
    let length = r.array()?;
    let id = r.uint()?;
    let outcome = match (r.uint()?, length) {
        (0, 10) => Outcome::Value {
            nbytes: r.uint()?,
            typename: r.str()?.to_owned(),
            type_: r.shared_bin()?,
            start: r.f64()?,
            stop: r.f64()?,
            thread: r.uint()?,
            cpu: r.f64()?,
            inline: optional_bin(r)?,
        },
        (1, 9) => Outcome::Erred {
            exception: r.shared_bin()?,
            traceback: optional_bin(r)?,
            exception_text: r.str()?.to_owned(),
            traceback_text: {
                let text = r.str()?.to_owned();
                // Start, stop and thread.
                (0..3).try_for_each(|_| r.skip())?;
                text
            },
        },
        (2, 2) => Outcome::Reschedule,
        (3, 3) => Outcome::Absent(Vec::decode(r)?),
        (4, 2) => Outcome::NeedsPrimary,
        _ => {
            return r.fail(oxidask_protocol::DecodeErrorKind::Unexpected {
                expected: "report of a run",
                found: "another array",
            });
        }
    };
    Ok((id, outcome))
}

fn optional_bin(r: &mut Reader<'_>) -> Result<Option<Bytes>, DecodeError> {
    if r.take_nil()? {
        Ok(None)
    } else {
        r.shared_bin().map(Some)
    }
}

/// What the control socket brings: a map and raw parts.
#[derive(Clone, Debug)]
pub(crate) struct ControlMessage {
    pub(crate) fields: Value,
    pub(crate) parts: Vec<Bytes>,
}

impl ControlMessage {
    pub(crate) fn decode(frames: Vec<Bytes>) -> Result<Self, DecodeError> {
        let mut r = Reader::of_message(&frames)?;
        let fields = Value::decode(&mut r)?;
        Ok(Self {
            fields,
            parts: frames[1..].to_vec(),
        })
    }

    pub(crate) fn op(&self) -> &str {
        self.text("op")
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields
            .field(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub(crate) fn uint(&self, field: &str) -> Option<u64> {
        self.fields.field(field).and_then(Value::as_u64)
    }

    pub(crate) fn f64(&self, field: &str) -> Option<f64> {
        self.fields.field(field).and_then(Value::as_f64)
    }

    pub(crate) fn flag(&self, field: &str) -> bool {
        self.fields.field(field) == Some(&Value::Bool(true))
    }

    pub(crate) fn key(&self) -> Option<Key> {
        self.fields.field("key").and_then(Value::to_key)
    }

    pub(crate) fn bin(&self, field: &str) -> Option<&Bytes> {
        match self.fields.field(field) {
            Some(Value::Bin(bytes)) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn texts(&self, field: &str) -> Vec<String> {
        let values = self
            .fields
            .field(field)
            .and_then(Value::as_array)
            .unwrap_or_default();
        values
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    }

    pub(crate) fn places(&self) -> Vec<(u64, u64)> {
        let values = self
            .fields
            .field("places")
            .and_then(Value::as_array)
            .unwrap_or_default();
        let pair = |value: &Value| match value.as_array()? {
            [offset, length] => Some((offset.as_u64()?, length.as_u64()?)),
            _ => None,
        };
        values.iter().filter_map(pair).collect()
    }
}

/// A control message: a map, written by `fields`, with raw parts.
pub(crate) fn control(op: &str, fields: Vec<(&str, Value)>, parts: Vec<Bytes>) -> Vec<Bytes> {
    let mut pairs = vec![("op", Value::Str(op.to_owned()))];
    pairs.extend(fields);
    let mut frames = oxidask_protocol::message::encode_one(&Value::map(pairs));
    frames.extend(parts);
    frames
}
