//! What the watches have seen of one kind, with an index by one word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use kube::{Resource, ResourceExt as _};

/// Namespace and name.
pub type Id = (String, String);

/// Namespace and name of an object.
pub fn id<K: Resource>(object: &K) -> Id {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The objects of one kind, read by the controllers and written by
/// [`watch`](crate::watch).
#[derive(Debug)]
pub struct Store<K> {
    /// The word by which an object can be found besides its name.
    index: fn(&K) -> Option<String>,
    inner: RwLock<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: HashMap<Id, Arc<K>>,
    /// Names of all and only the objects with that index word, by namespace.
    by_index: HashMap<Id, BTreeSet<String>>,
}

impl<K: Resource> Store<K> {
    /// An empty store. `index` gives an object's second key, if it has one.
    pub fn new(index: fn(&K) -> Option<String>) -> Self {
        Self {
            index,
            inner: RwLock::new(Inner {
                objects: HashMap::new(),
                by_index: HashMap::new(),
            }),
        }
    }

    /// The object of that namespace and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.read().objects.get(&key).cloned()
    }

    /// The objects of that namespace and index word, by name.
    pub fn indexed(&self, namespace: &str, word: &str) -> Vec<Arc<K>> {
        let inner = self.read();
        let Some(names) = inner.by_index.get(&(namespace.to_owned(), word.to_owned())) else {
            return Vec::new();
        };
        names
            .iter()
            .filter_map(|name| {
                let key = (namespace.to_owned(), name.clone());
                inner.objects.get(&key).cloned()
            })
            .collect()
    }

    /// All objects, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        let inner = self.read();
        let sorted: BTreeMap<&Id, &Arc<K>> = inner.objects.iter().collect();
        sorted.into_values().cloned().collect()
    }

    /// Puts an object in and gives back the one it replaces.
    pub(crate) fn insert(&self, object: Arc<K>) -> Option<Arc<K>> {
        let mut inner = self.write();
        let id = id(&*object);
        let old = inner.objects.insert(id.clone(), Arc::clone(&object));
        let (before, after) = (old.as_deref().and_then(self.index), (self.index)(&object));
        if before != after {
            if let Some(word) = before {
                inner.unindex(&id, word);
            }
            if let Some(word) = after {
                inner.by_index.entry((id.0, word)).or_default().insert(id.1);
            }
        }
        old
    }

    /// Takes an object out.
    pub(crate) fn remove(&self, id: &Id) -> Option<Arc<K>> {
        let mut inner = self.write();
        let old = inner.objects.remove(id);
        if let Some(word) = old.as_deref().and_then(self.index) {
            inner.unindex(id, word);
        }
        old
    }

    /// Takes out what is not in `keep`, within one namespace or in all.
    pub(crate) fn retain(&self, namespace: Option<&str>, keep: &BTreeSet<Id>) -> Vec<Arc<K>> {
        let gone: Vec<Id> = {
            let inner = self.read();
            let within = inner
                .objects
                .keys()
                .filter(|id| namespace.is_none_or(|namespace| id.0 == namespace));
            within.filter(|id| !keep.contains(*id)).cloned().collect()
        };
        gone.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().expect("no holder of this lock panics")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().expect("no holder of this lock panics")
    }
}

impl<K> Inner<K> {
    fn unindex(&mut self, id: &Id, word: String) {
        let key = (id.0.clone(), word);
        if let Some(names) = self.by_index.get_mut(&key) {
            names.remove(&id.1);
            if names.is_empty() {
                self.by_index.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str, word: Option<&str>) -> Arc<ConfigMap> {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("ns".to_owned());
        map.metadata.name = Some(name.to_owned());
        map.metadata.labels = word.map(|word| [("w".to_owned(), word.to_owned())].into());
        Arc::new(map)
    }

    fn store() -> Store<ConfigMap> {
        Store::new(|map| map.labels().get("w").cloned())
    }

    fn names(store: &Store<ConfigMap>, word: &str) -> Vec<String> {
        store
            .indexed("ns", word)
            .iter()
            .map(|map| map.name_any())
            .collect()
    }

    #[test]
    fn the_index_follows_changes_and_removals() {
        let store = store();
        store.insert(map("b", Some("x")));
        store.insert(map("a", Some("x")));
        store.insert(map("c", None));
        assert_eq!(names(&store, "x"), ["a", "b"]);
        store.insert(map("a", Some("y")));
        assert_eq!(
            (names(&store, "x"), names(&store, "y")),
            (vec!["b".to_owned()], vec!["a".to_owned()])
        );
        store.remove(&("ns".to_owned(), "b".to_owned()));
        assert!(names(&store, "x").is_empty());
        assert!(store.read().by_index.len() == 1);
    }

    #[test]
    fn a_new_list_takes_away_what_is_not_in_it() {
        let store = store();
        store.insert(map("a", Some("x")));
        store.insert(map("b", Some("x")));
        let keep = [("ns".to_owned(), "a".to_owned())].into();
        assert!(store.retain(Some("other"), &keep).is_empty());
        let gone = store.retain(None, &keep);
        assert_eq!(
            gone.iter().map(|map| map.name_any()).collect::<Vec<_>>(),
            ["b"]
        );
        assert_eq!(names(&store, "x"), ["a"]);
    }
}
