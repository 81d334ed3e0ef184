//! Any stream of bytes, in any pieces: read or refused, with memory in proportion to what has arrived.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_protocol::frame::{FrameDecoder, Limits, encode};
use oxidask_protocol_fuzz::within;

/// Bytes allocated per byte received: a frame of no bytes has 8 bytes of length, and takes 8 of length and 32 of its
/// `Bytes` here, beside the buffer that the lengths came in, which doubles as it grows.
const PER_BYTE: usize = 8;

/// Bytes allocated ahead of the peer: the first allocation of a large frame, and room for the next lengths.
const AHEAD: usize = (4 << 20) + (64 << 10);

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else {
        return;
    };
    let step = 1 + usize::from(*step) * usize::from(*step);
    let limits = Limits {
        frames: 1_000_000,
        message_bytes: 64 << 30,
        ..Limits::default()
    };
    let mut first = None;
    within(stream.len() * PER_BYTE + AHEAD, "frames", || {
        let mut decoder = FrameDecoder::new(limits);
        let mut rest = stream;
        loop {
            match decoder.poll() {
                Ok(Some(frames)) => {
                    first.get_or_insert(frames);
                }
                Ok(None) if rest.is_empty() => break,
                Ok(None) => {
                    let (space, limit) = decoder.space();
                    let n = step.min(limit).min(rest.len());
                    assert!(n > 0, "the decoder asks for nothing and gives nothing");
                    space.extend_from_slice(&rest[..n]);
                    rest = &rest[n..];
                }
                Err(_) => break,
            }
        }
    });
    // What was read is what was sent: all but the choice of the first part.
    if let Some(frames) = first {
        let again = encode(&frames).concat();
        assert_eq!(again[8..], stream[8..again.len()]);
    }
});
