//! What the project promises on Kubernetes, shown on a real cluster.

mod ground;
mod lifecycle;
mod manifest;
