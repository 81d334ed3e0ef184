//! The latest finished tasks, for `get_task_stream`.

use std::collections::VecDeque;

use oxidask_protocol::Value;
use oxidask_protocol::wire::Seconds;

use super::Raised;

/// A bounded record of finished tasks. It begins with the first question about it, as in stock Dask.
#[derive(Debug)]
pub struct TaskStream {
    records: VecDeque<Record>,
    /// Most records kept.
    length: usize,
    /// Tasks ever recorded.
    index: u64,
    recording: bool,
}

#[derive(Debug)]
struct Record {
    /// When the last step of the task ended. Unit: Unix seconds on the worker's clock.
    stop: f64,
    message: Value,
}

/// Which records are asked for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Unix seconds, or a duration before now such as `"5s"`.
    pub start: Value,
    /// Unix seconds, or a duration before now.
    pub stop: Value,
    /// How many at most.
    pub count: Option<u64>,
    /// Number of the first record, counted from the first ever; then nothing else counts.
    pub start_index: Option<u64>,
}

impl TaskStream {
    pub(super) fn new(length: usize) -> Self {
        Self {
            records: VecDeque::new(),
            length,
            index: 0,
            recording: false,
        }
    }

    /// Whether [`record`](Self::record) does anything.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A task came into memory or erred. `message` holds the fields of the worker's message, `key` and `worker`.
    pub fn record(&mut self, message: &Value) {
        if !self.recording {
            return;
        }
        let stops = message.field("startstops").and_then(Value::as_array);
        let stop = stops
            .unwrap_or_default()
            .iter()
            .filter_map(|step| step.field("stop").and_then(Value::as_f64))
            .fold(f64::NEG_INFINITY, f64::max);
        self.records.push_back(Record {
            stop,
            message: message.detached(),
        });
        self.index += 1;
        while self.records.len() > self.length {
            self.records.pop_front();
        }
    }

    /// Tasks recorded so far.
    pub fn index(&mut self) -> u64 {
        self.recording = true;
        self.index
    }

    /// The selected records in the order in which the tasks finished. `now` is Unix time.
    ///
    /// # Errors
    /// `ValueError` if a text is no duration.
    pub fn collect(&mut self, now: f64, selection: &Selection) -> Result<Value, Raised> {
        self.recording = true;
        let length = self.records.len();
        if let Some(first) = selection.start_index {
            let dropped = self.index - length as u64;
            let start = first.saturating_sub(dropped).min(length as u64) as usize;
            return Ok(self.messages(start, length));
        }
        let mut start = self.position(now, &selection.start)?;
        let mut stop = self.position(now, &selection.stop)?;
        if let Some(count) = selection.count {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            match (start, stop) {
                (None, None) => start = Some(length.saturating_sub(count)),
                (None, Some(stop)) => start = Some(stop.saturating_sub(count)),
                (Some(start), None) => stop = Some(start.saturating_add(count)),
                (Some(_), Some(_)) => {}
            }
        }
        Ok(self.messages(start.unwrap_or(0), stop.unwrap_or(length).min(length)))
    }

    /// The first record that ended at or after a time.
    fn position(&self, now: f64, time: &Value) -> Result<Option<usize>, Raised> {
        let time = match time {
            Value::Nil => return Ok(None),
            Value::Str(text) => match Seconds::parse(text) {
                Some(ago) => now - ago,
                None => {
                    let text = format!("{text:?} is no duration such as \"5s\"");
                    return Err(Raised::builtin("ValueError", text));
                }
            },
            other => other.as_f64().ok_or_else(|| {
                Raised::builtin("TypeError", "start and stop are numbers or durations")
            })?,
        };
        Ok(Some(
            self.records.partition_point(|record| record.stop < time),
        ))
    }

    fn messages(&self, start: usize, stop: usize) -> Value {
        Value::Array(
            self.records
                .range(start.min(stop)..stop)
                .map(|record| record.message.clone())
                .collect(),
        )
    }
}
