//! Where built things and the cluster's state lie.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The folder `${XDG_CACHE_HOME:-$HOME/.cache}/oxidask/kubernetes`, outside any clone.
///
/// Built things carry a digest of what they were made from in their name, so an entry is either absent or right.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// # Errors
    /// When neither `XDG_CACHE_HOME` nor `HOME` is set, or the folder cannot be made.
    pub(crate) fn open() -> Result<Self> {
        let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
            (_, Some(home)) => Path::new(&home).join(".cache"),
            _ => anyhow::bail!("found no cache folder: set XDG_CACHE_HOME or HOME"),
        };
        let root = cache.join("oxidask/kubernetes");
        fs::create_dir_all(&root).with_context(|| format!("failed to make {}", root.display()))?;
        Ok(Self { root })
    }

    /// A file or folder of the cache.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// State that lives as long as a cluster: kubeconfig, description, list of loaded images.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.path("cluster")
    }

    /// What the processes of a cluster keep while they run; worthless after a restart of the machine.
    pub(crate) fn runtime() -> &'static Path {
        Path::new("/run/oxidask-kubernetes")
    }
}

/// Short digest (12 hexadecimal digits) of files' names and contents, for the names of cache entries.
///
/// Not meant against an adversary: whoever can write the cache can replace what is in it.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn digest(files: &[PathBuf]) -> Result<String> {
    let mut hash = Fnv::default();
    for file in files {
        let contents =
            fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        hash.update(
            file.file_name()
                .map(OsStr::as_encoded_bytes)
                .unwrap_or_default(),
        );
        hash.update(&(contents.len() as u64).to_le_bytes());
        hash.update(&contents);
    }
    Ok(hash.hex())
}

/// FNV-1a in 128 bits: stable over releases of the compiler, which `std`'s hasher does not promise.
struct Fnv(u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u128::from(*byte);
            self.0 = self
                .0
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn hex(&self) -> String {
        format!("{:032x}", self.0)[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_depends_on_every_byte_and_on_the_split_into_files() {
        let folder = env::temp_dir().join(format!("oxidask-digest-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, contents: &str| {
            let path = folder.join(name);
            fs::write(&path, contents).unwrap();
            path
        };
        let (a, b) = (write("a", "xy"), write("b", "z"));
        let first = digest(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(first, digest(&[a.clone(), b.clone()]).unwrap());
        write("a", "x");
        write("b", "yz");
        assert_ne!(first, digest(&[a, b]).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn fnv_agrees_with_its_published_value_for_a_single_letter() {
        let mut hash = Fnv::default();
        hash.update(b"a");
        assert_eq!(hash.0, 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
