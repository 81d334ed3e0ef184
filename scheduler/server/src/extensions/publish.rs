//! Data sets that clients publish under names.

use std::time::Duration;

use indexmap::IndexMap;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;
use rustc_hash::FxHashSet;

use super::waiters::{Waiters, Waiting};
use super::{Output, Raised, View};

/// How often it is looked whether the client of a waiting call is still there.
const CHECK_CLIENT: Duration = Duration::from_secs(30);

/// Flush markers kept for calls that have not come yet; the oldest are dropped first.
const MAX_MARKERS: usize = 10_000;

/// All published data sets.
#[derive(Debug)]
pub struct Datasets<W> {
    datasets: IndexMap<Key, Dataset>,
    /// Markers that came in on a client's stream before the call that waits for them: marker → client.
    markers: IndexMap<String, String>,
    /// Calls that came before their marker, by the marker.
    waiters: Waiters<Pending, W>,
}

#[derive(Debug)]
struct Dataset {
    data: Value,
    keys: Vec<Key>,
}

/// A data set to store.
#[derive(Debug)]
pub struct NewDataset {
    /// Its name.
    pub name: Key,
    /// The pickled collection.
    pub data: Value,
    /// Keys that it is made of.
    pub keys: Vec<Key>,
}

/// What is done once the client's stream has caught up.
#[derive(Debug)]
pub enum Call {
    /// Store data sets.
    Put {
        /// The data sets.
        datasets: Vec<NewDataset>,
        /// Replace those of the same name.
        replace: bool,
    },
    /// Remove data sets; unknown names are passed over.
    Delete {
        /// Their names.
        names: Vec<Key>,
    },
    /// Nothing.
    Flush,
}

#[derive(Debug)]
struct Pending {
    call: Call,
    client: Option<String>,
}

impl<W> Default for Datasets<W> {
    fn default() -> Self {
        Self {
            datasets: IndexMap::new(),
            markers: IndexMap::new(),
            waiters: Waiters::default(),
        }
    }
}

fn pseudo_client(name: &Key) -> String {
    format!("published-{name}")
}

impl<W: PartialEq> Datasets<W> {
    /// Carries out a call once `marker` has come in on the client's stream, so that the graph updates and releases
    /// that the client sent before are done. Without a marker it is carried out at once.
    pub fn call(
        &mut self,
        now: Time,
        call: Call,
        client: Option<String>,
        marker: Option<String>,
        waiter: W,
        out: &mut Output<W>,
    ) {
        let Some(marker) = marker else {
            self.carry_out(call, waiter, out);
            return;
        };
        if self.markers.shift_remove(&marker).is_some() {
            self.carry_out(call, waiter, out);
            return;
        }
        let deadline = client.is_some().then_some(now + CHECK_CLIENT);
        self.waiters.push(Waiting {
            name: Key::from(marker),
            data: Pending { call, client },
            waiter,
            deadline,
        });
    }

    /// A marker came in on a client's stream.
    pub fn flushed(&mut self, client: &str, marker: &str, out: &mut Output<W>) {
        if let Some(waiting) = self.waiters.pop(&Key::from(marker)) {
            self.carry_out(waiting.data.call, waiting.waiter, out);
            return;
        }
        if self.markers.len() >= MAX_MARKERS {
            self.markers.shift_remove_index(0);
        }
        self.markers.insert(marker.to_owned(), client.to_owned());
    }

    /// The names, sorted by their text.
    pub fn names(&self) -> Vec<Key> {
        let mut names: Vec<Key> = self.datasets.keys().cloned().collect();
        names.sort_by_cached_key(ToString::to_string);
        names
    }

    /// A data set: `{"data": …, "keys": […]}`, or nil.
    pub fn get(&self, name: &Key) -> Value {
        self.datasets.get(name).map_or(Value::Nil, |dataset| {
            Value::map([
                ("data", dataset.data.clone()),
                ("keys", Value::array(&dataset.keys)),
            ])
        })
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.waiters.next_deadline()
    }

    pub(super) fn expire(&mut self, now: Time, view: &impl View, out: &mut Output<W>) {
        while let Some(waiting) = self.waiters.pop_expired(now) {
            let connected = waiting
                .data
                .client
                .as_deref()
                .is_some_and(|client| view.is_connected(client));
            if connected {
                self.waiters.push(Waiting {
                    deadline: Some(now + CHECK_CLIENT),
                    ..waiting
                });
            } else {
                out.raise(waiting.waiter, Raised::timeout(""));
            }
        }
    }

    pub(super) fn client_left(&mut self, client: &str, out: &mut Output<W>) {
        self.markers.retain(|_, owner| owner != client);
        while let Some(waiting) = self
            .waiters
            .take_if(|waiting| waiting.data.client.as_deref() == Some(client))
        {
            out.raise(waiting.waiter, Raised::timeout(""));
        }
    }

    pub(super) fn cancel(&mut self, waiter: &W) {
        while self.waiters.take_if(|w| w.waiter == *waiter).is_some() {}
    }

    fn carry_out(&mut self, call: Call, waiter: W, out: &mut Output<W>) {
        let result = match call {
            Call::Put { datasets, replace } => self.put(datasets, replace, out),
            Call::Delete { names } => {
                self.delete(&names, out);
                Ok(())
            }
            Call::Flush => Ok(()),
        };
        match result {
            Ok(()) => out.reply(waiter, Value::Nil),
            Err(raised) => out.raise(waiter, raised),
        }
    }

    fn put(
        &mut self,
        datasets: Vec<NewDataset>,
        replace: bool,
        out: &mut Output<W>,
    ) -> Result<(), Raised> {
        for NewDataset { name, data, keys } in datasets {
            if !replace && self.datasets.contains_key(&name) {
                return Err(Raised::key_error(format!("Dataset {name} already exists")));
            }
            // Interest in the new keys begins before that in the old ones ends, as both may be the same keys.
            out.desire(pseudo_client(&name), keys.clone());
            let dataset = Dataset { data, keys };
            if let Some(old) = self.datasets.insert(name.clone(), dataset) {
                let kept: FxHashSet<&Key> = self.datasets[&name].keys.iter().collect();
                let mut gone = old.keys;
                gone.retain(|key| !kept.contains(key));
                out.release(pseudo_client(&name), gone);
            }
        }
        Ok(())
    }

    fn delete(&mut self, names: &[Key], out: &mut Output<W>) {
        for name in names {
            if let Some(dataset) = self.datasets.shift_remove(name) {
                out.release(pseudo_client(name), dataset.keys);
            }
        }
    }
}
