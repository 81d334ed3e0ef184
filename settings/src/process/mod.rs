//! The life of a process: its files and its network interfaces.

mod files;
mod interface;

pub use files::OwnFile;
pub use interface::{InterfaceError, interface_address};
