//! The control API of the real program, asked by a gRPC client as the operator asks it.

#![allow(clippy::unwrap_used)]

mod program;

use std::collections::HashMap;
use std::time::Duration;

use oxidask_control::v1;
use oxidask_control::v1::RetireState::{Deadline, Failed, Gone, Moving, Retired};
use oxidask_protocol::Value;
use program::{FakeWorker, Scheduler, rpc};

const SOON: Duration = Duration::from_secs(20);

/// All that a stream brings until it ends.
async fn all<T>(mut stream: tonic::Streaming<T>) -> Vec<T> {
    let mut items = Vec::new();
    tokio::time::timeout(SOON, async {
        while let Some(item) = stream.message().await.unwrap() {
            items.push(item);
        }
    })
    .await
    .expect("the stream ends");
    items
}

fn last_states(progress: &[v1::RetireProgress]) -> HashMap<&str, v1::RetireState> {
    progress.iter().map(|p| (&*p.address, p.state())).collect()
}

#[tokio::test]
async fn status_and_its_watch_show_workers_as_they_come() {
    let scheduler = Scheduler::start(&[]).await;
    let mut control = scheduler.control().await;
    let mut watch = control
        .watch_status(v1::WatchStatusRequest {
            min_interval_ms: Some(50),
        })
        .await
        .unwrap()
        .into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert!(first.workers.is_empty() && first.idle_since_ms.is_some());
    let _worker = FakeWorker::join(&scheduler, "w0", true).await;
    let next = tokio::time::timeout(SOON, watch.message()).await.unwrap();
    let next = next.unwrap().unwrap();
    assert_eq!(next.scheduler_id, first.scheduler_id);
    let status = control.get_status(v1::GetStatusRequest {}).await.unwrap();
    let status = status.into_inner();
    for status in [next, status] {
        let [worker] = &status.workers[..] else {
            panic!("one worker: {status:?}");
        };
        assert_eq!((&*worker.name, worker.nthreads), ("w0", 1));
        assert_eq!(worker.state(), v1::WorkerState::Running);
    }
}

#[tokio::test]
async fn victims_are_retired_with_their_results_moved_first() {
    let scheduler = Scheduler::start(&[]).await;
    let mut control = scheduler.control().await;
    let holder = FakeWorker::join(&scheduler, "holder", true).await;
    let taker = FakeWorker::join(&scheduler, "taker", true).await;
    holder.hold("x", 700, &scheduler).await;
    let request = v1::ChooseVictimsRequest {
        count: 5,
        among: Vec::new(),
    };
    let victims = control.choose_victims(request).await.unwrap().into_inner();
    let order: Vec<_> = victims
        .victims
        .iter()
        .map(|worker| (worker.address.clone(), worker.unique_bytes))
        .collect();
    assert_eq!(
        order,
        [(taker.address.clone(), 0), (holder.address.clone(), 700)]
    );
    let request = v1::RetireWorkersRequest {
        addresses: vec![holder.address.clone(), "tcp://10.9.9.9:9".to_owned()],
        timeout_ms: Some(20_000),
        bar_names: vec!["holder".to_owned()],
        close: Some(false),
    };
    let progress = all(control.retire_workers(request).await.unwrap().into_inner()).await;
    assert!(
        progress
            .iter()
            .any(|p| (p.state(), p.bytes_total) == (Moving, 700))
    );
    let end = progress
        .iter()
        .rfind(|p| p.address == holder.address)
        .unwrap();
    assert_eq!((end.state(), end.bytes_moved), (Retired, 700));
    assert_eq!(last_states(&progress)["tcp://10.9.9.9:9"], Gone);
    let refused = FakeWorker::register(&scheduler, "tcp://127.0.0.1:1", "holder").await;
    let status = refused.1.field("status").and_then(Value::as_str);
    assert_eq!(status, Some("error"), "{:?}", refused.1);
}

#[tokio::test]
async fn a_retirement_ends_with_its_deadline_or_where_nobody_can_take_the_data() {
    let scheduler = Scheduler::start(&[]).await;
    let mut control = scheduler.control().await;
    let holder = FakeWorker::join(&scheduler, "holder", true).await;
    holder.hold("x", 700, &scheduler).await;
    let request = |timeout_ms| v1::RetireWorkersRequest {
        addresses: vec![holder.address.clone()],
        timeout_ms: Some(timeout_ms),
        bar_names: Vec::new(),
        close: None,
    };
    let alone = all(control
        .retire_workers(request(20_000))
        .await
        .unwrap()
        .into_inner())
    .await;
    assert_eq!(last_states(&alone)[&*holder.address], Failed);
    // This one never says that it has fetched what it was told to.
    let _lazy = FakeWorker::join(&scheduler, "lazy", false).await;
    let late = all(control
        .retire_workers(request(300))
        .await
        .unwrap()
        .into_inner())
    .await;
    assert_eq!(last_states(&late)[&*holder.address], Deadline);
    let message = &late.last().unwrap().message;
    assert!(message.contains("1 results of 700 bytes"), "{message}");
    let status = control.get_status(v1::GetStatusRequest {}).await.unwrap();
    assert_eq!(status.into_inner().workers.len(), 1, "the lazy one is left");
}

#[tokio::test]
async fn a_drain_ends_at_once_where_nothing_runs_and_is_taken_back() {
    let scheduler = Scheduler::start(&[]).await;
    let mut control = scheduler.control().await;
    let drain = |resume| v1::DrainRequest {
        timeout_ms: Some(20_000),
        resume,
    };
    let drained = all(control.drain(drain(false)).await.unwrap().into_inner()).await;
    assert_eq!(drained.last().unwrap().state(), v1::DrainState::Drained);
    let resumed = all(control.drain(drain(true)).await.unwrap().into_inner()).await;
    assert_eq!(resumed.last().unwrap().state(), v1::DrainState::Resumed);
}

#[tokio::test]
async fn desired_workers_are_told_in_all_and_by_group() {
    let scheduler = Scheduler::start(&[]).await;
    let mut control = scheduler.control().await;
    let group = |name: &str| v1::WorkerGroup {
        name: name.to_owned(),
        nthreads: 2,
        ..v1::WorkerGroup::default()
    };
    let request = v1::GetDesiredWorkersRequest {
        groups: vec![group("a"), group("b")],
        target_duration_seconds: Some(1.0),
    };
    let desired = control.get_desired_workers(request.clone()).await.unwrap();
    let desired = desired.into_inner();
    assert_eq!((desired.total, desired.by_group.len()), (0, 2));
    let wrong = v1::GetDesiredWorkersRequest {
        target_duration_seconds: Some(f64::NAN),
        ..request
    };
    let refused = control.get_desired_workers(wrong).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn shutdown_ends_the_process() {
    let mut scheduler = Scheduler::start(&[]).await;
    let mut control = scheduler.control().await;
    let request = v1::ShutdownRequest {
        reason: "test".to_owned(),
    };
    control.shutdown(request).await.unwrap();
    let status = tokio::time::timeout(SOON, scheduler.process.wait()).await;
    assert!(status.expect("it ends").unwrap().success());
}

#[tokio::test]
async fn with_certificates_only_their_holders_are_served() {
    let authority = program::Authority::new();
    let scheduler = Scheduler::start_with_tls(&authority).await;
    let mut control = scheduler
        .control_over_tls(&authority.tls("member"))
        .await
        .unwrap();
    control.get_status(v1::GetStatusRequest {}).await.unwrap();
    let plain = async {
        scheduler
            .control()
            .await
            .get_status(v1::GetStatusRequest {})
            .await
    };
    let refused = tokio::time::timeout(SOON, plain).await.expect("an end");
    assert!(refused.is_err());
    let stranger = program::Authority::new();
    let refused = match scheduler.control_over_tls(&stranger.tls("member")).await {
        Ok(mut control) => control.get_status(v1::GetStatusRequest {}).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test]
async fn a_scheduler_outside_of_a_pod_serves_no_control_api_unasked() {
    let scheduler = Scheduler::start_plain(&[], &[]).await;
    assert_eq!(scheduler.control_port, None);
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let scheduler = Scheduler::start_plain(&[], &pod).await;
    assert!(scheduler.control_port.is_some());
    let identity = rpc(&scheduler.address, &[("op", "identity".into())]).await;
    assert_eq!(
        identity.field("type").and_then(Value::as_str),
        Some("Scheduler")
    );
}
