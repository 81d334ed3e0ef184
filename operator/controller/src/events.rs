//! Kubernetes Events about our resources, and the matching log lines.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::{info, warn};

/// From which level on log lines become Events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All of them.
    Normal,
    /// Warnings only.
    Warning,
    /// None.
    Off,
}

/// Writes Events. A refused Event is logged and otherwise ignored: an operator
/// without that permission still works.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    level: Level,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// Writes through `client`, as the operator process `instance`.
    pub fn new(client: Client, instance: Option<String>, level: Level) -> Self {
        let reporter = Reporter {
            controller: "oxidask-operator".to_owned(),
            instance,
        };
        Self {
            recorder: Recorder::new(client, reporter),
            level,
        }
    }

    /// Something went as wanted.
    pub(crate) async fn normal<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        note: String,
    ) {
        let reference = about.object_ref(&());
        info!(kind = %K::kind(&()), namespace = reference.namespace, name = reference.name, reason, "{note}");
        self.publish(Level::Normal, reference, reason, note).await;
    }

    /// Somebody may have to do something.
    pub(crate) async fn warning<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        reason: &str,
        note: String,
    ) {
        let reference = about.object_ref(&());
        warn!(kind = %K::kind(&()), namespace = reference.namespace, name = reference.name, reason, "{note}");
        self.publish(Level::Warning, reference, reason, note).await;
    }

    async fn publish(&self, level: Level, about: ObjectReference, reason: &str, mut note: String) {
        if level < self.level {
            return;
        }
        // The API server takes at most a kilobyte.
        if let Some((end, _)) = note.char_indices().nth(900) {
            note.truncate(end);
            note.push('…');
        }
        let event = Event {
            type_: match level {
                Level::Normal => EventType::Normal,
                Level::Warning | Level::Off => EventType::Warning,
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &about).await {
            warn!(%error, reason, "an Event could not be written");
        }
    }
}
