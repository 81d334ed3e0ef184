//! Memory for values that arrive over a socket: memory files that are used again.
//!
//! A fresh page costs several times what writing to a used one costs, so a value is received into pages that an
//! earlier one has left behind, and executors map the file it lies in. A segment is free for the next value when
//! nobody holds a frame in it any more: not the store, not a message under way, and no executor, for which
//! `driver/leases.rs` holds it until the executor says that it has unmapped it. Other than sealed memory files,
//! segments are never shown to peers.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use oxidask_protocol::frame::{Memory, Room};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// Frames below this lie on the heap. Unit: bytes.
const SMALLEST: usize = 256 << 10;

/// Free segments together are kept up to this size. Unit: bytes.
const KEEP_BYTES: usize = 256 << 20;

/// Free segments are kept for so long.
const KEEP: Duration = Duration::from_secs(10);

/// Sizes are rounded up to multiples of this. Unit: bytes.
const PAGE: usize = 4096;

/// A mapped memory file.
#[derive(Debug)]
struct Piece {
    file: File,
    start: *mut u8,
    capacity: usize,
}

impl Piece {
    fn new(capacity: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("oxidask-segment", flags)?);
        ftruncate(&file, capacity as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses; the file cannot shrink under it.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                capacity,
                protection,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )?
        };
        Ok(Self {
            file,
            start: start.cast(),
            capacity,
        })
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new`; frames in it hold the segment that holds this piece.
        let _ = unsafe { munmap(self.start.cast(), self.capacity) };
    }
}

// SAFETY: the memory belongs to no thread. Only the one `Room` of a segment writes to it, before it is frozen.
unsafe impl Send for Piece {}
// SAFETY: as above; once frozen it is only read.
unsafe impl Sync for Piece {}

#[derive(Debug, Default)]
struct Pool {
    free: Mutex<Vec<(Instant, Piece)>>,
    /// Segments in use by the address of their memory.
    used: Mutex<BTreeMap<usize, Weak<Segment>>>,
    last_id: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A memory file in use.
#[derive(Debug)]
pub(crate) struct Segment {
    id: u64,
    /// Present until it is dropped.
    piece: Option<Piece>,
    pool: Weak<Pool>,
}

impl Segment {
    /// Its number, never used twice.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The descriptor by which an executor opens it.
    pub(crate) fn fd(&self) -> i32 {
        self.piece
            .as_ref()
            .map_or(-1, |piece| piece.file.as_raw_fd())
    }

    fn start(&self) -> usize {
        self.piece.as_ref().map_or(0, |piece| piece.start as usize)
    }

    /// Where the bytes begin within the file, if they lie in it.
    pub(crate) fn offset(&self, bytes: &Bytes) -> Option<u64> {
        let piece = self.piece.as_ref()?;
        let offset = (bytes.as_ptr() as usize).checked_sub(piece.start as usize)?;
        (offset + bytes.len() <= piece.capacity).then_some(offset as u64)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let (Some(pool), Some(piece)) = (self.pool.upgrade(), self.piece.take()) else {
            return;
        };
        lock(&pool.used).remove(&(piece.start as usize));
        let mut free = lock(&pool.free);
        let kept: usize = free.iter().map(|(_, piece)| piece.capacity).sum();
        if kept + piece.capacity <= KEEP_BYTES {
            free.push((Instant::now(), piece));
        }
    }
}

/// All segments of this process. Copies are the same pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments(Arc<Pool>);

impl Segments {
    /// The segment that the frame lies in, if it does.
    pub(crate) fn find(&self, frame: &Bytes) -> Option<Arc<Segment>> {
        let used = lock(&self.0.used);
        let (_, segment) = used.range(..=frame.as_ptr() as usize).next_back()?;
        let segment = segment.upgrade()?;
        segment.offset(frame).map(|_| segment)
    }

    /// Give back memory that nobody has wanted for a while. Gives the bytes that are still kept.
    pub(crate) fn trim(&self, now: Instant) -> u64 {
        let mut free = lock(&self.0.free);
        free.retain(|(since, _)| now.duration_since(*since) < KEEP);
        free.iter().map(|(_, piece)| piece.capacity as u64).sum()
    }

    fn take(&self, length: usize) -> io::Result<Segment> {
        let capacity = length.next_multiple_of(PAGE);
        let mut free = lock(&self.0.free);
        // The smallest that fits, but not one in which most would lie idle.
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, (_, piece))| (capacity..=2 * capacity).contains(&piece.capacity))
            .min_by_key(|(_, (_, piece))| piece.capacity)
            .map(|(index, _)| index);
        let piece = match best {
            Some(index) => free.swap_remove(index).1,
            None => Piece::new(capacity)?,
        };
        Ok(Segment {
            id: self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            piece: Some(piece),
            pool: Arc::downgrade(&self.0),
        })
    }
}

impl Memory for Segments {
    fn room(&self, length: usize) -> Option<Box<dyn Room>> {
        if length < SMALLEST {
            return None;
        }
        match self.take(length) {
            Ok(segment) => Some(Box::new(Arriving {
                segment,
                length,
                pool: self.clone(),
            })),
            Err(error) => {
                tracing::debug!(%error, length, "no memory file for a frame; it goes to the heap");
                None
            }
        }
    }
}

/// A segment that is being written to.
#[derive(Debug)]
struct Arriving {
    segment: Segment,
    length: usize,
    pool: Segments,
}

impl Room for Arriving {
    fn bytes(&mut self) -> &mut [u8] {
        match &mut self.segment.piece {
            // SAFETY: `length` is at most the capacity that is mapped, and this is the only reference: the segment
            // is in no table before it is frozen, and was free when it was taken.
            Some(piece) => unsafe { std::slice::from_raw_parts_mut(piece.start, self.length) },
            None => &mut [],
        }
    }

    fn freeze(self: Box<Self>) -> Bytes {
        let Self {
            segment,
            length,
            pool,
        } = *self;
        let start = segment.start();
        let segment = Arc::new(segment);
        lock(&pool.0.used).insert(start, Arc::downgrade(&segment));
        Bytes::from_owner(Frozen { segment, length })
    }
}

/// What has arrived in a segment.
struct Frozen {
    segment: Arc<Segment>,
    length: usize,
}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        match &self.segment.piece {
            // SAFETY: `length` bytes are mapped and nobody writes to them until the segment is dropped.
            Some(piece) => unsafe { std::slice::from_raw_parts(piece.start, self.length) },
            None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(pool: &Segments, byte: u8, length: usize) -> Bytes {
        let mut room = pool.room(length).unwrap();
        room.bytes().fill(byte);
        room.freeze()
    }

    #[test]
    fn memory_is_used_again_once_nobody_holds_a_frame() {
        let pool = Segments::default();
        let first = filled(&pool, 1, 1 << 20);
        let (address, part) = (first.as_ptr(), first.slice(100..200));
        let id = pool.find(&part).unwrap().id();
        drop(first);
        let second = filled(&pool, 2, 1 << 20);
        assert_ne!(
            second.as_ptr(),
            address,
            "a part of the first is still held"
        );
        assert_eq!(part, vec![1; 100]);
        assert_eq!(pool.find(&part).unwrap().offset(&part), Some(100));
        drop(part);
        let third = filled(&pool, 3, 1 << 20);
        assert_eq!(third.as_ptr(), address);
        assert_ne!(pool.find(&third).unwrap().id(), id);
        assert_eq!(second, vec![2; 1 << 20]);
    }

    #[test]
    fn small_frames_and_those_of_elsewhere_are_in_no_segment() {
        let pool = Segments::default();
        assert!(pool.room(1000).is_none());
        let _used = filled(&pool, 1, 1 << 20);
        assert!(pool.find(&Bytes::from(vec![0; 100])).is_none());
    }

    #[test]
    fn free_memory_is_given_back_after_a_while() {
        let pool = Segments::default();
        drop(filled(&pool, 1, 1 << 20));
        let now = Instant::now();
        assert_eq!(pool.trim(now), 1 << 20);
        assert_eq!(pool.trim(now + KEEP), 0);
    }

    #[test]
    fn announced_length_takes_no_memory_by_itself() {
        let pool = Segments::default();
        let room = pool.room(1 << 40).unwrap();
        drop(room);
        assert_eq!(pool.trim(Instant::now()), 0, "too large to be kept");
    }
}
