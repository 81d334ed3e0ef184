//! Memory files: frames shared between this process and the executor without a copy.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
};

use bytes::Bytes;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// Frames start at multiples of this, which vector code of NumPy and Arrow wants. Unit: bytes.
const ALIGN: u64 = 64;

/// Frames in a sealed memory file, mapped here for reading.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    file: File,
    mapped: Bytes,
    /// Offset and length of each frame, within the file.
    places: Vec<(u64, u64)>,
}

impl MemoryFile {
    /// A new file with copies of `frames`.
    ///
    /// # Errors
    /// If memory or descriptors are short.
    pub(crate) fn create(frames: &[Bytes]) -> io::Result<Self> {
        let file = File::from(memfd_create(
            "oxidask-value",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?);
        let mut places = Vec::with_capacity(frames.len());
        let mut offset = 0;
        for frame in frames {
            file.write_all_at(frame, offset)?;
            places.push((offset, frame.len() as u64));
            offset = (offset + frame.len() as u64).next_multiple_of(ALIGN);
        }
        file.set_len(offset.max(1))?;
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        )?;
        Self::map(file, places)
    }

    /// The file that the executor `pid` has open as `fd`.
    ///
    /// # Errors
    /// If it cannot be opened, is not sealed, or is shorter than the places say.
    pub(crate) fn of_executor(pid: u32, fd: u64, places: Vec<(u64, u64)>) -> io::Result<Self> {
        let file = File::open(
            Path::new("/proc")
                .join(pid.to_string())
                .join("fd")
                .join(fd.to_string()),
        )?;
        let seals = fcntl_get_seals(&file)?;
        if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK) {
            // A file that could shrink under us would kill us with SIGBUS.
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the executor's memory file is not sealed",
            ));
        }
        Self::map(file, places)
    }

    fn map(file: File, places: Vec<(u64, u64)>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let fits = places
            .iter()
            .all(|(offset, len)| offset.checked_add(*len).is_some_and(|end| end <= length));
        if !fits {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "frames lie outside of the memory file",
            ));
        }
        let mapping = Mapping::new(&file, usize::try_from(length).map_err(io::Error::other)?)?;
        Ok(Self {
            file,
            mapped: Bytes::from_owner(mapping),
            places,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn places(&self) -> &[(u64, u64)] {
        &self.places
    }

    /// The frames, sharing the file's memory.
    pub(crate) fn frames(&self) -> Vec<Bytes> {
        self.places
            .iter()
            .map(|(offset, length)| {
                self.mapped
                    .slice(*offset as usize..(*offset + *length) as usize)
            })
            .collect()
    }
}

/// A read-only mapping of a sealed file.
struct Mapping {
    start: *mut std::ffi::c_void,
    length: usize,
}

impl Mapping {
    fn new(file: &File, length: usize) -> io::Result<Self> {
        if length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory file is empty",
            ));
        }
        // SAFETY: a fresh mapping at an address that the kernel chooses. The file is sealed against
        // writing and shrinking, so the bytes neither change nor go away while it is mapped.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )?
        };
        Ok(Self { start, length })
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` points to `length` mapped bytes that do not change until `drop`.
        unsafe { std::slice::from_raw_parts(self.start.cast::<u8>(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new` and is not used after this.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

// SAFETY: the memory is only read, and belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_written() {
        let frames = vec![
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from(vec![7; 1000]),
        ];
        let file = MemoryFile::create(&frames).unwrap();
        assert_eq!(file.frames(), frames);
        assert_eq!(file.places(), [(0, 3), (64, 0), (64, 1000)]);
    }

    #[test]
    fn places_outside_of_the_file_are_refused() {
        let file = MemoryFile::create(&[Bytes::from_static(b"abc")]).unwrap();
        let copy = file.file().try_clone().unwrap();
        assert!(MemoryFile::map(copy, vec![(0, u64::MAX)]).is_err());
    }
}
