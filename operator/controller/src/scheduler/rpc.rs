//! Dask's own RPC, for stock schedulers: the only place where the operator
//! speaks the Dask wire.

use std::collections::HashMap;
use std::time::Duration;

use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::comm::{self, Comm, Tls};
use oxidask_protocol::frame::Limits;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::{Key, Value};
use tokio::time::Instant;

use super::{Endpoint, Retired, WorkerInfo};

/// How long an answer to a question may take that the scheduler can give at once.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause between two looks at workers that still execute something.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A connection to a scheduler.
pub(super) struct Rpc {
    comm: Comm,
}

impl Rpc {
    pub(super) async fn connect(at: &Endpoint, tls: Option<&Tls>) -> Result<Self, String> {
        let address = Address {
            scheme: if tls.is_some() {
                Scheme::Tls
            } else {
                Scheme::Tcp
            },
            host: at.host.clone(),
            port: at.comm,
        };
        let comm = comm::connect(&address, tls, Limits::default(), Duration::from_secs(3))
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self { comm })
    }

    async fn ask(
        &mut self,
        op: &str,
        arguments: impl IntoIterator<Item = (&str, Value)>,
        timeout: Duration,
    ) -> Result<Value, String> {
        let fixed = [("op", Value::from(op)), ("reply", Value::from(true))];
        let request = Value::map(fixed.into_iter().chain(arguments));
        let answer = tokio::time::timeout(timeout, self.comm.request(&request))
            .await
            .map_err(|_| format!("{op}: no answer within {timeout:?}"))?
            .map_err(|error| format!("{op}: {error}"))?;
        let answer: Value = decode_one(&answer).map_err(|error| format!("{op}: {error}"))?;
        if answer.field("status").and_then(Value::as_str) == Some("uncaught-error") {
            let text = answer
                .field("text")
                .and_then(Value::as_str)
                .unwrap_or("no text");
            return Err(format!("{op}: the scheduler failed: {text}"));
        }
        Ok(answer)
    }

    /// Addresses and names of the connected workers.
    pub(super) async fn connected(&mut self) -> Result<Vec<WorkerInfo>, String> {
        let identity = self.ask("identity", [], ANSWER).await?;
        let workers = identity
            .field("workers")
            .and_then(Value::as_map)
            .ok_or("identity: no workers in the answer")?;
        let workers = workers.iter().filter_map(|(address, info)| {
            Some(WorkerInfo {
                address: address.as_str()?.to_owned(),
                name: info.field("name").map(name).unwrap_or_default(),
                ..WorkerInfo::default()
            })
        });
        Ok(workers.collect())
    }

    /// The connected workers with what they have.
    pub(super) async fn workers(&mut self) -> Result<Vec<WorkerInfo>, String> {
        let identity = self.ask("identity", [], ANSWER).await?;
        let processing = counts(&self.ask("processing", [], ANSWER).await?);
        let results = counts(&self.ask("has_what", [], ANSWER).await?);
        let workers = identity
            .field("workers")
            .and_then(Value::as_map)
            .ok_or("identity: no workers in the answer")?;
        let count = |of: &[(String, u64)], address: &str| {
            of.iter()
                .find(|(known, _)| known == address)
                .map_or(0, |(_, n)| *n)
        };
        Ok(workers
            .iter()
            .filter_map(|(address, info)| {
                let address = address.as_str()?;
                let metric = |name: &str| {
                    let metrics = info.field("metrics")?;
                    metrics.field(name)?.as_f64()
                };
                let spilled = info
                    .field("metrics")
                    .and_then(|m| m.field("spilled_bytes"))
                    .and_then(|s| s.field("memory")?.as_f64());
                let bytes = metric("managed_bytes").unwrap_or(0.0) + spilled.unwrap_or(0.0);
                Some(WorkerInfo {
                    address: address.to_owned(),
                    name: info.field("name").map(name).unwrap_or_default(),
                    nthreads: info
                        .field("nthreads")
                        .and_then(Value::as_f64)
                        .map(|threads| threads as u64),
                    processing: count(&processing, address),
                    results: count(&results, address),
                    bytes: if bytes > 0.0 { bytes as u64 } else { 0 },
                })
            })
            .collect())
    }

    /// Retires workers without removing them, and waits until none of them
    /// executes a task: what a task leaves behind is moved, too.
    pub(super) async fn retire(
        &mut self,
        addresses: &[String],
        timeout: Duration,
    ) -> Result<Retired, String> {
        let deadline = Instant::now() + timeout;
        let mut first_seen = HashMap::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .ask(
                    "retire_workers",
                    [
                        (
                            "workers",
                            Value::array(addresses.iter().map(|a| Value::from(a.as_str()))),
                        ),
                        // They stay connected, or the kubelet would start them
                        // again and the new process would take tasks.
                        ("close_workers", Value::from(false)),
                        ("remove", Value::from(false)),
                    ],
                    left.max(Duration::from_millis(100)),
                )
                .await;
            let moved = match answer {
                Ok(answer) => answer,
                Err(_) if Instant::now() >= deadline => {
                    return Ok(Retired {
                        done: Vec::new(),
                        left: addresses.to_vec(),
                    });
                }
                Err(error) => return Err(error),
            };
            let known = self.ask("identity", [], ANSWER).await?;
            let processing = counts(&self.ask("processing", [], ANSWER).await?);
            let retired = sort_out(addresses, &moved, &known, &processing, &mut first_seen);
            if retired.left.is_empty() || Instant::now() >= deadline {
                return Ok(retired);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes workers out of the scheduler's books.
    pub(super) async fn remove(&mut self, addresses: &[String]) -> Result<(), String> {
        for address in addresses {
            let arguments = [
                ("address", Value::from(address.as_str())),
                ("stimulus_id", Value::from("drain-timeout")),
            ];
            self.ask("unregister", arguments, ANSWER).await?;
        }
        Ok(())
    }

    pub(super) async fn desired_workers(&mut self) -> Result<i64, String> {
        let answer = self.ask("adaptive_target", [], ANSWER).await?;
        let number = answer
            .as_f64()
            .ok_or_else(|| format!("adaptive_target: {answer:?} is no number"))?;
        Ok(number as i64)
    }

    pub(super) async fn idle_since(&mut self) -> Result<Option<f64>, String> {
        Ok(self.ask("check_idle", [], ANSWER).await?.as_f64())
    }
}

/// Which of the workers are done: gone, or retired and executing nothing.
///
/// `first_seen` keeps, by address, the heartbeat that was the last one when the
/// worker was first looked at after its retirement began.
fn sort_out(
    addresses: &[String],
    moved: &Value,
    known: &Value,
    processing: &[(String, u64)],
    first_seen: &mut HashMap<String, f64>,
) -> Retired {
    let workers = known.field("workers");
    let mut retired = Retired::default();
    for address in addresses {
        let info = workers.and_then(|workers| workers.field(address));
        let is_moved = moved.field(address).is_some();
        let has_tasks = processing
            .iter()
            .any(|(worker, tasks)| worker == address && *tasks > 0);
        let is_done = match info {
            None => true,
            Some(info) => is_moved && !(has_tasks && may_execute(info, address, first_seen)),
        };
        if is_done {
            retired.done.push(address.clone());
        } else {
            retired.left.push(address.clone());
        }
    }
    retired
}

/// States of tasks in a worker that a thread may be busy with.
const EXECUTING: [&str; 4] = ["executing", "long-running", "cancelled", "resumed"];

/// Whether a retired worker that has tasks may execute one of them.
///
/// It begins none any more, so those that only wait there will do so for ever,
/// and are lost to nobody: the scheduler gives them to others when the worker
/// is gone. What it does is in its heartbeat, of which the first one that comes
/// after the retirement counts.
fn may_execute(info: &Value, address: &str, first_seen: &mut HashMap<String, f64>) -> bool {
    let last_seen = info.field("last_seen").and_then(Value::as_f64);
    let counts = info
        .field("metrics")
        .and_then(|metrics| metrics.field("task_counts"));
    let (Some(last_seen), Some(counts)) = (last_seen, counts) else {
        return true;
    };
    let first = *first_seen.entry(address.to_owned()).or_insert(last_seen);
    let executes = EXECUTING.iter().any(|state| {
        let count = counts.field(state).and_then(Value::as_f64);
        count.is_some_and(|count| count > 0.0)
    });
    executes || last_seen <= first
}

/// By worker, the length of its list.
fn counts(answer: &Value) -> Vec<(String, u64)> {
    let pairs = answer.as_map().unwrap_or_default();
    pairs
        .iter()
        .filter_map(|(worker, list)| {
            let length = list.as_array().map_or(0, <[Value]>::len);
            Some((worker.as_str()?.to_owned(), length as u64))
        })
        .collect()
}

/// A worker's name as text: users may give numbers.
fn name(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value
            .to_key()
            .as_ref()
            .map(Key::to_string)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_worker_is_done_when_it_is_gone_or_moved_and_without_tasks() {
        let info = || Value::map::<String>([]);
        let known = Value::map([(
            "workers",
            Value::map(["moved", "busy", "stuck"].map(|w| (w, info()))),
        )]);
        let moved = Value::map(["moved", "busy"].map(|w| (w, info())));
        let processing = [("busy".to_owned(), 2)];
        let retired = sort_out(
            &addresses(&["gone", "moved", "busy", "stuck"]),
            &moved,
            &known,
            &processing,
            &mut HashMap::new(),
        );
        assert_eq!(retired.done, addresses(&["gone", "moved"]));
        assert_eq!(retired.left, addresses(&["busy", "stuck"]));
    }

    #[test]
    fn a_worker_whose_tasks_only_wait_is_done_after_its_next_heartbeat() {
        let known = |last_seen: f64, state: &str| {
            let counts = Value::map([(state, Value::from(1_u64))]);
            let info = Value::map([
                ("last_seen", Value::from(last_seen)),
                ("metrics", Value::map([("task_counts", counts)])),
            ]);
            Value::map([("workers", Value::map([("w", info)]))])
        };
        let moved = Value::map([("w", Value::map::<String>([]))]);
        let processing = [("w".to_owned(), 1)];
        let mut first_seen = HashMap::new();
        let mut is_done = |known: Value| {
            sort_out(
                &addresses(&["w"]),
                &moved,
                &known,
                &processing,
                &mut first_seen,
            )
            .left
            .is_empty()
        };
        assert!(!is_done(known(1.0, "ready")), "this heartbeat may be older");
        assert!(!is_done(known(1.0, "ready")), "still the same heartbeat");
        assert!(!is_done(known(2.0, "executing")), "it executes");
        assert!(is_done(known(3.0, "ready")));
    }

    #[test]
    fn names_that_are_numbers_are_read_as_text() {
        assert_eq!(name(&Value::from("w-1")), "w-1");
        assert_eq!(name(&Value::from(7_u64)), "7");
    }
}
