//! What the stock operator's framework left on objects, and its removal.
//!
//! Its finalizer would keep objects from ever being deleted once that operator
//! is gone; its annotations are of no use to anybody. Nothing else of an
//! object is touched, so no pod restarts.

use kube::Client;
use kube::api::ObjectMeta;
use serde_json::{Value, json};
use tracing::info;

use crate::api::{self, Object};
use crate::error::Error;
use crate::labels::{KOPF_FINALIZER, KOPF_PREFIX};

/// Whether the framework left something on an object.
pub(crate) fn is_marked(meta: &ObjectMeta) -> bool {
    let finalizer = meta
        .finalizers
        .iter()
        .flatten()
        .any(|name| name == KOPF_FINALIZER);
    finalizer
        || meta
            .annotations
            .iter()
            .flatten()
            .any(|(name, _)| name.starts_with(KOPF_PREFIX))
}

/// The patch that takes the marks off, with the version that it holds for.
fn patch(meta: &ObjectMeta) -> Value {
    let annotations: serde_json::Map<String, Value> = meta
        .annotations
        .iter()
        .flatten()
        .filter(|(name, _)| name.starts_with(KOPF_PREFIX))
        .map(|(name, _)| (name.clone(), Value::Null))
        .collect();
    let finalizers: Vec<&String> = meta
        .finalizers
        .iter()
        .flatten()
        .filter(|name| *name != KOPF_FINALIZER)
        .collect();
    let mut metadata = json!({
        "resourceVersion": meta.resource_version,
        "finalizers": finalizers,
    });
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(annotations);
    }
    json!({ "metadata": metadata })
}

/// Takes the marks off an object, if it has any. Gives whether it had.
pub(crate) async fn unmark<K: Object>(client: &Client, seen: &K) -> Result<bool, Error> {
    if !is_marked(seen.meta()) {
        return Ok(false);
    }
    let meta = seen.meta();
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    // Afresh, because the patch is for one version of the object only.
    let Some(current) = api::get::<K>(client, &namespace, &name).await? else {
        return Ok(true);
    };
    if is_marked(current.meta()) {
        api::merge::<K>(client, &namespace, &name, &patch(current.meta())).await?;
        info!(kind = %K::kind(&()), namespace, name, "took the marks of the stock operator off");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marks_go() {
        let meta = ObjectMeta {
            finalizers: Some(vec!["mine".to_owned(), KOPF_FINALIZER.to_owned()]),
            annotations: Some(
                [
                    ("a", "1"),
                    ("kopf.zalando.org/last-handled-configuration", "{}"),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ),
            resource_version: Some("7".to_owned()),
            ..ObjectMeta::default()
        };
        assert!(is_marked(&meta));
        assert_eq!(
            patch(&meta),
            json!({"metadata": {
                "resourceVersion": "7",
                "finalizers": ["mine"],
                "annotations": {"kopf.zalando.org/last-handled-configuration": null},
            }})
        );
    }
}
