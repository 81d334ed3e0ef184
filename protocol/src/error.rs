//! What can be wrong with bytes from a peer.

/// A message that cannot be understood: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind}, at byte {at} of frame {frame}")]
pub struct DecodeError {
    /// Index of the frame, 0 being the msgpack document.
    pub frame: usize,
    /// Byte offset in that frame.
    pub at: usize,
    /// What is wrong.
    pub kind: DecodeErrorKind,
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
    /// A payload header lacks `num-sub-frames`.
    #[error("payload header without \"num-sub-frames\"")]
    NoSubFrameCount,
    /// A field that the operation needs is missing.
    #[error("{op:?} lacks the field {field:?}")]
    MissingField {
        /// The operation or structure.
        op: &'static str,
        /// The missing field.
        field: &'static str,
    },
    /// A map has no `op`.
    #[error("message without \"op\"")]
    NoOp,
    /// A key is of a type that Dask does not allow.
    #[error("key of type {0}; keys are str, bytes, int, float, bool or tuples of those")]
    BadKey(&'static str),
    /// A declared size exceeds a limit.
    #[error("{what} of {declared} exceeds the limit of {limit}")]
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
    #[error("cannot decompress {algorithm} frame: {reason}")]
    Decompress {
        /// Name of the algorithm in the header.
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
    pub fn new(frame: usize, at: usize, kind: DecodeErrorKind) -> Self {
        Self { frame, at, kind }
    }
}
