//! Memory for large frames from elsewhere than the heap: that of values which other processes will map.

use std::fmt::Debug;

use bytes::Bytes;

/// Lends memory for large frames.
pub trait Memory: Debug + Send + Sync {
    /// Room for exactly so many bytes; none, if the frame shall lie on the heap.
    ///
    /// The length is what a peer announced: memory must be taken only as it is written to.
    fn room(&self, length: usize) -> Option<Box<dyn Room>>;
}

/// Room for a frame that arrives.
pub trait Room: Debug + Send + Sync {
    /// All of it.
    fn bytes(&mut self) -> &mut [u8];

    /// The frame, once all of it has arrived.
    fn freeze(self: Box<Self>) -> Bytes;
}
