//! Each of the six verdicts on a program that is built to have exactly that bound.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use oxidask_cli::experiment::measure::{Cell, Label, timed};
use oxidask_cli::experiment::verdict::{Bound, Verdict, verdict};
use oxidask_client::{Client, DType, Future, Graph, Kernel, Key, Range, Reduction, Scalar, Task};
use oxidask_e2e::processes::Processes;

const LONG: Duration = Duration::from_secs(60);

/// Held by each test: what bounds a program can only be seen while no other one runs.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Elements of 64 MB: far beyond the caches.
const LARGE: usize = 8_000_000;

struct Cluster {
    _processes: Processes,
    client: Client,
    workers: usize,
}

impl Cluster {
    async fn of(workers: usize) -> Self {
        let mut processes = Processes::start();
        for number in 0..workers {
            processes.native_worker(&number.to_string(), 1);
        }
        let client = Client::connect(&processes.address).await.unwrap();
        client.wait_for_workers(workers, LONG).await.unwrap();
        Self {
            _processes: processes,
            client,
            workers,
        }
    }

    async fn run(&self, submit: impl FnOnce(&Client) -> Vec<Future>) -> Cell {
        let label = Label {
            workload: "test".to_owned(),
            size: 0,
            workers: self.workers,
            threads: 1,
        };
        let perform = async {
            self.client.wait(&submit(&self.client)).await?;
            Ok(())
        };
        timed(&self.client, label, perform).await.unwrap()
    }

    async fn pi(&self, tasks: u64, samples: u64) -> Cell {
        let kernels = (0..tasks).map(|chunk| Kernel::Pi {
            seed: 1,
            chunk,
            samples,
        });
        self.run(|client| client.map("pi", kernels, &[])).await
    }

    /// `count` large arrays on each worker, in turn.
    async fn large(&self, count: usize) -> (Vec<Future>, Vec<Key>) {
        let tasks = (0..count * self.workers).map(|number| {
            let kernel = Kernel::Full {
                shape: vec![LARGE],
                dtype: DType::F64,
                value: Scalar::Int(1),
            };
            let mut task = Task::new(
                Key::tuple([Key::from("large"), Key::from(number as i64)]),
                kernel,
                Vec::new(),
            );
            task.workers = vec![(number % self.workers).to_string()];
            task
        });
        let graph: Graph = tasks.collect();
        let keys: Vec<Key> = graph.tasks.iter().map(|task| task.key.clone()).collect();
        let futures = self.client.submit(graph, &keys);
        self.client.wait(&futures).await.unwrap();
        (futures, keys)
    }
}

/// A task of each array, on the worker with the number that `place` gives.
fn of_each(keys: &[Key], kernel: &Kernel, place: impl Fn(usize) -> usize) -> (Graph, Vec<Key>) {
    let mut graph = Graph::default();
    for (number, key) in keys.iter().enumerate() {
        let name = Key::tuple([Key::from("of-each"), Key::from(number as i64)]);
        let mut task = Task::new(name, kernel.clone(), vec![key.clone()]);
        task.workers = vec![place(number).to_string()];
        graph.tasks.push(task);
    }
    let wanted = graph.tasks.iter().map(|task| task.key.clone()).collect();
    (graph, wanted)
}

fn expect(bound: Bound, verdict: &Verdict, cell: &Cell, base: &Cell) {
    assert_eq!(
        verdict.bound, bound,
        "{}\n{cell:#?}\nbase {base:#?}",
        verdict.sentence
    );
}

#[tokio::test]
async fn many_long_tasks_on_as_many_workers_as_cores_are_bound_by_computing() {
    let _turn = TURN.lock().await;
    let base = Cluster::of(1).await.pi(32, 200_000_000).await;
    expect(Bound::Compute, &verdict(&base, &base, 32), &base, &base);
}

#[tokio::test]
async fn one_task_on_two_workers_is_too_few() {
    let _turn = TURN.lock().await;
    let base = Cluster::of(1).await.pi(1, 200_000_000).await;
    let cell = Cluster::of(2).await.pi(1, 200_000_000).await;
    expect(Bound::TooFewTasks, &verdict(&cell, &base, 1), &cell, &base);
}

#[tokio::test]
async fn more_workers_than_cores_are_too_few_cores() {
    let _turn = TURN.lock().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    let tasks = 16 * cores as u64;
    let base = Cluster::of(1).await.pi(tasks, 100_000_000).await;
    let cell = Cluster::of(2 * cores).await.pi(tasks, 100_000_000).await;
    expect(
        Bound::TooFewCores,
        &verdict(&cell, &base, tasks),
        &cell,
        &base,
    );
}

#[tokio::test]
async fn workers_that_only_fetch_from_each_other_are_bound_by_transfers() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::of(2).await;
    let (_arrays, keys) = cluster.large(8).await;
    let first = Kernel::Slice(vec![Range {
        start: 0,
        stop: 1,
        step: 1,
    }]);
    // Each array is needed where it is not.
    let (graph, wanted) = of_each(&keys, &first, |number| (number + 1) % 2);
    let cell = cluster.run(|client| client.submit(graph, &wanted)).await;
    assert_eq!(cell.work.bytes_moved / (LARGE as u64 * 8), 16);
    expect(Bound::Transfer, &verdict(&cell, &cell, 16), &cell, &cell);
}

#[tokio::test]
async fn tasks_that_take_no_time_are_bound_by_the_scheduler() {
    let _turn = TURN.lock().await;
    let cluster = Cluster::of(2).await;
    let cell = cluster.pi(20_000, 1).await;
    expect(
        Bound::Scheduler,
        &verdict(&cell, &cell, 20_000),
        &cell,
        &cell,
    );
}

#[tokio::test]
#[ignore = "holds only while nothing else uses the memory: run it alone, on a quiet machine"]
async fn workers_that_stream_through_memory_are_bound_by_its_bandwidth() {
    let _turn = TURN.lock().await;
    let stream = async |workers: usize| {
        let cluster = Cluster::of(workers).await;
        let (_arrays, keys) = cluster.large(2).await;
        let (graph, wanted) = streams(&keys, workers);
        cluster.run(|client| client.submit(graph, &wanted)).await
    };
    let (base, cell) = (stream(1).await, stream(2).await);
    expect(
        Bound::MemoryBandwidth,
        &verdict(&cell, &base, 0),
        &cell,
        &base,
    );
}

/// Twelve tasks in all, each of which goes through the arrays of its worker again and again, and each time through its
/// result: two loads and a store for one comparison, far beyond the caches, and next to no memory that is fresh.
fn streams(keys: &[Key], workers: usize) -> (Graph, Vec<Key>) {
    const TASKS: usize = 12;
    const PASSES: usize = 24;
    let tasks = (0..TASKS).map(|number| {
        let own = keys.iter().skip(number % workers).step_by(workers);
        let inputs = own.cycle().take(PASSES).cloned().collect();
        let name = Key::tuple([Key::from("stream"), Key::from(number as i64)]);
        let mut task = Task::new(name, Kernel::Combine(Reduction::Max), inputs);
        task.workers = vec![(number % workers).to_string()];
        task
    });
    let graph: Graph = tasks.collect();
    let wanted = graph.tasks.iter().map(|task| task.key.clone()).collect();
    (graph, wanted)
}
