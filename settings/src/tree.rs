//! Configuration values: nested mappings, as `dask.config` holds them.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

/// A configuration value.
#[derive(Clone, Debug, PartialEq, Default)]
pub enum Tree {
    /// None.
    #[default]
    Nil,
    /// A bool.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// A mapping. Keys keep the spelling that was set first.
    Map(IndexMap<String, Self>),
}

impl Tree {
    /// Reads YAML (or JSON) as PyYAML does: `yes` is true, `.inf` is a number, of equal keys the last one counts.
    ///
    /// # Errors
    /// What the parser says, with the line.
    pub fn parse_yaml(text: &str) -> Result<Self, String> {
        let options = serde_saphyr::options! {
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
            duplicate_keys: DuplicateKeyPolicy::LastWins,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nothing",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// The value under a key with dots, whichever of `-` and `_` its parts are spelt with.
    pub fn get(&self, key: &str) -> Option<&Self> {
        key.split('.').try_fold(self, |tree, part| match tree {
            Self::Map(map) => map.get(spelling(part, map)?),
            _ => None,
        })
    }

    /// Takes the value under a key with dots away.
    pub fn remove(&mut self, key: &str) -> Option<Self> {
        let (part, rest) = match key.split_once('.') {
            Some((part, rest)) => (part, Some(rest)),
            None => (key, None),
        };
        let Self::Map(map) = self else { return None };
        let name = spelling(part, map)?.to_owned();
        match rest {
            None => map.shift_remove(&name),
            Some(rest) => map.get_mut(&name)?.remove(rest),
        }
    }

    /// Sets the value under a key with dots; mappings on the way are made.
    ///
    /// # Errors
    /// The part of the key that leads into something else than a mapping, and what that is.
    pub fn set(&mut self, key: &str, value: Self) -> Result<(), (String, &'static str)> {
        let mut tree = self;
        let mut done = String::new();
        for part in key.split('.') {
            if *tree == Self::Nil {
                *tree = Self::Map(IndexMap::new());
            }
            let Self::Map(map) = tree else {
                return Err((done, tree.kind()));
            };
            let name = spelling(part, map).unwrap_or(part).to_owned();
            tree = map.entry(name).or_default();
            if !done.is_empty() {
                done.push('.');
            }
            done.push_str(part);
        }
        *tree = value;
        Ok(())
    }

    /// Lays another tree over this one: mappings are merged, other values replaced.
    pub fn update(&mut self, newer: Self) {
        let Self::Map(newer) = newer else {
            *self = newer;
            return;
        };
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(IndexMap::new());
        }
        let Self::Map(map) = self else { return };
        for (key, value) in newer {
            let name = spelling(&key, map).unwrap_or(&key).to_owned();
            map.entry(name).or_default().update(value);
        }
    }

    /// All values that are no mappings (and empty mappings), with their keys.
    pub fn leaves(&self) -> Vec<(String, &Self)> {
        let mut leaves = Vec::new();
        self.collect_leaves("", &mut leaves);
        leaves
    }

    fn collect_leaves<'a>(&'a self, path: &str, leaves: &mut Vec<(String, &'a Self)>) {
        match self {
            Self::Map(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    value.collect_leaves(&path, leaves);
                }
            }
            leaf => leaves.push((path.to_owned(), leaf)),
        }
    }
}

/// How a key is spelt in a mapping: `-` and `_` are the same, what stands there first decides.
fn spelling<'a>(key: &str, map: &'a IndexMap<String, Tree>) -> Option<&'a str> {
    if let Some((name, _)) = map.get_key_value(key) {
        return Some(name);
    }
    let other = if key.contains('_') {
        key.replace('_', "-")
    } else {
        key.replace('-', "_")
    };
    map.get_key_value(&other).map(|(name, _)| name.as_str())
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (index, (key, value)) in map.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}: {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = IndexMap::new();
        while let Some((key, value)) = entries.next_entry::<Tree, Tree>()? {
            let key = match key {
                Tree::Text(text) => text,
                other => other.to_string(),
            };
            map.insert(key, value);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Tree {
        Tree::parse_yaml(text).unwrap()
    }

    #[test]
    fn hyphens_and_underscores_are_the_same_and_the_first_spelling_stays() {
        let mut tree = yaml("distributed: {scheduler: {worker-ttl: 1}}");
        tree.update(yaml(
            "distributed: {scheduler: {worker_ttl: 2, idle_timeout: 3}}",
        ));
        assert_eq!(
            tree,
            yaml("distributed: {scheduler: {worker-ttl: 2, idle_timeout: 3}}")
        );
        assert_eq!(
            tree.get("distributed.scheduler.idle-timeout"),
            Some(&Tree::Int(3))
        );
        assert_eq!(
            tree.remove("distributed.scheduler.worker_ttl"),
            Some(Tree::Int(2))
        );
        assert_eq!(tree.get("distributed.scheduler.worker-ttl"), None);
    }

    #[test]
    fn a_mapping_replaces_a_value_and_a_value_a_mapping() {
        let mut tree = yaml("a: {b: 1}");
        tree.update(yaml("a: 2"));
        assert_eq!(tree, yaml("a: 2"));
        tree.update(yaml("a: {c: 3}"));
        assert_eq!(tree, yaml("a: {c: 3}"));
        assert_eq!(
            tree.set("a.c.d", Tree::Nil),
            Err(("a.c".to_owned(), "a number"))
        );
    }

    #[test]
    fn yaml_values_are_read_as_dask_reads_them() {
        let tree =
            yaml("{a: null, b: .inf, c: True, d: no, e: 1e3, f: 10 MB, g: [1, x], h: ~, i: 1_000}");
        let read = |key: &str| tree.get(key).cloned().unwrap();
        assert_eq!(read("a"), Tree::Nil);
        assert_eq!(read("b"), Tree::Float(f64::INFINITY));
        assert_eq!(read("c"), Tree::Bool(true));
        assert_eq!(read("d"), Tree::Bool(false));
        assert_eq!(read("f"), Tree::Text("10 MB".to_owned()));
        assert_eq!(
            read("g"),
            Tree::List(vec![Tree::Int(1), Tree::Text("x".to_owned())])
        );
        assert_eq!(read("h"), Tree::Nil);
    }
}
