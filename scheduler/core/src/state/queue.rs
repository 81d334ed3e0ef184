//! Ready root tasks that wait for an open slot, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::task::Rank;
use crate::ids::TaskId;

/// Tasks by priority.
///
/// Tasks of one graph share all but the last part of their priority, so that is all that is kept of each: a graph of a
/// million tasks has a million entries here.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By user priority and generation; no empty sets.
    classes: BTreeMap<(u64, u64), BTreeSet<(i64, TaskId)>>,
    /// Tasks in all classes.
    len: usize,
}

impl Queue {
    pub(crate) fn insert(&mut self, (user, generation, order): Rank, id: TaskId) {
        let class = self.classes.entry((user, generation)).or_default();
        self.len += usize::from(class.insert((order, id)));
    }

    pub(crate) fn remove(&mut self, (user, generation, order): Rank, id: TaskId) {
        if let Some(class) = self.classes.get_mut(&(user, generation)) {
            self.len -= usize::from(class.remove(&(order, id)));
            if class.is_empty() {
                self.classes.remove(&(user, generation));
            }
        }
    }

    pub(crate) fn contains(&self, (user, generation, order): Rank, id: TaskId) -> bool {
        self.classes
            .get(&(user, generation))
            .is_some_and(|class| class.contains(&(order, id)))
    }

    /// The task whose turn it is.
    pub(crate) fn first(&self) -> Option<TaskId> {
        let (_, class) = self.classes.first_key_value()?;
        class.first().map(|(_, id)| *id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.classes.values().flatten().map(|(_, id)| *id)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_the_order_of_whole_priorities(
            calls in prop::collection::vec((any::<bool>(), 0_u64..3, 0_u64..3, 0_i64..4, 0_u32..4), 0..100)
        ) {
            let mut queue = Queue::default();
            let mut model = BTreeSet::new();
            for (insert, user, generation, order, id) in calls {
                let rank = (user, generation, order);
                if insert {
                    queue.insert(rank, TaskId(id));
                    model.insert((rank, TaskId(id)));
                } else {
                    queue.remove(rank, TaskId(id));
                    model.remove(&(rank, TaskId(id)));
                }
                prop_assert_eq!(queue.contains(rank, TaskId(id)), insert);
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.first(), model.first().map(|(_, id)| *id));
            }
            let ids: Vec<TaskId> = queue.iter().collect();
            let expected: Vec<TaskId> = model.into_iter().map(|(_, id)| id).collect();
            prop_assert_eq!(ids, expected);
        }
    }
}
