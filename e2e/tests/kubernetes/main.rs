//! What the project promises on Kubernetes, shown on a real cluster.

mod ground;
mod kube_cluster;
mod lifecycle;
mod manifest;
