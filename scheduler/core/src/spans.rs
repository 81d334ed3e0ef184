//! Which span a task belongs to.
//!
//! All tasks of a group belong to one span: that of the task which came first. Tasks for which the user named none
//! share a span called `default`, which ends when all its tasks are done.
//!
//! Source: distributed `SpansSchedulerExtension`.

use std::sync::Arc;

use indexmap::IndexMap;
use oxidask_protocol::{Key, Payload, Value};
use rustc_hash::FxBuildHasher;

use crate::Core;
use crate::action::TaskStateName::{NoWorker, Processing, Queued, Waiting};
use crate::event::{Annotations, SpanTag};
use crate::ids::TaskId;
use crate::state::group::GroupId;
use crate::state::span::DEFAULT;

/// Annotations that were rewritten already: by the address of the original, and the span.
type Rewritten = IndexMap<(usize, Arc<str>), Option<Arc<Annotations>>, FxBuildHasher>;

impl Core {
    /// Gives tasks of a graph their span, and has their annotations name it. `described`: the graph's metadata and
    /// code. `default`: the span of those tasks of the graph that name none.
    pub(crate) fn observe_spans(
        &mut self,
        tasks: &[TaskId],
        (metadata, code): (Option<&Payload>, Option<&Payload>),
        default: &mut Option<Arc<str>>,
    ) {
        let mut rewritten = Rewritten::default();
        let mut last: Option<(GroupId, Arc<str>)> = None;
        for id in tasks {
            let group = self.tasks[*id].group;
            let span = match &last {
                Some((known, span)) if *known == group => Arc::clone(span),
                _ => {
                    let span = self.span_of(group, *id, default);
                    if let Some(span) = self.spans.get_mut(&span) {
                        span.describe(metadata, code);
                    }
                    last = Some((group, Arc::clone(&span)));
                    span
                }
            };
            self.annotate(*id, &span, &mut rewritten);
        }
    }

    /// The span of a group; that of one of its tasks if it has none yet.
    fn span_of(
        &mut self,
        group: GroupId,
        task: TaskId,
        default: &mut Option<Arc<str>>,
    ) -> Arc<str> {
        if let Some(span) = &self.groups.get(group).span {
            return Arc::clone(span);
        }
        let annotations = self.tasks[task].annotations.as_ref();
        let span = match annotations.and_then(|a| a.span.clone()) {
            Some(tag) => self.spans.ensure(&tag, self.now),
            None => Arc::clone(default.get_or_insert_with(|| self.default_span())),
        };
        if let Some(span) = self.spans.get_mut(&span) {
            span.groups.insert(group);
        }
        self.groups.get_mut(group).span = Some(Arc::clone(&span));
        span
    }

    fn default_span(&mut self) -> Arc<str> {
        if let Some(id) = &self.spans.default
            && let Some(span) = self.spans.get(id)
            && span.groups.iter().any(|group| self.is_under_way(*group))
        {
            return Arc::clone(id);
        }
        self.spans.begin_default(self.config.seed, self.now)
    }

    fn is_under_way(&self, group: GroupId) -> bool {
        let states = &self.groups.get(group).states;
        [Waiting, NoWorker, Queued, Processing]
            .iter()
            .any(|state| states[*state as usize] > 0)
    }

    /// The task's annotations name the span that it got, which need not be the one that the user meant.
    fn annotate(&mut self, id: TaskId, span: &Arc<str>, rewritten: &mut Rewritten) {
        let task = &mut self.tasks[id];
        let own = task.annotations.as_ref().and_then(|a| a.span.as_ref());
        let Some(wanted) = self.spans.get(span).map(|span| &span.tag) else {
            return;
        };
        let wanted = (!wanted.is_default()).then_some(wanted);
        if own.map(SpanTag::id) == wanted.map(SpanTag::id) {
            return;
        }
        let address = task
            .annotations
            .as_ref()
            .map_or(0, |a| Arc::as_ptr(a).addr());
        let new = rewritten
            .entry((address, Arc::clone(span)))
            .or_insert_with(|| {
                let mut new = task.annotations.as_deref().cloned().unwrap_or_default();
                let pairs = match std::mem::take(&mut new.raw) {
                    Value::Map(pairs) => pairs,
                    _ => Vec::new(),
                };
                let mut pairs: Vec<_> = pairs
                    .into_iter()
                    .filter(|(name, _)| name.as_str() != Some("span"))
                    .collect();
                pairs.extend(wanted.map(|tag| (Value::from("span"), tag.to_value())));
                new.raw = Value::Map(pairs);
                new.span = wanted.cloned();
                (new.raw.as_map().is_some_and(|map| !map.is_empty())).then(|| Arc::new(new))
            });
        task.annotations = new.clone();
    }

    /// Adds what a worker measured for spans.
    pub(crate) fn span_metrics(&mut self, metrics: Vec<(String, Key, f64)>) {
        for (span, what, amount) in metrics {
            if let Some(span) = self.spans.get_mut(&span) {
                span.measure(what, amount);
            }
        }
    }
}

impl SpanTag {
    /// The id of the span itself.
    pub fn id(&self) -> &Arc<str> {
        self.ids.last().expect("a tag has at least one part")
    }

    fn is_default(&self) -> bool {
        self.names.len() == 1 && &*self.names[0] == DEFAULT
    }

    /// Reads the annotation that `distributed.span` makes; `None` for anything else.
    pub fn from_value(value: &Value) -> Option<Self> {
        let texts = |name| -> Option<Arc<[Arc<str>]>> {
            let parts = value.field(name)?.as_array()?;
            parts
                .iter()
                .map(|part| part.as_str().map(Arc::from))
                .collect()
        };
        let tag = Self {
            names: texts("name")?,
            ids: texts("ids")?,
        };
        (!tag.ids.is_empty() && tag.ids.len() == tag.names.len()).then_some(tag)
    }

    fn to_value(&self) -> Value {
        let texts = |parts: &[Arc<str>]| Value::array(parts.iter().map(|part| &**part));
        Value::map([("name", texts(&self.names)), ("ids", texts(&self.ids))])
    }
}
