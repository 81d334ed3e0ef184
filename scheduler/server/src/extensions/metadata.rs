//! The metadata tree: values under paths of keys.

use indexmap::IndexMap;
use oxidask_protocol::{Key, Value};

use super::Raised;

/// Longest path, so that no peer can make the tree so deep that walking it fails.
const MAX_PATH: usize = 64;

/// The tree. A dict that is stored becomes a branch, so that paths lead into it.
#[derive(Debug)]
pub struct Metadata {
    root: Node,
}

#[derive(Debug)]
enum Node {
    Branch(IndexMap<Key, Self>),
    Leaf(Value),
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            root: Node::Branch(IndexMap::new()),
        }
    }
}

impl Metadata {
    /// Stores a value; branches on the way are made, and other values on the way replaced.
    ///
    /// # Errors
    /// `IndexError` for an empty path, `ValueError` for one that is too long, `TypeError` for one with an element
    /// that cannot be a key of a dict.
    pub fn set(&mut self, path: &[Value], value: &Value) -> Result<(), Raised> {
        let path = keys(path)?;
        let Some((last, branches)) = path.split_last() else {
            return Err(Raised::builtin("IndexError", "list index out of range"));
        };
        let mut node = &mut self.root;
        for key in branches {
            node = node
                .children()
                .entry(key.clone())
                .or_insert_with(|| Node::Branch(IndexMap::new()));
        }
        node.children().insert(last.clone(), Node::from(value));
        Ok(())
    }

    /// The task of a key is forgotten, and what stood under it with it.
    pub fn forget(&mut self, key: &Key) {
        self.root.children().shift_remove(key);
    }

    /// The value under a path; `default` where there is none.
    ///
    /// # Errors
    /// `KeyError` where there is neither, `TypeError` if the path leads into a value that is no dict.
    pub fn get(&self, path: &[Value], default: Option<&Value>) -> Result<Value, Raised> {
        let mut node = &self.root;
        for key in keys(path)? {
            let next = match node {
                Node::Branch(children) => children.get(&key),
                Node::Leaf(value) => return element(value, &key),
            };
            match (next, default) {
                (Some(next), _) => node = next,
                (None, Some(default)) => return Ok(default.clone()),
                (None, None) => return Err(Raised::key_error(key.to_string())),
            }
        }
        Ok(node.value())
    }
}

/// An element of a list or text that a path leads into, as Python's `value[key]` gives it.
fn element(value: &Value, key: &Key) -> Result<Value, Raised> {
    let index = Value::from(key).as_u64();
    match (value, index) {
        (Value::Array(values), Some(index)) => values
            .get(index as usize)
            .cloned()
            .ok_or_else(|| Raised::builtin("IndexError", "list index out of range")),
        _ => Err(Raised::builtin(
            "TypeError",
            format!("metadata: {key} leads into a value that is no dict"),
        )),
    }
}

fn keys(path: &[Value]) -> Result<Vec<Key>, Raised> {
    if path.len() > MAX_PATH {
        let text = format!(
            "metadata path of {} keys exceeds the limit of {MAX_PATH}",
            path.len()
        );
        return Err(Raised::builtin("ValueError", text));
    }
    path.iter()
        .map(|key| {
            key.to_key()
                .ok_or_else(|| Raised::builtin("TypeError", "metadata path with an unhashable key"))
        })
        .collect()
}

impl Node {
    /// The children; a leaf becomes a branch without any.
    fn children(&mut self) -> &mut IndexMap<Key, Self> {
        if let Self::Leaf(_) = self {
            *self = Self::Branch(IndexMap::new());
        }
        match self {
            Self::Branch(children) => children,
            Self::Leaf(_) => unreachable!("made a branch above"),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::Branch(children) => Value::Map(
                children
                    .iter()
                    .map(|(key, node)| (Value::from(key), node.value()))
                    .collect(),
            ),
        }
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        let Value::Map(pairs) = value else {
            return Self::Leaf(value.detached());
        };
        let children: Option<IndexMap<Key, Self>> = pairs
            .iter()
            .map(|(key, value)| Some((key.to_key()?, Self::from(value))))
            .collect();
        children.map_or_else(|| Self::Leaf(value.detached()), Self::Branch)
    }
}
