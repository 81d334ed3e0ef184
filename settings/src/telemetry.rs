//! Log lines: to standard error, and the latest of them kept for whoever asks.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{Config, Tree};

/// Longest line kept, so that one peer cannot fill the memory through the log. Unit: bytes.
const MAX_LINE: usize = 4096;

/// The latest log lines.
#[derive(Clone, Debug)]
pub struct LogBuffer {
    lines: Arc<Mutex<VecDeque<LogLine>>>,
    length: usize,
}

/// A log line.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// When it was written. Unit: Unix seconds.
    pub time: f64,
    /// `DEBUG`, `INFO`, `WARNING` or `ERROR`, as Python calls them.
    pub level: &'static str,
    /// Where it comes from, what happened, and the fields.
    pub text: String,
}

impl LogBuffer {
    /// A buffer for so many lines.
    pub fn new(length: usize) -> Self {
        Self {
            lines: Arc::default(),
            length,
        }
    }

    /// The latest `n` lines, or all, oldest first.
    pub fn latest(&self, n: Option<usize>) -> Vec<LogLine> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = n.map_or(0, |n| lines.len().saturating_sub(n));
        lines.iter().skip(skipped).cloned().collect()
    }

    fn push(&self, line: LogLine) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        while lines.len() > self.length {
            lines.pop_front();
        }
    }
}

impl<S: Subscriber> Layer<S> for LogBuffer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut text = format!(
            "{} - {level} - {}{}",
            metadata.target(),
            fields.message,
            fields.others
        );
        if text.len() > MAX_LINE {
            let mut end = MAX_LINE;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
        }
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        self.push(LogLine { time, level, text });
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.others, " {name}={value:?}"),
        };
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let _ = write!(self.others, " {}={value}", field.name());
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(self.others, ": {error}");
            cause = error.source();
        }
    }
}

/// The level that the configuration asks for: `logging` or `distributed.logging`, for `distributed` or what is below
/// it. `RUST_LOG` wins.
fn level(config: &Config) -> &'static str {
    let sections = ["distributed.logging", "logging"];
    let level = sections
        .iter()
        .find_map(|section| match config.get(section)? {
            Tree::Map(loggers) => ["distributed.scheduler", "distributed.worker", "distributed"]
                .iter()
                .find_map(|logger| loggers.get(*logger)),
            _ => None,
        });
    match level {
        Some(Tree::Text(level)) => match level.to_lowercase().as_str() {
            "debug" | "notset" => "debug",
            "warning" | "warn" => "warn",
            "error" | "critical" | "fatal" => "error",
            _ => "info",
        },
        // Python's numbers: 10 for debug, 20 for info, 30 for warning, 40 for error.
        Some(Tree::Int(number)) => match number {
            ..=10 => "debug",
            11..=20 => "info",
            21..=30 => "warn",
            _ => "error",
        },
        _ => "info",
    }
}

/// Begins to write log lines: as text, or as JSON if the key `oxidask.log-format` is `json`. The latest `length`
/// lines are kept.
pub fn start(config: &Config, length: usize) -> LogBuffer {
    let buffer = LogBuffer::new(length);
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level(config)));
    let json = config.get("oxidask.log-format") == Some(&Tree::Text("json".to_owned()));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(buffer.clone())
        .try_init();
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_with_pythons_levels() {
        let buffer = LogBuffer::new(2);
        let subscriber = tracing_subscriber::registry().with(buffer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("gone");
            tracing::warn!(worker = "w", "worker left");
            let error = std::io::Error::other("cause");
            tracing::error!(error = &error as &dyn std::error::Error, "failed");
        });
        let lines = buffer.latest(None);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].level, "WARNING");
        assert!(
            lines[0]
                .text
                .ends_with("WARNING - worker left worker=\"w\""),
            "{}",
            lines[0].text
        );
        assert!(
            lines[1].text.ends_with("ERROR - failed error=cause"),
            "{}",
            lines[1].text
        );
        assert_eq!(buffer.latest(Some(1)), lines[1..]);
    }

    #[test]
    fn a_line_of_any_length_is_cut() {
        let buffer = LogBuffer::new(1);
        let subscriber = tracing_subscriber::registry().with(buffer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("{}", "é".repeat(10_000));
        });
        assert!(buffer.latest(None)[0].text.len() <= MAX_LINE);
    }

    #[test]
    fn levels_are_those_of_the_configuration() {
        for (yaml, expected) in [
            ("{}", "info"),
            ("logging: {distributed: debug}", "debug"),
            (
                "distributed: {logging: {distributed.scheduler: warning, distributed: debug}}",
                "warn",
            ),
            ("logging: {distributed: 40}", "error"),
            ("logging: {bokeh: debug}", "info"),
        ] {
            let config = Config::from(Tree::parse_yaml(yaml).unwrap());
            assert_eq!(level(&config), expected, "{yaml}");
        }
    }
}
