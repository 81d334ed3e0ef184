//! One change of the cluster at a time.

use std::fs::{File, TryLockError};

use anyhow::{Context, Result};

use super::cache::Cache;

/// Held while the cluster or the cache is changed; released by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing the file releases the lock")] File);

/// Waits until no other process changes the cluster.
///
/// # Errors
/// When the lock file cannot be made.
pub(crate) fn take(cache: &Cache) -> Result<Lock> {
    let path = cache.path("lock");
    let file = File::create(&path).with_context(|| format!("failed to make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            println!("waiting for another `cargo xtask kind` to end");
            file.lock()
                .with_context(|| format!("failed to lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", path.display()));
        }
    }
    Ok(Lock(file))
}
