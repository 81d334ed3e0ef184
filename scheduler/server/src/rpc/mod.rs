//! What clients, workers and cluster managers ask of the scheduler, one file per subject.
//!
//! An operation is a function of the server and its arguments that gives an [`Outcome`]. It may wait: its
//! connection waits with it, nobody else does.

pub mod amm;
pub mod benchmark;
pub mod broadcast;
pub mod data;
pub mod dump;
pub mod forward;
pub mod gather;
pub mod info;
pub mod memory_sampler;
pub mod nanny;
pub mod plugins;
pub mod profile;
pub mod python;
pub mod rebalance;
pub mod replicate;
pub mod reply;
pub mod restart;
pub mod retire;
pub mod shuffle;
pub mod status;
pub mod story;
pub mod workers;

use std::sync::Arc;

use oxidask_protocol::Value;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::message::rpc::{Failure, ToScheduler, ToWorkerRpc};

pub(crate) use info::coerce;
use plugins::Host;
pub use reply::{Answer, Outcome};
use reply::{Refusal, raise};

use crate::coordinate;
use crate::extensions::Extensions;
use crate::server::Server;

/// Whether a request does nothing but wait for something: it is given up when its caller goes away.
pub fn only_waits(call: &ToScheduler) -> bool {
    matches!(
        call,
        ToScheduler::QueueGet(_)
            | ToScheduler::QueuePut(_)
            | ToScheduler::EventWait(_)
            | ToScheduler::VariableGet(_)
            | ToScheduler::SemaphoreAcquire(_)
            | ToScheduler::MultiLockAcquire(_)
            | ToScheduler::Gather(_)
    )
}

/// Runs a request.
pub async fn answer(server: Arc<Server>, call: ToScheduler) -> Outcome {
    let server = &server;
    match call {
        ToScheduler::Identity(body) => info::identity(server, &body),
        ToScheduler::Echo(body) => Answer::value(body.data),
        ToScheduler::Versions(body) => python::versions(server, body.packages).await,
        ToScheduler::Ncores(body) => info::ncores(server, body.workers, false),
        ToScheduler::NcoresRunning(body) => info::ncores(server, body.workers, true),
        ToScheduler::WhoHas(body) => info::who_has(server, body.keys),
        ToScheduler::HasWhat(body) => info::has_what(server, body.workers),
        ToScheduler::Processing(body) => info::processing(server, body.workers),
        ToScheduler::Nbytes(body) => info::nbytes(server, body),
        ToScheduler::GetTaskStatus(body) => info::task_status(server, body.keys),
        ToScheduler::GetTaskPrefixStates(_) => info::prefix_states(server),
        ToScheduler::GetRunspec(body) => info::run_spec(server, &body.key),
        ToScheduler::GetErrorCause(body) => info::error_cause(server, body.keys),
        ToScheduler::Logs(body) | ToScheduler::GetLogs(body) => info::logs(server, body.n),
        ToScheduler::CheckIdle(_) => info::check_idle(server),
        ToScheduler::AdaptiveTarget(body) => info::adaptive_target(server, body.target_duration),

        ToScheduler::Replicate(body) => replicate::replicate(server, body).await,
        ToScheduler::Gather(body) => {
            let gathered = gather::gather(server, body, usize::MAX).await;
            Ok(gathered.into_answer())
        }
        ToScheduler::Scatter(body) => data::scatter(server, body).await,
        ToScheduler::UpdateData(body) => data::update_data(server, body),
        ToScheduler::Retry(body) => data::retry(server, body),
        ToScheduler::SetRestrictions(body) => data::set_restrictions(server, body.worker),
        ToScheduler::AddKeys(body) => data::add_keys(server, body),

        ToScheduler::HeartbeatWorker(body) => workers::heartbeat(server, body),
        ToScheduler::Unregister(body) => workers::unregister(server, &body),
        ToScheduler::SetResources(body) => workers::set_resources(server, body),

        ToScheduler::Rebalance(body) => rebalance::rebalance(server, body).await,
        ToScheduler::WorkerLogs(body) => forward::worker_logs(server, body).await,
        ToScheduler::Profile(body) => profile::profile(server, body).await,
        ToScheduler::CallStack(body) => forward::call_stack(server, body.keys).await,
        ToScheduler::StartTaskMetadata(body) => {
            server.driver().observers.task_metadata.start(&body.name);
            Answer::nil()
        }
        ToScheduler::StopTaskMetadata(body) => info::task_metadata(server, &body.name),
        ToScheduler::Broadcast(body) => broadcast::broadcast(server, body).await,
        ToScheduler::GetStory(body) => story::story(server, &body),
        ToScheduler::GetClusterState(body) => dump::cluster_state(server, &body.exclude).await,
        ToScheduler::DumpState(body) => dump::own_state(server, &body.exclude),
        ToScheduler::DumpClusterStateToUrl(body) => {
            python::operation(server, "dump_cluster_state_to_url", body.0).await
        }
        ToScheduler::PerformanceReport(body) => {
            let args = Value::map([
                ("start", Value::from(body.start)),
                ("last_count", body.last_count),
                ("code", body.code.into()),
                ("mode", body.mode),
            ]);
            python::operation(server, "performance_report", args).await
        }
        ToScheduler::ProfileMetadata(body) => profile::metadata(server, body).await,
        ToScheduler::BenchmarkHardware(_) => benchmark::hardware(server).await,
        ToScheduler::AmmHandler(body) => amm::command(server, &body.method),
        ToScheduler::MemorySamplerStart(body) => memory_sampler::start(server, body),
        ToScheduler::MemorySamplerStop(body) => memory_sampler::stop(server, &body),
        ToScheduler::Proxy(body) => broadcast::proxy(server, body).await,
        ToScheduler::RegisterWorkerPlugin(body) => {
            plugins::register(server, Host::Worker, body).await
        }
        ToScheduler::UnregisterWorkerPlugin(body) => {
            plugins::unregister(server, Host::Worker, body.name).await
        }
        ToScheduler::RegisterNannyPlugin(body) => {
            plugins::register(server, Host::Nanny, body).await
        }
        ToScheduler::UnregisterNannyPlugin(body) => {
            plugins::unregister(server, Host::Nanny, body.name).await
        }
        ToScheduler::RegisterSchedulerPlugin(body) => {
            plugins::register_scheduler(server, body).await
        }
        ToScheduler::UnregisterSchedulerPlugin(body) => {
            plugins::unregister_scheduler(server, &body.name).await
        }
        ToScheduler::RunFunction(body) => python::run_function(server, body).await,
        ToScheduler::WorkersToClose(body) => retire::workers_to_close(server, body).await,
        ToScheduler::RetireWorkers(body) => retire::retire(server, body).await,
        ToScheduler::Restart(body) => restart::restart(server, body).await,
        ToScheduler::RestartWorkers(body) => restart::workers(server, body).await,

        ToScheduler::ShuffleGetOrCreate(body) => shuffle::get_or_create(server, body).await,
        ToScheduler::ShuffleGet(body) => shuffle::get(server, &body),
        ToScheduler::ShuffleBarrier(body) => shuffle::barrier(server, body).await,
        ToScheduler::ShuffleRestrictTask(body) => shuffle::restrict(server, body),

        call if Extensions::<u64>::takes(&call) => match coordinate::request(server, call).await {
            Ok(value) => Answer::value(value),
            Err(raised) => Err(Box::new(raised.failure())),
        },
        ToScheduler::Terminate(_) => {
            server.shutdown_soon("terminate");
            Answer::nil()
        }
        other => Err(raise(
            "NotImplementedError",
            &format!(
                "this scheduler does not support the operation {:?} yet",
                other.op()
            ),
        )),
    }
}

/// Sends a request to a worker or nanny and reads its answer.
///
/// # Errors
/// If it cannot be reached, or answers with an exception.
pub(crate) async fn call(
    server: &Server,
    address: &str,
    request: &ToWorkerRpc,
) -> Result<Value, Refusal> {
    let frames = server
        .pool
        .call(address, request)
        .await
        .map_err(|error| unreachable_peer(address, &error))?;
    let answer: Value = decode_one(&frames)
        .map_err(|error| raise("ValueError", &format!("answer of {address}: {error}")))?;
    match failure_in(&answer) {
        Some(failure) => Err(failure),
        None => Ok(answer),
    }
}

/// What a caller gets when a worker cannot be reached.
pub(crate) fn unreachable_peer(address: &str, error: &dyn std::error::Error) -> Refusal {
    let mut text = format!("failed to call {address}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    raise("OSError", &text)
}

/// The exception that an answer carries, if it is the one of a handler that raised.
pub(crate) fn failure_in(answer: &Value) -> Option<Refusal> {
    if answer.field("status").and_then(Value::as_str) != Some("uncaught-error") {
        return None;
    }
    let text = |name| {
        answer
            .field(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Some(Box::new(Failure {
        status: "uncaught-error".to_owned(),
        exception: answer.field("exception").cloned().unwrap_or_default(),
        traceback: answer.field("traceback").cloned().unwrap_or_default(),
        exception_text: text("exception_text"),
        traceback_text: text("traceback_text"),
    }))
}
