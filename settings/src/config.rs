//! A configuration, with values of the kind that is asked for.

use std::time::Duration;

use crate::renamed::rename;
use crate::{ConfigError, Sources, Tree, parse_bytes, parse_duration};

/// What the user configured; what is not set is not there, the defaults are the reader's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    tree: Tree,
    renamed: Vec<(&'static str, &'static str)>,
    in_pod: bool,
}

impl Config {
    /// Reads the configuration from its sources.
    ///
    /// # Errors
    /// If a source is damaged.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut tree = sources.read()?;
        let renamed = rename(&mut tree)?;
        let in_pod = sources
            .environment
            .iter()
            .any(|(name, _)| name == "KUBERNETES_SERVICE_HOST");
        Ok(Self {
            tree,
            renamed,
            in_pod,
        })
    }

    /// Whether Kubernetes runs this process: it tells its pods where its API is.
    pub fn in_pod(&self) -> bool {
        self.in_pod
    }

    /// Everything.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Old and present names of keys that were given by an old name; worth a warning.
    pub fn renamed(&self) -> &[(&'static str, &'static str)] {
        &self.renamed
    }

    /// A value, unless it is not there or `null`.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.tree.get(key).filter(|value| **value != Tree::Nil)
    }

    /// A text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ConfigError> {
        self.read(key, "a text", |value| match value {
            Tree::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A bool.
    ///
    /// # Errors
    /// If it is something else.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", |value| match value {
            Tree::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A number.
    ///
    /// # Errors
    /// If it is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.read(key, "a number", |value| match value {
            Tree::Int(value) => Some(*value as f64),
            Tree::Float(value) => Some(*value),
            Tree::Text(text) if text == "inf" => Some(f64::INFINITY),
            _ => None,
        })
    }

    /// A whole number ≥ 0.
    ///
    /// # Errors
    /// If it is something else.
    pub fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.read(key, "a whole number from 0", |value| match value {
            Tree::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        })
    }

    /// A size in bytes: a number, or a text such as `"64 MiB"`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn bytes(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        self.read(key, "a size such as \"64 MiB\"", |value| match value {
            Tree::Int(value) => u64::try_from(*value).ok(),
            Tree::Float(value) if *value >= 0.0 && *value < u64::MAX as f64 => Some(*value as u64),
            Tree::Text(text) => parse_bytes(text),
            _ => None,
        })
    }

    /// A duration: seconds, or a text such as `"5 minutes"`. `null`, `false` and nothing are `None`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        match self.get(key) {
            None | Some(Tree::Bool(false)) => Ok(None),
            Some(value) => duration(value)
                .map(Some)
                .ok_or_else(|| self.wrong(key, value, "a duration such as \"5 minutes\"")),
        }
    }

    /// A list of texts; one text is a list of one.
    ///
    /// # Errors
    /// If it is something else.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let texts = self.read(key, "a list of texts", |value| match value {
            Tree::Text(text) => Some(vec![text.clone()]),
            Tree::List(values) => values
                .iter()
                .map(|value| match value {
                    Tree::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })?;
        Ok(texts.unwrap_or_default())
    }

    /// Durations by name.
    ///
    /// # Errors
    /// If it is something else.
    pub fn durations(&self, key: &str) -> Result<Vec<(String, Duration)>, ConfigError> {
        let durations = self.read(
            key,
            "a mapping of names to durations",
            |value| match value {
                Tree::Map(map) => map
                    .iter()
                    .map(|(name, value)| Some((name.clone(), duration(value)?)))
                    .collect(),
                _ => None,
            },
        )?;
        Ok(durations.unwrap_or_default())
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&'a Tree) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(key, value, expected)),
        }
    }

    fn wrong(&self, key: &str, value: &Tree, expected: &'static str) -> ConfigError {
        ConfigError::Value {
            key: key.to_owned(),
            value: value.to_string(),
            expected,
        }
    }
}

impl From<Tree> for Config {
    fn from(tree: Tree) -> Self {
        Self {
            tree,
            renamed: Vec::new(),
            in_pod: false,
        }
    }
}

fn duration(value: &Tree) -> Option<Duration> {
    match value {
        Tree::Int(seconds) => Duration::try_from_secs_f64(*seconds as f64).ok(),
        Tree::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
        Tree::Text(text) => parse_duration(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Config {
        let environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(&Sources {
            paths: Vec::new(),
            environment,
        })
        .unwrap()
    }

    #[test]
    fn values_come_in_the_kind_that_is_asked_for() {
        let config = config(&[
            ("DASK_A", "5 minutes"),
            ("DASK_B", "64 MiB"),
            ("DASK_C", "inf"),
            ("DASK_D", "[x, y]"),
            ("DASK_E", "['x', 'y']"),
            ("DASK_F", "None"),
            ("DASK_G", "{'f': '1s', 'g': 2}"),
        ]);
        assert_eq!(
            config.duration("a").unwrap(),
            Some(Duration::from_secs(300))
        );
        assert_eq!(config.bytes("b").unwrap(), Some(64 << 20));
        assert_eq!(config.float("c").unwrap(), Some(f64::INFINITY));
        assert_eq!(config.texts("e").unwrap(), ["x", "y"]);
        assert_eq!(config.duration("f").unwrap(), None);
        assert_eq!(
            config.durations("g").unwrap()[1],
            ("g".to_owned(), Duration::from_secs(2))
        );
        assert_eq!(config.text("none").unwrap(), None);
        assert_eq!(
            config.duration("b").unwrap_err().to_string(),
            "configuration b is \"64 MiB\", but should be a duration such as \"5 minutes\""
        );
        assert_eq!(
            config.count("a").unwrap_err().to_string(),
            "configuration a is \"5 minutes\", but should be a whole number from 0"
        );
    }

    #[test]
    fn old_names_lead_to_present_ones_unless_those_are_set() {
        let config = config(&[
            ("DASK_WORKER_TTL", "1s"),
            ("DASK_BANDWIDTH", "5"),
            ("DASK_DISTRIBUTED__SCHEDULER__BANDWIDTH", "7"),
        ]);
        let ttl = config.duration("distributed.scheduler.worker-ttl").unwrap();
        assert_eq!(ttl, Some(Duration::from_secs(1)));
        let bandwidth = config.bytes("distributed.scheduler.bandwidth").unwrap();
        assert_eq!(bandwidth, Some(7));
        assert_eq!(config.renamed().len(), 2);
    }
}
