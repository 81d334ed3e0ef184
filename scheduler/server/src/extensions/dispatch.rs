//! From a request or stream message to the extension that it is for.

use oxidask_protocol::message::client::FromClient;
use oxidask_protocol::message::rpc::{PublishPut, ToScheduler};
use oxidask_protocol::wire::Omit;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::Time;

use super::publish::{Call, NewDataset};
use super::task_stream::Selection;
use super::{Answer, Extensions, Output, Raised, View};

/// The two clocks that extensions need.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The driver's clock, for waits.
    pub now: Time,
    /// Unix time, for what users see.
    pub unix: f64,
}

impl<W: PartialEq> Extensions<W> {
    /// Whether a request is for an extension.
    pub fn takes(request: &ToScheduler) -> bool {
        use ToScheduler as T;
        matches!(
            request,
            T::SemaphoreRegister(_)
                | T::SemaphoreAcquire(_)
                | T::SemaphoreRelease(_)
                | T::SemaphoreValue(_)
                | T::SemaphoreClose(_)
                | T::SemaphoreRefreshLeases(_)
                | T::EventWait(_)
                | T::EventSet(_)
                | T::EventClear(_)
                | T::EventIsSet(_)
                | T::QueueCreate(_)
                | T::QueuePut(_)
                | T::QueueGet(_)
                | T::QueueQsize(_)
                | T::VariableSet(_)
                | T::VariableGet(_)
                | T::MultiLockAcquire(_)
                | T::MultiLockRelease(_)
                | T::PublishPut(_)
                | T::PublishGet(_)
                | T::PublishList(_)
                | T::PublishDelete(_)
                | T::PublishWaitFlush(_)
                | T::LogEvent(_)
                | T::Events(_)
                | T::GetMetadata(_)
                | T::SetMetadata(_)
                | T::GetTaskStream(_)
                | T::GetTaskStreamIndex(_)
        )
    }

    /// Takes a request that [`takes`](Self::takes) says is for an extension; any other raises a `TypeError`.
    pub fn request(
        &mut self,
        clocks: Clocks,
        request: ToScheduler,
        waiter: W,
        view: &impl View,
        out: &mut Output<W>,
    ) {
        use ToScheduler as T;
        let now = clocks.now;
        // Requests that may wait take the waiter along; the others give their answer at once.
        let answer = match request {
            T::SemaphoreAcquire(call) => match (name(&call.name), name(&call.lease_id)) {
                (Ok(semaphore), Ok(lease)) => {
                    return self.semaphores.acquire(
                        now,
                        semaphore,
                        lease,
                        call.timeout,
                        waiter,
                        out,
                    );
                }
                (Err(raised), _) | (_, Err(raised)) => Err(raised),
            },
            T::EventWait(call) => {
                return self.events.wait(now, call.name, call.timeout, waiter, out);
            }
            T::QueuePut(call) => {
                return self.queues.put(
                    now,
                    call.name,
                    call.key,
                    call.data,
                    call.timeout,
                    waiter,
                    view,
                    out,
                );
            }
            T::QueueGet(call) => {
                return self.queues.get(
                    now,
                    call.name,
                    &call.batch,
                    call.timeout,
                    waiter,
                    view,
                    out,
                );
            }
            T::VariableSet(call) => {
                return self.variables.set(
                    now,
                    call.name,
                    call.key,
                    call.data,
                    call.timeout,
                    waiter,
                    view,
                    out,
                );
            }
            T::VariableGet(call) => {
                return self.variables.get(
                    now,
                    call.name,
                    call.client.0,
                    call.timeout,
                    waiter,
                    view,
                    out,
                );
            }
            T::MultiLockAcquire(call) => match (names(&call.locks), name(&call.id)) {
                (Ok(locks), Ok(id)) => {
                    return self.multi_locks.acquire(
                        now,
                        locks,
                        id,
                        call.num_locks.0,
                        call.timeout,
                        waiter,
                        out,
                    );
                }
                (Err(raised), _) | (_, Err(raised)) => Err(raised),
            },
            T::PublishPut(call) => {
                let (client, marker, replace) =
                    (call.client.0.clone(), call.uid.0.clone(), call.r#override);
                match new_datasets(call) {
                    Ok(datasets) => {
                        let call = Call::Put { datasets, replace };
                        return self.datasets.call(now, call, client, marker, waiter, out);
                    }
                    Err(raised) => Err(raised),
                }
            }
            T::PublishDelete(call) => match one_or_more(&call.names, &call.name) {
                Ok(names) => {
                    let delete = Call::Delete { names };
                    let (client, marker) = (call.client.0, call.uid.0);
                    return self.datasets.call(now, delete, client, marker, waiter, out);
                }
                Err(raised) => Err(raised),
            },
            T::PublishWaitFlush(call) => {
                let (client, marker) = (call.client.0, call.uid.0);
                return self
                    .datasets
                    .call(now, Call::Flush, client, marker, waiter, out);
            }
            other => self.answer(clocks, other, out),
        };
        out.replies.push((waiter, answer));
    }

    /// Requests that never wait.
    fn answer(&mut self, clocks: Clocks, request: ToScheduler, out: &mut Output<W>) -> Answer {
        use ToScheduler as T;
        let now = clocks.now;
        Ok(match request {
            T::SemaphoreRegister(call) => {
                self.semaphores
                    .register(name(&call.name)?, call.max_leases, call.lease_timeout)?;
                Value::Nil
            }
            T::SemaphoreRelease(call) => {
                self.semaphores
                    .release(now, &name(&call.name)?, &name(&call.lease_id)?, out);
                Value::Nil
            }
            T::SemaphoreValue(call) => self.semaphores.value(&name(&call.name)?).into(),
            T::SemaphoreClose(call) => {
                self.semaphores.close(&name(&call.name)?, out);
                Value::Nil
            }
            T::SemaphoreRefreshLeases(call) => {
                self.semaphores
                    .refresh(now, &name(&call.name)?, names(&call.lease_ids)?);
                Value::Nil
            }
            T::EventSet(call) => {
                self.events.set(call.name, out);
                Value::Nil
            }
            T::EventClear(call) => {
                self.events.clear(&call.name);
                Value::Nil
            }
            T::EventIsSet(call) => self.events.is_set(&call.name).into(),
            T::QueueCreate(call) => {
                self.queues.create(call.name, call.maxsize);
                Value::Nil
            }
            T::QueueQsize(call) => self.queues.size(&call.name)?.into(),
            T::MultiLockRelease(call) => {
                self.multi_locks.release(&name(&call.id)?, out)?;
                Value::Nil
            }
            T::PublishList(_) => Value::array(&self.datasets.names()),
            T::PublishGet(call) => match (&call.names.0, &call.name.0) {
                (None, Some(single)) => self.datasets.get(&name(single)?),
                _ => {
                    let names = one_or_more(&call.names, &call.name)?;
                    Value::array(names.iter().map(|name| self.datasets.get(name)))
                }
            },
            T::LogEvent(call) => {
                self.topics
                    .log(clocks.unix, topics(&call.topic)?, &call.msg, out);
                Value::Nil
            }
            T::Events(call) => match call.topic {
                Some(topic) => self.topics.of_topic(&topic),
                None => self.topics.all(),
            },
            T::SetMetadata(call) => {
                self.metadata.set(&call.keys, &call.value)?;
                Value::Nil
            }
            T::GetMetadata(call) => {
                // A caller's `None` and a missing default look alike; stock clients always send one or the other.
                let default = call.default.0.unwrap_or_default();
                let default = (!is_no_default(&default)).then_some(&default);
                self.metadata.get(&call.keys, default)?
            }
            T::GetTaskStream(call) => self.task_stream.collect(
                clocks.unix,
                &Selection {
                    start: call.start,
                    stop: call.stop,
                    count: call.count,
                    start_index: call.start_index.0,
                },
            )?,
            T::GetTaskStreamIndex(_) => self.task_stream.index().into(),
            other => {
                let text = format!("{} is not an operation of an extension", other.op());
                return Err(Raised::builtin("TypeError", text));
            }
        })
    }

    /// Takes a message of a client's stream; gives it back if it is for nobody here.
    pub fn stream_message(
        &mut self,
        client: &str,
        message: FromClient,
        out: &mut Output<W>,
    ) -> Option<FromClient> {
        match message {
            FromClient::SubscribeTopic(topic) => self.topics.subscribe(&topic.topic, client),
            FromClient::UnsubscribeTopic(topic) => self.topics.unsubscribe(&topic.topic, client),
            FromClient::PublishFlush(flush) => self.datasets.flushed(client, &flush.uid, out),
            FromClient::VariableDelete(variable) => {
                self.variables.delete(&variable.name, out);
            }
            FromClient::VariableFutureReceived(future)
            | FromClient::VariableFutureRelease(future) => {
                self.variables.future_received(
                    client,
                    &future.name,
                    future.key,
                    &future.token,
                    out,
                );
            }
            FromClient::QueueFutureRelease(future) => {
                self.queues
                    .future_received(client, &future.name, future.key, out);
            }
            FromClient::QueueRelease(queue) => self.queues.release(&queue.name, out),
            other => return Some(other),
        }
        None
    }
}

/// The topics of `log_event`: one text or several.
///
/// # Errors
/// `TypeError` for anything else.
pub fn topics(topic: &Value) -> Result<Vec<&str>, Raised> {
    let names = match topic {
        Value::Str(name) => Some(vec![name.as_str()]),
        other => other
            .as_array()
            .and_then(|names| names.iter().map(Value::as_str).collect()),
    };
    names.ok_or_else(|| Raised::builtin("TypeError", "a topic is a str or a list of str"))
}

fn name(value: &Value) -> Result<Key, Raised> {
    value.to_key().ok_or_else(|| {
        Raised::builtin(
            "TypeError",
            "names are str, bytes, numbers or tuples of those",
        )
    })
}

fn names(values: &[Value]) -> Result<Vec<Key>, Raised> {
    values.iter().map(name).collect()
}

/// `names` of 2026.8 clients, or `name` of older ones.
fn one_or_more(many: &Omit<Vec<Value>>, one: &Omit<Value>) -> Result<Vec<Key>, Raised> {
    match (&many.0, &one.0) {
        (Some(values), _) => names(values),
        (None, Some(value)) => Ok(vec![name(value)?]),
        (None, None) => Err(Raised::builtin("TypeError", "publish: names are missing")),
    }
}

fn new_datasets(call: PublishPut) -> Result<Vec<NewDataset>, Raised> {
    let keys_of = |keys: &Value| names(keys.as_array().unwrap_or_default());
    if call.names.0.is_none() {
        let mut name = one_or_more(&call.names, &call.name)?;
        let keys = keys_of(&call.keys)?;
        let data = call.data;
        return Ok(name
            .pop()
            .map(|name| NewDataset { name, data, keys })
            .into_iter()
            .collect());
    }
    let names = one_or_more(&call.names, &call.name)?;
    let (Some(keys), Some(data)) = (call.keys.as_array(), call.data.as_array()) else {
        return Err(Raised::builtin(
            "TypeError",
            "publish: keys and data are lists",
        ));
    };
    if keys.len() != names.len() || data.len() != names.len() {
        return Err(Raised::builtin(
            "ValueError",
            "publish: names, keys and data are of different lengths",
        ));
    }
    names
        .into_iter()
        .zip(keys.iter().zip(data))
        .map(|(name, (keys, data))| {
            Ok(NewDataset {
                name,
                data: data.clone(),
                keys: keys_of(keys)?,
            })
        })
        .collect()
}

/// Whether a value is `dask.typing.no_default`, an enum member.
fn is_no_default(value: &Value) -> bool {
    value.field("__Enum__").is_some()
        && value.field("name").and_then(Value::as_str) == Some("no_default")
}
