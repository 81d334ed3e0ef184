//! Where configuration comes from, in the order in which Dask looks.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::literal::interpret;
use crate::{ConfigError, Tree};

/// Files and variables that make up a configuration; later ones win, and variables win over files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// Files, or folders whose `.yaml`, `.yml` and `.json` files are read in the order of their names.
    pub paths: Vec<PathBuf>,
    /// The environment; only names that begin with `DASK_` count.
    pub environment: Vec<(String, String)>,
}

impl Sources {
    /// The places that stock Dask looks at: `/etc/dask` (or `DASK_ROOT_CONFIG`), `etc/dask` of the active Python
    /// environment, `~/.config/dask`, `DASK_CONFIG`; and this process's environment.
    pub fn of_process() -> Self {
        // Names and values that are no UTF-8 cannot be Dask's.
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::of_environment(environment)
    }

    fn of_environment(environment: Vec<(String, String)>) -> Self {
        let variable = |name: &str| {
            environment
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.as_str())
        };
        let mut paths = vec![PathBuf::from(
            variable("DASK_ROOT_CONFIG").unwrap_or("/etc/dask"),
        )];
        for prefix in ["CONDA_PREFIX", "VIRTUAL_ENV"] {
            paths.extend(variable(prefix).map(|prefix| Path::new(prefix).join("etc/dask")));
        }
        paths.extend(variable("HOME").map(|home| Path::new(home).join(".config/dask")));
        paths.extend(variable("DASK_CONFIG").map(PathBuf::from));
        Self { paths, environment }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// If a file or `DASK_INTERNAL_INHERIT_CONFIG` is damaged, or a variable sets a part of something that is no
    /// mapping. Files that cannot be read are passed over, as Dask does.
    pub(crate) fn read(&self) -> Result<Tree, ConfigError> {
        let mut tree = Tree::Map(indexmap::IndexMap::new());
        for path in self.files() {
            if let Ok(text) = std::fs::read_to_string(&path) {
                tree.update(parse_file(&path, &text)?);
            }
        }
        tree.update(self.read_environment()?);
        Ok(tree)
    }

    /// The files that exist, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in &self.paths {
            if !path.is_dir() {
                files.push(path.clone());
                continue;
            }
            let Ok(entries) = std::fs::read_dir(path) else {
                continue;
            };
            let mut inside: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|file| {
                    let extension = file.extension().unwrap_or_default().to_ascii_lowercase();
                    extension == "yaml" || extension == "yml" || extension == "json"
                })
                .collect();
            inside.sort_unstable();
            files.extend(inside);
        }
        files.retain(|file| file.is_file());
        files
    }

    fn read_environment(&self) -> Result<Tree, ConfigError> {
        let mut tree = Tree::Map(indexmap::IndexMap::new());
        let inherited = self
            .environment
            .iter()
            .find(|(name, _)| name == "DASK_INTERNAL_INHERIT_CONFIG");
        if let Some((_, text)) = inherited {
            tree.update(parse_inherited(text)?);
        }
        for (name, value) in &self.environment {
            let Some(key) = name.strip_prefix("DASK_") else {
                continue;
            };
            // Not settings but where to find settings.
            if matches!(
                name.as_str(),
                "DASK_CONFIG" | "DASK_ROOT_CONFIG" | "DASK_INTERNAL_INHERIT_CONFIG"
            ) {
                continue;
            }
            let key = key.to_lowercase().replace("__", ".");
            tree.set(&key, interpret(value))
                .map_err(|(parent, found)| ConfigError::Clash {
                    source_name: format!("the variable {name}"),
                    key,
                    parent,
                    found,
                })?;
        }
        Ok(tree)
    }
}

fn parse_file(path: &Path, text: &str) -> Result<Tree, ConfigError> {
    if text.trim().is_empty() {
        return Ok(Tree::Map(indexmap::IndexMap::new()));
    }
    let tree = Tree::parse_yaml(text).map_err(|reason| ConfigError::Malformed {
        path: path.to_owned(),
        reason,
    })?;
    match tree {
        Tree::Map(_) => Ok(tree),
        Tree::Nil => Ok(Tree::Map(indexmap::IndexMap::new())),
        other => Err(ConfigError::NotAMapping {
            path: path.to_owned(),
            found: other.kind(),
        }),
    }
}

/// Reads what `dask.config.serialize` wrote: URL-safe base64 of JSON.
fn parse_inherited(text: &str) -> Result<Tree, ConfigError> {
    let json = URL_SAFE
        .decode(text.trim())
        .map_err(|error| ConfigError::Inherited(error.to_string()))?;
    let json = String::from_utf8_lossy(&json);
    // Python's JSON has Infinity, which JSON does not; 1e999 reads as such.
    let json = json
        .replace(": Infinity", ": 1e999")
        .replace(": -Infinity", ": -1e999");
    let tree = Tree::parse_yaml(&json).map_err(ConfigError::Inherited)?;
    match tree {
        Tree::Map(_) => Ok(tree),
        other => Err(ConfigError::Inherited(format!("it holds {}", other.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn places_are_those_of_dask_in_its_order() {
        let sources = Sources::of_environment(environment(&[
            ("HOME", "/home/u"),
            ("VIRTUAL_ENV", "/venv"),
            ("DASK_CONFIG", "/mine.yaml"),
        ]));
        let expected = [
            "/etc/dask",
            "/venv/etc/dask",
            "/home/u/.config/dask",
            "/mine.yaml",
        ];
        assert_eq!(sources.paths, expected.map(PathBuf::from));
    }

    #[test]
    fn later_files_win_and_variables_win_over_files() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "a.yaml",
            "distributed: {scheduler: {worker-ttl: 1s, preload: [x]}}",
        );
        write("b.yml", "distributed:\n  scheduler:\n    worker_ttl: 2s\n");
        write(
            "c.json",
            r#"{"distributed": {"comm": {"default-scheme": "tls"}}}"#,
        );
        write("d.txt", "distributed: {scheduler: {worker-ttl: 9s}}");
        let mut sources = Sources {
            paths: vec![folder.path().to_owned(), "/nonexistent".into()],
            environment: Vec::new(),
        };
        let tree = sources.read().unwrap();
        let text = |tree: &Tree, key: &str| tree.get(key).map(ToString::to_string);
        assert_eq!(
            text(&tree, "distributed.scheduler.worker-ttl").as_deref(),
            Some("\"2s\"")
        );
        assert_eq!(
            text(&tree, "distributed.scheduler.preload").as_deref(),
            Some("[\"x\"]")
        );
        assert_eq!(
            text(&tree, "distributed.comm.default_scheme").as_deref(),
            Some("\"tls\"")
        );

        sources.environment = environment(&[
            ("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "3"),
            ("DASKX", "no"),
            ("DASK_TEMPORARY_DIRECTORY", "/tmp/x"),
        ]);
        let tree = sources.read().unwrap();
        assert_eq!(
            text(&tree, "distributed.scheduler.worker-ttl").as_deref(),
            Some("3")
        );
        assert_eq!(
            text(&tree, "temporary-directory").as_deref(),
            Some("\"/tmp/x\"")
        );
    }

    #[test]
    fn an_inherited_configuration_is_the_base_of_the_variables() {
        let json = r#"{"distributed": {"scheduler": {"worker-ttl": "7s", "idle-timeout": null}, "adaptive": {"maximum": Infinity}}}"#;
        let sources = Sources {
            paths: Vec::new(),
            environment: environment(&[
                ("DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT", "1h"),
                ("DASK_INTERNAL_INHERIT_CONFIG", &URL_SAFE.encode(json)),
            ]),
        };
        let tree = sources.read().unwrap();
        assert_eq!(
            tree.get("distributed.scheduler.worker-ttl"),
            Some(&Tree::Text("7s".to_owned()))
        );
        assert_eq!(
            tree.get("distributed.scheduler.idle-timeout"),
            Some(&Tree::Text("1h".to_owned()))
        );
        assert_eq!(
            tree.get("distributed.adaptive.maximum"),
            Some(&Tree::Float(f64::INFINITY))
        );
    }

    #[test]
    fn damaged_sources_say_where_they_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.yaml");
        let read = |paths: &[&Path], variables: &[(&str, &str)]| {
            Sources {
                paths: paths.iter().map(|path| path.to_path_buf()).collect(),
                environment: environment(variables),
            }
            .read()
            .unwrap_err()
            .to_string()
        };
        std::fs::write(&path, "a: [1").unwrap();
        let malformed = read(&[&path], &[]);
        assert!(malformed.contains("bad.yaml is malformed"), "{malformed}");
        std::fs::write(&path, "- 1").unwrap();
        let list = read(&[&path], &[]);
        assert!(list.ends_with("must hold a mapping, not a list"), "{list}");
        let clash = read(&[], &[("DASK_A", "1"), ("DASK_A__B", "2")]);
        assert_eq!(
            clash,
            "the variable DASK_A__B sets a.b, but a is a number and not a mapping"
        );
        let inherited = read(&[], &[("DASK_INTERNAL_INHERIT_CONFIG", "?")]);
        assert!(
            inherited.contains("DASK_INTERNAL_INHERIT_CONFIG"),
            "{inherited}"
        );
    }
}
