//! The operator's questions, put to a stock scheduler.
//!
//! `OXIDASK_PYTHON` names an interpreter with dask and distributed; without it
//! the test is skipped with a line that says so.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oxidask_operator::scheduler::{Endpoint, Live, SchedulerApi as _};
use serde_json::{Value, json};

struct Stock {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    endpoint: Endpoint,
}

impl Stock {
    fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("OXIDASK_PYTHON") else {
            eprintln!("skipped: OXIDASK_PYTHON is not set");
            return None;
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stock_cluster.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let ports = line(&mut stdout);
        let port = |name: &str| u16::try_from(ports[name].as_u64().unwrap()).unwrap();
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            http: port("http"),
            comm: port("comm"),
            pod: "pod".to_owned(),
            secret: None,
        };
        Some(Self {
            child,
            stdin,
            stdout,
            endpoint,
        })
    }

    fn ask(&mut self, command: &str) -> Value {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{command}").unwrap();
        stdin.flush().unwrap();
        line(&mut self.stdout)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        // It ends by itself, with its workers, when its input does.
        self.stdin.take();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(stdout: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_scheduler_retires_without_loss_and_lets_tasks_end() {
    let Some(mut stock) = Stock::start() else {
        return;
    };
    let live = Live::new(None);
    let at = stock.endpoint.clone();

    let workers = live.workers(&at).await.unwrap();
    assert_eq!(workers.len(), 3);
    assert!(workers.iter().all(|worker| worker.host() == "127.0.0.1"));
    let mut names: Vec<&str> = workers.iter().map(|worker| &*worker.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["0", "1", "2"]);
    assert_eq!(workers.iter().map(|worker| worker.results).sum::<u64>(), 30);

    let connected = live.connected(&at).await.unwrap();
    let mut names: Vec<&str> = connected.iter().map(|worker| &*worker.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["0", "1", "2"]);

    let victim = workers
        .iter()
        .max_by_key(|worker| worker.results)
        .unwrap()
        .address
        .clone();
    assert!(stock.ask(&format!("holds {victim}")).as_u64().unwrap() > 0);
    assert_eq!(stock.ask(&format!("run {victim}")), json!("running"));
    let busy = live.workers(&at).await.unwrap();
    assert_eq!(
        busy.iter()
            .find(|worker| worker.address == victim)
            .unwrap()
            .processing,
        1
    );

    let began = Instant::now();
    let retired = live
        .retire(
            &at,
            std::slice::from_ref(&victim),
            Duration::from_secs(30),
            &|_, _| {},
        )
        .await
        .unwrap();
    assert_eq!(
        (retired.done, retired.left.len()),
        (vec![victim.clone()], 0)
    );
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "the running task was waited for"
    );
    assert_eq!(stock.ask(&format!("holds {victim}")), json!(0));
    assert_eq!(
        stock.ask("gather"),
        json!({"computed": 30, "running": ["finished"]})
    );
    assert_eq!(
        live.workers(&at).await.unwrap().len(),
        3,
        "it stays connected until its pod ends"
    );
}

#[test]
fn the_hook_of_an_evicted_worker_hands_its_results_over_and_waits_for_its_task() {
    let Some(mut stock) = Stock::start() else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let workers = runtime
        .block_on(Live::new(None).workers(&stock.endpoint))
        .unwrap();
    let victim = workers.iter().max_by_key(|worker| worker.results).unwrap();
    assert!(victim.results > 0);
    assert_eq!(
        stock.ask(&format!("run {}", victim.address)),
        json!("running")
    );
    let began = Instant::now();
    let hook = Command::new(std::env::var_os("OXIDASK_PYTHON").unwrap())
        .args(["-c", include_str!("../src/build/drain.py")])
        .env(
            "DASK_SCHEDULER_ADDRESS",
            format!("tcp://127.0.0.1:{}", stock.endpoint.comm),
        )
        .env("DASK_WORKER_NAME", &victim.name)
        .output()
        .unwrap();
    assert!(
        hook.status.success(),
        "{}",
        String::from_utf8_lossy(&hook.stderr)
    );
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "the running task was waited for"
    );
    assert_eq!(stock.ask(&format!("holds {}", victim.address)), json!(0));
    assert_eq!(
        stock.ask("gather"),
        json!({"computed": 30, "running": ["finished"]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_and_idleness_of_a_stock_scheduler_are_known() {
    let Some(mut stock) = Stock::start() else {
        return;
    };
    let live = Live::new(None);
    let at = stock.endpoint.clone();
    assert!(live.desired_workers(&at, &[]).await.unwrap().total >= 0);
    live.idle_since(&at).await.unwrap();
    let idle = live.idle_since(&at).await.unwrap();
    assert!(idle.is_some_and(|since| since > 1e9), "{idle:?}");
    let victim = live.workers(&at).await.unwrap().remove(0).address;
    stock.ask(&format!("run {victim}"));
    assert_eq!(live.idle_since(&at).await.unwrap(), None, "busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_is_not_there_is_said_with_both_ways_tried() {
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        http: 1,
        comm: 1,
        pod: "none".to_owned(),
        secret: None,
    };
    let error = Live::new(None)
        .desired_workers(&endpoint, &[])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("HTTP") && error.contains("refused"),
        "{error}"
    );
}
