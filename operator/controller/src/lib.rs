//! The oxidask-operator binary.
