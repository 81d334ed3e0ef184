//! A result on the cluster, kept there as long as somebody holds its future.

use std::sync::Arc;

use oxidask_protocol::Key;
use tokio::sync::watch;

use crate::ClientError;
use crate::link::{Link, Status};

/// A result on the cluster, or one that will be there.
///
/// The cluster forgets it when the last future of its key is dropped.
pub struct Future {
    key: Key,
    status: watch::Receiver<Status>,
    link: Arc<Link>,
}

impl Future {
    pub(crate) fn new(key: Key, link: &Arc<Link>) -> (Self, bool) {
        let (status, fresh) = link.want(&key);
        let future = Self {
            key,
            status,
            link: Arc::clone(link),
        };
        (future, fresh)
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether the result is there.
    pub fn is_finished(&self) -> bool {
        *self.status.borrow() == Status::Finished
    }

    /// Waits until the result is there.
    ///
    /// # Errors
    /// If its task failed or was cancelled, or the scheduler has gone.
    pub async fn wait(&self) -> Result<(), ClientError> {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| *status != Status::Pending).await;
        let key = || self.key.clone();
        match settled.as_deref() {
            Ok(Status::Finished | Status::Pending) => Ok(()),
            Ok(Status::Erred(text)) => Err(ClientError::Erred {
                key: key(),
                text: text.clone(),
            }),
            Ok(Status::Cancelled(text)) => Err(ClientError::Cancelled {
                key: key(),
                text: text.clone(),
            }),
            Ok(Status::Refused(waiting)) => Err(ClientError::Full(*waiting)),
            Ok(Status::Closed(reason)) => Err(ClientError::Closed(reason.clone())),
            Err(_) => Err(ClientError::Closed("the client has ended".to_owned())),
        }
    }
}

impl Clone for Future {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), &self.link).0
    }
}

impl Drop for Future {
    fn drop(&mut self) {
        self.link.release(&self.key);
    }
}

impl std::fmt::Debug for Future {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Future({}, {:?})", self.key, *self.status.borrow())
    }
}
