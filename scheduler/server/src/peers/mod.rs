//! Who is connected: what the core does not need to know about workers and clients.

mod clients;
mod held;
mod memory;
mod names;
pub mod range;
mod workers;

pub use clients::{ClientPeer, Clients};
pub use held::{Held, Told};
pub use memory::{Measure, Memory};
pub use names::PeerName;
pub use workers::{
    WorkerPeer, Workers, distributed_version, host_of, normalise_address, takes_duration, wire_str,
};
