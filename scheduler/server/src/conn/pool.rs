//! Connections that the scheduler opens to workers and nannies, kept for the next request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use oxidask_protocol::address::{Address, AddressError, Scheme};
use oxidask_protocol::comm::{Comm, CommError, Tls, connect};
use oxidask_protocol::frame::Limits;
use oxidask_protocol::wire::Encode;
use rustc_hash::FxHashMap;

/// Connections kept per address.
const IDLE_PER_ADDRESS: usize = 4;

/// An unused connection is closed at the next use of the pool after this time.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The address is none.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The connection failed.
    #[error(transparent)]
    Comm(#[from] CommError),
}

/// Unused connections by address, each since when.
type Idle = FxHashMap<Arc<str>, Vec<(Comm, Instant)>>;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    tls: Option<Tls>,
    limits: Limits,
    timeout: Duration,
    idle: Mutex<Idle>,
}

impl Pool {
    /// An empty pool. `timeout`: for opening a connection.
    pub fn new(tls: Option<Tls>, limits: Limits, timeout: Duration) -> Self {
        Self {
            tls,
            limits,
            timeout,
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to `address`, used before or new.
    pub(crate) async fn take(&self, address: &str) -> Result<Comm, CallError> {
        loop {
            let known = self.idle().get_mut(address).and_then(Vec::pop);
            let Some((mut comm, _)) = known else {
                return self.open(address).await;
            };
            // A connection on which something has come without a question was closed by the peer, or is out of step.
            if comm.reader.read().now_or_never().is_none() {
                return Ok(comm);
            }
        }
    }

    /// A new connection to `address`.
    ///
    /// # Errors
    /// If the address is none, or nobody answers there.
    pub async fn open(&self, address: &str) -> Result<Comm, CallError> {
        let address = Address::parse(address, Scheme::Tcp, None)?;
        Ok(connect(&address, self.tls.as_ref(), self.limits, self.timeout).await?)
    }

    /// Gives a connection back after a whole exchange.
    pub(crate) fn give(&self, address: &str, comm: Comm) {
        let now = Instant::now();
        let mut idle = self.idle();
        idle.retain(|_, comms| {
            comms.retain(|(_, since)| now.duration_since(*since) < IDLE_TIME);
            !comms.is_empty()
        });
        let comms = idle.entry(address.into()).or_default();
        if comms.len() < IDLE_PER_ADDRESS {
            comms.push((comm, now));
        }
    }

    /// Closes the unused connections to an address that is gone.
    pub fn forget(&self, address: &str) {
        self.idle().remove(address);
    }

    /// Sends a request and waits for its answer, without limit of time.
    ///
    /// # Errors
    /// If the connection cannot be opened or breaks.
    pub async fn call(
        &self,
        address: &str,
        request: &impl Encode,
    ) -> Result<Vec<Bytes>, CallError> {
        let mut comm = self.take(address).await?;
        comm.writer.send(request).await?;
        let frames = comm
            .reader
            .read()
            .await?
            .ok_or_else(|| CommError::Closed(address.to_owned()))?;
        self.give(address, comm);
        Ok(frames)
    }
}
