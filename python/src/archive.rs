//! The Python package as a file that a child can read, without a trace in the file system.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The zip of `oxidask/`, see `build.rs`.
pub static ZIP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/oxidask.zip"));

/// A descriptor of a sealed memory file that holds [`ZIP`]. All calls give the same file.
///
/// # Errors
/// If the kernel gives no memory file or no descriptor.
pub fn open() -> io::Result<OwnedFd> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(file) = FILE.get() {
        return file.try_clone();
    }
    let made = create()?;
    FILE.get_or_init(|| made).try_clone()
}

fn create() -> io::Result<OwnedFd> {
    let fd = memfd_create("oxidask", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(ZIP)?;
    // A child must not be able to change what the next one imports.
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}
