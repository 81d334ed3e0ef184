//! Dask's scheduler as a state machine.
//!
//! [`Core::handle`] takes what happened, [`Core::poll_action`] gives what to do about it. The core owns no clock,
//! socket, thread or random source; equal sequences of events give equal sequences of actions.

pub mod action;
pub mod config;
pub mod event;
mod ids;
mod time;
pub mod view;

pub use action::Action;
pub use config::Config;
pub use event::Event;
pub use ids::{ClientId, RequestId, WorkerId};
pub use time::Time;

/// Decides what runs where.
///
/// Call [`handle`](Self::handle) with each event in order, then drain [`poll_action`](Self::poll_action), then sleep
/// until [`next_deadline`](Self::next_deadline) and report it with [`Event::Tick`]. `now` must not go backwards.
#[derive(Debug)]
pub struct Core {
    config: Config,
    actions: std::collections::VecDeque<Action>,
}

impl Core {
    /// A scheduler without workers, clients and tasks.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            actions: std::collections::VecDeque::new(),
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Time, event: Event) {
        let _ = (now, event, &self.config);
    }

    /// The next thing to do, in the order in which it must be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// Whether [`Action::Transitioned`] is wanted (progress bars and scheduler plugins ask for it).
    pub fn observe_transitions(&mut self, on: bool) {
        let _ = on;
    }
}
