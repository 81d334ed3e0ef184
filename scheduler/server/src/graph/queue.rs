//! Requests that wait, by client, and who serves whom.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{GraphEvent, MaterialiseRequest};

/// A request and where its answer goes.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) request: MaterialiseRequest,
    pub(super) events: mpsc::UnboundedSender<GraphEvent>,
    /// A helper died or hung while this request was among those sent to it, so it is now sent by itself: if it
    /// happens again, it is to blame.
    pub(super) suspect: bool,
}

/// All requests that no helper has taken.
///
/// A client is in exactly one of these: unknown (it has nothing to do), `ready` (it waits for a helper), leased
/// (one helper serves it). So the requests of one client never overtake each other.
#[derive(Debug, Default)]
pub(super) struct Queues {
    clients: HashMap<Arc<str>, Client>,
    /// Clients that wait, the longest first.
    ready: VecDeque<Arc<str>>,
}

#[derive(Debug, Default)]
struct Client {
    requests: VecDeque<Pending>,
    leased: bool,
    /// Since when it has been in `ready`.
    waits_since: Option<Instant>,
}

impl Queues {
    /// Adds a request. True if the client now waits for a helper, false if one that serves it will find it.
    pub(super) fn push(&mut self, client: &str, pending: Pending) -> bool {
        let name: Arc<str> = match self.clients.get_key_value(client) {
            Some((name, _)) => Arc::clone(name),
            None => client.into(),
        };
        let entry = self.clients.entry(Arc::clone(&name)).or_default();
        entry.requests.push_back(pending);
        if entry.leased {
            return false;
        }
        if entry.waits_since.is_none() {
            entry.waits_since = Some(Instant::now());
            self.ready.push_back(name);
        }
        true
    }

    /// The client that has waited longest; it is leased until [`release`](Self::release).
    pub(super) fn lease(&mut self) -> Option<Arc<str>> {
        let name = self.ready.pop_front()?;
        let client = self.clients.get_mut(&name)?;
        client.leased = true;
        client.waits_since = None;
        Some(name)
    }

    /// The next request of a leased client.
    pub(super) fn pop(&mut self, client: &str) -> Option<Pending> {
        self.clients.get_mut(client)?.requests.pop_front()
    }

    /// The next request of a leased client, if there is one, without taking it.
    pub(super) fn peek(&self, client: &str) -> Option<&Pending> {
        self.clients.get(client)?.requests.front()
    }

    /// Puts requests of a leased client back, to be served first and in this order.
    pub(super) fn put_back(
        &mut self,
        client: &str,
        requests: impl DoubleEndedIterator<Item = Pending>,
    ) {
        if let Some(client) = self.clients.get_mut(client) {
            requests
                .rev()
                .for_each(|request| client.requests.push_front(request));
        }
    }

    /// Ends a lease. True if the client has more to do and waits again.
    pub(super) fn release(&mut self, name: &Arc<str>) -> bool {
        let Some(client) = self.clients.get_mut(name) else {
            return false;
        };
        client.leased = false;
        if client.requests.is_empty() {
            self.clients.remove(name);
            return false;
        }
        client.waits_since = Some(Instant::now());
        self.ready.push_back(Arc::clone(name));
        true
    }

    /// Since when the client at the front has waited.
    pub(super) fn oldest_wait(&self) -> Option<Instant> {
        self.clients.get(self.ready.front()?)?.waits_since
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use oxidask_protocol::{Key, Payload};

    use super::*;

    fn pending(name: &str) -> Pending {
        let request = MaterialiseRequest {
            expr: Payload::serialized(Bytes::new(), Vec::new()),
            wanted: vec![Key::from(name)],
            internal_priority: None,
            annotations: None,
        };
        Pending {
            request,
            events: mpsc::unbounded_channel().0,
            suspect: false,
        }
    }

    fn popped(queues: &mut Queues, client: &str) -> Option<String> {
        queues
            .pop(client)
            .map(|pending| pending.request.wanted[0].to_string())
    }

    #[test]
    fn one_client_is_leased_once_and_keeps_its_order() {
        let mut queues = Queues::default();
        assert!(queues.push("a", pending("1")));
        assert!(queues.push("a", pending("2")));
        let lease = queues.lease().unwrap();
        assert!(queues.lease().is_none());
        assert!(!queues.push("a", pending("3")));
        for expected in ["1", "2", "3"] {
            assert_eq!(popped(&mut queues, "a").as_deref(), Some(expected));
        }
        assert!(!queues.release(&lease));
        assert!(queues.oldest_wait().is_none());
    }

    #[test]
    fn clients_take_turns() {
        let mut queues = Queues::default();
        queues.push("a", pending("1"));
        queues.push("b", pending("2"));
        queues.push("a", pending("3"));
        let a = queues.lease().unwrap();
        popped(&mut queues, "a");
        assert!(queues.release(&a), "a has another request");
        assert_eq!(queues.lease().as_deref(), Some("b"));
        assert_eq!(queues.lease().as_deref(), Some("a"));
    }

    #[test]
    fn requests_that_are_put_back_come_first() {
        let mut queues = Queues::default();
        queues.push("a", pending("3"));
        queues.lease().unwrap();
        queues.put_back("a", vec![pending("1"), pending("2")].into_iter());
        for expected in ["1", "2", "3"] {
            assert_eq!(popped(&mut queues, "a").as_deref(), Some(expected));
        }
    }
}
