//! The pages over a real connection, with a cluster that is made up.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::metrics::{FAMILIES, Kind};
use super::*;

#[derive(Default)]
struct Made {
    retired: Mutex<Vec<Retire>>,
    control: Option<u16>,
}

impl Cluster for Made {
    fn snapshot(&self) -> Snapshot {
        let worker = |address: &str, status, processing| WorkerRow {
            address: address.to_owned(),
            name: json!(1),
            status,
            nthreads: 2,
            processing,
            nbytes: 10,
            ..WorkerRow::default()
        };
        Snapshot {
            address: "tcp://127.0.0.1:8786".to_owned(),
            clients: 1,
            desired_workers: 4,
            workers: vec![
                worker("tcp://10.0.0.1:1", "running", 0),
                worker("tcp://10.0.0.1:2", "running", 2),
                worker("tcp://10.0.0.2:1", "running", 9),
                worker("tcp://10.0.0.2:2", "paused", 0),
                worker("tcp://10.0.0.2:3", "closing_gracefully", 0),
            ],
            tasks: vec![("processing", 11), ("memory", 5)],
            prefixes: vec![PrefixRow {
                name: "inc".to_owned(),
                compute_seconds_total: 1.5,
                ..PrefixRow::default()
            }],
            semaphores: vec![SemaphoreRow {
                name: "x".to_owned(),
                acquire_total: 3,
                ..SemaphoreRow::default()
            }],
            ..Snapshot::default()
        }
    }

    fn identity(&self) -> Value {
        json!({"type": "Scheduler"})
    }

    fn adaptive_target(&self) -> u64 {
        4
    }

    fn check_idle(&self) -> Option<f64> {
        None
    }

    fn control_port(&self) -> Option<u16> {
        self.control
    }

    async fn retire(&self, which: Retire) -> Result<Value, String> {
        self.retired.lock().unwrap().push(which.clone());
        match which {
            Retire::Number(99) => Err("no such workers".to_owned()),
            _ => Ok(json!({"tcp://10.0.0.1:1": {"name": 1}})),
        }
    }
}

/// Serves a cluster, sends requests, gives status and body of each answer.
async fn ask(
    cluster: Made,
    prefix: &str,
    requests: &[(&str, &str, &str)],
) -> (Vec<(u16, String)>, Arc<Made>) {
    let cluster = Arc::new(cluster);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Arc::clone(&cluster), prefix, "dask");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, router, async {
        let _ = stopped.await;
    }));
    let mut answers = Vec::new();
    for (method, path, body) in requests {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        answers.push((status, body.to_owned()));
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    (answers, cluster)
}

async fn get(path: &str) -> (u16, String) {
    ask(Made::default(), "", &[("GET", path, "")])
        .await
        .0
        .pop()
        .unwrap()
}

async fn get_json(path: &str) -> Value {
    serde_json::from_str(&get(path).await.1).unwrap()
}

#[tokio::test]
async fn the_api_answers_as_stock_does() {
    assert_eq!(get("/health").await, (200, "ok".to_owned()));
    assert_eq!(
        get_json("/api/v1/adaptive_target").await,
        json!({"workers": 4})
    );
    assert_eq!(
        get_json("/api/v1/check_idle").await,
        json!({"idle_since": null})
    );
    let workers = get_json("/api/v1/get_workers").await;
    assert_eq!(workers["num_workers"], 5);
    assert_eq!(
        workers["workers"][0],
        json!({"name": 1, "address": "tcp://10.0.0.1:1"})
    );
    assert_eq!(get("/nowhere").await.0, 404);
    assert_eq!(get("/api/v1/retire_workers").await.0, 405);
    let counts = get_json("/json/counts.json").await;
    assert_eq!(counts["hosts"], 2);
    assert_eq!(counts["idle"], 1);
    assert_eq!(counts["saturated"], 1);
    assert_eq!(counts["cores"], 10);
    assert_eq!(get_json("/json/identity.json").await["type"], "Scheduler");
    assert_eq!(get_json("/json/state.json").await["desired_workers"], 4);
}

#[tokio::test]
async fn the_control_port_is_told_while_there_is_one() {
    assert_eq!(get_json("/api/v1").await, json!({"api": "v1"}));
    let cluster = Made {
        control: Some(8788),
        ..Made::default()
    };
    let (answers, _) = ask(cluster, "", &[("GET", "/api/v1", "")]).await;
    let about: Value = serde_json::from_str(&answers[0].1).unwrap();
    assert_eq!(about["control"], 8788);
}

#[tokio::test]
async fn workers_are_retired_by_number_or_by_name() {
    let path = "/api/v1/retire_workers";
    let requests = [
        ("POST", path, r#"{"n": 2}"#),
        ("POST", path, r#"{"workers": ["tcp://10.0.0.1:1", 7]}"#),
        ("POST", path, "{}"),
        ("POST", path, "what?"),
        ("POST", path, r#"{"n": "two"}"#),
        ("POST", path, r#"{"workers": "all"}"#),
        ("POST", path, r#"{"n": 99}"#),
    ];
    let (answers, cluster) = ask(Made::default(), "", &requests).await;
    let codes: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(codes, [200, 200, 200, 400, 400, 400, 500]);
    assert_eq!(answers[0].1, r#"{"tcp://10.0.0.1:1":{"name":1}}"#);
    assert!(answers[3].1.contains("no JSON"), "{}", answers[3].1);
    assert_eq!(answers[6].1, r#"{"Error":"no such workers"}"#);
    let named = vec!["tcp://10.0.0.1:1".to_owned(), "7".to_owned()];
    assert_eq!(
        *cluster.retired.lock().unwrap(),
        [
            Retire::Number(2),
            Retire::Workers(named),
            Retire::Workers(Vec::new()),
            Retire::Number(99)
        ]
    );
}

#[tokio::test]
async fn a_body_of_any_size_is_refused() {
    let body = format!(r#"{{"workers": ["{}"]}}"#, "x".repeat(2 << 20));
    let requests = [("POST", "/api/v1/retire_workers", body.as_str())];
    let (answers, _) = ask(Made::default(), "", &requests).await;
    assert_eq!(answers[0].0, 413);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = router(Arc::new(Made::default()), "", "dask");
    let patience = Duration::from_millis(20);
    tokio::spawn(serve_within(
        listener,
        pages,
        std::future::pending(),
        patience,
    ));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut rest));
    assert_eq!(closed.await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn pages_stand_under_the_prefix_and_probes_without_it() {
    let requests = [
        ("GET", "/dash/status", ""),
        ("GET", "/dash/metrics", ""),
        ("GET", "/health", ""),
    ];
    let (answers, _) = ask(Made::default(), "dash", &requests).await;
    assert!(
        answers.iter().all(|(status, _)| *status == 200),
        "{answers:?}"
    );
    assert!(answers[0].1.contains("Dask scheduler"));
}

#[tokio::test]
async fn metrics_have_dasks_names_and_values() {
    let (_, body) = get("/metrics").await;
    for line in [
        "dask_scheduler_clients 1",
        "dask_scheduler_workers{state=\"idle\"} 1",
        "dask_scheduler_workers{state=\"partially_saturated\"} 1",
        "dask_scheduler_workers{state=\"saturated\"} 1",
        "dask_scheduler_workers{state=\"paused\"} 1",
        "dask_scheduler_workers{state=\"retiring\"} 1",
        "dask_scheduler_tasks{state=\"processing\"} 11",
        "dask_scheduler_tasks_compute_seconds_total{task_prefix_name=\"inc\"} 1.5",
        "dask_semaphore_acquire_total{name=\"x\"} 3",
        "# TYPE dask_scheduler_workers_added_total counter",
        "# TYPE dask_scheduler_workers gauge",
    ] {
        assert!(
            body.lines().any(|own| own == line),
            "{line} not in:\n{body}"
        );
    }
    assert!(body.contains("\nprocess_resident_memory_bytes "));
}

#[test]
fn docs_metrics_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
    let table = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `dask_s"))
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|row: &Vec<&str>| row[1].contains("_scheduler_") || row[1].contains("_semaphore_"))
        .collect();
    for family in FAMILIES {
        let name = format!("`dask_{}`", family.name);
        let row = rows.iter().find(|row| row[1] == name);
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md lacks a row for {name}"));
        let kind = if family.kind == Kind::Counter {
            "counter"
        } else {
            "gauge"
        };
        assert_eq!(row[2], kind, "{name}");
        let labels = family.labels.join(", ");
        assert_eq!(row[3], labels, "{name}");
    }
    assert_eq!(
        rows.len(),
        FAMILIES.len(),
        "docs/metrics.md has rows that no metric has"
    );
}
