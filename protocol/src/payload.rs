//! Out-of-band values: carried, counted, never opened.

use std::sync::Arc;

use bytes::Bytes;

use crate::frame::SMALL;
use crate::msgpack::{PICKLED, Reader, SERIALIZED, Writer};
use crate::{DecodeError, DecodeErrorKind};

/// How the receiver turns a payload into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// `{"__Serialized__": i}`: a value of any serialisation family; a scheduler passes it on unopened.
    Serialized,
    /// `{"__Pickled__": i}`: a plain pickle that both schedulers and workers open on arrival.
    Pickled,
}

impl PayloadKind {
    /// The key of the marker map in the document.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Serialized => SERIALIZED,
            Self::Pickled => PICKLED,
        }
    }
}

/// The sub-frames of a payload. Cloning shares the list, so nodes of one graph can share a function's bytes.
///
/// Behind one thin pointer, since most payloads of a graph have none and each task holds one.
#[derive(Clone, Default, PartialEq)]
pub struct Frames(Option<Arc<Vec<Bytes>>>);

impl Frames {
    /// The frames in order.
    pub fn as_slice(&self) -> &[Bytes] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl From<Vec<Bytes>> for Frames {
    fn from(frames: Vec<Bytes>) -> Self {
        Self(if frames.is_empty() {
            None
        } else {
            Some(Arc::new(frames))
        })
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.as_slice().iter().map(Bytes::len))
            .finish()
    }
}

/// A pickle that no message can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pickle of {0} bytes exceeds the limit of 4 GiB; large data belong into buffers beside it"
)]
pub struct PickleTooLarge(pub usize);

/// A value as its sender serialised it: a header and sub-frames.
///
/// The header (a msgpack map) names the serialiser, the compression and the number of sub-frames, and holds no
/// position, so a payload is forwarded by copying both parts.
#[derive(Clone, PartialEq, Debug)]
pub struct Payload {
    /// How it is to be opened.
    pub kind: PayloadKind,
    /// The header frame, a msgpack map with at least `num-sub-frames`.
    pub header: Bytes,
    /// The sub-frames, as many as the header says.
    pub frames: Frames,
}

impl Payload {
    /// A payload from its parts; `header` must hold `num-sub-frames` = `frames.len()`.
    pub fn new(kind: PayloadKind, header: Bytes, frames: impl Into<Frames>) -> Self {
        Self {
            kind,
            header,
            frames: frames.into(),
        }
    }

    /// A `__Serialized__` payload from its parts.
    pub fn serialized(header: Bytes, frames: Vec<Bytes>) -> Self {
        Self::new(PayloadKind::Serialized, header, frames)
    }

    /// A `__Pickled__` payload: one pickle and its out-of-band buffers.
    ///
    /// # Errors
    /// If the pickle has 4 GiB or more, which msgpack cannot hold. (Its buffers may.)
    pub fn pickled(pickle: &[u8], buffers: impl Into<Frames>) -> Result<Self, PickleTooLarge> {
        if u32::try_from(pickle.len()).is_err() {
            return Err(PickleTooLarge(pickle.len()));
        }
        let buffers = buffers.into();
        let count = buffers.as_slice().len();
        let mut w = Writer::new();
        w.map(3);
        w.str("pickled-obj");
        w.bin(pickle);
        w.str("compression");
        w.array(count);
        for _ in 0..count {
            w.nil();
        }
        w.str("num-sub-frames");
        w.uint(count as u64);
        Ok(Self::new(PayloadKind::Pickled, w.into_document(), buffers))
    }

    /// Raw bytes as Dask's `dask` family writes a `bytes` object; used around pickled exceptions.
    pub fn of_bytes(bytes: Bytes) -> Self {
        let mut w = Writer::new();
        w.map(6);
        w.str("type");
        w.str("bytes");
        w.str("type-serialized");
        w.bin(PICKLED_BYTES_CLASS);
        w.str("sub-header");
        w.map(0);
        w.str("serializer");
        w.str("dask");
        w.str("compression");
        w.array(1);
        w.nil();
        w.str("num-sub-frames");
        w.uint(1);
        Self::serialized(w.into_document(), vec![bytes])
    }

    /// A copy that does not keep its message's memory alive. Frames that lie in buffers of their own are shared.
    pub fn detached(&self) -> Self {
        let detach = |frame: &Bytes| {
            if frame.len() > SMALL {
                frame.clone()
            } else {
                Bytes::copy_from_slice(frame)
            }
        };
        let frames: Vec<Bytes> = self.frames.as_slice().iter().map(detach).collect();
        Self::new(self.kind, detach(&self.header), frames)
    }

    /// Bytes of header and sub-frames together.
    pub fn nbytes(&self) -> u64 {
        (self.header.len() + self.frames.as_slice().iter().map(Bytes::len).sum::<usize>()) as u64
    }

    /// The payload whose header is frame `index` of a message; the document refers to it at byte `at`.
    pub(crate) fn from_frames(
        kind: PayloadKind,
        index: usize,
        frames: &[Bytes],
        at: usize,
    ) -> Result<Self, DecodeError> {
        let missing = |index: usize| {
            let frames = frames.len();
            DecodeError::new(0, at, DecodeErrorKind::NoSuchFrame { index, frames })
        };
        let header = frames.get(index).ok_or_else(|| missing(index))?.clone();
        let count = sub_frame_count(&header).map_err(|error| error.in_frame(index))?;
        let end = index.saturating_add(1).saturating_add(count);
        let parts = frames.get(index + 1..end).ok_or_else(|| missing(end - 1))?;
        let frames = if parts.is_empty() {
            Frames(None)
        } else {
            Frames(Some(Arc::new(parts.to_vec())))
        };
        Ok(Self {
            kind,
            header,
            frames,
        })
    }
}

/// `pickle.dumps(bytes, protocol=5)`, which the `dask` family uses to find its deserialiser.
const PICKLED_BYTES_CLASS: &[u8] =
    b"\x80\x05\x95\x16\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x05bytes\x94\x93\x94.";

/// Reads `num-sub-frames` of a header.
fn sub_frame_count(header: &Bytes) -> Result<usize, DecodeError> {
    let mut r = Reader::new(header, &[]);
    for _ in 0..r.map()? {
        if r.field()? == b"num-sub-frames" {
            return Ok(usize::try_from(r.uint()?).unwrap_or(usize::MAX));
        }
        r.skip()?;
    }
    r.fail(DecodeErrorKind::NoSubFrameCount)
}
