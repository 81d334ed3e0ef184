//! Messages cut into pieces of any size, and what peers may not announce.

use bytes::{Buf, Bytes};

use super::decode::FIRST_ALLOCATION;
use super::*;
use crate::{DecodeError, DecodeErrorKind};

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

#[test]
fn large_values_are_read_into_buffers_of_their_own_and_small_ones_together() {
    let mut frames = vec![Bytes::from(vec![1; 200_000])];
    frames.extend((0..5000).map(|i| Bytes::from(vec![i as u8; 100])));
    frames.push(Bytes::from(vec![2; 300_000]));
    let stream = wire(&frames);
    let mut decoder = FrameDecoder::new(Limits::default());
    let (mut reads, mut rest) = (0, &stream[..]);
    let read = loop {
        if let Some(message) = decoder.poll().unwrap() {
            break message;
        }
        let (space, limit) = decoder.space();
        let n = limit.min(rest.len()).min(space.capacity() - space.len());
        space.extend_from_slice(&rest[..n]);
        rest.advance(n);
        reads += 1;
    };
    assert_eq!(read, frames);
    assert!(reads < 20, "{reads} reads");
}

#[test]
fn first_part_ends_where_the_stock_writer_ends_it() {
    let first_part = |lengths: &[usize]| {
        let frames: Vec<Bytes> = lengths.iter().map(|n| Bytes::from(vec![0; *n])).collect();
        let n = (&encode(&frames)[0][..8]).get_u64_le() as usize;
        let mut body = n - 8 * (1 + frames.len());
        lengths
            .iter()
            .take_while(|length| {
                let inside = body >= **length;
                body = body.saturating_sub(**length);
                inside
            })
            .count()
    };
    assert_eq!(first_part(&[100, 200, 300]), 3);
    // One large value with little before it is read in one go, with much before it apart.
    assert_eq!(first_part(&[100, 200, 100_000]), 3);
    assert_eq!(first_part(&[60_000, 200, 100_000]), 2);
    // The second of two large values gets a buffer of its own.
    assert_eq!(first_part(&[100, 200, 100_000, 200, 100_000]), 4);
    // Shards of one value stay together.
    assert_eq!(
        first_part(&[100, 200, 64 << 20, 64 << 20, 100_000, 100_000]),
        5
    );
}

/// Lends heap memory for frames of at least `.0` bytes.
#[derive(Debug)]
struct Lender(usize);

#[derive(Debug)]
struct Lent(Vec<u8>);

impl Memory for Lender {
    fn room(&self, length: usize) -> Option<Box<dyn Room>> {
        (length >= self.0).then(|| Box::new(Lent(vec![0; length])) as Box<dyn Room>)
    }
}

impl Room for Lent {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn freeze(self: Box<Self>) -> Bytes {
        Bytes::from(self.0)
    }
}

#[test]
fn large_frames_go_into_memory_that_is_lent() {
    let messages = [
        vec![Bytes::from_static(b"abc"), Bytes::from(vec![7; 200_000])],
        vec![Bytes::from(vec![1; 300_000]), Bytes::from(vec![2; 150_000])],
        vec![Bytes::from_static(b"end")],
    ];
    let stream: Vec<u8> = messages.iter().flat_map(|m| wire(m)).collect();
    for (step, from) in [(1000, 0), (65_536, 180_000), (usize::MAX, 0)] {
        let mut decoder = FrameDecoder::new(Limits::default());
        decoder.set_memory(std::sync::Arc::new(Lender(from)));
        let (mut rest, mut out, mut lent) = (&stream[..], Vec::new(), 0);
        while !rest.is_empty() {
            let n = if let Some(space) = decoder.lent() {
                let n = step.min(space.len()).min(rest.len());
                space[..n].copy_from_slice(&rest[..n]);
                decoder.filled(n);
                lent += n;
                n
            } else {
                let (space, limit) = decoder.space();
                let n = step.min(limit).min(rest.len());
                space.extend_from_slice(&rest[..n]);
                n
            };
            rest.advance(n);
            while let Some(message) = decoder.poll().unwrap() {
                out.push(message);
            }
        }
        assert_eq!(out, messages, "step {step}");
        assert!(lent > 0 || step == usize::MAX, "step {step}");
    }
}

#[test]
fn a_head_that_is_to_be_large_takes_memory_as_it_comes() {
    let document = 50 << 20;
    let mut stream: Vec<u8> = [16_u64, 1, document]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect();
    stream.resize(5 << 20, 0);
    let mut decoder = FrameDecoder::new(Limits::default());
    let mut fed = 0;
    for piece in stream.chunks(26) {
        let (space, _) = decoder.space();
        space.extend_from_slice(piece);
        fed += piece.len();
        assert!(decoder.poll_head().unwrap().is_none());
        let most = FIRST_ALLOCATION.max(2 * fed) + (64 << 10);
        assert!(decoder.space().0.capacity() <= most, "after {fed} bytes");
    }
}
