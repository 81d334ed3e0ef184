//! What the project promises on Kubernetes, shown on a real cluster.

mod chaos;
mod chart;
mod deletion;
mod edits;
mod experiment;
mod ground;
mod job;
mod kube_cluster;
mod lifecycle;
mod manifest;
mod manifests;
mod native_experiment;
mod options;
mod outage;
mod prometheus;
mod security;
mod takeover;
mod trouble;
mod tutorial;
