//! Workers that may go, groups that should grow, and work that is held back.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::TaskStateName::{NoWorker, Processing, Queued};
use oxidask_scheduler_core::event::{Annotations, Event, WorkerStatus};
use oxidask_scheduler_core::testing::{TestCore, annotated, new_worker, task};
use oxidask_scheduler_core::{ClientId, Config, Unique, WorkerGroup, WorkerId};

fn scatter(t: &mut TestCore, key: &str, nbytes: u64, on: &[u32]) {
    let workers = on.iter().copied().map(WorkerId).collect();
    t.send(Event::DataAdded {
        client: Some(ClientId(0)),
        data: vec![(Key::from(key), nbytes, workers)],
    });
}

#[test]
fn idle_workers_without_unique_results_go_first_then_idle_ones_then_the_lightest() {
    let mut t = TestCore::default().client(0);
    for id in 0..5 {
        t.add_worker(id, 1);
    }
    let pinned = |worker: &str| Annotations {
        workers: vec![worker.to_owned()],
        ..Annotations::default()
    };
    // 0 and 3 are busy; 1 and 4 hold what is theirs alone, 2 and 3 copies of the same.
    scatter(&mut t, "of-0", 10, &[0]);
    scatter(&mut t, "of-1", 70, &[1]);
    scatter(&mut t, "of-4", 30, &[4]);
    scatter(&mut t, "shared", 1000, &[2, 3]);
    t.submit(
        0,
        vec![
            annotated(task("a", &[]), pinned("w0")),
            annotated(task("b", &[]), pinned("w3")),
        ],
        &["a", "b"],
    );
    let order: Vec<u32> = t.core.victims(9, None).iter().map(|id| id.0).collect();
    assert_eq!(order, [2, 4, 1, 3, 0]);
    let among = [WorkerId(0), WorkerId(1)];
    assert_eq!(t.core.victims(1, Some(&among)), [WorkerId(1)]);
    let unique = t.core.unique();
    let of = |results, bytes| Unique { results, bytes };
    assert_eq!(unique[&WorkerId(3)], of(0, 0));
    assert_eq!(unique[&WorkerId(1)], of(1, 70));
}

#[test]
fn workers_that_are_leaving_or_run_long_tasks_are_no_victims() {
    let mut t = TestCore::default().worker(0, 1).worker(1, 1).client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    let sent = t.sent.values().next().unwrap().clone();
    t.send(Event::LongRunning {
        worker: sent.worker,
        key: sent.key,
        run_id: Some(sent.run_id),
        compute_duration: None,
    });
    let other = WorkerId(1 - sent.worker.0);
    assert_eq!(t.core.victims(2, None), [other]);
    t.send(Event::WorkerStatusChanged {
        worker: other,
        status: WorkerStatus::ClosingGracefully,
    });
    assert_eq!(t.core.victims(2, None), []);
}

#[test]
fn work_is_divided_among_groups_by_what_it_needs() {
    let mut t = TestCore::default().client(0);
    let gpu = |n: u32| {
        let annotations = Annotations {
            resources: vec![("GPU".to_owned(), 1.0)],
            ..Annotations::default()
        };
        annotated(task(&format!("('g-1', {n})"), &[]), annotations)
    };
    let mut tasks: Vec<_> = (0..6).map(gpu).collect();
    tasks.extend((0..40).map(|n| task(&format!("('c-1', {n})"), &[])));
    let names: Vec<String> = tasks.iter().map(|task| task.key.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    t.submit(0, tasks, &names);
    let groups = [
        WorkerGroup {
            nthreads: 4,
            ..WorkerGroup::default()
        },
        WorkerGroup {
            nthreads: 1,
            resources: vec![("GPU".to_owned(), 1.0)],
            members: Vec::new(),
        },
        WorkerGroup {
            nthreads: 1,
            resources: vec![("FPGA".to_owned(), 1.0)],
            members: Vec::new(),
        },
    ];
    // Half a second for each task that never ran: 20 s and 3 s of work.
    assert_eq!(t.core.desired_by_group(&groups, 1.0), [5, 3, 0]);
}

#[test]
fn while_draining_nothing_is_handed_out_and_afterwards_everything_is() {
    let mut t = TestCore::new(Config {
        no_workers_timeout: Some(Duration::from_secs(1)),
        ..Config::default()
    })
    .worker(0, 2)
    .client(0);
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["y"]);
    t.send(Event::DrainingSet { draining: true });
    assert_eq!(t.core.assigned_tasks(), 1);
    t.finish("x");
    assert_eq!(t.core.assigned_tasks(), 0);
    assert_eq!(t.state("y"), NoWorker);
    let names: Vec<String> = (0..9).map(|i| format!("('r-1', {i})")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    t.submit(
        0,
        names.iter().map(|name| task(name, &[])).collect(),
        &names,
    );
    t.add_worker(1, 1);
    assert_eq!(t.state(names[0]), Queued);
    t.wait(Duration::from_secs(5));
    assert_eq!(
        t.state("y"),
        NoWorker,
        "no time passes for what is held back"
    );
    assert!(t.sent.is_empty());
    t.send(Event::DrainingSet { draining: false });
    assert_eq!(t.state("y"), Processing);
    t.finish_all();
    assert_eq!(t.reports().len(), 10);
}

/// `n` tasks of a prefix that lasts so many seconds, on workers of so many threads; how many workers are wanted then for
/// work of five seconds.
fn wanted(threads: &[u32], n: usize, seconds: f64, saturation: f64) -> usize {
    let config = Config {
        default_task_durations: vec![("slow".into(), seconds)],
        worker_saturation: saturation,
        ..Config::default()
    };
    let mut t = TestCore::new(config).client(0);
    for (id, threads) in threads.iter().enumerate() {
        t.add_worker(id as u32, *threads);
    }
    let names: Vec<String> = (0..n).map(|i| format!("slow-{i}")).collect();
    let tasks = names.iter().map(|name| task(name, &[])).collect();
    t.submit(
        0,
        tasks,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    t.core.adaptive_target(5.0)
}

#[test]
fn as_many_workers_are_wanted_as_do_the_work_in_time() {
    for saturation in [1.0, f64::INFINITY] {
        assert_eq!(wanted(&[], 0, 1.0, saturation), 0, "nothing to do");
        assert_eq!(wanted(&[], 1, 0.5, saturation), 1);
        assert_eq!(wanted(&[], 100, 0.5, saturation), 10, "50 s of work");
        assert_eq!(wanted(&[1, 1], 0, 1.0, saturation), 0, "all may go");
    }
}

#[test]
fn no_more_workers_are_wanted_than_there_are_tasks() {
    for saturation in [1.0, f64::INFINITY] {
        assert_eq!(wanted(&[], 10, 1000.0, saturation), 10);
        assert_eq!(wanted(&[], 200, 1000.0, saturation), 200);
    }
}

#[test]
fn threads_are_counted_by_what_workers_have_on_average() {
    assert_eq!(wanted(&[5], 10, 1000.0, 1.1), 2);
    assert_eq!(wanted(&[5], 200, 1000.0, 1.1), 40);
}

#[test]
fn twice_the_workers_are_wanted_when_memory_is_short() {
    let mut t = TestCore::default().client(0);
    let mut small = new_worker(0, 1);
    small.memory_limit = 100;
    t.send(Event::WorkerAdded(small));
    scatter(&mut t, "x", 59, &[0]);
    assert_eq!(t.core.adaptive_target(5.0), 1);
    scatter(&mut t, "y", 10, &[0]);
    assert_eq!(t.core.adaptive_target(5.0), 2);
}
