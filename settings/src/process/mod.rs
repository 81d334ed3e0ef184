//! The life of a process: its files, its network interfaces, its limits, its memory.

mod copy;
mod files;
mod interface;
mod limits;
mod spare_memory;

pub use copy::copy_if_asked;
pub use files::OwnFile;
pub use interface::{InterfaceError, interface_address};
pub use limits::raise_descriptor_limit;
pub use spare_memory::return_when_at_rest;
