//! Reading and writing msgpack documents by hand, with map keys of any type and payloads by reference.

mod reader;
mod writer;

pub use reader::{MAX_DEPTH, Reader};
pub use writer::Writer;

/// The map key that marks a payload of any serialisation family.
pub(crate) const SERIALIZED: &str = "__Serialized__";

/// The map key that marks a plain pickle.
pub(crate) const PICKLED: &str = "__Pickled__";

/// The map key that marks a Python set.
pub(crate) const SET: &str = "__Set__";

/// The map key that marks a member of a Python enum.
pub(crate) const ENUM: &str = "__Enum__";
