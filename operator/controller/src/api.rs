//! Writes to the API server, each with the error text that says what we tried.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
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

/// Creates an object, or gives back the one that has its name already: whose
/// that is, the caller has to look.
///
/// Unlike [`apply`] it cannot turn somebody else's object into ours.
pub(crate) async fn create<K: Object>(
    client: &Client,
    namespace: &str,
    manifest: &Value,
) -> Result<K, Error> {
    let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
    let request = http::Request::post(format!(
        "{}?fieldManager={MANAGER}",
        K::url_path(&(), Some(namespace))
    ))
    .header("content-type", "application/json")
    .body(manifest.to_string().into_bytes());
    let request = request.map_err(|error| {
        kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error))
    });
    let created = match request {
        Ok(request) => client.request::<K>(request).await,
        Err(error) => Err(error),
    };
    match created {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            match get::<K>(client, namespace, name).await? {
                Some(there) => Ok(there),
                None => Err(Error::api(what::<K>("create", namespace, name))(
                    kube::Error::Api(status),
                )),
            }
        }
        created => created.map_err(Error::api(what::<K>("create", namespace, name))),
    }
}

/// What a pod's only container printed, at most `limit` bytes.
pub(crate) async fn log(
    client: &Client,
    namespace: &str,
    name: &str,
    limit: i64,
) -> Result<String, Error> {
    let params = LogParams {
        limit_bytes: Some(limit),
        ..LogParams::default()
    };
    Api::<Pod>::namespaced(client.clone(), namespace)
        .logs(name, &params)
        .await
        .map_err(Error::api(what::<Pod>("read the log of", namespace, name)))
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

/// Patches the status of an object (merge patch) through the subresource, and
/// only if the object is still of this version.
pub(crate) async fn merge_status_of<K: Object>(
    client: &Client,
    namespace: &str,
    name: &str,
    version: Option<&str>,
    status: &Value,
) -> Result<(), Error> {
    let patch = serde_json::json!({"metadata": {"resourceVersion": version}, "status": status});
    Api::<K>::namespaced(client.clone(), namespace)
        .patch_status(name, &manager(), &Patch::Merge(&patch))
        .await
        .map(drop)
        .map_err(Error::api(what::<K>(
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

fn manager() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
