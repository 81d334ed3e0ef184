//! Spans: tasks that a user named together (`with span("load"):`).

use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};
use oxidask_protocol::{Key, Payload};
use rustc_hash::FxBuildHasher;

use super::group::{Figures, Group, GroupId};
use crate::Time;
use crate::event::SpanTag;

/// Spans that are kept. Beyond it, the oldest go that have no known tasks and no spans inside.
const KEPT: usize = 10_000;

/// Spans over [`KEPT`] after which old ones are looked for, so that this is not done for each new one.
const SLACK: usize = 500;

/// Groups without known tasks that a span remembers one by one; more are counted together with the last.
const PAST_GROUPS: usize = 1_000;

/// Measurements that a span keeps apart.
const METRICS: usize = 10_000;

/// Graphs whose description a span keeps.
const GRAPHS: usize = 100;

/// The name of the span of tasks that belong to none.
pub(crate) const DEFAULT: &str = "default";

/// A span. Its place in [`Spans`] is its id, the last of its tag's.
#[derive(Debug)]
pub(crate) struct Span {
    /// Its name and those of the spans around it, with their ids, the outermost first.
    pub(crate) tag: SpanTag,
    /// When its first task came.
    pub(crate) enqueued: Time,
    /// Known groups that belong to it directly. The reverse of `Group::span`.
    pub(crate) groups: IndexSet<GroupId, FxBuildHasher>,
    /// What is left of groups whose tasks are all forgotten.
    pub(crate) past: Vec<PastGroup>,
    /// What workers measured for it: by context, prefix, activity and unit.
    pub(crate) metrics: IndexMap<Key, f64, FxBuildHasher>,
    /// The pickled `span_metadata` of its graphs.
    pub(crate) metadata: Vec<Payload>,
    /// The pickled source code of its graphs.
    pub(crate) code: Vec<Payload>,
}

/// A group whose tasks are all forgotten.
#[derive(Debug)]
pub(crate) struct PastGroup {
    pub(crate) name: Arc<str>,
    pub(crate) prefix: Arc<str>,
    pub(crate) forgotten: u64,
    pub(crate) figures: Figures,
}

impl Span {
    /// Keeps what a group was, when its last task is forgotten.
    pub(crate) fn bury(&mut self, id: GroupId, group: Group, prefix: Arc<str>) {
        self.groups.swap_remove(&id);
        let forgotten = group.len();
        let is_full = self.past.len() == PAST_GROUPS;
        if let Some(last) = self.past.last_mut().filter(|_| is_full) {
            last.forgotten += forgotten;
            last.figures.add(&group.figures);
            return;
        }
        self.past.push(PastGroup {
            name: group.name,
            prefix,
            forgotten,
            figures: group.figures,
        });
    }

    /// Adds what a worker measured.
    pub(crate) fn measure(&mut self, what: Key, amount: f64) {
        if self.metrics.len() < METRICS || self.metrics.contains_key(&what) {
            *self.metrics.entry(what).or_default() += amount;
        }
    }

    /// Notes where a graph came from.
    pub(crate) fn describe(&mut self, metadata: Option<&Payload>, code: Option<&Payload>) {
        for (kept, new) in [(&mut self.metadata, metadata), (&mut self.code, code)] {
            if let Some(new) = new
                && kept.len() < GRAPHS
                && !kept.contains(new)
            {
                kept.push(new.clone());
            }
        }
    }
}

/// All spans by id, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    spans: IndexMap<Arc<str>, Span, FxBuildHasher>,
    /// The latest span of tasks that belong to none.
    pub(crate) default: Option<Arc<str>>,
    defaults: u64,
}

impl Spans {
    pub(crate) fn get(&self, id: &str) -> Option<&Span> {
        self.spans.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Span> {
        self.spans.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Span)> {
        self.spans.iter()
    }

    /// The span of a tag, made if it is new, with those around it.
    pub(crate) fn ensure(&mut self, tag: &SpanTag, now: Time) -> Arc<str> {
        for depth in 1..=tag.ids.len() {
            let id = &tag.ids[depth - 1];
            if self.spans.contains_key(id) {
                continue;
            }
            let span = Span {
                tag: SpanTag {
                    names: tag.names[..depth].into(),
                    ids: tag.ids[..depth].into(),
                },
                enqueued: now,
                groups: IndexSet::default(),
                past: Vec::new(),
                metrics: IndexMap::default(),
                metadata: Vec::new(),
                code: Vec::new(),
            };
            self.spans.insert(Arc::clone(id), span);
        }
        self.forget_old();
        Arc::clone(tag.id())
    }

    /// A fresh span for tasks that belong to none. `seed` tells its id from those of other schedulers.
    pub(crate) fn begin_default(&mut self, seed: u64, now: Time) -> Arc<str> {
        self.defaults += 1;
        let id: Arc<str> = format!(
            "{:08x}-{:04x}-4000-8000-{:012x}",
            seed >> 32,
            seed & 0xffff,
            self.defaults
        )
        .into();
        let tag = SpanTag {
            names: [DEFAULT.into()].into(),
            ids: [Arc::clone(&id)].into(),
        };
        self.default = Some(self.ensure(&tag, now));
        id
    }

    fn forget_old(&mut self) {
        if self.spans.len() <= KEPT + SLACK {
            return;
        }
        let mut surplus = self.spans.len() - KEPT;
        let parents: IndexSet<Arc<str>, FxBuildHasher> = self
            .spans
            .values()
            .filter_map(|span| span.tag.ids.iter().rev().nth(1).cloned())
            .collect();
        let newest = self.spans.len() - 1;
        let mut place = 0;
        self.spans.retain(|id, span| {
            let goes =
                surplus > 0 && place < newest && span.groups.is_empty() && !parents.contains(id);
            surplus -= usize::from(goes);
            place += 1;
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(path: &[&str]) -> SpanTag {
        SpanTag {
            names: path.iter().map(|name| Arc::from(*name)).collect(),
            ids: path
                .iter()
                .map(|name| Arc::from(format!("id-{name}")))
                .collect(),
        }
    }

    #[test]
    fn a_span_brings_those_around_it_along() {
        let mut spans = Spans::default();
        assert_eq!(&*spans.ensure(&tag(&["a", "b"]), Time(7)), "id-b");
        let paths: Vec<usize> = spans.iter().map(|(_, span)| span.tag.names.len()).collect();
        assert_eq!(paths, [1, 2]);
    }

    #[test]
    fn old_spans_without_tasks_are_forgotten() {
        let mut spans = Spans::default();
        spans.ensure(&tag(&["kept", "inside"]), Time(0));
        spans
            .get_mut("id-inside")
            .unwrap()
            .groups
            .insert(GroupId(0));
        for _ in 0..3 * KEPT {
            spans.begin_default(1, Time(0));
        }
        assert!(spans.iter().count() <= KEPT + SLACK);
        assert!(spans.get("id-kept").is_some() && spans.get("id-inside").is_some());
        let latest = spans.default.clone().unwrap();
        assert!(spans.get(&latest).is_some());
    }
}
