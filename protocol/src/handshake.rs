//! The first message of each side.

use crate::wire::Omit;

wire_struct! {
    /// What a side can do. Each side writes its own, then reads the other's.
    pub struct Handshake {
        /// The compression that it would use.
        compression: Option<String>,
        /// Its Python version, for information.
        python: Vec<u64> = Vec::new(),
        /// The highest pickle protocol that it reads.
        pickle_protocol as "pickle-protocol": u64,
        /// Present in what some versions send back.
        status: Omit<String>,
    }
}

impl Handshake {
    /// What our side says: no compression, pickle protocol 5, the Python of the environment.
    pub fn ours() -> Self {
        Self {
            compression: None,
            python: vec![3, 11, 0],
            pickle_protocol: 5,
            status: Omit(None),
        }
    }
}
