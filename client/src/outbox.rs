//! Messages that wait to be written to the scheduler: bounded in tasks, in their order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oxidask_protocol::Key;
use oxidask_protocol::message::client::{ClientKeys, FromClient};
use oxidask_protocol::wire::{KeySet, Omit};
use tokio::sync::Notify;

/// Most tasks and keys that may wait while more are submitted. One graph may have more if nothing else waits.
///
/// A task takes about 0.3 kB, so a scheduler that stops reading costs the program 0.3 GB at most.
pub(crate) const MOST_WAITING: usize = 1_000_000;

/// Messages taken out at once.
const AT_ONCE: usize = 256;

/// Messages for the scheduler, until they are taken to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<FromClient>,
    /// Tasks and keys of all messages but releases. Releases are never more than what was wanted before, which was
    /// counted when it came.
    weight: usize,
    /// Nothing is taken any more.
    closed: bool,
}

/// There is no room for a message: this many tasks and keys wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) usize);

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message at the end; it is lost if the stream has ended, which every key then tells.
    ///
    /// # Errors
    /// If too much waits already.
    pub(crate) fn push(&self, message: FromClient) -> Result<(), Full> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Ok(());
        }
        let weight = weight(&message);
        if waiting.weight > 0 && waiting.weight + weight > MOST_WAITING {
            return Err(Full(waiting.weight));
        }
        waiting.weight += weight;
        waiting.messages.push_back(message);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Puts the release of a key at the end, into the message that stands there if it is one of releases.
    pub(crate) fn release(&self, key: Key) {
        let mut waiting = self.waiting();
        if waiting.closed {
            return;
        }
        match waiting.messages.back_mut() {
            Some(FromClient::ClientReleasesKeys(body)) => body.keys.keys.push(key),
            _ => waiting
                .messages
                .push_back(FromClient::ClientReleasesKeys(ClientKeys {
                    keys: KeySet {
                        keys: vec![key],
                        is_set: false,
                    },
                    client: Omit(None),
                })),
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Moves what waits to the end of `batch`, some of it if it is much; waits until there is something. False at the
    /// end: nothing waits and nothing will come.
    pub(crate) async fn take(&self, batch: &mut Vec<FromClient>) -> bool {
        loop {
            {
                let mut waiting = self.waiting();
                let count = waiting.messages.len().min(AT_ONCE);
                if count > 0 {
                    let from = batch.len();
                    batch.extend(waiting.messages.drain(..count));
                    waiting.weight -= batch[from..].iter().map(weight).sum::<usize>();
                    return true;
                }
                if waiting.closed {
                    return false;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Nothing will come any more; what waits is still taken.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_one();
    }

    /// Nothing is taken any more: what waits is dropped, and so is what comes.
    pub(crate) fn abandon(&self) {
        let mut waiting = self.waiting();
        waiting.closed = true;
        waiting.weight = 0;
        waiting.messages = VecDeque::new();
    }
}

fn weight(message: &FromClient) -> usize {
    match message {
        FromClient::UpdateNativeGraph(graph) => graph.tasks.len() + graph.keys.keys.len(),
        FromClient::ClientDesiresKeys(body) => body.keys.keys.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desire(count: usize) -> FromClient {
        FromClient::ClientDesiresKeys(ClientKeys {
            keys: KeySet {
                keys: vec![Key::from("x"); count],
                is_set: false,
            },
            client: Omit(None),
        })
    }

    #[tokio::test]
    async fn what_a_scheduler_does_not_read_is_bounded_and_room_comes_back() {
        let outbox = Outbox::default();
        // One large message passes when nothing waits.
        outbox.push(desire(MOST_WAITING + 1)).unwrap();
        assert_eq!(outbox.push(desire(1)), Err(Full(MOST_WAITING + 1)));
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch).await);
        assert_eq!(batch.len(), 1);
        outbox.push(desire(MOST_WAITING)).unwrap();
        assert_eq!(outbox.push(desire(1)), Err(Full(MOST_WAITING)));
    }

    #[tokio::test]
    async fn releases_that_follow_each_other_are_one_message_and_keep_their_place() {
        let outbox = Outbox::default();
        outbox.release(Key::from("a"));
        outbox.release(Key::from("b"));
        outbox.push(desire(1)).unwrap();
        outbox.release(Key::from("c"));
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch).await);
        let released: Vec<usize> = batch
            .iter()
            .map(|message| match message {
                FromClient::ClientReleasesKeys(body) => body.keys.keys.len(),
                _ => 0,
            })
            .collect();
        assert_eq!(released, [2, 0, 1]);
    }

    #[tokio::test]
    async fn what_waits_is_taken_after_the_end_and_nothing_after_it_is_abandoned() {
        let outbox = Outbox::default();
        outbox.push(desire(1)).unwrap();
        outbox.close();
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch).await);
        assert!(!outbox.take(&mut batch).await);
        outbox.abandon();
        outbox.release(Key::from("a"));
        assert!(!outbox.take(&mut batch).await);
    }
}
