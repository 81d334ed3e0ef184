//! Variables shared by clients, holding a plain value or a future.

use indexmap::IndexMap;
use oxidask_protocol::wire::Seconds;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;
use rustc_hash::{FxHashMap, FxHashSet};

use super::item::{Arrival, Item, Strangers};
use super::waiters::{Waiters, Waiting, deadline};
use super::{Output, Raised, View};

/// All variables.
#[derive(Debug)]
pub struct Variables<W> {
    values: FxHashMap<Key, Item>,
    /// Futures given to clients that have not yet said that they want the key themselves, by variable and key.
    /// No entry is empty.
    handed_out: IndexMap<(Key, Key), Vec<HandedOut>>,
    /// Futures that were replaced while they were handed out; always a key of `handed_out`.
    replaced: FxHashSet<(Key, Key)>,
    /// Those who wait for a variable to be set, with their client.
    getters: Waiters<Option<String>, W>,
    /// Those who set a future whose task is not known yet.
    strangers: Strangers<W>,
    tokens: u64,
}

#[derive(Debug)]
struct HandedOut {
    token: String,
    client: Option<String>,
}

impl<W> Default for Variables<W> {
    fn default() -> Self {
        Self {
            values: FxHashMap::default(),
            handed_out: IndexMap::new(),
            replaced: FxHashSet::default(),
            getters: Waiters::default(),
            strangers: Strangers::default(),
            tokens: 0,
        }
    }
}

fn pseudo_client(variable: &Key) -> String {
    format!("variable-{variable}")
}

impl<W: PartialEq> Variables<W> {
    /// Sets a variable to the result of a task (`key`) or a plain value; waits for the task to be known.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request's fields, and the four that every request has"
    )]
    pub fn set(
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
            self.store(arrival.place, arrival.item, view, out);
            out.reply(arrival.waiter, Value::Nil);
        }
    }

    /// Reads a variable; waits until it is set.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request's fields, and the four that every request has"
    )]
    pub fn get(
        &mut self,
        now: Time,
        name: Key,
        client: Option<String>,
        timeout: Seconds,
        waiter: W,
        view: &impl View,
        out: &mut Output<W>,
    ) {
        if self.values.contains_key(&name) {
            let reply = self.read(&name, client, view);
            out.reply(waiter, reply);
            return;
        }
        let deadline = deadline(now, timeout);
        if deadline.is_some_and(|at| at <= now) {
            out.raise(waiter, Raised::timeout(""));
            return;
        }
        self.getters.push(Waiting {
            name,
            data: client,
            waiter,
            deadline,
        });
    }

    /// Deletes a variable. Futures on their way to a client stay alive until it has taken them over.
    pub fn delete(&mut self, name: &Key, out: &mut Output<W>) {
        if let Some(Item::Future(key)) = self.values.remove(name) {
            let place = (name.clone(), key);
            if self.handed_out.contains_key(&place) {
                self.replaced.insert(place);
            } else {
                out.release(pseudo_client(name), vec![place.1]);
            }
        }
        self.drop_pseudo_client(name, out);
    }

    /// A client has taken over a future that it read.
    pub fn future_received(
        &mut self,
        client: &str,
        name: &Key,
        key: Key,
        token: &str,
        out: &mut Output<W>,
    ) {
        out.desire(client, vec![key.clone()]);
        let place = (name.clone(), key);
        if let Some(list) = self.handed_out.get_mut(&place) {
            list.retain(|handed| handed.token != token);
            if list.is_empty() {
                self.all_received(&place, out);
            }
        }
    }

    pub(super) fn client_left(&mut self, client: &str, out: &mut Output<W>) {
        for list in self.handed_out.values_mut() {
            list.retain(|handed| handed.client.as_deref() != Some(client));
        }
        let received: Vec<_> = self
            .handed_out
            .iter()
            .filter(|(_, list)| list.is_empty())
            .map(|(place, _)| place.clone())
            .collect();
        for place in received {
            self.all_received(&place, out);
        }
    }

    pub(super) fn awaits_keys(&self) -> bool {
        !self.strangers.is_empty()
    }

    pub(super) fn keys_changed(&mut self, view: &impl View, out: &mut Output<W>) {
        for arrival in self.strangers.known(view) {
            self.store(arrival.place, arrival.item, view, out);
            out.reply(arrival.waiter, Value::Nil);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        [self.getters.next_deadline(), self.strangers.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn expire(&mut self, now: Time, out: &mut Output<W>) {
        self.strangers.expire(now, out);
        while let Some(waiting) = self.getters.pop_expired(now) {
            out.raise(waiting.waiter, Raised::timeout(""));
        }
    }

    pub(super) fn cancel(&mut self, waiter: &W) {
        while self.getters.take_if(|w| w.waiter == *waiter).is_some() {}
        self.strangers.cancel(waiter);
    }

    fn store(&mut self, name: Key, item: Item, view: &impl View, out: &mut Output<W>) {
        if let Item::Future(key) = &item {
            out.desire(pseudo_client(&name), vec![key.clone()]);
            self.replaced.remove(&(name.clone(), key.clone()));
        }
        let old = self.values.insert(name.clone(), item.clone());
        if let Some(Item::Future(key)) = old
            && item != Item::Future(key.clone())
        {
            let place = (name.clone(), key);
            if self.handed_out.contains_key(&place) {
                self.replaced.insert(place);
            } else {
                out.release(pseudo_client(&name), vec![place.1]);
            }
        }
        while let Some(waiting) = self.getters.pop(&name) {
            let reply = self.read(&name, waiting.data, view);
            out.reply(waiting.waiter, reply);
        }
    }

    /// The reply to a reader. A future comes with a token that the client confirms once it wants the key itself.
    fn read(&mut self, name: &Key, client: Option<String>, view: &impl View) -> Value {
        let Some(item) = self.values.get(name) else {
            return Value::Nil;
        };
        let mut fields = item.fields(view);
        if let Item::Future(key) = item {
            self.tokens += 1;
            let token = format!("{:032x}", self.tokens);
            fields.push(("token", token.clone().into()));
            self.handed_out
                .entry((name.clone(), key.clone()))
                .or_default()
                .push(HandedOut { token, client });
        }
        Value::map(fields)
    }

    fn all_received(&mut self, place: &(Key, Key), out: &mut Output<W>) {
        self.handed_out.shift_remove(place);
        if self.replaced.remove(place) {
            out.release(pseudo_client(&place.0), vec![place.1.clone()]);
            if !self.values.contains_key(&place.0) {
                self.drop_pseudo_client(&place.0, out);
            }
        }
    }

    fn drop_pseudo_client(&self, name: &Key, out: &mut Output<W>) {
        if !self.replaced.iter().any(|(variable, _)| variable == name) {
            out.effects.push(super::Effect::RemoveClient {
                client: pseudo_client(name),
            });
        }
    }
}
