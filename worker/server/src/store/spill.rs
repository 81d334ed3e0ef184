//! Values on disk: written once, read by whoever needs them, gone with their entry.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use oxidask_protocol::Payload;

/// A value's frames in a file, back to back. The file is removed when the last reader is done.
#[derive(Debug)]
pub(crate) struct SpillFile {
    path: PathBuf,
    header: Bytes,
    /// Offset and length of each frame.
    places: Vec<(u64, u64)>,
}

impl SpillFile {
    /// Write a value. Blocks; what was written of a value that does not fit is removed.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub(crate) fn write(folder: &Path, id: u64, payload: &Payload) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(id.to_string());
        let mut places = Vec::new();
        let mut offset = 0;
        for frame in payload.frames.as_slice() {
            places.push((offset, frame.len() as u64));
            offset += frame.len() as u64;
        }
        // From here on dropping it removes the file.
        let spilled = Self {
            path,
            header: payload.header.clone(),
            places,
        };
        let mut file = File::create(&spilled.path)?;
        for frame in payload.frames.as_slice() {
            file.write_all(frame)?;
        }
        file.flush()?;
        Ok(Arc::new(spilled))
    }

    /// Read the value back. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read(&self) -> io::Result<Payload> {
        let mut file = File::open(&self.path)?;
        let mut frames = Vec::with_capacity(self.places.len());
        for (_, length) in &self.places {
            let mut frame = vec![0; usize::try_from(*length).map_err(io::Error::other)?];
            file.read_exact(&mut frame)?;
            frames.push(Bytes::from(frame));
        }
        Ok(Payload::serialized(self.header.clone(), frames))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn header(&self) -> &Bytes {
        &self.header
    }

    pub(crate) fn places(&self) -> &[(u64, u64)] {
        &self.places
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.places.iter().map(|(_, length)| length).sum()
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        // The folder goes as a whole at the end; a file left until then does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        Payload::serialized(
            Bytes::from_static(b"\x80"),
            vec![Bytes::from_static(b"abc"), Bytes::new()],
        )
    }

    #[test]
    fn value_comes_back_and_its_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = SpillFile::write(folder.path(), 7, &payload()).unwrap();
        assert_eq!(spilled.read().unwrap(), payload());
        assert_eq!(spilled.bytes(), 3);
        drop(spilled);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn value_that_cannot_be_written_leaves_nothing() {
        assert!(SpillFile::write(Path::new("/proc/nowhere"), 7, &payload()).is_err());
    }
}
