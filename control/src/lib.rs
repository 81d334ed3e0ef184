//! gRPC control API between scheduler, operator and CLI.
