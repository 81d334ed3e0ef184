//! Nanoseconds that the core spends on a task, from its graph to its release, with 24 workers that answer at once.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use oxidask_protocol::{Key, Payload};
use oxidask_scheduler_core::event::{Actors, Event, NewTask, TaskRole, UpdateGraph};
use oxidask_scheduler_core::testing::{finished, new_worker};
use oxidask_scheduler_core::{Action, ClientId, Config, Core, Time};

const WORKERS: u32 = 24;

fn cluster() -> Core {
    let mut core = Core::new(Config::default());
    core.handle(
        Time(0),
        Event::ClientAdded {
            client: ClientId(0),
            name: "Client-0".into(),
        },
    );
    for id in 0..WORKERS {
        core.handle(Time(0), Event::WorkerAdded(new_worker(id, 1)));
    }
    core
}

fn new_task(key: Key, dependencies: Vec<Key>, order: i64) -> NewTask {
    NewTask {
        key,
        run_spec: Payload::pickled(&[0; 120], Vec::new()).expect("a small pickle"),
        dependencies,
        order,
        data_producer: false,
        annotations: None,
        role: TaskRole::Plain,
    }
}

fn map(n: i64) -> (Vec<NewTask>, Vec<Key>) {
    let keys: Vec<Key> = (0..n)
        .map(|i| Key::from(format!("inc-5a157e2a143267ff29b5f12f{i:08}")))
        .collect();
    (
        keys.iter()
            .enumerate()
            .map(|(i, key)| new_task(key.clone(), Vec::new(), i as i64))
            .collect(),
        keys,
    )
}

fn tree(leaves: i64) -> (Vec<NewTask>, Vec<Key>) {
    let key = |level: i64, i: i64| {
        Key::tuple([
            Key::from(format!("add-{level}-a143267ff29b5f12f9481a055")),
            Key::from(i),
        ])
    };
    let mut tasks = Vec::new();
    let (mut level, mut width) = (0, leaves);
    while width > 0 {
        for i in 0..width {
            let needs = if level == 0 {
                Vec::new()
            } else {
                vec![key(level - 1, 2 * i), key(level - 1, 2 * i + 1)]
            };
            tasks.push(new_task(key(level, i), needs, tasks.len() as i64));
        }
        (level, width) = (level + 1, width / 2);
    }
    let wanted = vec![tasks.last().unwrap().key.clone()];
    (tasks, wanted)
}

/// Runs a graph to its end. Gives the number of tasks that ran.
fn run(mut core: Core, (tasks, wanted): (Vec<NewTask>, Vec<Key>)) -> usize {
    let mut now = 0;
    let mut ran = 0;
    let mut answers: VecDeque<Event> = VecDeque::from([Event::UpdateGraph(UpdateGraph {
        client: ClientId(0),
        tasks,
        wanted: wanted.clone(),
        submitting_task: None,
        fifo_timeout: Duration::ZERO,
        actors: Actors::None,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "update-graph".into(),
    })]);
    while let Some(event) = answers.pop_front() {
        now += 1000;
        core.handle(Time(now), event);
        while core.has_slices() {
            core.handle(Time(now), Event::Tick);
        }
        while let Some(action) = core.poll_action() {
            if let Action::ComputeTask(compute) = action {
                ran += 1;
                answers.push_back(finished(&compute));
            }
        }
    }
    core.handle(
        Time(now),
        Event::ClientReleasesKeys {
            client: ClientId(0),
            keys: wanted,
        },
    );
    while core.has_slices() {
        core.handle(Time(now), Event::Tick);
    }
    assert_eq!(core.task_count(), 0);
    ran
}

fn tasks(c: &mut Criterion) {
    let mut group = c.benchmark_group("core");
    group.sample_size(20);
    for (name, graph) in [("map", map(10_000)), ("tree", tree(4096))] {
        group.throughput(Throughput::Elements(graph.0.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || (cluster(), graph.clone()),
                |(core, graph)| run(core, graph),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, tasks);
criterion_main!(benches);
