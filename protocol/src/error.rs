//! What can be wrong with bytes from a peer.

use std::fmt;
use std::ops::Deref;

/// A message that cannot be understood: what is wrong, and where.
///
/// The details are behind one pointer, so that reading costs nothing for the errors that it does not meet.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeError(Box<DecodeErrorDetail>);

/// What a [`DecodeError`] knows.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeErrorDetail {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Where in the bytes.
    pub place: Place,
    /// The operation that was being read.
    pub op: Option<&'static str>,
    /// The field that was being read, such as `startstops.start`; empty outside fields.
    pub path: String,
    /// Index of the message in its batch.
    pub message: Option<usize>,
}

/// A place in the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not in a message: in a part that was handed over alone.
    Apart,
    /// In the lengths before the frames.
    Lengths {
        /// Byte offset from the first length.
        at: usize,
    },
    /// In a frame.
    Frame {
        /// Its index, 0 being the msgpack document.
        index: usize,
        /// Byte offset in it.
        at: usize,
    },
}

/// The ways in which a message can be malformed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The document ends in the middle of a value.
    #[error("message ends in the middle of a value")]
    Truncated,
    /// A value of another type stands where `expected` should be.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// The type that the message definition asks for.
        expected: &'static str,
        /// The msgpack type that stands there.
        found: &'static str,
    },
    /// A string is not UTF-8.
    #[error("string is not valid UTF-8")]
    NotUtf8,
    /// A number does not fit.
    #[error("number out of range for {0}")]
    OutOfRange(&'static str),
    /// Arrays and maps are nested too deeply.
    #[error("values nested deeper than {0}")]
    TooDeep(usize),
    /// A payload refers to frames that the message does not have.
    #[error("payload refers to frame {index}, but the message has {frames} frames")]
    NoSuchFrame {
        /// The frame asked for.
        index: usize,
        /// Frames in the message.
        frames: usize,
    },
    /// Two payloads claim the same frame. Frames follow the order in which the document names their payloads.
    #[error("payload refers to frame {index}, but the payloads before it end with frame {taken}")]
    FrameTaken {
        /// The frame asked for.
        index: usize,
        /// Last frame of the payloads before.
        taken: usize,
    },
    /// The marker of a payload stands among other fields, or its index is no index.
    #[error("{0:?} must be the only field of its map, with the index of a frame")]
    BadMarker(&'static str),
    /// A payload header lacks `num-sub-frames`.
    #[error("payload header without \"num-sub-frames\"")]
    NoSubFrameCount,
    /// A field that the operation needs is missing.
    #[error("the field {field:?} of {structure} is missing")]
    MissingField {
        /// The structure, by its name in this crate.
        structure: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// A map has no `op`.
    #[error("message without \"op\"")]
    NoOp,
    /// A key is of a type that Dask does not allow.
    #[error("key of type {0}; keys are str, bytes, int, float, bool or tuples of those")]
    BadKey(&'static str),
    /// A key is called like a marker: as a map key it would make the map something else at every receiver.
    #[error("a key may not be called {0:?}, which marks values of the protocol")]
    ReservedKey(&'static str),
    /// A declared size exceeds a limit.
    #[error("{what}: {declared} exceed the limit of {limit}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The size that the peer declared.
        declared: u64,
        /// The limit.
        limit: u64,
    },
    /// The first length of a message does not end on a frame boundary.
    #[error("first part of {0} bytes does not end on a frame boundary")]
    BadSplit(u64),
    /// Compressed data are damaged or of an unknown kind.
    #[error("cannot decompress {algorithm:?} frame: {reason}")]
    Decompress {
        /// Name of the algorithm in the header, at most 32 characters of it.
        algorithm: String,
        /// What the decompressor says.
        reason: String,
    },
    /// Bytes are left after the document.
    #[error("{0} bytes after the end of the document")]
    TrailingBytes(usize),
}

impl DecodeError {
    /// An error at a byte of a frame.
    #[cold]
    pub fn new(frame: usize, at: usize, kind: DecodeErrorKind) -> Self {
        Self::at_place(Place::Frame { index: frame, at }, kind)
    }

    /// An error at a place.
    #[cold]
    pub fn at_place(place: Place, kind: DecodeErrorKind) -> Self {
        Self(Box::new(DecodeErrorDetail {
            kind,
            place,
            op: None,
            path: String::new(),
            message: None,
        }))
    }

    /// The same error, met while reading a field.
    #[cold]
    #[must_use]
    pub fn in_field(mut self, field: &'static str) -> Self {
        let inner = &self.0.path;
        self.0.path = if inner.is_empty() {
            field.to_owned()
        } else {
            format!("{field}.{inner}")
        };
        self
    }

    /// The same error, met while reading an operation.
    #[cold]
    #[must_use]
    pub fn in_op(mut self, op: &'static str) -> Self {
        self.0.op.get_or_insert(op);
        self
    }

    /// The same error, met while reading a message of a batch.
    #[cold]
    #[must_use]
    pub fn in_message(mut self, index: usize) -> Self {
        self.0.message = Some(index);
        self
    }

    /// The same error in another frame than it seemed, such as the header of a payload.
    #[cold]
    #[must_use]
    pub(crate) fn in_frame(mut self, index: usize) -> Self {
        if let Place::Frame { index: place, .. } = &mut self.0.place {
            *place = index;
        }
        self
    }
}

impl Deref for DecodeError {
    type Target = DecodeErrorDetail;

    fn deref(&self) -> &DecodeErrorDetail {
        &self.0
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.op, self.path.as_str()) {
            (Some(op), "") => write!(f, "{op}: ")?,
            (Some(op), path) => write!(f, "{op}, field {path}: ")?,
            (None, "") => {}
            (None, path) => write!(f, "field {path}: ")?,
        }
        write!(f, "{}", self.kind)?;
        match self.place {
            Place::Apart => {}
            Place::Lengths { at } => write!(f, ", at byte {at} of the lengths")?,
            Place::Frame { index, at } => write!(f, ", at byte {at} of frame {index}")?,
        }
        match self.message {
            Some(index) => write!(f, ", in message {index} of the batch"),
            None => Ok(()),
        }
    }
}
