//! `cargo xtask tidy`: the architecture invariants that no compiler holds.
//!
//! Each finding is a sentence that says what to do about it.

mod cores;
mod directions;
mod links;
mod sources;
mod unsafe_code;

use anyhow::{Result, bail};

use crate::metadata::Metadata;
use crate::workspace;

pub(crate) fn run() -> Result<()> {
    let metadata = Metadata::read()?;
    let files = sources::read(&workspace::root())?;
    let mut findings = directions::check(&metadata);
    findings.extend(cores::check_dependencies(&metadata));
    findings.extend(cores::check_sources(&files));
    findings.extend(unsafe_code::check(&files));
    findings.extend(links::check(&workspace::root(), &files));
    for finding in &findings {
        println!("tidy: {finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} finding(s) of tidy"),
    }
}
