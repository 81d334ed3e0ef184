//! Results, fetched through the scheduler.

use std::time::Duration;

use oxidask_protocol::{Key, Value};
use oxidask_worker_kernels::Chunk;

use crate::client::{Client, request};
use crate::{ClientError, Future, numpy};

/// How long the scheduler may take to fetch results from workers. Large ones travel long.
const GATHER_TIMEOUT: Duration = Duration::from_secs(600);

/// How long results of workers that have gone are asked for again.
const LOST_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause before they are.
const RETRY: Duration = Duration::from_millis(20);

impl Client {
    /// Waits for all results and fetches them, in the order of the futures.
    ///
    /// # Errors
    /// With the first task that failed, or the first result that is no array of numbers.
    pub async fn gather(&self, futures: &[Future]) -> Result<Vec<Chunk>, ClientError> {
        let deadline = tokio::time::Instant::now() + LOST_TIMEOUT;
        loop {
            self.wait(futures).await?;
            match self.gather_once(futures).await {
                // A worker has gone, and the news that its results are computed again is on its way.
                Err(ClientError::Refused { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(RETRY).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn gather_once(&self, futures: &[Future]) -> Result<Vec<Chunk>, ClientError> {
        let mut keys: Vec<Key> = Vec::with_capacity(futures.len());
        for future in futures {
            if !keys.contains(future.key()) {
                keys.push(future.key().clone());
            }
        }
        let mut comm = self.comm().await?;
        let fields = vec![("keys", Value::Array(keys.iter().map(Value::from).collect()))];
        let answer = request(&mut comm, "gather", fields, GATHER_TIMEOUT).await?;
        self.give_back(comm).await;
        let data = answer.field("data").and_then(Value::as_map);
        let data = data.ok_or_else(|| ClientError::Refused {
            op: "gather",
            text: "workers that had results have gone".to_owned(),
        })?;
        let value = |future: &Future| {
            let key = future.key();
            let found = data
                .iter()
                .find(|(name, _)| name.to_key().as_ref() == Some(key));
            let wrong = |text: String| ClientError::Value {
                key: key.clone(),
                text,
            };
            match found {
                Some((_, Value::Payload(payload))) => {
                    numpy::of_payload(payload).map_err(|error| wrong(error.to_string()))
                }
                Some(_) => Err(wrong("it is not serialised".to_owned())),
                None => Err(wrong("no worker has it any more".to_owned())),
            }
        };
        futures.iter().map(value).collect()
    }
}
