//! Writes to the API server, each with the error text that says what we tried.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::build::MANAGER;
use crate::error::Error;

/// A kind of object in a namespace.
pub(crate) trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
{
}

fn what<K: Object>(verb: &str, namespace: &str, name: &str) -> String {
    format!("{verb} {} {namespace}/{name}", K::kind(&()))
}

/// Applies a manifest (server-side apply) and gives back what is stored.
pub(crate) async fn apply<K: Object>(
    client: &Client,
    namespace: &str,
    manifest: &Value,
) -> Result<K, Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    Api::<K>::namespaced(client.clone(), namespace)
        .patch(
            name,
            &PatchParams::apply(MANAGER).force(),
            &Patch::Apply(manifest),
        )
        .await
        .map_err(Error::api(what::<K>("apply", namespace, name)))
}

/// Creates an object. One of that name that is there already stays as it is.
pub(crate) async fn create<K: Object + Serialize>(
    client: &Client,
    namespace: &str,
    manifest: &Value,
) -> Result<(), Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    let object: K =
        serde_json::from_value(manifest.clone()).expect("the manifest is written in this crate");
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    match Api::<K>::namespaced(client.clone(), namespace)
        .create(&params, &object)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(Error::api(what::<K>("create", namespace, name))(error)),
    }
}

/// Patches an object (merge patch).
pub(crate) async fn merge<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
    patch: &Value,
) -> Result<K, Error> {
    Api::<K>::namespaced(client.clone(), namespace)
        .patch(name, &manager(), &Patch::Merge(patch))
        .await
        .map_err(Error::api(what::<K>("patch", namespace, name)))
}

/// Patches the status of an object (merge patch): through the subresource, or
/// through the object itself where the kind has none.
pub(crate) async fn merge_status<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
    subresource: bool,
    status: &Value,
) -> Result<(), Error> {
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let patch = serde_json::json!({ "status": status });
    let done = if subresource {
        api.patch_status(name, &manager(), &Patch::Merge(&patch))
            .await
    } else {
        api.patch(name, &manager(), &Patch::Merge(&patch)).await
    };
    done.map(drop).map_err(Error::api(what::<K>(
        "write the status of",
        namespace,
        name,
    )))
}

/// Replaces parts of an object (JSON patch).
pub(crate) async fn replace<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
    operations: Value,
) -> Result<K, Error> {
    let patch =
        serde_json::from_value(operations).expect("the operations are written in this crate");
    Api::<K>::namespaced(client.clone(), namespace)
        .patch(name, &manager(), &Patch::Json::<()>(patch))
        .await
        .map_err(Error::api(what::<K>("patch", namespace, name)))
}

/// The object as it is stored now, whatever the watches have seen.
pub(crate) async fn get<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<K>, Error> {
    Api::<K>::namespaced(client.clone(), namespace)
        .get_opt(name)
        .await
        .map_err(Error::api(what::<K>("read", namespace, name)))
}

/// Deletes an object. With `uid` only that very object, not a later one of the
/// same name. One that is gone already is no error.
pub(crate) async fn delete<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<(), Error> {
    let preconditions = uid.map(|uid| Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    });
    let params = DeleteParams {
        preconditions,
        ..DeleteParams::background()
    };
    let done = Api::<K>::namespaced(client.clone(), namespace)
        .delete(name, &params)
        .await;
    match done {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 && uid.is_some() => {
            let current = get::<K>(client, namespace, name).await?;
            if current.is_some_and(|current| current.meta().uid.as_deref() == uid) {
                let error = kube::Error::Api(status);
                return Err(Error::api(what::<K>("delete", namespace, name))(error));
            }
            // Another object has the name by now: ours is gone.
            Ok(())
        }
        Err(error) => Err(Error::api(what::<K>("delete", namespace, name))(error)),
    }
}

/// Gives a pod that is being deleted no more than a second to end.
pub(crate) async fn hasten(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: Option<String>,
) -> Result<(), Error> {
    let params = DeleteParams {
        grace_period_seconds: Some(1),
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match Api::<Pod>::namespaced(client.clone(), namespace)
        .delete(name, &params)
        .await
    {
        Ok(_) => Ok(()),
        // It is gone, or another pod has its name.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(Error::api(what::<Pod>("hasten", namespace, name))(error)),
    }
}

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
