//! A program that puts a copy of itself where another container can start it.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The flag. An image with nothing but our programs has no `cp`.
const FLAG: &str = "--copy-to";

/// Does what `PROGRAM --copy-to FOLDER` asks for and nothing else: copies the
/// program's own file into the folder, for an init container. `None` if the
/// words (without the program's own name) ask for something else.
///
/// # Errors
/// A sentence, if the folder is missing or cannot be written.
pub fn copy_if_asked(words: impl IntoIterator<Item = OsString>) -> Option<Result<(), String>> {
    let mut words = words.into_iter();
    if words.next()? != FLAG {
        return None;
    }
    let (Some(folder), None) = (words.next(), words.next()) else {
        return Some(Err(format!("{FLAG} needs one folder and nothing else")));
    };
    let folder = PathBuf::from(folder);
    Some(copy_into(&folder).map_err(|error| {
        format!(
            "failed to copy this program to {}: {error}",
            folder.display()
        )
    }))
}

fn copy_into(folder: &Path) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let name = program
        .file_name()
        .ok_or_else(|| io::Error::other("its own file has no name"))?;
    // A container that is started again must not find half a program.
    let mut unfinished = name.to_owned();
    unfinished.push(".unfinished");
    let unfinished = folder.join(unfinished);
    fs::copy(&program, &unfinished)?;
    fs::set_permissions(&unfinished, Permissions::from_mode(0o755))?;
    fs::rename(&unfinished, folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Option<Result<(), String>> {
        copy_if_asked(words.iter().map(OsString::from))
    }

    #[test]
    fn program_is_copied_whole_and_can_be_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(asked(&[FLAG, path]), Some(Ok(())));
        let own = std::env::current_exe().unwrap();
        let copy = folder.path().join(own.file_name().unwrap());
        let bytes = |path: &Path| fs::metadata(path).unwrap().len();
        assert_eq!(bytes(&copy), bytes(&own));
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }

    #[test]
    fn other_words_are_left_to_the_program() {
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&["--host", FLAG]), None);
    }

    #[test]
    fn missing_folder_is_named() {
        assert!(asked(&[FLAG]).unwrap().unwrap_err().contains("one folder"));
        let error = asked(&[FLAG, "/no/such/folder"]).unwrap().unwrap_err();
        assert!(error.contains("/no/such/folder"), "{error}");
    }
}
