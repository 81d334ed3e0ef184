//! What scheduler and worker share about their surroundings: Dask's configuration, TLS, logs, the process's life.
//!
//! [`Config::load`] reads what `dask.config` reads: YAML files and `DASK_…` variables, with the same precedence.

pub mod args;
mod config;
mod error;
mod literal;
pub mod process;
mod renamed;
mod sources;
pub mod telemetry;
pub mod tls;
mod tree;
mod units;
mod unused;

pub use config::Config;
pub use error::ConfigError;
pub use sources::Sources;
pub use tree::Tree;
pub use units::{parse_bytes, parse_duration};
pub use unused::{KeyRow, Treatment};
