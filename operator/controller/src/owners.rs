//! Whose an object is, and whether it is still the same one.

use kube::api::ObjectMeta;

/// The uid of the owner that controls an object.
pub(crate) fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_ref()?;
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| &*owner.uid)
}

/// Whether an object as it is stored is the one that was seen, and stays.
pub(crate) fn is_same<K: kube::Resource>(current: Option<&K>, seen: &K) -> bool {
    current.is_some_and(|current| {
        current.meta().uid == seen.meta().uid && current.meta().deletion_timestamp.is_none()
    })
}
