//! Files that exist as long as the process: its id, its address.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A file that goes with the process that wrote it.
#[derive(Debug)]
pub struct OwnFile {
    path: PathBuf,
    content: Vec<u8>,
}

impl OwnFile {
    /// Writes a file. Readers see it whole or not at all, as it is renamed into its place.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(path: &Path, content: impl Into<Vec<u8>>) -> std::io::Result<Self> {
        let content = content.into();
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(&content))
            .and_then(|()| std::fs::rename(&temporary, path));
        if let Err(error) = written {
            // What is left of the attempt helps nobody.
            let _ = std::fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(Self {
            path: path.to_owned(),
            content,
        })
    }

    /// A file with the id of this process.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn pid(path: &Path) -> std::io::Result<Self> {
        Self::write(path, std::process::id().to_string())
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Another process may have taken the name since; its file stays.
        if std::fs::read(&self.path).is_ok_and(|now| now == self.content) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_with_its_owner_unless_it_is_anothers_by_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = OwnFile::pid(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, std::process::id().to_string());
        drop(file);
        assert!(!path.exists());

        let file = OwnFile::pid(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop(file);
        assert!(path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(OwnFile::pid(&folder.path().join("no/such")).is_err());
    }
}
