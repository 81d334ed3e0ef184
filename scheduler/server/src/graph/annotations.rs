//! What users ask of the scheduler for a task, out of a msgpack map.

use bytes::Bytes;
use oxidask_protocol::msgpack::Reader;
use oxidask_protocol::wire::Decode;
use oxidask_protocol::{DecodeError, Value};

/// Annotations of a task: those that the scheduler reads, and all of them for the worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Annotations {
    /// `workers`: addresses, names or hosts where alone it may run; empty for anywhere. Names may be ints.
    pub workers: Vec<Value>,
    /// `allow_other_workers`: `workers` is a wish, not a demand.
    pub allow_other_workers: bool,
    /// `resources`: what a worker must have, by name.
    pub resources: Vec<(String, f64)>,
    /// `priority`: larger runs first. 0 if not given.
    pub priority: f64,
    /// `retries`: how often it is run again after an error. 0 if not given.
    pub retries: u32,
    /// All annotations as a msgpack map, as `compute-task` carries them. Never empty bytes: at least `{}`.
    pub wire: Bytes,
}

/// An annotation that has a value of the wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name:?} must be {expected}, not {found}")]
pub struct AnnotationError {
    name: &'static str,
    expected: &'static str,
    found: String,
}

impl Annotations {
    /// No annotations.
    pub fn none() -> Self {
        Self {
            wire: Bytes::from_static(b"\x80"),
            ..Self::default()
        }
    }

    /// Reads a msgpack map; what the scheduler does not know stays in `wire` only.
    pub(super) fn read(wire: Bytes) -> Result<Result<Self, AnnotationError>, DecodeError> {
        let mut map = Reader::new(&wire, &[]);
        let mut known = Vec::new();
        for _ in 0..map.map()? {
            match map.str_or_skip()? {
                Some(name) => known.push((name, Value::decode(&mut map)?)),
                None => map.skip()?,
            }
        }
        map.finish()?;
        Ok(Self::interpret(known, wire.clone()))
    }

    fn interpret(known: Vec<(&str, Value)>, wire: Bytes) -> Result<Self, AnnotationError> {
        let mut out = Self {
            wire,
            ..Self::default()
        };
        for (name, value) in known {
            match name {
                "workers" | "restrictions" => {
                    out.workers = match value {
                        Value::Nil => Vec::new(),
                        Value::Array(values) | Value::Set(values) => values,
                        one => vec![one],
                    };
                }
                "allow_other_workers" | "loose_restrictions" => {
                    out.allow_other_workers = is_true(&value)
                }
                "resources" => out.resources = resources(&value)?,
                "priority" => {
                    out.priority =
                        number(&value).ok_or_else(|| wrong("priority", "a number", &value))?;
                }
                "retries" => {
                    let retries = number(&value).filter(|n| n.fract() == 0.0);
                    // Negative numbers of retries mean none.
                    out.retries = retries.ok_or_else(|| wrong("retries", "an int", &value))? as u32;
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

fn resources(value: &Value) -> Result<Vec<(String, f64)>, AnnotationError> {
    let error = || wrong("resources", "a dict of numbers", value);
    let pairs = match value {
        Value::Nil => return Ok(Vec::new()),
        other => other.as_map().ok_or_else(error)?,
    };
    pairs
        .iter()
        .map(|(name, amount)| Some((name.as_str()?.to_owned(), number(amount)?)))
        .collect::<Option<_>>()
        .ok_or_else(error)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Nil => Some(0.0),
        // bool is an int in Python.
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        other => other.as_f64(),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Nil => false,
        Value::Bool(value) => *value,
        Value::Array(values) | Value::Set(values) => !values.is_empty(),
        other => other.as_f64() != Some(0.0),
    }
}

fn wrong(name: &'static str, expected: &'static str, found: &Value) -> AnnotationError {
    AnnotationError {
        name,
        expected,
        found: format!("{found:?}"),
    }
}

#[cfg(test)]
mod tests {
    use oxidask_protocol::msgpack::Writer;
    use oxidask_protocol::wire::Encode;

    use super::*;

    fn read(value: &Value) -> Result<Annotations, AnnotationError> {
        let mut w = Writer::new();
        value.encode(&mut w);
        Annotations::read(w.into_document()).unwrap()
    }

    #[test]
    fn all_that_the_scheduler_reads() {
        let annotations = read(&Value::map([
            ("workers", Value::array(["tcp://127.0.0.1:1", "alice"])),
            ("allow_other_workers", true.into()),
            ("resources", Value::map([("GPU", Value::from(2_u64))])),
            ("priority", Value::from(10_u64)),
            ("retries", Value::from(3_u64)),
            ("mine", "yours".into()),
        ]))
        .unwrap();
        assert_eq!(
            annotations.workers,
            ["tcp://127.0.0.1:1".into(), "alice".into()]
        );
        assert!(annotations.allow_other_workers);
        assert_eq!(annotations.resources, [("GPU".to_owned(), 2.0)]);
        assert_eq!((annotations.priority, annotations.retries), (10.0, 3));
        assert!(annotations.wire.ends_with(b"\xa4mine\xa5yours"));
    }

    #[test]
    fn one_worker_stands_for_a_list_of_one() {
        assert_eq!(
            read(&Value::map([("workers", Value::from(1_u64))]))
                .unwrap()
                .workers,
            [Value::from(1_u64)]
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let error = read(&Value::map([("resources", Value::from("GPU"))])).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"annotation "resources" must be a dict of numbers, not Str("GPU")"#
        );
        assert!(read(&Value::map([("retries", Value::from(0.5))])).is_err());
    }

    #[test]
    fn no_annotations_are_an_empty_map() {
        assert_eq!(read(&Value::Map(Vec::new())).unwrap(), Annotations::none());
    }
}
