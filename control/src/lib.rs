//! gRPC control API between scheduler, operator and CLI.
//!
//! The messages and services are generated from
//! `proto/oxidask/control/v1/control.proto`, which says what each call means.

/// Version 1 of the API.
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        unreachable_pub,
        unused_qualifications
    )]
    tonic::include_proto!("oxidask.control.v1");
}
