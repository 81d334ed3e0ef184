//! Queues between clients, of plain values and of futures.

use std::collections::VecDeque;

use oxidask_protocol::wire::Seconds;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;
use rustc_hash::FxHashMap;

use super::item::{Arrival, Item, Strangers};
use super::waiters::{Waiters, Waiting, deadline};
use super::{Output, Raised, View};

/// All queues.
#[derive(Debug)]
pub struct Queues<W> {
    queues: FxHashMap<Key, Queue>,
    /// Futures in a queue, or taken out but not yet confirmed by the client: their number by queue and key.
    /// `queue-<name>` wants exactly these keys.
    held: FxHashMap<(Key, Key), u64>,
    /// Those who wait for an item.
    getters: Waiters<Getter, W>,
    /// Those who wait for room, with their item.
    putters: Waiters<Item, W>,
    /// Those who put a future whose task is not known yet.
    strangers: Strangers<W>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Longest length; 0 for none.
    maxsize: u64,
    /// `Queue` objects of clients.
    references: u64,
    items: VecDeque<Item>,
}

impl Queue {
    fn has_room(&self) -> bool {
        self.maxsize == 0 || (self.items.len() as u64) < self.maxsize
    }
}

#[derive(Debug)]
struct Getter {
    /// Items still to come; `None`: the reply is one item and no list.
    missing: Option<u64>,
    taken: Vec<Item>,
}

impl<W> Default for Queues<W> {
    fn default() -> Self {
        Self {
            queues: FxHashMap::default(),
            held: FxHashMap::default(),
            getters: Waiters::default(),
            putters: Waiters::default(),
            strangers: Strangers::default(),
        }
    }
}

fn pseudo_client(queue: &Key) -> String {
    format!("queue-{queue}")
}

impl<W: PartialEq> Queues<W> {
    /// Makes a queue, or counts one more user of it.
    pub fn create(&mut self, name: Key, maxsize: u64) {
        self.queues
            .entry(name)
            .or_insert(Queue {
                maxsize,
                ..Queue::default()
            })
            .references += 1;
    }

    /// One user less; with the last one the queue goes, with its items.
    pub fn release(&mut self, name: &Key, out: &mut Output<W>) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        queue.references -= 1;
        if queue.references > 0 {
            return;
        }
        let items = self
            .queues
            .remove(name)
            .map_or_else(VecDeque::new, |q| q.items);
        for item in items {
            self.let_go(name, &item, out);
        }
        while let Some(waiting) = self.putters.pop(name) {
            self.let_go(name, &waiting.data, out);
            out.raise(waiting.waiter, deleted(name));
        }
        while let Some(waiting) = self.getters.pop(name) {
            for item in &waiting.data.taken {
                self.let_go(name, item, out);
            }
            out.raise(waiting.waiter, deleted(name));
        }
    }

    /// Appends the result of a task (`key`) or a plain value; waits for the task to be known and for room.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request's fields, and the four that every request has"
    )]
    pub fn put(
        &mut self,
        now: Time,
        name: Key,
        key: Option<Key>,
        data: Value,
        timeout: Seconds,
        waiter: W,
        view: &impl View,
        out: &mut Output<W>,
    ) {
        let item = Item::new(key, &data);
        let arrival = Arrival::new(now, name, item, timeout, waiter);
        if let Some(arrival) = self.strangers.admit(now, arrival, view, out) {
            self.append(now, arrival, view, out);
        }
    }

    /// Takes one item, all that are there (`batch` true), or a number of them.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request's fields, and the four that every request has"
    )]
    pub fn get(
        &mut self,
        now: Time,
        name: Key,
        batch: &Value,
        timeout: Seconds,
        waiter: W,
        view: &impl View,
        out: &mut Output<W>,
    ) {
        let Some(queue) = self.queues.get(&name) else {
            out.raise(waiter, Raised::key_error(name.to_string()));
            return;
        };
        let missing = match batch {
            Value::Bool(true) => Some(queue.items.len() as u64),
            other => other.as_u64().filter(|n| *n > 0),
        };
        if missing.is_some() && *batch != Value::Bool(true) && timeout.0.is_some() {
            out.raise(
                waiter,
                Raised::builtin(
                    "NotImplementedError",
                    "Dask queues don't support simultaneous use of integer batch sizes and timeouts",
                ),
            );
            return;
        }
        if missing == Some(0) {
            out.reply(waiter, Vec::new());
            return;
        }
        self.getters.push(Waiting {
            name: name.clone(),
            data: Getter {
                missing,
                taken: Vec::new(),
            },
            waiter,
            deadline: deadline(now, timeout),
        });
        self.serve(&name, view, out);
        self.expire(now, view, out);
    }

    /// Length of a queue.
    ///
    /// # Errors
    /// `KeyError` if there is none of that name.
    pub fn size(&self, name: &Key) -> Result<usize, Raised> {
        match self.queues.get(name) {
            Some(queue) => Ok(queue.items.len()),
            None => Err(Raised::key_error(name.to_string())),
        }
    }

    /// A client has taken over a future that it got out of a queue.
    pub fn future_received(&mut self, client: &str, name: &Key, key: Key, out: &mut Output<W>) {
        out.desire(client, vec![key.clone()]);
        self.let_go(name, &Item::Future(key), out);
    }

    pub(super) fn awaits_keys(&self) -> bool {
        !self.strangers.is_empty()
    }

    pub(super) fn keys_changed(&mut self, now: Time, view: &impl View, out: &mut Output<W>) {
        for arrival in self.strangers.known(view) {
            self.append(now, arrival, view, out);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        [
            self.getters.next_deadline(),
            self.putters.next_deadline(),
            self.strangers.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn expire(&mut self, now: Time, view: &impl View, out: &mut Output<W>) {
        self.strangers.expire(now, out);
        while let Some(waiting) = self.putters.pop_expired(now) {
            self.let_go(&waiting.name, &waiting.data, out);
            out.raise(waiting.waiter, Raised::timeout(""));
        }
        while let Some(waiting) = self.getters.pop_expired(now) {
            out.raise(waiting.waiter, Raised::timeout(""));
            self.put_back(&waiting.name, waiting.data.taken, view, out);
        }
    }

    pub(super) fn cancel(&mut self, waiter: &W, view: &impl View, out: &mut Output<W>) {
        self.strangers.cancel(waiter);
        while let Some(waiting) = self.putters.take_if(|w| w.waiter == *waiter) {
            self.let_go(&waiting.name, &waiting.data, out);
        }
        while let Some(waiting) = self.getters.take_if(|w| w.waiter == *waiter) {
            self.put_back(&waiting.name, waiting.data.taken, view, out);
        }
    }

    fn append(&mut self, now: Time, arrival: Arrival<W>, view: &impl View, out: &mut Output<W>) {
        let name = arrival.place.clone();
        let Some(queue) = self.queues.get(&name) else {
            out.raise(arrival.waiter, Raised::key_error(name.to_string()));
            return;
        };
        let must_wait = !queue.has_room() || self.putters.len(&name) > 0;
        if must_wait && arrival.is_overdue(now) {
            out.raise(arrival.waiter, Raised::timeout(""));
            return;
        }
        if let Item::Future(key) = &arrival.item {
            *self.held.entry((name.clone(), key.clone())).or_default() += 1;
            out.desire(pseudo_client(&name), vec![key.clone()]);
        }
        self.putters.push(Waiting {
            name: name.clone(),
            data: arrival.item,
            waiter: arrival.waiter,
            deadline: arrival.deadline,
        });
        self.serve(&name, view, out);
    }

    /// Moves items from those who put into the queue, and from the queue to those who get, while that is possible.
    fn serve(&mut self, name: &Key, view: &impl View, out: &mut Output<W>) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        loop {
            if queue.has_room()
                && let Some(waiting) = self.putters.pop(name)
            {
                queue.items.push_back(waiting.data);
                out.reply(waiting.waiter, Value::Nil);
                continue;
            }
            let Some(first) = self.getters.first_mut(name) else {
                return;
            };
            let Some(item) = queue.items.pop_front() else {
                return;
            };
            first.data.taken.push(item);
            let missing = first.data.missing.map_or(0, |n| n.saturating_sub(1));
            if let Some(left) = &mut first.data.missing {
                *left = missing;
            }
            if missing == 0
                && let Some(waiting) = self.getters.pop(name)
            {
                let mut values: Vec<Value> = waiting
                    .data
                    .taken
                    .iter()
                    .map(|item| Value::map(item.fields(view)))
                    .collect();
                match waiting.data.missing {
                    Some(_) => out.reply(waiting.waiter, values),
                    None => out.reply(waiting.waiter, values.pop().unwrap_or_default()),
                }
            }
        }
    }

    /// Items that nobody got after all go back to the front.
    fn put_back(&mut self, name: &Key, taken: Vec<Item>, view: &impl View, out: &mut Output<W>) {
        if taken.is_empty() {
            return;
        }
        if let Some(queue) = self.queues.get_mut(name) {
            for item in taken.into_iter().rev() {
                queue.items.push_front(item);
            }
            self.serve(name, view, out);
        }
    }

    /// An item is no longer the queue's to keep alive.
    fn let_go(&mut self, name: &Key, item: &Item, out: &mut Output<W>) {
        let Item::Future(key) = item else {
            return;
        };
        let place = (name.clone(), key.clone());
        let Some(count) = self.held.get_mut(&place) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.held.remove(&place);
            out.release(pseudo_client(name), vec![key.clone()]);
        }
    }
}

fn deleted(name: &Key) -> Raised {
    Raised::builtin("RuntimeError", format!("Queue `{name}` was deleted."))
}
