//! Messages that wait to be written, counted in bytes.
//!
//! Whoever sends never waits: the driver must go on, whatever its peers do. What *causes* messages is held back
//! instead, where it comes in: see [`Backlog::short`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::sync::{
    Notify,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

/// Bytes that may wait before what causes more of them is held back. More than a scheduler that is busy for a second
/// leaves unread, less than anybody's memory limit.
pub(crate) const LIMIT: usize = 32 << 20;

/// Messages taken at once by who writes them.
const BATCH: usize = 64;

/// The end where messages are put in.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    messages: UnboundedSender<Vec<Bytes>>,
    backlog: Backlog,
}

/// The end where they are taken out, to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    messages: UnboundedReceiver<Vec<Bytes>>,
    backlog: Backlog,
    /// Bytes of the batch that is being written.
    writing: usize,
}

/// How many bytes wait. Copies are the same count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backlog(Arc<State>);

#[derive(Debug, Default)]
struct State {
    bytes: AtomicUsize,
    /// Nobody writes any more, so nobody need wait.
    closed: AtomicBool,
    shorter: Notify,
}

/// An empty outbox, and where it is emptied.
pub(crate) fn outbox() -> (Outbox, Outgoing) {
    let (sender, messages) = unbounded_channel();
    let backlog = Backlog::default();
    let outgoing = Outgoing {
        messages,
        backlog: backlog.clone(),
        writing: 0,
    };
    let outbox = Outbox {
        messages: sender,
        backlog,
    };
    (outbox, outgoing)
}

impl Outbox {
    /// Puts a message in. Lost if nobody writes any more: that is reported by who did.
    pub(crate) fn send(&self, frames: Vec<Bytes>) {
        let bytes = size(&frames);
        self.backlog.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.messages.send(frames).is_err() {
            self.backlog.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// How many bytes wait here.
    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }
}

impl Outgoing {
    /// Puts the next messages into `batch`, and counts those of the batch before as written; false at the end.
    pub(crate) async fn next(&mut self, batch: &mut Vec<Vec<Bytes>>) -> bool {
        self.written();
        batch.clear();
        if self.messages.recv_many(batch, BATCH).await == 0 {
            return false;
        }
        self.writing = batch.iter().map(|frames| size(frames)).sum();
        true
    }

    fn written(&mut self) {
        let bytes = std::mem::take(&mut self.writing);
        if bytes > 0 {
            self.backlog.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.backlog.0.shorter.notify_waiters();
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.backlog.0.closed.store(true, Ordering::Relaxed);
        self.backlog.0.shorter.notify_waiters();
    }
}

impl Backlog {
    /// More than [`LIMIT`] bytes wait for somebody who does not read.
    pub(crate) fn is_long(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) > LIMIT && !self.0.closed.load(Ordering::Relaxed)
    }

    /// Returns as soon as no more than [`LIMIT`] bytes wait, or nobody writes them any more.
    pub(crate) async fn short(&self) {
        loop {
            let shorter = self.0.shorter.notified();
            tokio::pin!(shorter);
            // From here on a notification counts, so nothing falls between the look and the wait.
            shorter.as_mut().enable();
            if !self.is_long() {
                return;
            }
            shorter.await;
        }
    }
}

fn size(frames: &[Bytes]) -> usize {
    frames.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(bytes: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![0; bytes])]
    }

    async fn waits(backlog: &Backlog) -> bool {
        tokio::time::timeout(Duration::from_millis(10), backlog.short())
            .await
            .is_err()
    }

    #[tokio::test]
    async fn who_causes_messages_waits_until_they_are_written() {
        let (outbox, mut outgoing) = outbox();
        outbox.send(message(LIMIT));
        assert!(!waits(outbox.backlog()).await, "the limit is not passed");
        outbox.send(message(1));
        assert!(waits(outbox.backlog()).await);
        let mut batch = Vec::new();
        assert!(outgoing.next(&mut batch).await);
        assert_eq!(batch.len(), 2);
        assert!(
            waits(outbox.backlog()).await,
            "they are taken but not written"
        );
        let waiting = tokio::spawn({
            let backlog = outbox.backlog().clone();
            async move { backlog.short().await }
        });
        outbox.send(message(1));
        assert!(outgoing.next(&mut batch).await);
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_has_ended() {
        let (outbox, outgoing) = outbox();
        outbox.send(message(LIMIT + 1));
        assert!(waits(outbox.backlog()).await);
        drop(outgoing);
        assert!(!waits(outbox.backlog()).await);
        outbox.send(message(LIMIT + 1));
        assert!(!waits(outbox.backlog()).await);
    }
}
