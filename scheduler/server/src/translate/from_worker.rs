//! What workers say on their stream, as events.

use std::sync::Arc;

use bytes::Bytes;
use oxidask_protocol::message::worker::{StartStop, TaskErred, TaskFinished};
use oxidask_protocol::{Payload, Value};
use oxidask_scheduler_core::event::{self, TaskError};
use oxidask_scheduler_core::{Event, WorkerId};
use rustc_hash::FxHashSet;

/// Payload frames up to this size are copied out of the message that brought them, so that a small exception does
/// not keep a whole read buffer alive. Unit: bytes.
const COPY_BELOW: usize = 64 * 1024;

/// Classes of results that were seen; most tasks share a few.
const CLASSES_KEPT: usize = 1024;

/// Turns messages into events, sharing what repeats.
#[derive(Debug, Default)]
pub struct FromWorkers {
    types: FxHashSet<Bytes>,
    names: FxHashSet<Arc<str>>,
}

impl FromWorkers {
    /// A result.
    pub fn finished(&mut self, worker: WorkerId, message: TaskFinished) -> Event {
        let (compute, other) = durations(message.startstops.as_deref().unwrap_or_default());
        Event::TaskFinished(event::TaskFinished {
            worker,
            key: message.key,
            run_id: message.run_id,
            nbytes: message.nbytes,
            type_: message.type_.map(|type_| self.share_type(&type_)),
            typename: self.share_name(&message.typename),
            compute,
            other,
            stimulus_id: message.stimulus_id.into(),
        })
    }

    /// An exception.
    pub fn erred(&self, worker: WorkerId, message: TaskErred) -> Event {
        Event::TaskErred(event::TaskErred {
            worker,
            key: message.key,
            run_id: message.run_id,
            error: Arc::new(TaskError {
                exception: detach(message.exception),
                traceback: detach(message.traceback),
                exception_text: message.exception_text,
                traceback_text: message.traceback_text,
            }),
            stimulus_id: message.stimulus_id.into(),
        })
    }

    fn share_type(&mut self, type_: &Bytes) -> Bytes {
        if let Some(known) = self.types.get(type_) {
            return known.clone();
        }
        if self.types.len() >= CLASSES_KEPT {
            self.types.clear();
        }
        let own = Bytes::copy_from_slice(type_);
        self.types.insert(own.clone());
        own
    }

    fn share_name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= CLASSES_KEPT {
            self.names.clear();
        }
        let own: Arc<str> = name.into();
        self.names.insert(Arc::clone(&own));
        own
    }
}

/// A duration that a worker tells: at least 0, and `None` if it is no number or infinite.
pub fn seconds(told: f64) -> Option<f64> {
    told.is_finite().then_some(told.max(0.0))
}

/// Checks the amounts of a worker's resources.
///
/// # Errors
/// What is wrong, if one is negative or no number.
pub fn amounts(resources: &[(String, f64)]) -> Result<(), String> {
    match resources
        .iter()
        .find(|(_, amount)| amount.is_nan() || *amount < 0.0)
    {
        Some((name, amount)) => Err(format!(
            "the amount of resource {name:?} is {amount}, but should be 0 or more"
        )),
        None => Ok(()),
    }
}

/// Seconds of computing, and of each other action.
fn durations(startstops: &[StartStop]) -> (Option<f64>, Vec<(String, f64)>) {
    let mut compute = None;
    let mut other = Vec::new();
    for part in startstops {
        // A clock that is set back gives less than nothing; a number that is none counts for nothing.
        let Some(seconds) = seconds(part.stop - part.start) else {
            continue;
        };
        if part.action == "compute" {
            compute = Some(compute.unwrap_or(0.0) + seconds);
        } else {
            other.push((part.action.clone(), seconds));
        }
    }
    (compute, other)
}

/// A copy that does not keep the message alive, where that is worth it.
pub fn detach(value: Value) -> Value {
    match value {
        Value::Payload(payload) => Value::Payload(detach_payload(payload)),
        other => other.detached(),
    }
}

/// A payload whose small frames are copies.
pub fn detach_payload(payload: Payload) -> Payload {
    let copy = |bytes: &Bytes| {
        if bytes.len() <= COPY_BELOW {
            Bytes::copy_from_slice(bytes)
        } else {
            bytes.clone()
        }
    };
    let frames: Vec<Bytes> = payload.frames.as_slice().iter().map(copy).collect();
    Payload::new(payload.kind, copy(&payload.header), frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_do_not_come_in() {
        let part = |action: &str, start, stop| StartStop {
            action: action.to_owned(),
            start,
            stop,
            source: Default::default(),
        };
        let parts = [
            part("compute", 10.0, 12.0),
            part("compute", 0.0, f64::NAN),
            part("transfer", 5.0, 4.0),
            part("disk-read", f64::NEG_INFINITY, 1.0),
        ];
        let (compute, other) = durations(&parts);
        assert_eq!(compute, Some(2.0));
        assert_eq!(other, [("transfer".to_owned(), 0.0)]);
        let amount = |amount| amounts(&[("GPU".to_owned(), amount)]);
        assert!(amount(f64::INFINITY).is_ok());
        assert!(amount(f64::NAN).unwrap_err().contains("GPU"));
        assert!(amount(-1.0).is_err());
    }
}
