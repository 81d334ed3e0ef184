//! Owner references, read.

use kube::api::ObjectMeta;

/// The uid of the owner that controls an object.
pub(crate) fn controller_uid(meta: &ObjectMeta) -> Option<&str> {
    let owners = meta.owner_references.as_ref()?;
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| &*owner.uid)
}
