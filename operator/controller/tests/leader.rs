//! Two operators and one lease: never do both act.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

mod fake;
mod life;

use std::sync::Arc;
use std::time::Duration;

use oxidask_operator::context::Settings;
use oxidask_operator::events::{Events, Level};
use oxidask_operator::leader::{Leader, Lost, lead};
use oxidask_operator::metrics::Metrics;
use oxidask_operator::namespaces::Namespaces;
use oxidask_operator::run::{Operator, Parts};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use fake::scheduler::FakeScheduler;
use fake::{CLUSTERS, Fake, GROUPS, client_of, cluster};

/// A process that acts while it has the lease.
struct Process {
    operator: Operator,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Lost>>,
}

impl Process {
    fn begin(fake: &Fake, who: &'static str) -> Self {
        let (client, metrics) = (client_of(fake, who), Metrics::new());
        let operator = Operator::new(Parts {
            client: client.clone(),
            scheduler: Arc::new(FakeScheduler(fake.clone())),
            metrics: metrics.clone(),
            events: Events::new(client.clone(), None, Level::Off),
            settings: Settings::default(),
            namespaces: Namespaces::default(),
        });
        let (shutdown, leader) = (
            CancellationToken::new(),
            Leader::new(client, "ns", who.to_owned()),
        );
        let task = tokio::spawn({
            let (operator, shutdown) = (operator.clone(), shutdown.clone());
            async move { lead(leader, &operator, &metrics, &shutdown).await }
        });
        Self {
            operator,
            shutdown,
            task,
        }
    }
}

async fn workers(fake: &Fake, count: usize) {
    fake.until(&format!("{count} workers"), |fake| {
        fake.workers("simple-default").len() == count
    })
    .await;
}

fn scale(fake: &Fake, replicas: usize) {
    let change = json!({"spec": {"worker": {"replicas": replicas}}});
    fake.patch(GROUPS, "simple-default", &change);
}

#[tokio::test(start_paused = true)]
async fn process_that_lost_the_lease_writes_nothing_once_another_does() {
    let fake = Fake::default();
    let first = Process::begin(&fake, "first");
    fake.create(CLUSTERS, cluster("simple", 1));
    workers(&fake, 1).await;
    let _second = Process::begin(&fake, "second");
    // It can still write, but not renew its lease: the worst case.
    fake.with(|state| state.cut_off = Some("first"));
    for count in (2..40).map(|n| 1 + n % 5) {
        // There is always something to do for whoever acts.
        scale(&fake, count);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(matches!(first.task.await.unwrap(), Err(Lost)));
    let writers = fake.with(|state| state.writers.clone());
    let turn = writers.iter().position(|who| *who == "second").unwrap();
    assert!(
        turn > 10 && writers.len() > turn + 10,
        "{turn} of {}",
        writers.len()
    );
    assert!(
        writers[turn..].iter().all(|who| *who == "second"),
        "the first wrote after the second had begun"
    );
    scale(&fake, 3);
    workers(&fake, 3).await;
}

#[tokio::test(start_paused = true)]
async fn process_that_is_asked_to_stop_hands_over_at_once() {
    let fake = Fake::default();
    let first = Process::begin(&fake, "first");
    fake.create(CLUSTERS, cluster("simple", 1));
    workers(&fake, 1).await;
    let second = Process::begin(&fake, "second");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(second.operator.is_ready(), "standing by is being ready");
    first.shutdown.cancel();
    assert!(first.task.await.unwrap().is_ok());
    let began = tokio::time::Instant::now();
    scale(&fake, 2);
    workers(&fake, 2).await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        fake.with(|state| state.writers.last().copied()),
        Some("second")
    );
}
