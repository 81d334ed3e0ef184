//! Results, fetched through the scheduler.

use std::time::Duration;

use oxidask_protocol::{Key, Value};
use oxidask_worker_kernels::Chunk;

use crate::client::{Client, request};
use crate::{ClientError, Future, numpy};

/// How long the scheduler may take to fetch results from workers. Large ones travel long.
const GATHER_TIMEOUT: Duration = Duration::from_secs(600);

impl Client {
    /// Waits for all results and fetches them, in the order of the futures.
    ///
    /// # Errors
    /// With the first task that failed, or the first result that is no array of numbers.
    pub async fn gather(&self, futures: &[Future]) -> Result<Vec<Chunk>, ClientError> {
        self.wait(futures).await?;
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
