//! NetworkPolicies and PodDisruptionBudgets, kept as they should be without
//! watching them.
//!
//! What was made is recorded on the resource that it was made for, before it
//! is made: so it can be taken away when the field that asked for it goes,
//! whichever process runs then. Each process applies them once, after every
//! change, and every ten minutes against drift.

use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::{self, Object};
use crate::context::Context;
use crate::error::Error;
use crate::labels::GUARDS;
use crate::queue::Key;
use crate::spec_hash::spec_hash;

/// How often objects are applied that should not have changed.
const AGAIN: Duration = Duration::from_secs(600);

/// Makes `wanted` of what belongs to `owner`, and takes away what was made for
/// it and is not wanted any more. Gives when to look again.
pub(crate) async fn keep<K: Object>(
    context: &Context,
    key: &Key,
    owner: &K,
    wanted: Vec<Value>,
) -> Result<Option<Duration>, Error> {
    let recorded = recorded(owner);
    if wanted.is_empty() && recorded.is_empty() {
        return Ok(None);
    }
    let hash = spec_hash(&wanted);
    if let Some(left) = context.memory.guarded(key, &hash, AGAIN) {
        return Ok(Some(left));
    }
    let names: Vec<String> = wanted.iter().map(name_of).collect();
    let mut all = recorded.clone();
    all.extend(
        names
            .iter()
            .filter(|name| !recorded.contains(name))
            .cloned(),
    );
    record(context, owner, &recorded, &all).await?;
    for manifest in &wanted {
        apply(context, &key.namespace, manifest).await?;
    }
    for gone in all.iter().filter(|name| !names.contains(name)) {
        delete(context, &key.namespace, gone).await?;
    }
    record(context, owner, &all, &names).await?;
    context.memory.set_guarded(key, hash);
    Ok((!wanted.is_empty()).then_some(AGAIN))
}

fn name_of(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&manifest["kind"]), text(&manifest["metadata"]["name"]));
    format!("{kind}/{name}")
}

fn recorded<K: Object>(owner: &K) -> Vec<String> {
    let text = owner.annotations().get(GUARDS).map(String::as_str);
    let names = text.unwrap_or_default().split_whitespace();
    names.map(str::to_owned).collect()
}

async fn record<K: Object>(
    context: &Context,
    owner: &K,
    old: &[String],
    new: &[String],
) -> Result<(), Error> {
    if old == new {
        return Ok(());
    }
    let value = if new.is_empty() {
        Value::Null
    } else {
        json!(new.join(" "))
    };
    let patch = json!({"metadata": {"annotations": {GUARDS: value}}});
    let namespace = owner.namespace().unwrap_or_default();
    api::merge::<K>(&context.client, &namespace, &owner.name_any(), &patch).await?;
    Ok(())
}

async fn apply(context: &Context, namespace: &str, manifest: &Value) -> Result<(), Error> {
    let client = &context.client;
    match manifest["kind"].as_str() {
        Some("NetworkPolicy") => api::apply::<NetworkPolicy>(client, namespace, manifest)
            .await
            .map(drop),
        _ => api::apply::<PodDisruptionBudget>(client, namespace, manifest)
            .await
            .map(drop),
    }
}

async fn delete(context: &Context, namespace: &str, recorded: &str) -> Result<(), Error> {
    let client = &context.client;
    match recorded.split_once('/') {
        Some(("NetworkPolicy", name)) => {
            api::delete::<NetworkPolicy>(client, namespace, name, None).await
        }
        Some(("PodDisruptionBudget", name)) => {
            api::delete::<PodDisruptionBudget>(client, namespace, name, None).await
        }
        // Somebody else wrote it.
        _ => Ok(()),
    }
}
