//! Frames: how one message is cut into lengths and bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{DecodeError, DecodeErrorKind};

/// Messages up to this size are read into one buffer; larger frames each get their own allocation.
const SMALL_MESSAGE: u64 = 128 * 1024;

/// First allocation for a large frame. It grows with the bytes that really arrive, not with those announced.
const FIRST_ALLOCATION: usize = 4 * 1024 * 1024;

/// Frames up to this size are copied into the first write of a message; larger ones are written from where they are.
const INLINE_FRAME: usize = 64 * 1024;

/// What a peer may announce before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Frames in one message.
    pub frames: u64,
    /// Bytes of one message, all frames together.
    pub message_bytes: u64,
}

impl Default for Limits {
    /// One million frames and 64 GiB, far above what Dask sends (it cuts frames at 64 MiB).
    fn default() -> Self {
        Self {
            frames: 1_000_000,
            message_bytes: 64 << 30,
        }
    }
}

/// Reads messages from a byte stream without doing I/O.
///
/// Read into [`space`](Self::space), then call [`poll`](Self::poll) until it gives `None`.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: Limits,
    /// Bytes of lengths and small messages, and the head of the next message.
    buffer: BytesMut,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Waiting for the lengths.
    Lengths,
    /// A small message: all frames come out of `buffer`.
    Small { lengths: Vec<u64>, total: usize },
    /// A large message: each frame is filled in its own buffer.
    Large {
        lengths: Vec<u64>,
        done: Vec<Bytes>,
        current: BytesMut,
    },
}

impl FrameDecoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: BytesMut::new(),
            state: State::Lengths,
        }
    }

    /// Changes the limits for messages that have not begun.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Where the next bytes of the stream go, and how many may be put there.
    ///
    /// The limit keeps bytes of the following frame or message out of the buffer of a large frame.
    pub fn space(&mut self) -> (&mut BytesMut, usize) {
        match &mut self.state {
            State::Large {
                lengths,
                done,
                current,
            } => {
                let missing = lengths[done.len()] as usize - current.len();
                if current.capacity() == current.len() {
                    current.reserve(missing.min(FIRST_ALLOCATION.max(current.len())));
                }
                (current, missing)
            }
            _ => {
                if self.buffer.capacity() - self.buffer.len() < 4096 {
                    self.buffer.reserve(16 * 1024);
                }
                (&mut self.buffer, usize::MAX)
            }
        }
    }

    /// The next whole message, or `None` while bytes are missing.
    ///
    /// # Errors
    /// If lengths exceed the limits or contradict each other; the stream cannot be read further.
    pub fn poll(&mut self) -> Result<Option<Vec<Bytes>>, DecodeError> {
        if matches!(self.state, State::Lengths) {
            let Some(lengths) = self.take_lengths()? else {
                return Ok(None);
            };
            let total: u64 = lengths.iter().sum();
            self.state = if total <= SMALL_MESSAGE {
                State::Small {
                    lengths,
                    total: total as usize,
                }
            } else {
                State::Large {
                    lengths,
                    done: Vec::new(),
                    current: BytesMut::new(),
                }
            };
        }
        match &mut self.state {
            State::Lengths => Ok(None),
            State::Small { lengths, total } => {
                if self.buffer.len() < *total {
                    return Ok(None);
                }
                let mut body = self.buffer.split_to(*total).freeze();
                let frames = lengths.iter().map(|n| body.split_to(*n as usize)).collect();
                self.state = State::Lengths;
                Ok(Some(frames))
            }
            State::Large {
                lengths,
                done,
                current,
            } => {
                while let Some(length) = lengths.get(done.len()) {
                    let missing = *length as usize - current.len();
                    let have = missing.min(self.buffer.len());
                    if have > 0 {
                        current.extend_from_slice(&self.buffer[..have]);
                        self.buffer.advance(have);
                    }
                    if have < missing {
                        return Ok(None);
                    }
                    done.push(std::mem::take(current).freeze());
                }
                let frames = std::mem::take(done);
                self.state = State::Lengths;
                Ok(Some(frames))
            }
        }
    }

    /// True between two messages: a stream that ends here was closed cleanly.
    pub fn is_between_messages(&self) -> bool {
        matches!(self.state, State::Lengths) && self.buffer.is_empty()
    }

    fn take_lengths(&mut self) -> Result<Option<Vec<u64>>, DecodeError> {
        let fail = |at, kind| Err(DecodeError::new(0, at, kind));
        if self.buffer.len() < 16 {
            return Ok(None);
        }
        let first_part = (&self.buffer[0..8]).get_u64_le();
        let count = (&self.buffer[8..16]).get_u64_le();
        if count > self.limits.frames {
            return fail(
                8,
                DecodeErrorKind::Limit {
                    what: "number of frames",
                    declared: count,
                    limit: self.limits.frames,
                },
            );
        }
        if first_part > self.limits.message_bytes + 8 * (count + 1) {
            return fail(
                0,
                DecodeErrorKind::Limit {
                    what: "message",
                    declared: first_part,
                    limit: self.limits.message_bytes,
                },
            );
        }
        let head = 16 + 8 * count as usize;
        if self.buffer.len() < head {
            return Ok(None);
        }
        let mut lengths = Vec::with_capacity(count as usize);
        let mut rest = &self.buffer[16..head];
        let mut total = 0_u64;
        let mut on_boundary = first_part == 8 * (count + 1);
        for _ in 0..count {
            let length = rest.get_u64_le();
            total = total.saturating_add(length);
            if total > self.limits.message_bytes {
                return fail(
                    16,
                    DecodeErrorKind::Limit {
                        what: "message",
                        declared: total,
                        limit: self.limits.message_bytes,
                    },
                );
            }
            on_boundary |= first_part == 8 * (count + 1) + total;
            lengths.push(length);
        }
        if !on_boundary {
            return fail(0, DecodeErrorKind::BadSplit(first_part));
        }
        self.buffer.advance(head);
        Ok(Some(lengths))
    }
}

/// The bytes of a message as a list of buffers to write in order.
///
/// Small frames are gathered with the lengths into one buffer; a frame above 64 KiB is handed over as it is.
pub fn encode(frames: &[Bytes]) -> Vec<Bytes> {
    let total: usize = frames.iter().map(Bytes::len).sum();
    let inline: usize = frames
        .iter()
        .map(Bytes::len)
        .filter(|n| *n <= INLINE_FRAME)
        .sum();
    let mut head = BytesMut::with_capacity(8 * (2 + frames.len()) + inline);
    head.put_u64_le((8 * (1 + frames.len()) + total) as u64);
    head.put_u64_le(frames.len() as u64);
    for frame in frames {
        head.put_u64_le(frame.len() as u64);
    }
    let mut out = Vec::new();
    for frame in frames {
        if frame.len() <= INLINE_FRAME {
            head.extend_from_slice(frame);
        } else {
            if !head.is_empty() {
                out.push(head.split().freeze());
            }
            out.push(frame.clone());
        }
    }
    if !head.is_empty() {
        out.push(head.freeze());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(
        decoder: &mut FrameDecoder,
        mut bytes: &[u8],
        step: usize,
    ) -> Result<Vec<Vec<Bytes>>, DecodeError> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (space, limit) = decoder.space();
            let n = step.min(limit).min(bytes.len());
            space.extend_from_slice(&bytes[..n]);
            bytes.advance(n);
            while let Some(message) = decoder.poll()? {
                out.push(message);
            }
        }
        Ok(out)
    }

    fn wire(frames: &[Bytes]) -> Vec<u8> {
        encode(frames).concat()
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_arrive() {
        let messages = [
            vec![Bytes::from_static(b"abc")],
            vec![
                Bytes::from_static(b""),
                Bytes::from(vec![7; 200_000]),
                Bytes::new(),
            ],
            vec![],
            vec![Bytes::from_static(b"x"), Bytes::from(vec![1; 70_000])],
        ];
        let stream: Vec<u8> = messages.iter().flat_map(|m| wire(m)).collect();
        for step in [1, 7, 1000, 65_536, usize::MAX] {
            let mut decoder = FrameDecoder::new(Limits::default());
            assert_eq!(
                feed(&mut decoder, &stream, step).unwrap(),
                messages,
                "step {step}"
            );
            assert!(decoder.is_between_messages());
        }
    }

    #[test]
    fn sender_may_end_the_first_part_after_any_frame() {
        let frames = [Bytes::from_static(b"ab"), Bytes::from_static(b"cde")];
        for first_part in [24_u64, 26, 29] {
            let mut bytes = wire(&frames);
            bytes[..8].copy_from_slice(&first_part.to_le_bytes());
            assert_eq!(
                feed(&mut FrameDecoder::new(Limits::default()), &bytes, 5).unwrap(),
                [frames.to_vec()]
            );
        }
        let mut bytes = wire(&frames);
        bytes[..8].copy_from_slice(&25_u64.to_le_bytes());
        let error = feed(&mut FrameDecoder::new(Limits::default()), &bytes, 5).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::BadSplit(25));
    }

    #[test]
    fn announced_sizes_are_refused_before_anything_is_allocated() {
        for (n, f, len) in [
            (1_u64 << 63, 1_u64, 1_u64 << 63),
            (16, 1 << 40, 0),
            (u64::MAX, 1, u64::MAX),
        ] {
            let mut bytes = Vec::new();
            for value in [n, f, len] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            let mut decoder = FrameDecoder::new(Limits::default());
            let error = feed(&mut decoder, &bytes, usize::MAX).unwrap_err();
            assert!(
                matches!(error.kind, DecodeErrorKind::Limit { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_large_frame_takes_memory_only_as_its_bytes_arrive() {
        let mut decoder = FrameDecoder::new(Limits::default());
        let length = 10_u64 << 30;
        let mut head = Vec::new();
        for value in [16 + length, 1, length] {
            head.extend_from_slice(&value.to_le_bytes());
        }
        assert!(feed(&mut decoder, &head, usize::MAX).unwrap().is_empty());
        feed(&mut decoder, &[0; 1000], usize::MAX).unwrap();
        assert!(decoder.space().0.capacity() <= 2 * FIRST_ALLOCATION);
    }
}
