//! The worker's folder for spilled values and uploaded modules.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

/// A folder that goes with the process that uses it: removed at its end, or, if it was killed, by the next worker
/// that starts beside it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked as long as the process lives.
    lock: File,
}

impl Folder {
    /// Make the folder, and remove those beside it whose process is gone.
    ///
    /// # Errors
    /// If it cannot be made or locked.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        let failed = || format!("failed to create {}", path.display());
        std::fs::create_dir_all(&path).with_context(failed)?;
        let lock = File::create(lock_of(&path)).with_context(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).with_context(failed)?;
        if let Some(parent) = path.parent() {
            remove_orphans(parent);
        }
        Ok(Self { path, lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        let _ = std::fs::remove_file(lock_of(&self.path));
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

fn lock_of(folder: &Path) -> PathBuf {
    folder.with_extension("lock")
}

/// Remove each folder below `parent` that has a lock which nobody holds.
fn remove_orphans(parent: &Path) {
    let entries = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(io::Result::ok);
    for lock in entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "lock"))
    {
        let folder = lock.with_extension("");
        let named = folder
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("worker-"));
        let Some(file) = File::open(&lock).ok().filter(|_| named) else {
            continue;
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            tracing::info!(folder = %folder.display(), "the folder of a worker that was killed is removed");
            let _ = std::fs::remove_dir_all(&folder);
            let _ = std::fs::remove_file(&lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_goes_with_its_worker() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::create(base.path().join("worker-1")).unwrap();
        std::fs::write(base.path().join("worker-1/value"), "x").unwrap();
        drop(folder);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn folder_of_a_killed_worker_is_removed_and_that_of_a_living_one_is_not() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("worker-dead")).unwrap();
        std::fs::write(base.path().join("worker-dead.lock"), "").unwrap();
        std::fs::write(base.path().join("somebody.lock"), "").unwrap();
        let _living = Folder::create(base.path().join("worker-living")).unwrap();
        let _own = Folder::create(base.path().join("worker-own")).unwrap();
        let exists = |name: &str| base.path().join(name).exists();
        assert!(!exists("worker-dead") && !exists("worker-dead.lock"));
        assert!(exists("worker-living") && exists("worker-own") && exists("somebody.lock"));
    }
}
