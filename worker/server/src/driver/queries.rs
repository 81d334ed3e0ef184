//! Questions that the driver answers from what it knows.

use std::sync::Arc;

use oxidask_protocol::{Key, Value, message::decode_one, msgpack::Writer};

use super::Driver;
use crate::{
    clock::unix,
    executor::wire::control,
    input::Query,
    metrics::{anonymous_memory, constant_metrics},
};

impl Driver {
    pub(super) fn query(&mut self, query: Query) -> Value {
        match query {
            Query::Identity => self.identity(),
            Query::Keys => Value::Array(self.store.iter().map(|(key, _)| key_value(key)).collect()),
            Query::Metrics { take } => self.metrics(take),
            Query::Executing => self.executing(),
            Query::Work => {
                let nthreads = self.settings.nthreads;
                self.meter.work(&self.pids(), nthreads)
            }
            Query::Extensions => self.take_extensions(),
            Query::Story(keys) => self.story(&keys),
            Query::State => self.state(),
        }
    }

    fn name(&self) -> Value {
        self.settings.name_or(&self.address)
    }

    fn identity(&self) -> Value {
        Value::map([
            ("type", Value::Str("Worker".into())),
            ("id", Value::Str(self.settings.server_id.clone())),
            ("scheduler", Value::Str(self.settings.scheduler.clone())),
            ("name", self.name()),
            ("address", Value::Str(self.address.to_string())),
            ("nthreads", Value::Int(self.settings.nthreads as i128)),
            (
                "memory_limit",
                self.settings
                    .memory_limit
                    .map_or(Value::Nil, |limit| Value::Int(limit.into())),
            ),
            ("services", self.services.clone()),
        ])
    }

    /// Bytes of memory of this worker: its executors, its share of this process, and its values in memory files.
    /// What several workers of this process hold together is divided among them.
    pub(super) fn memory(&self) -> u64 {
        let executors: u64 = self
            .handles()
            .map(|executor| anonymous_memory(executor.pid))
            .sum();
        let files: u64 = self
            .store
            .iter()
            .filter_map(|(_, entry)| {
                Some(entry.nbytes / Arc::strong_count(entry.file.as_ref()?) as u64)
            })
            .sum();
        let segments: u64 = self
            .store
            .iter()
            .filter(|(_, entry)| !entry.segments.is_empty())
            .map(|(_, entry)| entry.nbytes)
            .sum();
        let shared = anonymous_memory(std::process::id()) + self.free_segments;
        shared / self.neighbours.count() as u64 + executors + files + segments
    }

    /// This process and its executors.
    fn pids(&self) -> Vec<u32> {
        std::iter::once(std::process::id())
            .chain(self.handles().map(|executor| executor.pid))
            .collect()
    }

    /// What heartbeats say. `take` starts the counts since the last one anew.
    fn metrics(&mut self, take: bool) -> Value {
        let stats = self.core.stats();
        let counts = stats.tasks.iter().filter(|(_, count)| *count > 0);
        let counts = counts.map(|(name, count)| (*name, Value::Int(*count as i128)));
        let pids = self.pids();
        let (digests, activity) = if take {
            (
                std::mem::take(&mut self.digests),
                std::mem::take(&mut self.activity),
            )
        } else {
            Default::default()
        };
        let mut digests = digests;
        for ((span, prefix, label), seconds) in activity {
            let parts = ["execute", &span, &prefix, label, "seconds"]
                .map(|part| Value::Str(part.to_owned()));
            digests.push((Value::Array(parts.to_vec()), Value::Float(seconds)));
        }
        let digests = self.apportion(digests);
        let serving = self.serving.load(std::sync::atomic::Ordering::Relaxed);
        let int = |n: u64| Value::Int(n.into());
        let transfer = Value::map([
            ("incoming_bytes", int(stats.incoming_bytes)),
            ("incoming_count", int(stats.incoming_count as u64)),
            ("incoming_count_total", int(stats.incoming_total)),
            ("outgoing_bytes", int(0)),
            ("outgoing_count", int(serving as u64)),
            ("outgoing_count_total", int(0)),
        ]);
        let mut fields = vec![
            ("task_counts", Value::map(counts)),
            ("bandwidth", self.meter.bandwidth()),
            ("digests_total_since_heartbeat", Value::Map(digests)),
            ("managed_bytes", int(stats.nbytes)),
            (
                "spilled_bytes",
                Value::map([
                    ("memory", int(self.spilled.0)),
                    ("disk", int(self.spilled.1)),
                ]),
            ),
            ("transfer", transfer),
            ("cpu", Value::Float(self.meter.cpu(&pids))),
            ("memory", int(self.memory())),
        ];
        fields.extend(constant_metrics());
        Value::map(fields)
    }

    fn executing(&self) -> Value {
        let now = unix();
        let python = self.runs().map(|run| (&run.key, run.since));
        let native = self.native.values().map(|run| (&run.key, run.since));
        let running = python.chain(native);
        Value::Map(
            running
                .map(|(key, since)| (key_value(key), Value::Float(now - since)))
                .collect(),
        )
    }

    /// What extensions said last; they are asked anew for the next time.
    fn take_extensions(&mut self) -> Value {
        for executor in self.executors.iter().filter(|executor| executor.has_news) {
            if let Some(handle) = &executor.handle {
                handle.send_control(control("heartbeat", Vec::new(), Vec::new()));
            }
        }
        let mut extensions = std::mem::replace(&mut self.extensions, Value::Map(Vec::new()));
        if let Value::Map(fields) = &mut extensions
            && !self.of_spans.is_empty()
        {
            let of_spans = Value::Map(std::mem::take(&mut self.of_spans));
            fields.push((Value::Str("spans".into()), of_spans));
        }
        extensions
    }

    /// Keeps what belongs to a span for the extension of that name, and gives all without the spans' ids.
    /// Source: distributed `Worker.get_metrics`, `SpansWorkerExtension`.
    fn apportion(&mut self, digests: Vec<(Value, Value)>) -> Vec<(Value, Value)> {
        let mut totals: Vec<(Value, Value)> = Vec::with_capacity(digests.len());
        for (what, amount) in digests {
            let total = match &what {
                Value::Array(parts) if has_span(parts) => {
                    let mut parts = parts.clone();
                    parts.remove(1);
                    add(&mut self.of_spans, what, &amount);
                    Value::Array(parts)
                }
                _ => what,
            };
            add(&mut totals, total, &amount);
        }
        totals
    }

    fn story(&self, keys: &[Key]) -> Value {
        let entries = self
            .core
            .story(None)
            .filter(|entry| keys.is_empty() || keys.contains(&entry.key));
        let row = |entry: &oxidask_worker_core::StoryEntry| {
            Value::Array(vec![
                key_value(&entry.key),
                Value::Str(entry.from.into()),
                Value::Str(entry.to.into()),
                Value::Str(entry.to.into()),
                Value::Map(Vec::new()),
                Value::Str(entry.stimulus_id.to_string()),
                Value::Float(entry.time.0 as f64 / 1e9),
            ])
        };
        Value::Array(entries.map(row).collect())
    }

    fn state(&mut self) -> Value {
        let tasks = self.core.snapshot().map(|(key, state, nbytes)| {
            let about = [
                ("state", Value::Str(state.into())),
                ("nbytes", Value::Int(nbytes.into())),
            ];
            (key_value(key), Value::map(about))
        });
        let tasks = Value::Map(tasks.collect());
        let Value::Map(mut fields) = self.metrics(false) else {
            return Value::Nil;
        };
        let own = [
            ("address", Value::Str(self.address.to_string())),
            ("nthreads", Value::Int(self.settings.nthreads as i128)),
            ("status", Value::Str(self.status.name().into())),
            ("thread_id", Value::Int(0)),
            ("tasks", tasks),
        ];
        fields.extend(own.map(|(name, value)| (Value::Str(name.to_owned()), value)));
        Value::Map(fields)
    }
}

/// A measure of a kind that is told by span: context, span, and more.
fn has_span(parts: &[Value]) -> bool {
    let context = parts.first().and_then(Value::as_str);
    parts.len() > 2 && matches!(context, Some("execute" | "p2p"))
}

/// Adds to what is known of a measure.
fn add(known: &mut Vec<(Value, Value)>, what: Value, amount: &Value) {
    let more = amount.as_f64().unwrap_or_default();
    match known.iter_mut().find(|(name, _)| *name == what) {
        Some((_, sum)) => *sum = Value::Float(sum.as_f64().unwrap_or_default() + more),
        None => known.push((what, Value::Float(more))),
    }
}

/// A key as a value.
pub(super) fn key_value(key: &Key) -> Value {
    let mut w = Writer::new();
    w.raw(key.wire());
    decode_one(&w.into_frames()).unwrap_or_default()
}
