//! Watches: from the API server into a [`Store`], and from there to keys.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::Resource;
use kube::core::{DeserializeGuard, NamespaceResourceScope, ObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::namespaces::Namespaces;
use crate::store::{Id, Store, id};

/// How long one watch request lasts; the next goes on where it ended. A watch
/// that says nothing for longer than this and a margin is started anew, so it
/// is also how long a connection that died silently can go unnoticed.
const WATCH_SECONDS: u32 = 90;

/// What is watched of one kind.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// One namespace; all if `None`.
    pub namespace: Option<String>,
    /// A label selector; everything if `None`.
    pub labels: Option<String>,
    /// Objects of other namespaces are passed over.
    pub within: Arc<Namespaces>,
}

impl Selection {
    fn takes(&self, meta: &ObjectMeta) -> bool {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        self.within.contains(namespace)
    }
}

/// Keeps a store up to date for ever.
///
/// `changed` is called with each object that came, changed or went, after the
/// store has it (or no longer has it). `listed` is called once, after the first
/// complete list.
///
/// `decode` turns what came over the wire into the object, or into nothing if
/// it cannot be read: see [`guarded`] and [`plain`].
pub async fn watch<W, K>(
    client: Client,
    selection: Selection,
    store: Arc<Store<K>>,
    metrics: Metrics,
    decode: fn(W) -> Option<K>,
    changed: impl Fn(&K),
    listed: impl FnOnce(),
) where
    W: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
    K: Resource<DynamicType = ()> + PartialEq,
{
    let api: Api<W> = match &selection.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    if let Some(labels) = &selection.labels {
        config = config.labels(labels);
    }
    let events = watcher(api, config).backoff(Backoff::default());
    follow(
        events, &selection, &store, &metrics, decode, changed, listed,
    )
    .await;
}

/// For our own kinds: an object that cannot be decoded is left out with a
/// warning, and does not keep the others from being seen.
pub fn guarded<K: Resource<DynamicType = ()>>(wire: DeserializeGuard<K>) -> Option<K> {
    let name = wire.meta().name.clone().unwrap_or_default();
    match wire.0 {
        Ok(object) => plain(object),
        Err(error) => {
            let kind = K::kind(&()).into_owned();
            warn!(
                kind,
                name,
                error = error.error,
                "an object cannot be read and is left alone"
            );
            None
        }
    }
}

/// For the views, which can be decoded from anything that the API server sends.
pub fn plain<K: Resource>(mut object: K) -> Option<K> {
    strip(object.meta_mut());
    Some(object)
}

async fn follow<W: Resource<DynamicType = ()>, K>(
    events: impl Stream<Item = watcher::Result<Event<W>>>,
    selection: &Selection,
    store: &Store<K>,
    metrics: &Metrics,
    decode: fn(W) -> Option<K>,
    changed: impl Fn(&K),
    listed: impl FnOnce(),
) where
    K: Resource<DynamicType = ()> + PartialEq,
{
    let kind = K::kind(&()).into_owned();
    let mut listed = Some(listed);
    let mut list: BTreeSet<Id> = BTreeSet::new();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => list.clear(),
            Ok(Event::InitApply(wire)) if selection.takes(wire.meta()) => {
                if let Some(object) = decode(wire) {
                    list.insert(id(&object));
                    put(store, object, &changed);
                }
            }
            Ok(Event::InitDone) => {
                for gone in store.retain(selection.namespace.as_deref(), &list) {
                    changed(&gone);
                }
                list.clear();
                if let Some(listed) = listed.take() {
                    listed();
                }
            }
            Ok(Event::Apply(wire)) if selection.takes(wire.meta()) => {
                if let Some(object) = decode(wire) {
                    put(store, object, &changed);
                }
            }
            Ok(Event::Delete(wire)) => {
                let id = id(&wire);
                if let Some(gone) = store.remove(&id) {
                    changed(&gone);
                }
            }
            Ok(Event::InitApply(_) | Event::Apply(_)) => continue,
            Err(error) => {
                metrics.watch_failed(&kind);
                warn!(kind, %error, "a watch failed and starts again");
                continue;
            }
        }
        metrics.watch_event(&kind);
    }
}

fn put<K: Resource + PartialEq>(store: &Store<K>, object: K, changed: &impl Fn(&K)) {
    let object = Arc::new(object);
    let old = store.insert(Arc::clone(&object));
    if old.is_none_or(|old| *old != *object) {
        changed(&object);
    }
}

/// Takes out what nobody here reads, and what would keep equal objects from
/// being equal.
fn strip(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.resource_version = None;
    if let Some(annotations) = &mut meta.annotations {
        for large in [
            "kubectl.kubernetes.io/last-applied-configuration",
            "kopf.zalando.org/last-handled-configuration",
        ] {
            if let Some(value) = annotations.get_mut(large) {
                value.clear();
            }
        }
    }
}

/// Waits between failures of a watch: 0.2 s, doubled up to 10 s, the first one
/// again after an event came through.
#[derive(Clone, Debug)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LAST: Duration = Duration::from_secs(10);
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FIRST }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next;
        self.next = (self.next * 2).min(Self::LAST);
        debug!(?wait, "waiting before the watch starts again");
        Some(wait)
    }
}

impl kube::runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;
    use crate::views::DeploymentView;

    fn guard(name: &str, replicas: serde_json::Value) -> DeserializeGuard<DeploymentView> {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "managedFields": []},
            "spec": {"replicas": replicas},
        }))
        .unwrap()
    }

    async fn run(
        events: Vec<Event<DeserializeGuard<DeploymentView>>>,
    ) -> (Vec<String>, Vec<String>) {
        let store = Store::new(|_| None);
        let changed = RefCell::new(Vec::new());
        follow(
            futures::stream::iter(events.into_iter().map(Ok)),
            &Selection::default(),
            &store,
            &Metrics::new(),
            guarded,
            |object: &DeploymentView| changed.borrow_mut().push(object.name_any()),
            || changed.borrow_mut().push("listed".to_owned()),
        )
        .await;
        let left = store.all().iter().map(|object| object.name_any()).collect();
        (changed.into_inner(), left)
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_decoded_does_not_hide_the_others() {
        let (changed, left) = run(vec![
            Event::Init,
            Event::InitApply(guard("bad", json!("many"))),
            Event::InitApply(guard("good", json!(1))),
            Event::InitDone,
        ])
        .await;
        assert_eq!(
            (changed, left),
            (
                vec!["good".to_owned(), "listed".to_owned()],
                vec!["good".to_owned()]
            )
        );
    }

    #[tokio::test]
    async fn what_went_during_a_pause_of_the_watch_is_noticed() {
        let (changed, left) = run(vec![
            Event::Init,
            Event::InitApply(guard("a", json!(1))),
            Event::InitApply(guard("b", json!(1))),
            Event::InitDone,
            Event::Init,
            Event::InitApply(guard("b", json!(1))),
            Event::InitDone,
        ])
        .await;
        assert_eq!(changed, ["a", "b", "listed", "a"]);
        assert_eq!(left, ["b"]);
    }
}
