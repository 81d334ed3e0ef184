//! Values for a peer that takes some serialisation families only.
//!
//! Values are kept as the bytes that they came as. A peer that names families (a client with `serializers=`) gets those
//! of others serialised once more, by Dask's own code; an error stands for a value that none of the families can
//! carry, which the client raises.

use std::collections::BTreeMap;

use bytes::Bytes;
use oxidask_protocol::{
    Key, Payload, Value,
    message::decode_one,
    msgpack::{Reader, Writer},
    wire::{Decode, Encode},
};

use crate::shared::Shared;

/// The family that a value was serialised by; `None` for collections of several, or what cannot be read.
fn family(payload: &Payload) -> Option<String> {
    let header = Value::decode(&mut Reader::new(&payload.header, &[])).ok()?;
    Some(header.field("serializer")?.as_str()?.to_owned())
}

/// The request to Python to serialise values again; `None` if all may go as they are.
pub(crate) fn request(data: &[Shared], families: &[Value]) -> Option<Vec<Bytes>> {
    let is_allowed = |payload: &Payload| {
        let family = family(payload);
        families
            .iter()
            .any(|allowed| allowed.as_str() == family.as_deref())
    };
    let others: Vec<_> = data
        .iter()
        .filter(|(_, payload, _)| !is_allowed(payload))
        .collect();
    if others.is_empty() {
        return None;
    }
    let mut w = Writer::new();
    w.map(3);
    w.str("op");
    w.str("oxidask_serialise");
    w.str("serializers");
    families.to_vec().encode(&mut w);
    w.str("data");
    w.map(others.len());
    for (key, payload, _) in others {
        w.raw(key.wire());
        w.payload(payload);
    }
    Some(w.into_frames())
}

/// The values, those of Python's answer in the place of the kept ones.
///
/// # Errors
/// If the answer is none.
pub(crate) fn replace(data: &[Shared], answer: &[Bytes]) -> Result<Vec<(Key, Payload)>, String> {
    let answer: Value = decode_one(answer).map_err(|error| error.to_string())?;
    let Some(Value::Map(pairs)) = answer.field("data") else {
        return Err(format!("values cannot be serialised again: {answer:?}"));
    };
    let again: BTreeMap<Key, &Payload> = pairs
        .iter()
        .filter_map(|(key, value)| match value {
            Value::Payload(payload) => Some((key.to_key()?, payload)),
            _ => None,
        })
        .collect();
    let chosen = |(key, payload, _): &Shared| {
        let payload = again.get(key).map_or(payload, |again| *again);
        (key.clone(), payload.clone())
    };
    Ok(data.iter().map(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, family: &str) -> Shared {
        let mut w = Writer::new();
        let header = [
            ("serializer", Value::from(family)),
            ("num-sub-frames", 1_u64.into()),
        ];
        Value::map(header).encode(&mut w);
        let payload = Payload::serialized(w.into_document(), vec![Bytes::from_static(b"x")]);
        (Key::from(key), payload, None)
    }

    #[test]
    fn only_values_of_other_families_are_serialised_again() {
        let data = [value("a", "pickle"), value("b", "dask")];
        let families = [Value::from("dask"), Value::from("msgpack")];
        let request: Value = decode_one(&request(&data, &families).unwrap()).unwrap();
        let asked = request.field("data").and_then(Value::as_map).unwrap();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].0, Value::from("a"));
        assert_eq!(super::request(&data[1..], &families), None);
    }

    #[test]
    fn what_python_serialised_takes_the_place_of_what_was_kept() {
        let data = [value("a", "pickle"), value("b", "dask")];
        let mut w = Writer::new();
        w.map(1);
        w.str("data");
        w.map(1);
        w.str("a");
        w.payload(&value("a", "msgpack").1);
        let replaced = replace(&data, &w.into_frames()).unwrap();
        let families: Vec<_> = replaced
            .iter()
            .map(|(_, payload)| family(payload).unwrap())
            .collect();
        assert_eq!(families, ["msgpack", "dask"]);
        assert!(replace(&data, &oxidask_protocol::message::encode_one(&Value::Nil)).is_err());
    }
}
