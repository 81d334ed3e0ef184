//! End-to-end tests on real processes and a real Kubernetes cluster.
//!
//! The tests are in `tests/`; here is what they share. Those of Kubernetes need the feature `kubernetes` and a
//! cluster: the one that `cargo xtask kind up` made, or whatever `KUBECONFIG` names.

#[cfg(feature = "kubernetes")]
pub mod cluster;
#[cfg(feature = "kubernetes")]
pub mod namespace;
#[cfg(feature = "kubernetes")]
pub mod operator;
pub mod processes;
#[cfg(feature = "kubernetes")]
pub mod random;
#[cfg(feature = "kubernetes")]
pub mod tool;
#[cfg(feature = "kubernetes")]
pub mod wait;

/// Name of an image of ours as `cargo xtask images --load` brings it into the cluster.
///
/// `OXIDASK_IMAGES` replaces the part before the name, for a cluster that pulls from a registry.
#[must_use]
pub fn image(name: &str) -> String {
    let prefix = std::env::var("OXIDASK_IMAGES").unwrap_or_else(|_| "localhost/oxidask".into());
    format!("{prefix}/{name}:dev")
}
