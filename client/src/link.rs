//! The stream to the scheduler: what is said on it, and what becomes known of keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use oxidask_protocol::comm::{CommReader, CommWriter};
use oxidask_protocol::message::client::{Empty, FromClient, ToClient};
use oxidask_protocol::message::{decode_batch, encode_batch};
use oxidask_protocol::{Key, Value};
use tokio::sync::watch;

use crate::outbox::{Full, Outbox};

/// How often the client gives a sign of life. Source: distributed `client.heartbeat`.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What is known of a key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Status {
    /// Not computed yet.
    Pending,
    /// A worker has it.
    Finished,
    /// Its task failed with this text.
    Erred(String),
    /// It will not be computed, for this reason.
    Cancelled(String),
    /// The stream has ended, for this reason.
    Closed(String),
    /// It was not submitted, because so many tasks and keys wait for the scheduler to read them.
    Refused(usize),
}

struct Known {
    /// Futures of the key.
    futures: usize,
    status: watch::Sender<Status>,
}

/// What the client's parts share.
pub(crate) struct Link {
    outbox: Arc<Outbox>,
    keys: Mutex<HashMap<Key, Known>>,
    closed: watch::Sender<Option<String>>,
}

impl Link {
    /// Takes over a stream that has been opened.
    pub(crate) fn start(reader: CommReader, writer: CommWriter) -> Arc<Self> {
        let outbox = Arc::new(Outbox::default());
        let link = Arc::new(Self {
            outbox: Arc::clone(&outbox),
            keys: Mutex::default(),
            closed: watch::Sender::new(None),
        });
        tokio::spawn(write(writer, outbox));
        tokio::spawn(read(reader, Arc::downgrade(&link)));
        link
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something about these keys. Lost if the stream has ended, which every key then tells; where the scheduler
    /// does not read what was said before, the keys tell that.
    pub(crate) fn say(&self, message: FromClient, keys: &[Key]) {
        if let Err(Full(waiting)) = self.outbox.push(message) {
            for key in keys {
                self.note(key, Status::Refused(waiting));
            }
        }
    }

    /// Begins or shares the interest in a key; true if it begins.
    pub(crate) fn want(&self, key: &Key) -> (watch::Receiver<Status>, bool) {
        let closed = self.closed.borrow().clone();
        let mut keys = self.keys();
        let fresh = !keys.contains_key(key);
        let known = keys.entry(key.clone()).or_insert_with(|| Known {
            futures: 0,
            status: watch::Sender::new(closed.map_or(Status::Pending, Status::Closed)),
        });
        known.futures += 1;
        (known.status.subscribe(), fresh)
    }

    /// Ends one interest in a key.
    pub(crate) fn release(&self, key: &Key) {
        let mut keys = self.keys();
        let Some(known) = keys.get_mut(key) else {
            return;
        };
        known.futures -= 1;
        if known.futures == 0 {
            keys.remove(key);
            drop(keys);
            self.outbox.release(key.clone());
        }
    }

    fn note(&self, key: &Key, status: Status) {
        if let Some(known) = self.keys().get(key) {
            known.status.send_replace(status);
        }
    }

    fn close(&self, reason: &str) {
        self.closed.send_replace(Some(reason.to_owned()));
        for known in self.keys().values() {
            let unfinished = *known.status.borrow() == Status::Pending;
            if unfinished {
                known.status.send_replace(Status::Closed(reason.to_owned()));
            }
        }
    }

    fn hear(&self, message: ToClient) -> Option<String> {
        match message {
            ToClient::KeyInMemory(body) => self.note(&body.key, Status::Finished),
            ToClient::TaskErred(body) => {
                self.note(&body.key, Status::Erred(text_of(&body.exception)));
            }
            ToClient::LostData(body) | ToClient::TaskRetried(body) => {
                self.note(&body.key, Status::Pending);
            }
            ToClient::CancelledKeys(body) => {
                let reason = body.msg.0.or(body.reason.0).unwrap_or_default();
                for key in &body.keys {
                    self.note(key, Status::Cancelled(reason.clone()));
                }
            }
            ToClient::Restart(_) => {
                let keys: Vec<Key> = self.keys().keys().cloned().collect();
                for key in keys {
                    self.note(
                        &key,
                        Status::Cancelled("the cluster was restarted".to_owned()),
                    );
                }
            }
            ToClient::StreamClosed(_) | ToClient::Close(_) => {
                return Some("the scheduler closes the stream".to_owned());
            }
            ToClient::StreamStart(_)
            | ToClient::Event(_)
            | ToClient::AdjustHeartbeatInterval(_)
            | ToClient::Unknown(_) => {}
            ToClient::Error(body) => {
                tracing::warn!(error = ?body.exception, "the scheduler reports")
            }
        }
        None
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

async fn read(mut reader: CommReader, link: Weak<Link>) {
    let reason = loop {
        let frames = match reader.read().await {
            Ok(Some(frames)) => frames,
            Ok(None) => break "the scheduler has gone".to_owned(),
            Err(error) => break error.to_string(),
        };
        let Some(link) = link.upgrade() else { return };
        match decode_batch::<ToClient>(&frames) {
            Ok(batch) => {
                let ended = batch.into_iter().find_map(|message| link.hear(message));
                if let Some(reason) = ended {
                    break reason;
                }
            }
            Err(error) => break format!("malformed message: {error}"),
        }
    };
    if let Some(link) = link.upgrade() {
        link.close(&reason);
    }
}

/// Writes what is said, as much at once as has gathered, and signs of life.
async fn write(mut writer: CommWriter, outbox: Arc<Outbox>) {
    let mut batch = Vec::new();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            more = outbox.take(&mut batch) => if !more { break },
            _ = heartbeat.tick() => batch.push(FromClient::HeartbeatClient(Empty {})),
        }
        if writer.write(&encode_batch(batch.iter())).await.is_err() {
            outbox.abandon();
            return;
        }
        batch.clear();
    }
    let bye = [FromClient::CloseClient(Empty {})];
    let _ = writer.write(&encode_batch(bye.iter())).await;
    let _ = writer.shutdown().await;
}

/// An exception in words, as far as they can be read without opening the pickle: its longest text.
fn text_of(exception: &Value) -> String {
    let pickle: Bytes = match exception {
        Value::Str(text) => return text.clone(),
        Value::Bin(bytes) => bytes.clone(),
        Value::Payload(payload) => match payload.frames.as_slice() {
            [frame, ..] => frame.clone(),
            [] => payload.header.clone(),
        },
        _ => return "an exception without a text".to_owned(),
    };
    longest_text(&pickle).unwrap_or_else(|| "a Python exception without a text".to_owned())
}

/// The longest text among the opcodes `BINUNICODE` and `SHORT_BINUNICODE` of a pickle.
fn longest_text(pickle: &[u8]) -> Option<String> {
    let mut best: Option<&str> = None;
    for (at, opcode) in pickle.iter().enumerate() {
        let rest = &pickle[at + 1..];
        let (length, start): (usize, usize) = match opcode {
            b'X' if rest.len() >= 4 => {
                let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
                (length as usize, 4)
            }
            0x8c if !rest.is_empty() => (usize::from(rest[0]), 1),
            _ => continue,
        };
        let text = rest.get(start..start.saturating_add(length));
        if let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok())
            && best.is_none_or(|best| text.len() > best.len())
        {
            best = Some(text);
        }
    }
    best.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_exception_is_found_in_its_pickle() {
        let pickle = oxidask_protocol::exception::builtin("ValueError", "no kernel of this worker");
        assert_eq!(
            longest_text(&pickle),
            Some("no kernel of this worker".to_owned())
        );
        assert_eq!(longest_text(b"X\xff\xff\xff\xff"), None);
        assert_eq!(longest_text(b"X"), None);
    }
}
