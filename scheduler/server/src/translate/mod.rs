//! Between the core's language and the wire's; the only folder that knows both.

pub mod from_worker;
pub mod graph;
pub mod to_client;
pub mod to_worker;
