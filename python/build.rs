//! Packs `oxidask/` into a zip that the interpreter imports from, byte for byte the same for equal sources.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=oxidask");
    println!("cargo::rerun-if-changed=build.rs");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let mut sources = Vec::new();
    collect(&root.join("oxidask"), &mut sources)?;
    // The order in which a directory is listed is not fixed; names are.
    sources.sort();
    let mut zip = Zip::default();
    for path in sources {
        let name = path.strip_prefix(&root).unwrap_or(&path);
        let name = name.to_string_lossy().replace('\\', "/");
        zip.store(&name, &fs::read(&path)?);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("oxidask.zip");
    fs::write(out, zip.finish())
}

/// The `.py` files below a folder.
fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            into.push(path);
        }
    }
    Ok(())
}

/// A zip archive of stored (not compressed) files without times or owners.
///
/// Layout: PKWARE's APPNOTE.TXT, §4.3. All integers are little-endian.
#[derive(Default)]
struct Zip {
    files: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

/// 1 January 1980, the first day that a zip can name.
const DOS_DATE: u16 = 1 << 5 | 1;

impl Zip {
    fn store(&mut self, name: &str, data: &[u8]) {
        let offset = self.files.len() as u32;
        let mut common = Vec::new();
        // Version needed, flags, method "stored", time, date.
        for field in [20_u16, 0, 0, 0, DOS_DATE] {
            common.extend(field.to_le_bytes());
        }
        let size = data.len() as u32;
        for field in [crc32(data), size, size] {
            common.extend(field.to_le_bytes());
        }
        // Lengths of the name and of the extra field.
        for field in [name.len() as u16, 0] {
            common.extend(field.to_le_bytes());
        }
        self.files.extend(b"PK\x03\x04");
        self.files.extend(&common);
        self.files.extend(name.as_bytes());
        self.files.extend(data);
        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&common);
        // Lengths of the comment, disk, internal and external attributes, offset.
        self.directory.extend([0; 10]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.count += 1;
    }

    fn finish(self) -> Vec<u8> {
        let mut out = self.files;
        let offset = out.len() as u32;
        out.extend(&self.directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend(self.count.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend((self.directory.len() as u32).to_le_bytes());
        out.extend(offset.to_le_bytes());
        out.extend([0; 2]);
        out
    }
}

/// CRC-32 as zip uses it (polynomial 0x04C11DB7, reflected).
fn crc32(data: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
