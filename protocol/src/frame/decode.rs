//! Reading the frames of messages from a stream of bytes.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::{Limits, Memory, Room, encode::SHARD};
use crate::{DecodeError, DecodeErrorKind, Place};

/// Messages up to this size are read into one buffer, and so are neighbouring small frames of larger messages.
/// A larger frame gets its own allocation, so that its memory is free when its value is.
pub(crate) const SMALL: usize = 128 * 1024;

/// First allocation for a large frame. It grows with the bytes that really arrive, not with those announced.
pub(super) const FIRST_ALLOCATION: usize = 4 * 1024 * 1024;

/// Bytes of a body that is passed on which are held at once.
const CHUNK: usize = 256 * 1024;

/// Room that is made for lengths and small messages, when less than a quarter of it is left.
const ROOM: usize = 16 * 1024;

/// Reads messages from a byte stream without doing I/O.
///
/// Read into [`space`](Self::space), then call [`poll`](Self::poll) until it gives `None`.
///
/// Memory: what has arrived of the present message, twice that for a large frame that grows, 40 bytes per frame, and
/// at most 4 MiB ahead of the peer. A small frame keeps up to 128 KiB of its neighbours alive; copy
/// it to keep it for long.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: Limits,
    /// Bytes of lengths and small messages, and the head of the next message.
    buffer: BytesMut,
    state: State,
    /// Where large frames go, if not to the heap.
    memory: Option<Arc<dyn Memory>>,
}

#[derive(Debug)]
enum State {
    /// Waiting for the lengths.
    Lengths,
    /// A small message: all frames come out of `buffer`.
    Small { lengths: Vec<usize>, total: usize },
    /// A large message: its frames are filled in buffers of their own.
    Large(Large),
    /// Waiting for the document of a message whose other frames are passed on as they come.
    Head { lengths: Vec<usize>, total: usize },
    /// So many bytes of such a message are still to come.
    Body(usize),
}

/// The beginning of a message whose other frames have not been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageHead {
    /// The first frame.
    pub document: Bytes,
    /// Lengths of the other frames. Unit: bytes.
    pub lengths: Vec<usize>,
}

/// The frames of a large message, of which `done` have arrived.
#[derive(Debug)]
struct Large {
    lengths: Vec<usize>,
    done: Vec<Bytes>,
    /// How many of the frames after `done` share `current`.
    group: usize,
    /// Their bytes.
    group_bytes: usize,
    /// What has arrived of them, if it is on the heap.
    current: BytesMut,
    /// Where they go otherwise, and how much has arrived.
    room: Option<(Box<dyn Room>, usize)>,
    memory: Option<Arc<dyn Memory>>,
}

impl FrameDecoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
            state: State::Lengths,
            memory: None,
        }
    }

    /// Puts large frames of messages that have not begun into this memory, where it has room.
    pub fn set_memory(&mut self, memory: Arc<dyn Memory>) {
        self.memory = Some(memory);
    }

    /// Where the next bytes go, if it is memory that was lent; say how many with [`filled`](Self::filled).
    pub fn lent(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Large(Large {
                room: Some((room, filled)),
                ..
            }) => Some(&mut room.bytes()[*filled..]),
            _ => None,
        }
    }

    /// So many bytes were put into the memory that [`lent`](Self::lent) gave.
    pub fn filled(&mut self, count: usize) {
        if let State::Large(Large {
            room: Some((_, filled)),
            ..
        }) = &mut self.state
        {
            *filled += count;
        }
    }

    /// Changes the limits for messages that have not begun.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Where the next bytes of the stream go, and how many may be put there.
    ///
    /// The limit keeps bytes of the following frame or message out of the buffer of a large frame. Not to be called
    /// while [`lent`](Self::lent) gives memory.
    pub fn space(&mut self) -> (&mut BytesMut, usize) {
        let missing = match &mut self.state {
            State::Large(large) => {
                let missing = large.group_bytes - large.current.len();
                let current = &mut large.current;
                if current.capacity() == current.len() {
                    current.reserve(missing.min(FIRST_ALLOCATION.max(current.len())));
                }
                return (current, missing);
            }
            State::Small { total, .. } => total.saturating_sub(self.buffer.len()),
            State::Head { lengths, .. } => {
                let document = lengths.first().copied().unwrap_or(0);
                let (arrived, capacity) = (self.buffer.len(), self.buffer.capacity());
                if capacity - arrived < ROOM / 4 {
                    // No further ahead of the peer than it has come, but for the first allocation.
                    document
                        .saturating_sub(arrived)
                        .min(FIRST_ALLOCATION.max(arrived))
                } else {
                    0
                }
            }
            State::Body(left) => {
                let left = *left;
                if self.buffer.capacity() == self.buffer.len() {
                    self.buffer.reserve(left.min(CHUNK));
                }
                return (&mut self.buffer, left.max(1));
            }
            State::Lengths => 0,
        };
        if self.buffer.capacity() - self.buffer.len() < missing.max(ROOM / 4) {
            self.buffer.reserve(missing.max(ROOM));
        }
        (&mut self.buffer, usize::MAX)
    }

    /// The next whole message, or `None` while bytes are missing.
    ///
    /// # Errors
    /// If lengths exceed the limits or contradict each other; the stream cannot be read further.
    pub fn poll(&mut self) -> Result<Option<Vec<Bytes>>, DecodeError> {
        if matches!(self.state, State::Lengths) {
            let Some((lengths, total)) = self.take_lengths()? else {
                return Ok(None);
            };
            self.state = if total <= SMALL {
                State::Small { lengths, total }
            } else {
                State::Large(Large::new(lengths, self.memory.clone()))
            };
        }
        let frames = match &mut self.state {
            // The caller reads the present message with `poll_head` and `poll_body`.
            State::Lengths | State::Head { .. } | State::Body(_) => return Ok(None),
            State::Small { lengths, total } => {
                if self.buffer.len() < *total {
                    return Ok(None);
                }
                let mut body = self.buffer.split_to(*total).freeze();
                lengths.iter().map(|n| body.split_to(*n)).collect()
            }
            State::Large(large) => match large.fill(&mut self.buffer) {
                Some(frames) => frames,
                None => return Ok(None),
            },
        };
        self.state = State::Lengths;
        Ok(Some(frames))
    }

    /// The beginning of the next message, or `None` while bytes are missing. The rest of that message is read with
    /// [`poll_body`](Self::poll_body).
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_head(&mut self) -> Result<Option<MessageHead>, DecodeError> {
        if matches!(self.state, State::Lengths) {
            let Some((lengths, total)) = self.take_lengths()? else {
                return Ok(None);
            };
            self.state = State::Head { lengths, total };
        }
        let State::Head { lengths, total } = &mut self.state else {
            return Ok(None);
        };
        let document = lengths.first().copied().unwrap_or(0);
        if self.buffer.len() < document {
            return Ok(None);
        }
        let mut lengths = std::mem::take(lengths);
        let left = *total - document;
        if !lengths.is_empty() {
            lengths.remove(0);
        }
        self.state = if left == 0 {
            State::Lengths
        } else {
            State::Body(left)
        };
        let document = self.buffer.split_to(document).freeze();
        Ok(Some(MessageHead { document, lengths }))
    }

    /// Some of the bytes that follow a head, or `None` while none are there or when all have been given.
    pub fn poll_body(&mut self) -> Option<Bytes> {
        let State::Body(left) = &mut self.state else {
            return None;
        };
        let have = self.buffer.len().min(*left);
        if have == 0 {
            return None;
        }
        *left -= have;
        if *left == 0 {
            self.state = State::Lengths;
        }
        Some(self.buffer.split_to(have).freeze())
    }

    /// Bytes of the present message that [`poll_body`](Self::poll_body) has not given.
    pub fn body_left(&self) -> usize {
        match self.state {
            State::Body(left) => left,
            State::Lengths | State::Head { .. } | State::Small { .. } | State::Large(_) => 0,
        }
    }

    /// True between two messages: a stream that ends here was closed cleanly.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Lengths) && self.buffer.is_empty()
    }

    /// The lengths of the frames and their sum, once they have arrived.
    fn take_lengths(&mut self) -> Result<Option<(Vec<usize>, usize)>, DecodeError> {
        let too_much = |at, what, declared, limit| {
            let kind = DecodeErrorKind::Limit {
                what,
                declared,
                limit,
            };
            Err(DecodeError::at_place(Place::Lengths { at }, kind))
        };
        if self.buffer.len() < 16 {
            return Ok(None);
        }
        let first_part = (&self.buffer[0..8]).get_u64_le();
        let count = (&self.buffer[8..16]).get_u64_le();
        if count > self.limits.frames {
            return too_much(8, "frames of one message", count, self.limits.frames);
        }
        let lengths_bytes = 8 * (count + 1);
        let limit = self.limits.message_bytes;
        if first_part.saturating_sub(lengths_bytes) > limit {
            return too_much(0, "bytes of one message", first_part, limit);
        }
        let head = 8 + lengths_bytes as usize;
        if self.buffer.len() < head {
            return Ok(None);
        }
        let mut lengths = Vec::with_capacity(count as usize);
        let mut rest = &self.buffer[16..head];
        let mut total = 0_u64;
        let mut is_on_boundary = first_part == lengths_bytes;
        for index in 0..count as usize {
            let length = rest.get_u64_le();
            total = total.saturating_add(length);
            if total > limit {
                return too_much(16 + 8 * index, "bytes of one message", total, limit);
            }
            is_on_boundary |= first_part == lengths_bytes + total;
            lengths.push(length as usize);
        }
        if !is_on_boundary {
            let kind = DecodeErrorKind::BadSplit(first_part);
            return Err(DecodeError::at_place(Place::Lengths { at: 0 }, kind));
        }
        self.buffer.advance(head);
        Ok(Some((lengths, total as usize)))
    }
}

impl Large {
    fn new(lengths: Vec<usize>, memory: Option<Arc<dyn Memory>>) -> Self {
        let mut large = Self {
            done: Vec::with_capacity(lengths.len()),
            lengths,
            group: 0,
            group_bytes: 0,
            current: BytesMut::new(),
            room: None,
            memory,
        };
        large.next_group();
        large
    }

    /// Takes a large frame, or as many small ones as fit a small buffer. In memory that is lent, the shards of one
    /// value stay together.
    fn next_group(&mut self) {
        (self.group, self.group_bytes) = (0, 0);
        let mut before = 0;
        for length in &self.lengths[self.done.len()..] {
            let continues = self.memory.is_some() && before == SHARD;
            if self.group > 0 && self.group_bytes + length > SMALL && !continues {
                break;
            }
            self.group += 1;
            self.group_bytes += length;
            before = *length;
        }
        if self.group_bytes > SMALL {
            let room = self
                .memory
                .as_ref()
                .and_then(|memory| memory.room(self.group_bytes));
            self.room = room.map(|room| (room, 0));
        }
    }

    /// How much of the group has arrived.
    fn have(&self) -> usize {
        self.room
            .as_ref()
            .map_or(self.current.len(), |(_, filled)| *filled)
    }

    /// Moves bytes that arrived with the lengths, and gives the frames when the last is complete.
    fn fill(&mut self, buffer: &mut BytesMut) -> Option<Vec<Bytes>> {
        while self.group > 0 {
            let missing = self.group_bytes - self.have();
            let have = missing.min(buffer.len());
            if have > 0 {
                match &mut self.room {
                    Some((room, filled)) => {
                        room.bytes()[*filled..*filled + have].copy_from_slice(&buffer[..have]);
                        *filled += have;
                    }
                    None => self.current.extend_from_slice(&buffer[..have]),
                }
                buffer.advance(have);
            }
            if have < missing {
                return None;
            }
            let mut body = match self.room.take() {
                Some((room, _)) => room.freeze(),
                None => std::mem::take(&mut self.current).freeze(),
            };
            let first = self.done.len();
            for length in &self.lengths[first..first + self.group] {
                self.done.push(body.split_to(*length));
            }
            self.next_group();
        }
        Some(std::mem::take(&mut self.done))
    }
}
