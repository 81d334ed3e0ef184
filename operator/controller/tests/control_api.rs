//! The operator's questions, put to a scheduler that has the control API.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use axum::routing::get;
use futures::stream::BoxStream;
use oxidask_control::v1;
use oxidask_control::v1::control_server::{Control, ControlServer};
use oxidask_operator::scheduler::{Endpoint, Live, SchedulerApi as _};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

/// A scheduler with one worker, `tcp://10.0.0.1:1`, that is retired in two steps.
struct Scheduler;

type Stream<T> = BoxStream<'static, Result<T, Status>>;

fn stream<T: Send + 'static>(items: Vec<T>) -> Response<Stream<T>> {
    Response::new(Box::pin(futures::stream::iter(items.into_iter().map(Ok))))
}

#[tonic::async_trait]
impl Control for Scheduler {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        let worker = v1::Worker {
            address: "tcp://10.0.0.1:1".to_owned(),
            name: "mine".to_owned(),
            deployment: Some("simple-default-worker-1".to_owned()),
            executing: 2,
            bytes: 500,
            unique_bytes: 70,
            ..v1::Worker::default()
        };
        Ok(Response::new(v1::ClusterStatus {
            workers: vec![worker],
            idle_since_ms: Some(1_500),
            ..v1::ClusterStatus::default()
        }))
    }

    type WatchStatusStream = Stream<v1::ClusterStatus>;
    async fn watch_status(
        &self,
        _: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_desired_workers(
        &self,
        _: Request<v1::GetDesiredWorkersRequest>,
    ) -> Result<Response<v1::DesiredWorkers>, Status> {
        Ok(Response::new(v1::DesiredWorkers {
            total: 9,
            by_group: HashMap::new(),
            reason: String::new(),
        }))
    }

    type WatchDesiredWorkersStream = Stream<v1::DesiredWorkers>;
    async fn watch_desired_workers(
        &self,
        _: Request<v1::GetDesiredWorkersRequest>,
    ) -> Result<Response<Self::WatchDesiredWorkersStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn choose_victims(
        &self,
        _: Request<v1::ChooseVictimsRequest>,
    ) -> Result<Response<v1::ChooseVictimsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type RetireWorkersStream = Stream<v1::RetireProgress>;
    async fn retire_workers(
        &self,
        request: Request<v1::RetireWorkersRequest>,
    ) -> Result<Response<Self::RetireWorkersStream>, Status> {
        let request = request.into_inner();
        assert_eq!(request.close, Some(false), "its pod must not start it anew");
        let step = |address: &str, state: v1::RetireState| v1::RetireProgress {
            address: address.to_owned(),
            state: state.into(),
            ..v1::RetireProgress::default()
        };
        Ok(stream(vec![
            step("tcp://10.0.0.1:1", v1::RetireState::Moving),
            step("tcp://10.0.0.2:1", v1::RetireState::Deadline),
            step("tcp://10.0.0.1:1", v1::RetireState::Retired),
        ]))
    }

    type DrainStream = Stream<v1::DrainProgress>;
    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<Self::DrainStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn shutdown(
        &self,
        _: Request<v1::ShutdownRequest>,
    ) -> Result<Response<v1::ShutdownResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// Starts both servers; the HTTP one announces the other.
async fn scheduler() -> Endpoint {
    let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = control.local_addr().unwrap().port();
    let incoming = futures::stream::unfold(control, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(ControlServer::new(Scheduler))
            .serve_with_incoming(incoming),
    );
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = http.local_addr().unwrap().port();
    let announce = move || async move { axum::Json(serde_json::json!({"control": port})) };
    let router = axum::Router::new().route("/api/v1", get(announce));
    tokio::spawn(async move { axum::serve(http, router).await });
    Endpoint {
        host: "127.0.0.1".to_owned(),
        http: at,
        comm: 1,
        pod: "pod".to_owned(),
        secret: None,
    }
}

#[tokio::test]
async fn a_scheduler_that_announces_the_control_api_is_asked_through_it() {
    let (live, at) = (Live::new(None), scheduler().await);
    let workers = live.workers(&at).await.unwrap();
    assert_eq!(
        (&*workers[0].name, workers[0].processing, workers[0].bytes),
        ("simple-default-worker-1", 2, 70)
    );
    assert_eq!(live.desired_workers(&at, &[]).await.unwrap().total, 9);
    assert_eq!(live.idle_since(&at).await.unwrap(), Some(1.5));
    let addresses = [1, 2, 3].map(|n| format!("tcp://10.0.0.{n}:1"));
    let retired = live
        .retire(&at, &addresses, Duration::from_secs(5), &|_, _| {})
        .await
        .unwrap();
    assert_eq!(retired.done, addresses[..1]);
    assert_eq!(
        retired.left,
        addresses[1..],
        "one in time's end, one never answered for"
    );
}
