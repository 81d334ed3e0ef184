//! Which Python interpreter the children run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Environment variable that names the interpreter, after the command line and before `PATH`.
pub const PYTHON_VARIABLE: &str = "OXIDASK_PYTHON";

/// Names that are looked for on `PATH`, in this order.
const NAMES: [&str; 2] = ["python3", "python"];

/// A Python interpreter that exists. Whether it has dask is known when the first child has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    program: PathBuf,
}

/// Why there is no interpreter to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterpreterError {
    /// A name was given, but there is no such program.
    #[error("Python interpreter {program:?} ({source_name}) does not exist or may not be run")]
    NotFound {
        /// What was asked for.
        program: PathBuf,
        /// Who asked: an argument or an environment variable.
        source_name: &'static str,
    },
    /// No name was given, and `PATH` has none of the usual ones.
    #[error("no Python interpreter: neither {first} nor {second} is on PATH; name one with --python or {PYTHON_VARIABLE}", first = NAMES[0], second = NAMES[1])]
    NotOnPath,
}

impl Interpreter {
    /// The interpreter named by `argument`, or else by `OXIDASK_PYTHON`, or else the first on `PATH`.
    ///
    /// A name without a slash is looked up on `PATH`. Nothing is started.
    ///
    /// # Errors
    /// If the named program, or any usual one, cannot be found or run.
    pub fn find(argument: Option<&Path>) -> Result<Self, InterpreterError> {
        Self::find_in(
            argument,
            env::var_os(PYTHON_VARIABLE).filter(|value| !value.is_empty()),
            &env::var_os("PATH").unwrap_or_default(),
        )
    }

    fn find_in(
        argument: Option<&Path>,
        variable: Option<OsString>,
        path: &OsStr,
    ) -> Result<Self, InterpreterError> {
        let named = match (argument, variable) {
            (Some(program), _) => Some((program.to_owned(), "--python")),
            (None, Some(program)) => Some((program.into(), PYTHON_VARIABLE)),
            (None, None) => None,
        };
        let Some((program, source_name)) = named else {
            return NAMES
                .iter()
                .find_map(|name| on_path(Path::new(name), path))
                .map(|program| Self { program })
                .ok_or(InterpreterError::NotOnPath);
        };
        let found = if program.components().count() == 1
            && !program.as_os_str().as_encoded_bytes().contains(&b'/')
        {
            on_path(&program, path)
        } else {
            Some(program.clone()).filter(|program| is_program(program))
        };
        found
            .map(|program| Self { program })
            .ok_or(InterpreterError::NotFound {
                program,
                source_name,
            })
    }

    /// The program as it will be run.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.program.display().fmt(f)
    }
}

fn on_path(name: &Path, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let program = folder.path().join(name);
            std::fs::write(&program, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    #[test]
    fn argument_beats_variable_beats_path() {
        let folder = folder_with(&["python3", "python", "other"]);
        let path = folder.path().as_os_str();
        let find = |argument: Option<&str>, variable: Option<&str>| {
            let found =
                Interpreter::find_in(argument.map(Path::new), variable.map(Into::into), path)
                    .unwrap();
            found.program().file_name().unwrap().to_owned()
        };
        assert_eq!(find(Some("other"), Some("python")), "other");
        assert_eq!(find(None, Some("python")), "python");
        assert_eq!(find(None, None), "python3");
    }

    #[test]
    fn missing_interpreter_is_named_with_its_source() {
        let folder = folder_with(&[]);
        let path = folder.path().as_os_str();
        let error =
            Interpreter::find_in(Some(Path::new("/no/such/python")), None, path).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"Python interpreter "/no/such/python" (--python) does not exist or may not be run"#
        );
        let error = Interpreter::find_in(None, Some("nowhere".into()), path).unwrap_err();
        assert!(
            error.to_string().contains(r#""nowhere" (OXIDASK_PYTHON)"#),
            "{error}"
        );
        let error = Interpreter::find_in(None, None, path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("neither python3 nor python is on PATH"),
            "{error}"
        );
    }

    #[test]
    fn file_that_may_not_be_run_is_no_interpreter() {
        let folder = folder_with(&["python"]);
        std::fs::write(folder.path().join("python3"), "text").unwrap();
        let found = Interpreter::find_in(None, None, folder.path().as_os_str()).unwrap();
        assert_eq!(found.program().file_name().unwrap(), "python");
    }
}
