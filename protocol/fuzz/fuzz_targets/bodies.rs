//! Any stream of bytes, in any pieces, its messages passed on piece by piece as `gather` does: the same messages as if
//! each were read whole, with memory that does not grow with what is passed on.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use oxidask_protocol::frame::{FrameDecoder, Limits};
use oxidask_protocol_fuzz::within;

/// Bytes allocated per byte received, for the lengths and the document of each message, as in the target `frames`.
const PER_BYTE: usize = 8;

/// Bytes allocated ahead of the peer: the first allocation of a large document, a piece of a body, room for lengths.
const AHEAD: usize = (4 << 20) + (256 << 10) + (64 << 10);

/// A message: its document, the lengths of its other frames, and their bytes in a row.
type Message = (Bytes, Vec<usize>, Vec<u8>);

fuzz_target!(|input: &[u8]| {
    let Some((step, stream)) = input.split_first() else {
        return;
    };
    let step = 1 + usize::from(*step) * usize::from(*step);
    // What the test itself keeps is counted too: each byte at most twice, in vectors that grow by doubling.
    let limit = stream.len() * (PER_BYTE + 4) + AHEAD;
    let (passed, failed) = within(limit, "bodies", || passed_on(stream, step));
    let (whole, whole_failed) = whole(stream, step);
    assert_eq!(passed, whole);
    assert_eq!(failed, whole_failed);
});

/// Messages with all their bytes, and whether the stream ended with an error.
fn passed_on(stream: &[u8], step: usize) -> (Vec<Message>, bool) {
    let mut decoder = FrameDecoder::new(Limits::default());
    let mut messages = Vec::new();
    let mut rest = stream;
    loop {
        match decoder.poll_head() {
            Err(_) => return (messages, true),
            Ok(None) => {}
            Ok(Some(head)) => {
                assert_eq!(head.lengths.iter().sum::<usize>(), decoder.body_left());
                let mut body = Vec::new();
                while decoder.body_left() > 0 {
                    match decoder.poll_body() {
                        Some(piece) => body.extend_from_slice(&piece),
                        None if rest.is_empty() => return (messages, false),
                        None => feed(&mut decoder, &mut rest, step),
                    }
                }
                assert_eq!(decoder.poll_body(), None);
                messages.push((head.document, head.lengths, body));
                continue;
            }
        }
        if rest.is_empty() {
            return (messages, false);
        }
        feed(&mut decoder, &mut rest, step);
    }
}

/// The same messages, each read whole.
fn whole(stream: &[u8], step: usize) -> (Vec<Message>, bool) {
    let mut decoder = FrameDecoder::new(Limits::default());
    let mut messages = Vec::new();
    let mut rest = stream;
    loop {
        match decoder.poll() {
            Err(_) => return (messages, true),
            Ok(Some(frames)) => {
                let (document, others) = match frames.split_first() {
                    Some((document, others)) => (document.clone(), others),
                    None => (Bytes::new(), &[][..]),
                };
                messages.push((
                    document,
                    others.iter().map(Bytes::len).collect(),
                    others.concat(),
                ));
            }
            Ok(None) if rest.is_empty() => return (messages, false),
            Ok(None) => feed(&mut decoder, &mut rest, step),
        }
    }
}

fn feed(decoder: &mut FrameDecoder, rest: &mut &[u8], step: usize) {
    let (space, limit) = decoder.space();
    let n = step.min(limit).min(rest.len());
    assert!(n > 0, "the decoder asks for nothing and gives nothing");
    space.extend_from_slice(&rest[..n]);
    *rest = &rest[n..];
}
