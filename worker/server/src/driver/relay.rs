//! Operations that Python answers: passed on to one executor or to all, and their answers put together.

use bytes::Bytes;
use oxidask_protocol::{
    Value,
    message::{decode_one, encode_one},
};

use super::{Driver, RelayReply, start::PRIMARY};
use crate::{executor::wire::control, store::Holders};

/// Who answers an operation, and what becomes of several answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    /// The first executor alone.
    Primary,
    /// All; the first executor's answer counts, or the first that is an error.
    AllMustAgree,
    /// All; lists are joined, maps united, counts of the same thing added.
    AllTogether,
}

fn audience(op: &str) -> Audience {
    match op {
        "plugin-add" | "plugin-remove" | "upload_file" => Audience::AllMustAgree,
        "call_stack" | "profile" | "get_logs" => Audience::AllTogether,
        _ => Audience::Primary,
    }
}

/// An operation that was passed on.
pub(super) struct Relay {
    audience: Audience,
    reply: RelayReply,
    /// Executors that have not answered yet.
    waits_for: Holders,
    /// Answers by executor.
    answers: Vec<(usize, Vec<Bytes>)>,
    /// The name of a plugin that comes: if it cannot be set up, executors that are started later do without.
    plugin: Option<String>,
}

impl Driver {
    pub(super) fn relay(&mut self, op: String, frames: Vec<Bytes>, reply: RelayReply) {
        let ready = self.handle(PRIMARY).is_some() && !self.handlers.is_empty();
        if !ready {
            self.early_relays.push((op, frames, reply));
            self.need_executor();
            return;
        }
        if !self.handlers.contains(&op) {
            let _ = reply.send(Err("this worker has no such operation".to_owned()));
            return;
        }
        let audience = audience(&op);
        let asked = if audience == Audience::Primary {
            1
        } else {
            self.executors.len()
        };
        self.last_relay += 1;
        let id = self.last_relay;
        // At once, for executors that start while others set it up.
        let plugin = match changed_plugin(&op, &frames) {
            Some((name, Some(pickle))) => {
                self.plugins.insert(name.clone(), pickle);
                Some(name)
            }
            Some((name, None)) => {
                self.plugins.shift_remove(&name);
                None
            }
            None => None,
        };
        let fields = vec![("id", Value::Int(id.into())), ("name", Value::Str(op))];
        let message = control("rpc", fields, frames);
        let mut waits_for = Holders::NONE;
        for executor in 0..asked {
            // One that is being started gets plugins as it starts.
            if let Some(handle) = self.handle(executor) {
                if handle.is_deaf() {
                    let text = format!("executor {executor} of this worker does not read");
                    let _ = reply.send(Err(text));
                    return;
                }
                waits_for.insert(executor);
            }
        }
        for executor in waits_for.iter() {
            if let Some(handle) = self.handle(executor) {
                handle.send_control(message.clone());
            }
        }
        let relay = Relay {
            audience,
            reply,
            waits_for,
            answers: Vec::new(),
            plugin,
        };
        self.relays.insert(id, relay);
    }

    /// An executor answers.
    pub(super) fn relay_answered(&mut self, executor: usize, id: u64, answer: Vec<Bytes>) {
        let Some(relay) = self.relays.get_mut(&id) else {
            return;
        };
        relay.answers.push((executor, answer));
        relay.waits_for.remove(executor);
        self.finish_relay(id);
    }

    /// An executor will not answer any more.
    pub(super) fn relay_executor_gone(&mut self, executor: usize, status: &str) {
        let waiting: Vec<u64> = self
            .relays
            .iter()
            .filter(|(_, relay)| relay.waits_for.contains(executor))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            if executor == PRIMARY {
                if let Some(relay) = self.relays.remove(&id) {
                    let text = format!("the executor ended ({status})");
                    let _ = relay.reply.send(Err(text));
                }
            } else if let Some(relay) = self.relays.get_mut(&id) {
                relay.waits_for.remove(executor);
                self.finish_relay(id);
            }
        }
    }

    fn finish_relay(&mut self, id: u64) {
        if !self.relays.get(&id).is_some_and(|r| r.waits_for.is_empty()) {
            return;
        }
        let Some(mut relay) = self.relays.remove(&id) else {
            return;
        };
        relay.answers.sort_by_key(|(executor, _)| *executor);
        let (answer, failed) = put_together(relay.audience, relay.answers);
        if let Some(name) = relay.plugin.filter(|_| failed) {
            self.plugins.shift_remove(&name);
        }
        if id == self.replacement_for.unwrap_or_default() {
            self.answers_with_next.push((relay.reply, answer));
            self.replace_executors();
        } else {
            let _ = relay.reply.send(Ok(answer));
        }
    }
}

/// The name of a plugin that an operation brings or takes away, with its pickle.
fn changed_plugin(op: &str, frames: &[Bytes]) -> Option<(String, Option<Bytes>)> {
    if op != "plugin-add" && op != "plugin-remove" {
        return None;
    }
    let message: Value = decode_one(frames).ok()?;
    let name = message.field("name")?.as_str()?.to_owned();
    match (op, message.field("plugin")) {
        ("plugin-add", Some(Value::Bin(pickle))) => Some((name, Some(pickle.clone()))),
        ("plugin-remove", _) => Some((name, None)),
        _ => None,
    }
}

/// One answer for several, the first executor's being first, and whether it is an error.
fn put_together(audience: Audience, answers: Vec<(usize, Vec<Bytes>)>) -> (Vec<Bytes>, bool) {
    let failed = |frames: &[Bytes]| {
        decode_one::<Value>(frames).is_ok_and(|answer| {
            let status = answer.field("status").and_then(Value::as_str);
            matches!(status, Some("error" | "uncaught-error"))
        })
    };
    let mut answers: Vec<_> = answers.into_iter().map(|(_, frames)| frames).collect();
    if audience == Audience::AllTogether && answers.len() > 1 {
        let values: Result<Vec<Value>, _> = answers.iter().map(|f| decode_one(f)).collect();
        if let Ok(values) = values
            && let Some(one) = values.into_iter().reduce(unite)
        {
            return (encode_one(&one), false);
        }
    }
    let error = answers.iter().position(|frames| failed(frames));
    let chosen = error.unwrap_or_default();
    (answers.swap_remove(chosen), error.is_some())
}

/// Lists one after the other, maps by their keys, counts added up; else the first.
fn unite(a: Value, b: Value) -> Value {
    match (a, b) {
        (Value::Array(mut a), Value::Array(b)) => {
            a.extend(b);
            Value::Array(a)
        }
        (Value::Map(mut a), Value::Map(b)) => {
            for (key, value) in b {
                match a.iter_mut().find(|(known, _)| *known == key) {
                    None => a.push((key, value)),
                    Some((_, known)) => {
                        let first = std::mem::take(known);
                        *known = match (key.as_str(), first.as_u64(), value.as_u64()) {
                            (Some("count"), Some(a), Some(b)) => Value::from(a + b),
                            _ => unite(first, value),
                        };
                    }
                }
            }
            Value::Map(a)
        }
        (a, _) => a,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(values: &[Value]) -> Vec<(usize, Vec<Bytes>)> {
        values.iter().map(encode_one).enumerate().collect()
    }

    fn status(text: &str) -> Value {
        Value::map([("status", Value::Str(text.to_owned()))])
    }

    #[test]
    fn one_executor_that_fails_makes_the_answer_an_error() {
        let given = answers(&[status("OK"), status("error")]);
        let (answer, failed) = put_together(Audience::AllMustAgree, given);
        assert!(failed);
        assert_eq!(decode_one::<Value>(&answer).unwrap(), status("error"));
        let given = answers(&[status("OK"), status("OK")]);
        assert!(!put_together(Audience::AllMustAgree, given).1);
    }

    #[test]
    fn profiles_of_executors_are_added_up() {
        let profile = |name: &str, count: u64| {
            let child = Value::map([("count", Value::from(count))]);
            Value::map([
                ("count", Value::from(count)),
                ("children", Value::map([(name.to_owned(), child)])),
            ])
        };
        let given = answers(&[profile("f", 2), profile("f", 3), profile("g", 1)]);
        let (answer, _) = put_together(Audience::AllTogether, given);
        let sum: Value = decode_one(&answer).unwrap();
        assert_eq!(sum.field("count").and_then(Value::as_u64), Some(6));
        let children = sum.field("children").unwrap();
        let count = |name| children.field(name)?.field("count")?.as_u64();
        assert_eq!((count("f"), count("g")), (Some(5), Some(1)));
    }

    #[test]
    fn plugin_that_comes_or_goes_is_known_by_its_name() {
        let message = Value::map([
            ("op", Value::Str("plugin-add".into())),
            ("name", Value::Str("mine".into())),
            ("plugin", Value::Bin(Bytes::from_static(b"pickle"))),
        ]);
        let frames = encode_one(&message);
        let pickle = Some(Bytes::from_static(b"pickle"));
        assert_eq!(
            changed_plugin("plugin-add", &frames),
            Some(("mine".to_owned(), pickle))
        );
        assert_eq!(
            changed_plugin("plugin-remove", &frames),
            Some(("mine".to_owned(), None))
        );
        assert_eq!(changed_plugin("run", &frames), None);
    }
}
