//! Writing the frames of one message.

use bytes::{BufMut, Bytes, BytesMut};

/// Frames up to this size are copied into the first write of a message; larger ones are written from where they are.
const INLINE_FRAME: usize = 64 * 1024;

/// Size at which stock peers cut a large buffer (`distributed.comm.shard`).
pub(super) const SHARD: usize = 64 << 20;

/// The bytes of a message as a list of buffers to write in order.
///
/// Small frames are gathered with the lengths into one buffer; a frame above 64 KiB is handed over as it is.
pub fn encode(frames: &[Bytes]) -> Vec<Bytes> {
    let small = |frame: &&Bytes| frame.len() <= INLINE_FRAME;
    let inline: usize = frames.iter().filter(small).map(Bytes::len).sum();
    let lengths = 8 * (1 + frames.len());
    let mut head = BytesMut::with_capacity(8 + lengths + inline);
    head.put_u64_le((lengths + first_part(frames.iter().map(Bytes::len))) as u64);
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

/// The first bytes of a message whose frames after the first are written later, as they are.
///
/// `lengths`: of the frames after `document`.
pub fn encode_head(document: &[u8], lengths: &[usize]) -> Bytes {
    let count = 1 + lengths.len();
    let first_part = first_part([document.len()].iter().chain(lengths).copied());
    let mut head = BytesMut::with_capacity(8 * (2 + count) + document.len());
    head.put_u64_le((8 * (1 + count) + first_part) as u64);
    head.put_u64_le(count as u64);
    head.put_u64_le(document.len() as u64);
    for length in lengths {
        head.put_u64_le(*length as u64);
    }
    head.extend_from_slice(document);
    head.freeze()
}

/// Bytes of the frames that a stock peer shall read into one buffer.
///
/// It keeps that buffer for as long as anything in it lives, so it ends before the second large value, or before the
/// first if much stands before it. The shards of one value stay together: in one buffer they need not be copied to be
/// put together again. These are the rules of the stock writer.
fn first_part(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let mut has_large = false;
    let mut before = 0;
    for length in lengths {
        if length > INLINE_FRAME {
            let continues = before == SHARD;
            if has_large && !continues || !has_large && bytes > 2048.max(length / 20) {
                break;
            }
            has_large = true;
        }
        bytes += length;
        before = length;
    }
    bytes
}
