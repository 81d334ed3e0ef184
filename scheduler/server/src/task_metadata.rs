//! Recordings of what tasks say about themselves (`get_task_metadata`).

use indexmap::{IndexMap, IndexSet};
use oxidask_protocol::{Key, Value};

/// Recordings under way, by name.
#[derive(Debug, Default)]
pub struct TaskMetadata {
    recordings: IndexMap<String, Recording>,
}

#[derive(Debug, Default)]
struct Recording {
    /// Wanted keys of graphs that came since the start and have not ended.
    keys: IndexSet<Key>,
    ended: IndexMap<Key, (Value, &'static str)>,
}

impl TaskMetadata {
    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.recordings.is_empty()
    }

    /// Begins a recording; one of the same name is begun anew.
    pub fn start(&mut self, name: &str) {
        self.recordings
            .insert(name.to_owned(), Recording::default());
    }

    /// Ends a recording and gives `{"metadata": {key: …}, "state": {key: …}}`; `None` if there is none of this name.
    pub fn stop(&mut self, name: &str) -> Option<Value> {
        let recording = self.recordings.shift_remove(name)?;
        let (mut metadata, mut states) = (Vec::new(), Vec::new());
        for (key, (value, state)) in recording.ended {
            metadata.push((Value::from(&key), value));
            states.push((Value::from(&key), state.into()));
        }
        Some(Value::map([
            ("metadata", Value::Map(metadata)),
            ("state", Value::Map(states)),
        ]))
    }

    /// A graph came.
    pub fn wanted(&mut self, keys: &[Key]) {
        for recording in self.recordings.values_mut() {
            recording.keys.extend(keys.iter().cloned());
        }
    }

    /// A task ended, in `memory` or `erred`.
    pub fn ended(&mut self, key: &Key, metadata: &Value, state: &'static str) {
        for recording in self.recordings.values_mut() {
            if recording.keys.swap_remove(key) {
                let metadata = match metadata {
                    Value::Nil => Value::Map(Vec::new()),
                    other => other.detached(),
                };
                recording.ended.insert(key.clone(), (metadata, state));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_that_were_wanted_during_the_recording_are_in_it() {
        let mut all = TaskMetadata::default();
        all.start("r");
        all.wanted(&["a".into()]);
        all.ended(
            &"a".into(),
            &Value::map([("m", Value::from(1_u64))]),
            "memory",
        );
        all.ended(&"b".into(), &Value::Nil, "memory");
        let record = all.stop("r").unwrap();
        assert_eq!(record.field("metadata").unwrap().as_map().unwrap().len(), 1);
        assert_eq!(
            record.field("state").unwrap().field("a"),
            Some(&"memory".into())
        );
        assert!(all.stop("r").is_none());
    }
}
