//! Bad news for a client whose graphs are still being opened.
//!
//! A graph takes as long as Python takes to open it, and a worker may die meanwhile. The client then hears that data
//! are lost, and would take what it has just asked for as still to come, which depends on them. Stock handles one after
//! the other. So losses, and whatever is to be told after them, wait until the graphs are in that the client sent
//! before.

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::Report;

/// What a client is told about keys.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What became of one key.
    Report(Report),
    /// Keys were cancelled.
    Cancelled {
        /// Which.
        keys: Vec<Key>,
        /// Why, in a word.
        reason: Option<String>,
        /// Why, for people.
        message: Option<String>,
    },
}

/// Reports for one client that wait.
#[derive(Debug, Default)]
pub struct Held {
    /// Graphs of its that are being opened.
    opening: usize,
    reports: Vec<Told>,
}

impl Held {
    /// A graph came.
    pub fn graph_came(&mut self) {
        self.opening += 1;
    }

    /// A graph was taken in, or failed. Gives what may be told now, in order.
    pub fn graph_opened(&mut self) -> Vec<Told> {
        self.opening = self.opening.saturating_sub(1);
        if self.opening == 0 {
            std::mem::take(&mut self.reports)
        } else {
            Vec::new()
        }
    }

    /// Keeps a report that is to wait. Gives any other back.
    pub fn keep(&mut self, report: Told) -> Option<Told> {
        let waits = self.opening > 0 && (!self.reports.is_empty() || is_loss(&report));
        if waits {
            self.reports.push(report);
            return None;
        }
        Some(report)
    }

    /// Everything is forgotten, so nothing of it need be told.
    pub fn clear(&mut self) {
        self.reports.clear();
    }
}

fn is_loss(told: &Told) -> bool {
    matches!(
        told,
        Told::Cancelled { .. } | Told::Report(Report::LostData { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(key: &str) -> Told {
        let key = Key::from(key);
        Told::Report(Report::LostData { key })
    }

    fn in_memory(key: &str) -> Told {
        let key = Key::from(key);
        Told::Report(Report::InMemory { key, type_: None })
    }

    #[test]
    fn without_graphs_everything_is_told_at_once() {
        assert!(Held::default().keep(lost("x")).is_some());
    }

    #[test]
    fn losses_and_what_follows_them_wait_for_all_graphs_in_order() {
        let mut held = Held::default();
        held.graph_came();
        held.graph_came();
        assert!(held.keep(in_memory("a")).is_some());
        assert!(held.keep(lost("x")).is_none());
        assert!(held.keep(in_memory("x")).is_none());
        assert!(held.graph_opened().is_empty());
        assert_eq!(held.graph_opened(), [lost("x"), in_memory("x")]);
        assert!(held.keep(lost("y")).is_some());
    }
}
