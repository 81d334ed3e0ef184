//! Graph intakes of several Python environments: a client's graphs are opened where its own versions are installed.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use oxidask_protocol::Value;

use super::intake::{GraphIntake, IntakeConfig};

/// The scheduler's own environment, and those that the user names beside it (`oxidask.graph.interpreters`).
#[derive(Debug, Clone)]
pub struct Environments {
    own: GraphIntake,
    others: Arc<[GraphIntake]>,
}

impl Environments {
    /// No interpreter runs yet.
    pub fn new(config: &IntakeConfig, others: &[PathBuf]) -> Self {
        let other = |python: &PathBuf| {
            GraphIntake::new(IntakeConfig {
                python: Some(python.clone()),
                ..config.clone()
            })
        };
        Self {
            own: GraphIntake::new(config.clone()),
            others: others.iter().map(other).collect(),
        }
    }

    /// Starts the interpreters, so that the first graph need not wait for Python to start.
    pub fn warm(&self) {
        self.all().for_each(GraphIntake::warm);
    }

    /// Packages of the scheduler's own environment, by name; empty before it has run.
    pub fn versions(&self) -> Vec<(String, String)> {
        self.own.versions()
    }

    /// Has a scheduler plugin started in every interpreter, or no longer; see [`GraphIntake::set_plugin`].
    pub fn set_plugin(&self, name: &str, pickle: Option<&Bytes>) {
        self.all()
            .for_each(|intake| intake.set_plugin(name, pickle.cloned()));
    }

    /// Waits until all interpreters have started, or could not.
    pub async fn ready(&self) {
        join_all(self.all().map(GraphIntake::ready)).await;
    }

    /// The intake for a client that states these versions: the first that has its distributed, dask and minor version
    /// of Python; else the first that has its distributed; else the scheduler's own. Interpreters that have not
    /// started do not count.
    pub fn of(&self, versions: &Value) -> &GraphIntake {
        if self.others.is_empty() {
            return &self.own;
        }
        let known: Vec<_> = self.all().map(GraphIntake::versions).collect();
        let chosen = choose(versions, &known);
        self.all().nth(chosen).unwrap_or(&self.own)
    }

    fn all(&self) -> impl Iterator<Item = &GraphIntake> {
        std::iter::once(&self.own).chain(self.others.iter())
    }
}

/// Which environment fits a client.
fn choose(client: &Value, environments: &[Vec<(String, String)>]) -> usize {
    let stated = |name: &str| client.field("packages")?.field(name)?.as_str();
    let has = |environment: &[(String, String)], name: &str, shorten: fn(&str) -> &str| {
        let here = environment.iter().find(|(known, _)| known == name);
        match (stated(name), here) {
            (Some(theirs), Some((_, ours))) => shorten(theirs) == shorten(ours),
            _ => false,
        }
    };
    let whole: fn(&str) -> &str = |version| version;
    let nearly = |environment: &Vec<(String, String)>| has(environment, "distributed", whole);
    let fits = |environment: &Vec<(String, String)>| {
        has(environment, "distributed", whole)
            && has(environment, "dask", whole)
            && has(environment, "python", minor)
    };
    environments
        .iter()
        .position(fits)
        .or_else(|| environments.iter().position(nearly))
        .unwrap_or(0)
}

/// `3.11` of `3.11.7.final.0`: what pickles of code depend on.
fn minor(version: &str) -> &str {
    match version.match_indices('.').nth(1) {
        Some((at, _)) => &version[..at],
        None => version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(python: &str, dask: &str) -> Vec<(String, String)> {
        [("python", python), ("dask", dask), ("distributed", dask)]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .to_vec()
    }

    fn client(python: &str, dask: &str) -> Value {
        let packages = [("python", python), ("dask", dask), ("distributed", dask)];
        let packages = Value::map(packages.map(|(name, version)| (name, Value::from(version))));
        Value::map([("packages", packages)])
    }

    #[test]
    fn a_client_gets_the_environment_of_its_versions() {
        let environments = [
            environment("3.11.7.final.0", "2026.8.0"),
            environment("3.11.7.final.0", "2025.4.1"),
            environment("3.12.1.final.0", "2025.4.1"),
        ];
        let choice = |python, dask| choose(&client(python, dask), &environments);
        assert_eq!(choice("3.11.7.final.0", "2026.8.0"), 0);
        assert_eq!(
            choice("3.11.2.final.0", "2025.4.1"),
            1,
            "same minor version"
        );
        assert_eq!(choice("3.12.9.final.0", "2025.4.1"), 2);
        assert_eq!(
            choice("3.13.0.final.0", "2025.4.1"),
            1,
            "Python differs anyhow"
        );
        assert_eq!(choice("3.11.7.final.0", "2025.12.0"), 0, "nobody has it");
        assert_eq!(choose(&Value::Nil, &environments), 0, "it does not say");
    }

    #[test]
    fn an_environment_that_could_not_start_is_passed_over() {
        let environments = [environment("3.11.7", "2026.8.0"), Vec::new()];
        assert_eq!(choose(&client("3.11.7", "2025.4.1"), &environments), 0);
    }
}
