//! What a load was borne with, for people.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cluster::Sizes;

/// Longest wait of an uninvolved client, of 99 in a hundred.
const WAIT: Duration = Duration::from_millis(20);

/// Memory after a load over that before, at most.
const RETURNED: f64 = 1.2;

/// What was measured.
pub(crate) struct Figures {
    pub(crate) amount: u64,
    pub(crate) unit: &'static str,
    pub(crate) took: Duration,
    /// Of the uninvolved client, the shortest first.
    pub(crate) waits: Vec<Duration>,
    /// Of the scheduler alone. Unit: seconds.
    pub(crate) cpu: f64,
    /// Of its helpers. Unit: seconds.
    pub(crate) cpu_below: f64,
    /// Memory of the scheduler. Unit: bytes.
    pub(crate) before: u64,
    pub(crate) peak: u64,
    pub(crate) after: u64,
}

/// One load on one side.
pub(crate) struct Row {
    pub(crate) load: String,
    pub(crate) side: String,
    /// Or why there are none.
    pub(crate) outcome: Result<Figures, String>,
}

impl Figures {
    fn wait(&self, share: f64) -> Duration {
        let place = (self.waits.len() as f64 * share) as usize;
        let last = self.waits.len().saturating_sub(1);
        self.waits.get(place.min(last)).copied().unwrap_or_default()
    }

    fn verdict(&self) -> &'static str {
        let waits = self.wait(0.99) <= WAIT;
        let returned = self.after as f64 <= self.before as f64 * RETURNED;
        match (waits, returned) {
            (true, true) => "reached",
            (false, true) => "waits missed",
            (true, false) => "memory missed",
            (false, false) => "both missed",
        }
    }

    fn cells(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let ms = |wait: Duration| wait.as_secs_f64() * 1e3;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        format!(
            "{:.2} | {:.0} {}/s | {:.1} / {:.1} / {:.0} | {:.2} + {:.2} | {:.0} / {:.0} / {:.0} | {}",
            seconds,
            self.amount as f64 / seconds,
            self.unit,
            ms(self.wait(0.5)),
            ms(self.wait(0.99)),
            ms(self.wait(1.0)),
            self.cpu,
            self.cpu_below,
            mb(self.before),
            mb(self.peak),
            mb(self.after),
            self.verdict(),
        )
    }
}

impl Row {
    /// The row as one line of a table.
    pub(crate) fn line(&self) -> String {
        let cells = match &self.outcome {
            Ok(figures) => figures.cells(),
            Err(error) => format!("– | – | – | – | – | failed: {error}"),
        };
        format!("| {} | {} | {cells} |", self.load, self.side)
    }
}

/// All rows as a page.
pub(crate) fn page(rows: &[Row], sizes: &Sizes, limit: u64) -> String {
    let mut page = format!(
        "# A scheduler under load

    cargo xtask soak load

One scheduler, {} workers and {} clients, each with its own connections; they are fakes in one process that speak the
real protocol and send the graphs that a stock client has sent (`benches/src/load`). Each load meets a fresh scheduler.
A load is given up after {limit} s. Every result is counted: a task that errs, is lost, is cancelled or does not come
fails the load.

* *waits*: of a client that is no part of the load and asks for the state of a key every 5 ms: from its question to the
  answer (median / 99 of 100 / longest). That holds more than the scheduler's own time: the fakes share the machine.
* *CPU*: of the scheduler, and of its Python helpers.
* *memory* of the scheduler process: before / at its peak / after, when all was released. To reach: p99 of the waits ≤
  20 ms; memory after ≤ 1.2 × before.

",
        sizes.workers, sizes.clients
    );
    page.push_str("| load | scheduler | seconds | rate | waits, ms | CPU, s | memory, MB | |\n");
    page.push_str("|---|---|---:|---:|---:|---:|---:|---|\n");
    for row in rows {
        let _ = writeln!(page, "{}", row.line());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(waits: &[u64], after: u64) -> Figures {
        Figures {
            amount: 100,
            unit: "tasks",
            took: Duration::from_secs(2),
            waits: waits.iter().copied().map(Duration::from_millis).collect(),
            cpu: 1.0,
            cpu_below: 0.5,
            before: 10_000_000,
            peak: 50_000_000,
            after,
        }
    }

    #[test]
    fn verdict_names_what_is_missed() {
        let mut waits = vec![1; 200];
        assert_eq!(figures(&waits, 12_000_000).verdict(), "reached");
        assert_eq!(figures(&waits, 12_100_000).verdict(), "memory missed");
        waits[190..].fill(21);
        assert_eq!(figures(&waits, 1).verdict(), "waits missed");
        waits[190..199].fill(1);
        assert_eq!(
            figures(&waits, 1).verdict(),
            "reached",
            "one of 200 may wait"
        );
    }
}
