//! End-to-end tests on real processes and a real Kubernetes cluster.
