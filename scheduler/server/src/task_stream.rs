//! Records of finished tasks, as `get_task_stream` gives them.

use oxidask_protocol::message::worker::{StartStop, TaskErred, TaskFinished};
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::WorkerId;
use oxidask_scheduler_core::action::TaskStateName;

use crate::driver::Driver;
use crate::server::Server;

/// Records a result.
pub fn finished(server: &Server, driver: &Driver, worker: WorkerId, message: &TaskFinished) {
    let fields = [
        ("status", Value::from("OK")),
        ("run_id", message.run_id.into()),
        ("nbytes", message.nbytes.into()),
        ("type", message.type_.clone().into()),
        ("typename", message.typename.as_str().into()),
        ("metadata", message.metadata.clone()),
        ("thread", message.thread.clone()),
        ("stimulus_id", message.stimulus_id.as_str().into()),
    ];
    let steps = message.startstops.as_deref();
    record(server, driver, worker, &message.key, steps, fields);
}

/// Records an exception.
pub fn erred(server: &Server, driver: &Driver, worker: WorkerId, message: &TaskErred) {
    let fields = [
        ("status", Value::from("error")),
        ("run_id", message.run_id.into()),
        ("exception", message.exception.clone()),
        ("traceback", message.traceback.clone()),
        ("exception_text", message.exception_text.as_str().into()),
        ("traceback_text", message.traceback_text.as_str().into()),
        ("thread", message.thread.clone()),
        ("stimulus_id", message.stimulus_id.as_str().into()),
    ];
    let steps = message.startstops.as_deref();
    record(server, driver, worker, &message.key, steps, fields);
}

fn record<const N: usize>(
    server: &Server,
    driver: &Driver,
    worker: WorkerId,
    key: &Key,
    steps: Option<&[StartStop]>,
    fields: [(&'static str, Value); N],
) {
    // As in stock Dask: only what leaves `processing`, and only if the worker says what it did.
    let steps = steps.unwrap_or_default();
    if steps.is_empty() || driver.core().task_state(key) != Some(TaskStateName::Processing) {
        return;
    }
    let Some(peer) = driver.workers.get(worker) else {
        return;
    };
    let steps = steps.iter().map(|step| {
        let mut fields = vec![
            ("action", Value::from(step.action.as_str())),
            ("start", step.start.into()),
            ("stop", step.stop.into()),
        ];
        if let Some(source) = &step.source.0 {
            fields.push(("source", source.as_str().into()));
        }
        Value::map(fields)
    });
    let own = [
        ("key", Value::from(key)),
        ("worker", (&*peer.address).into()),
        ("startstops", Value::Array(steps.collect())),
    ];
    let message = Value::map(own.into_iter().chain(fields));
    server.coordination.record_task(&message);
}
