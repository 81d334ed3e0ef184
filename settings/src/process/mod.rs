//! The life of a process: its files, its network interfaces, its limits.

mod copy;
mod files;
mod interface;
mod limits;

pub use copy::copy_if_asked;
pub use files::OwnFile;
pub use interface::{InterfaceError, interface_address};
pub use limits::raise_descriptor_limit;
