//! What a stream peer gets: flushed at once while it keeps up, coalesced while it does not.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use oxidask_protocol::comm::CommWriter;
use oxidask_protocol::frame::encode;
use oxidask_protocol::msgpack::Writer;
use tokio::sync::Notify;
use tokio::time::timeout_at;

/// Buffers given to one `writev`.
const MAX_SLICES: usize = 64;

/// Messages between two looks at how much is waiting for a peer that does not read.
const CHECK_EVERY: u32 = 256;

/// Time between two looks at peers that do not read and get nothing new.
const LOOK: Duration = Duration::from_secs(1);

/// How much may wait for a peer.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// A peer that takes nothing for `patience` while more than this waits is given up. Unit: bytes.
    pub soft: usize,
    /// A peer for which more than this waits is given up. Unit: bytes.
    pub hard: usize,
    /// See [`soft`](Self::soft).
    pub patience: Duration,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            soft: 64 << 20,
            hard: 1 << 30,
            patience: Duration::from_secs(30),
        }
    }
}

/// Why a stream cannot be written to any more.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The network failed.
    #[error("connection failed")]
    Io(#[from] std::io::Error),
    /// The peer does not read what it is sent.
    #[error("peer does not read: {0} bytes wait for it")]
    Stalled(usize),
}

/// The sending half of a stream: messages go in one by one and leave in arrays.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    flusher: Arc<Flusher>,
    limits: OutboxLimits,
}

#[derive(Debug)]
struct Inner {
    writer: CommWriter,
    /// The array that is being filled.
    batch: Writer,
    /// Messages in `batch`.
    count: u32,
    /// Encoded, not written. Empty while the peer keeps up.
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    queued: usize,
    /// The connection took less than it was given; [`Outbox::poll_pump`] goes on when it takes more.
    blocked: bool,
    /// In the flusher's list.
    dirty: bool,
    /// In the flusher's list of those that were blocked at its last look.
    watched: bool,
    /// Nothing more is accepted; the stream ends when all is written.
    closing: bool,
    failed: Option<OutboxError>,
    /// When the peer last took something. Looked at only while it is blocked.
    progress: Instant,
    waker: Option<Waker>,
}

impl Outbox {
    /// An outbox over a connection.
    pub fn new(writer: CommWriter, flusher: Arc<Flusher>, limits: OutboxLimits) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                writer,
                batch: Writer::new(),
                count: 0,
                queue: VecDeque::new(),
                queued: 0,
                blocked: false,
                dirty: false,
                watched: false,
                closing: false,
                failed: None,
                progress: Instant::now(),
                waker: None,
            }),
            flusher,
            limits,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends one message to the array that leaves next. Never waits; dropped if the stream is ending.
    pub fn send(self: &Arc<Self>, write: impl FnOnce(&mut Writer)) {
        let mut inner = self.inner();
        if inner.closing || inner.failed.is_some() {
            return;
        }
        if inner.count == 0 {
            inner.batch.begin_array();
        }
        write(&mut inner.batch);
        inner.count += 1;
        if inner.blocked && inner.count.is_multiple_of(CHECK_EVERY) {
            inner.check(&self.limits);
        }
        self.mark(inner);
    }

    /// Appends a whole message that is no array of operations.
    pub fn send_message(self: &Arc<Self>, frames: &[Bytes]) {
        let mut inner = self.inner();
        if inner.closing || inner.failed.is_some() {
            return;
        }
        inner.seal();
        inner.push(frames);
        if inner.blocked {
            inner.check(&self.limits);
        }
        self.mark(inner);
    }

    /// Ends the stream after what has been sent so far.
    pub fn close(self: &Arc<Self>) {
        let mut inner = self.inner();
        inner.closing = true;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
        self.mark(inner);
    }

    fn mark(self: &Arc<Self>, mut inner: MutexGuard<'_, Inner>) {
        if !inner.dirty && !inner.blocked {
            inner.dirty = true;
            drop(inner);
            self.flusher.add(Arc::clone(self));
        }
    }

    /// Writes what the connection takes now. True if the peer takes less than that and is to be watched from now on.
    fn flush(&self) -> bool {
        let mut inner = self.inner();
        inner.dirty = false;
        if inner.blocked || inner.failed.is_some() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let written = inner.write(&mut cx);
        match written {
            Poll::Ready(Ok(())) if !inner.closing => return false,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => inner.failed = Some(error.into()),
            Poll::Pending => {
                inner.blocked = true;
                inner.progress = Instant::now();
            }
        }
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
        inner.blocked && !std::mem::replace(&mut inner.watched, true)
    }

    /// Gives up a peer that has taken nothing for too long. False if it need not be watched any more.
    fn watch(&self) -> bool {
        let mut inner = self.inner();
        if inner.blocked && inner.failed.is_none() {
            inner.check(&self.limits);
        }
        inner.watched = inner.blocked && inner.failed.is_none();
        inner.watched
    }

    /// Ready when the stream has ended: closed from our side, or failed. Until then writes on whenever a slow peer
    /// takes more. The connection's task polls this beside its reading.
    pub fn poll_pump(&self, cx: &mut Context<'_>) -> Poll<Result<(), OutboxError>> {
        let mut inner = self.inner();
        if let Some(error) = inner.failed.take() {
            inner.closing = true;
            return Poll::Ready(Err(error));
        }
        if inner.blocked || inner.closing {
            match inner.write(cx) {
                Poll::Ready(Ok(())) => {
                    inner.blocked = false;
                    if inner.closing {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {}
            }
        }
        if !inner
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            inner.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until all that was sent has been written, or the stream has ended.
    pub async fn flushed(&self) {
        loop {
            {
                let inner = self.inner();
                let empty = inner.queue.is_empty() && inner.count == 0;
                if empty || inner.failed.is_some() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// [`poll_pump`](Self::poll_pump) as a future.
    pub async fn pump(&self) -> Result<(), OutboxError> {
        std::future::poll_fn(|cx| self.poll_pump(cx)).await
    }
}

impl Inner {
    fn push(&mut self, frames: &[Bytes]) {
        for buffer in encode(frames) {
            self.queued += buffer.len();
            self.queue.push_back(buffer);
        }
    }

    /// Closes the array that is being filled and queues it.
    fn seal(&mut self) {
        if self.count > 0 {
            let mut batch = std::mem::take(&mut self.batch);
            batch.end_array(0, self.count);
            self.count = 0;
            self.push(&batch.into_frames());
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            if self.queue.is_empty() {
                self.seal();
                if self.queue.is_empty() {
                    return self.writer.poll_flush(cx);
                }
            }
            let slices: Vec<IoSlice<'_>> = self
                .queue
                .iter()
                .take(MAX_SLICES)
                .map(|b| IoSlice::new(b))
                .collect();
            let mut written = std::task::ready!(self.writer.poll_write(cx, &slices))?;
            drop(slices);
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            if self.blocked {
                self.progress = Instant::now();
            }
            self.queued -= written;
            while let Some(front) = self.queue.front_mut() {
                if written < front.len() {
                    front.advance(written);
                    break;
                }
                written -= front.len();
                self.queue.pop_front();
            }
        }
    }

    fn check(&mut self, limits: &OutboxLimits) {
        let waiting = self.queued + self.batch.len();
        if waiting > limits.hard
            || waiting > limits.soft && self.progress.elapsed() > limits.patience
        {
            self.failed = Some(OutboxError::Stalled(waiting));
            self.queue.clear();
            self.queued = 0;
            self.batch = Writer::new();
            self.count = 0;
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Flushes the outboxes that got messages, once the tasks that were ready together have run.
///
/// Sockets that become readable in one wake-up of the runtime queue their tasks before this one, so all that they
/// cause leaves in one write per peer, with no timer between.
#[derive(Debug, Default)]
pub struct Flusher {
    dirty: Mutex<Vec<Arc<Outbox>>>,
    wake: Notify,
}

impl Flusher {
    fn add(&self, outbox: Arc<Outbox>) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.push(outbox);
        if dirty.len() == 1 {
            self.wake.notify_one();
        }
    }

    /// Flushes for ever, and watches those that take less than they are given.
    pub async fn run(&self) {
        let mut list = Vec::new();
        let mut blocked: Vec<Arc<Outbox>> = Vec::new();
        let mut look = Instant::now();
        loop {
            let woken = self.wake.notified();
            if blocked.is_empty() {
                woken.await;
            } else {
                // Woken or not: what follows does no harm when there is nothing to flush.
                let _ = timeout_at(look.into(), woken).await;
                if Instant::now() >= look {
                    blocked.retain(|outbox| outbox.watch());
                    look = Instant::now() + LOOK;
                }
            }
            std::mem::swap(
                &mut list,
                &mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for outbox in list.drain(..) {
                if outbox.flush() {
                    if blocked.is_empty() {
                        look = Instant::now() + LOOK;
                    }
                    blocked.push(outbox);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
