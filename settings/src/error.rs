//! What can be wrong with a configuration.

use std::path::PathBuf;

/// A configuration that cannot be used: what is wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is no YAML.
    #[error("configuration file {path} is malformed: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A file holds something else than a mapping.
    #[error("configuration file {path} must hold a mapping, not {found}")]
    NotAMapping {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
    },
    /// `DASK_INTERNAL_INHERIT_CONFIG` is damaged.
    #[error("the variable DASK_INTERNAL_INHERIT_CONFIG does not hold base64 of a JSON object: {0}")]
    Inherited(String),
    /// A key leads into a value that is no mapping.
    #[error("{source_name} sets {key}, but {parent} is {found} and not a mapping")]
    Clash {
        /// The variable or file.
        source_name: String,
        /// The key that was to be set.
        key: String,
        /// The part of it that is no mapping.
        parent: String,
        /// What it is.
        found: &'static str,
    },
    /// A value is of another kind than its key asks for.
    #[error("configuration {key} is {value}, but should be {expected}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is asked for, with an example.
        expected: &'static str,
    },
    /// A key that would be unsafe to pass over.
    #[error("configuration {key} is set to {value}, which is not supported here: {reason}")]
    Unsafe {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What to do about it.
        reason: &'static str,
    },
}
