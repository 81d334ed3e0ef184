//! What the fuzz targets share: a limit on what may be allocated, and the form of an input.

use bytes::Bytes;
use peak_alloc::PeakAlloc;

/// The allocator of every target, which counts.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Runs `work` and fails if it had more than `limit` bytes allocated at one time.
pub fn within<T>(limit: usize, what: &str, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    let peak = ALLOCATOR.peak_usage() - before;
    assert!(
        peak <= limit,
        "{what}: {peak} bytes allocated, allowed are {limit}"
    );
    result
}

/// Cuts an input into the frames of a message: two bytes of length before each.
pub fn frames(mut input: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        frames.push(Bytes::copy_from_slice(&rest[..length]));
        input = &rest[length..];
    }
    frames
}

/// The input of which [`frames`] makes these frames; `None` if one is too long.
pub fn input(frames: &[Bytes]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for frame in frames {
        out.extend_from_slice(&u16::try_from(frame.len()).ok()?.to_le_bytes());
        out.extend_from_slice(frame);
    }
    Some(out)
}
