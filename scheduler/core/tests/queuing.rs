//! What is handed out, in which order, and what waits: the behaviours that distributed's tests of saturation, queueing,
//! priorities and missing workers describe.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::TaskStateName::{Erred, Memory, NoWorker, Processing, Queued};
use oxidask_scheduler_core::event::{Actors, Annotations, Event, UpdateGraph, WorkerStatus};
use oxidask_scheduler_core::testing::{TestCore, annotated, task};
use oxidask_scheduler_core::{Action, ClientId, Config, WorkerId};

fn saturated(worker_saturation: f64) -> Config {
    Config {
        worker_saturation,
        work_stealing: false,
        ..Config::default()
    }
}

fn names(prefix: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{prefix}-{i}")).collect()
}

/// Submits tasks that need nothing.
fn submit_roots(t: &mut TestCore, client: u32, names: &[String]) {
    let tasks = names.iter().map(|name| task(name, &[])).collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    t.submit(client, tasks, &wanted);
}

fn in_state(t: &TestCore, state: oxidask_scheduler_core::action::TaskStateName) -> usize {
    let is_in = |key: &&Key| t.core.task_state(key) == Some(state);
    t.core.keys().iter().filter(is_in).count()
}

fn processing(t: &TestCore, worker: u32) -> usize {
    t.core.processing(WorkerId(worker)).len()
}

fn pause(t: &mut TestCore, worker: u32, status: WorkerStatus) {
    t.send(Event::WorkerStatusChanged {
        worker: WorkerId(worker),
        status,
    });
}

/// The table of distributed's `test_saturation_factor`.
#[test]
fn a_worker_gets_as_many_roots_as_its_saturation_says() {
    let cases = [
        (2.5, (5, 3)),
        (2.0, (4, 2)),
        (1.1, (3, 2)),
        (1.0, (2, 1)),
        (0.1, (1, 1)),
    ];
    for (saturation, expected) in cases {
        let mut t = TestCore::new(saturated(saturation))
            .worker(0, 2)
            .worker(1, 1)
            .client(0);
        submit_roots(&mut t, 0, &names("wait", 10));
        assert_eq!(
            (processing(&t, 0), processing(&t, 1)),
            expected,
            "{saturation}"
        );
        assert_eq!(in_state(&t, Queued), 10 - expected.0 - expected.1);
    }
    let mut t = TestCore::new(saturated(f64::INFINITY))
        .worker(0, 2)
        .worker(1, 1)
        .client(0);
    submit_roots(&mut t, 0, &names("wait", 10));
    assert_eq!(
        processing(&t, 0) + processing(&t, 1),
        10,
        "nothing is queued"
    );
    assert!(processing(&t, 0) > processing(&t, 1));
}

#[test]
fn what_was_submitted_first_is_handed_out_first_and_a_client_that_leaves_makes_room() {
    let mut t = TestCore::new(saturated(1.0)).client(0).client(1);
    for id in 0..3 {
        t.add_worker(id, 1);
    }
    let (first, second) = (names("first", 7), names("second", 7));
    submit_roots(&mut t, 0, &first);
    submit_roots(&mut t, 1, &second);
    assert_eq!(in_state(&t, Processing), 3);
    assert!(
        t.sent
            .keys()
            .all(|key| key.to_string().starts_with("first"))
    );
    assert_eq!(in_state(&t, Queued), 11);
    t.send(Event::ClientRemoved {
        client: ClientId(0),
    });
    assert_eq!(t.core.task_count(), 7, "the first batch is forgotten");
    assert_eq!((in_state(&t, Processing), in_state(&t, Queued)), (3, 4));
    let places: Vec<usize> = (0..3).map(|id| processing(&t, id)).collect();
    assert_eq!(places, [1, 1, 1], "not the same task for every worker");
    let mut order = Vec::new();
    while let Some(sent) = t.sent.values().min_by_key(|sent| sent.run_id).cloned() {
        order.push(sent.key.to_string());
        t.finish(&order.last().unwrap().clone());
    }
    assert_eq!(order, second);
}

#[test]
fn while_all_workers_are_paused_a_new_one_gets_the_work() {
    let mut t = TestCore::new(saturated(1.0))
        .worker(0, 2)
        .worker(1, 2)
        .client(0);
    submit_roots(&mut t, 0, &names("f", 16));
    pause(&mut t, 0, WorkerStatus::Paused);
    pause(&mut t, 1, WorkerStatus::Paused);
    assert!(t.core.running_workers().is_empty());
    t.finish_all();
    assert_eq!((in_state(&t, Memory), in_state(&t, Queued)), (4, 12));
    t.add_worker(2, 2);
    assert_eq!(processing(&t, 2), 2);
    t.finish_all();
    assert_eq!(in_state(&t, Memory), 16);
}

#[test]
fn workers_that_go_on_after_a_pause_are_filled_at_once() {
    for saturation in [1.0, f64::INFINITY] {
        let mut t = TestCore::new(saturated(saturation))
            .worker(0, 2)
            .worker(1, 2)
            .client(0);
        let roots = names("f", 16);
        let seconds: Vec<_> = roots
            .iter()
            .map(|root| task(&format!("g{root}"), &[root]))
            .collect();
        let wanted: Vec<Key> = seconds.iter().map(|task| task.key.clone()).collect();
        let tasks = roots.iter().map(|root| task(root, &[])).chain(seconds);
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        t.submit(
            0,
            tasks.collect(),
            &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        pause(&mut t, 0, WorkerStatus::Paused);
        pause(&mut t, 1, WorkerStatus::Paused);
        t.finish_all();
        pause(&mut t, 0, WorkerStatus::Running);
        pause(&mut t, 1, WorkerStatus::Running);
        if saturation == 1.0 {
            assert!(!t.core.is_idle(WorkerId(0)) && !t.core.is_idle(WorkerId(1)));
        }
        t.finish_all();
        assert!(wanted.iter().all(|key| t.state(key) == Memory));
    }
}

#[test]
fn the_work_of_a_worker_that_is_lost_is_queued_again() {
    let mut t = TestCore::new(saturated(1.0))
        .worker(0, 2)
        .worker(1, 2)
        .client(0);
    submit_roots(&mut t, 0, &names("f", 10));
    assert_eq!(in_state(&t, Queued), 6);
    t.lose_worker(0);
    assert_eq!(in_state(&t, Queued), 8);
    t.add_worker(2, 2);
    assert_eq!(in_state(&t, Queued), 6);
    t.finish_all();
    assert_eq!(in_state(&t, Memory), 10);
}

#[test]
fn no_more_streams_of_work_are_begun_than_there_are_threads() {
    let mut t = TestCore::new(saturated(1.0)).client(0);
    for id in 0..4 {
        t.add_worker(id, 2);
    }
    let mut tasks = Vec::new();
    let mut wanted = Vec::new();
    for n in 0..32 {
        let chain: Vec<String> = ["root", "first", "second", "done"]
            .iter()
            .map(|layer| format!("{layer}-{n}"))
            .collect();
        tasks.push(task(&chain[0], &[]));
        for pair in chain.windows(2) {
            tasks.push(task(&pair[1], &[&pair[0]]));
        }
        wanted.push(chain[3].clone());
    }
    t.submit(
        0,
        tasks,
        &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let mut most = 0;
    while let Some(sent) = t.sent.values().min_by_key(|sent| sent.run_id).cloned() {
        t.finish(&sent.key.to_string());
        let is_root = |key: &&Key| key.prefix() == "root";
        let roots = |id| t.core.has_what(WorkerId(id)).iter().filter(is_root).count();
        most = most.max((0..4).map(roots).max().unwrap());
    }
    assert!(
        (1..=2).contains(&most),
        "{most} roots on a worker of two threads"
    );
    assert!(wanted.iter().all(|key| t.state(key) == Memory));
}

/// A worker of one thread that is busy, or paused, while tasks are submitted; the order in which it gets them then.
fn order_after(pause_it: bool, submit: impl Fn(&mut TestCore)) -> Vec<String> {
    let mut t = TestCore::new(saturated(1.0)).worker(0, 1).client(0);
    if pause_it {
        pause(&mut t, 0, WorkerStatus::Paused);
    } else {
        t.submit(0, vec![task("blocker", &[])], &["blocker"]);
    }
    submit(&mut t);
    if pause_it {
        pause(&mut t, 0, WorkerStatus::Running);
    } else {
        t.finish("blocker");
    }
    let mut order = Vec::new();
    // The worker runs what it has by priority.
    while let Some(key) = t
        .sent
        .values()
        .min_by(|a, b| rank(&t, &a.key).partial_cmp(&rank(&t, &b.key)).unwrap())
        .map(|sent| sent.key.to_string())
    {
        t.finish(&key);
        order.push(key);
    }
    order
}

fn rank(t: &TestCore, key: &Key) -> (f64, f64, i64) {
    t.core.task(key).unwrap().priority.unwrap()
}

fn with_priority(key: &str, priority: f64) -> oxidask_scheduler_core::event::NewTask {
    let annotations = Annotations {
        priority: Some(priority),
        ..Annotations::default()
    };
    annotated(task(key, &[]), annotations)
}

#[test]
fn the_users_priority_decides_wherever_the_tasks_wait() {
    for pause_it in [false, true] {
        let order = order_after(pause_it, |t| {
            t.submit(0, vec![with_priority("low", -1.0)], &["low"]);
            t.submit(0, vec![task("clog", &[])], &["clog"]);
            t.submit(0, vec![with_priority("high", 1.0)], &["high"]);
        });
        assert_eq!(
            order,
            ["high", "clog", "low"],
            "annotated, paused: {pause_it}"
        );
        let order = order_after(pause_it, |t| {
            let tasks = vec![
                with_priority("low", -1.0),
                task("clog", &[]),
                with_priority("high", 1.0),
            ];
            t.submit(0, tasks, &["low", "clog", "high"]);
        });
        assert_eq!(order, ["high", "clog", "low"], "in one graph");
        let order = order_after(pause_it, |t| {
            for (key, user_priority) in [("low", -1.0), ("clog", 0.0), ("high", 1.0)] {
                t.send(Event::UpdateGraph(UpdateGraph {
                    client: ClientId(0),
                    tasks: vec![task(key, &[])],
                    wanted: vec![Key::from(key)],
                    submitting_task: None,
                    fifo_timeout: Duration::ZERO,
                    actors: Actors::None,
                    user_priority,
                    span_metadata: None,
                    code: None,
                    stimulus_id: "update-graph".into(),
                }));
            }
        });
        assert_eq!(order, ["high", "clog", "low"], "of whole graphs");
    }
}

#[test]
fn what_continues_a_graph_runs_before_what_begins_a_later_one() {
    for pause_it in [false, true] {
        let order = order_after(pause_it, |t| {
            for n in 0..5 {
                let (x, y, z) = (format!("x{n}"), format!("y{n}"), format!("z{n}"));
                let tasks = vec![task(&x, &[]), task(&y, &[&x]), task(&z, &[&y])];
                t.submit(0, tasks, &[&x, &y, &z]);
            }
        });
        let place = |key: &str| order.iter().position(|k| k == key).unwrap();
        assert!(place("z0") < place("x4"), "{order:?}");
    }
}

#[test]
fn graphs_that_share_their_roots_advance_together() {
    let order = order_after(true, |t| {
        let xs = names("x", 10);
        let layer = |name: &str| -> Vec<_> {
            let shared = xs.iter().map(|x| task(x, &[]));
            let own = xs.iter().map(|x| task(&format!("{name}{x}"), &[x]));
            shared.chain(own).collect()
        };
        for name in ["y", "z"] {
            let wanted: Vec<String> = xs.iter().map(|x| format!("{name}{x}")).collect();
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            t.submit(0, layer(name), &wanted);
        }
    });
    let half = &order[..15];
    for name in ["x", "y"] {
        let n = half.iter().filter(|key| key.starts_with(name)).count();
        assert!(
            (1..10).contains(&n),
            "{n} of {name} in the first half: {order:?}"
        );
    }
    assert_eq!(order.len(), 30);
}

fn timed_out(t: &mut TestCore) -> Vec<String> {
    t.take_actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::NoWorkersTimedOut { keys } => Some(keys),
            _ => None,
        })
        .flatten()
        .map(|key| key.to_string())
        .collect()
}

fn with_timeout(seconds: Option<u64>) -> Config {
    Config {
        no_workers_timeout: seconds.map(Duration::from_secs),
        ..saturated(1.1)
    }
}

fn only_on(key: &str, worker: &str) -> oxidask_scheduler_core::event::NewTask {
    let annotations = Annotations {
        workers: vec![worker.into()],
        ..Annotations::default()
    };
    annotated(task(key, &[]), annotations)
}

fn error_of(t: &TestCore, key: &str) -> String {
    let (_, error) = t.core.task(&Key::from(key)).unwrap().error.unwrap();
    error.exception_text.clone()
}

#[test]
fn without_a_timeout_tasks_wait_for_a_worker_for_ever() {
    let mut t = TestCore::new(with_timeout(None)).client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.wait(Duration::from_secs(100_000));
    assert_eq!(t.state("x"), Queued);
    t.add_worker(0, 1);
    t.finish("x");
    assert_eq!(t.state("x"), Memory);
    assert!(timed_out(&mut t).is_empty());
}

#[test]
fn tasks_that_are_queued_while_there_are_no_workers_fail_in_time() {
    let mut t = TestCore::new(with_timeout(Some(10))).client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    assert_eq!(t.state("x"), Queued);
    assert!(
        t.core.next_deadline().is_some(),
        "it is looked at by itself"
    );
    t.wait(Duration::from_secs(9));
    assert_eq!(t.state("x"), Queued);
    t.wait(Duration::from_secs(3));
    assert_eq!(t.state("x"), Erred);
    assert_eq!(timed_out(&mut t), ["x"]);
    assert!(error_of(&t, "x").contains("without any running workers"));
}

#[test]
fn a_worker_that_comes_meanwhile_begins_the_time_anew() {
    let mut t = TestCore::new(with_timeout(Some(10))).client(0);
    t.submit(
        0,
        names("x", 9).iter().map(|x| task(x, &[])).collect(),
        &["x-8"],
    );
    t.wait(Duration::from_secs(9));
    t.add_worker(0, 1);
    t.wait(Duration::from_secs(1));
    t.lose_worker(0);
    t.wait(Duration::from_secs(9));
    assert!(timed_out(&mut t).is_empty(), "nine seconds without, twice");
    t.wait(Duration::from_secs(4));
    assert!(!timed_out(&mut t).is_empty());
}

#[test]
fn a_task_that_no_worker_may_run_fails_and_others_do_not() {
    let mut t = TestCore::new(with_timeout(Some(10))).worker(0, 1).client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.submit(0, vec![only_on("y", "elsewhere")], &["y"]);
    assert_eq!((t.state("x"), t.state("y")), (Processing, NoWorker));
    for _ in 0..4 {
        t.wait(Duration::from_secs(4));
    }
    assert_eq!(t.state("y"), Erred);
    assert_eq!(timed_out(&mut t), ["y"]);
    assert!(error_of(&t, "y").contains("for a valid worker"));
    t.wait(Duration::from_secs(1000));
    assert_eq!(t.state("x"), Processing, "however long it runs");
    assert!(timed_out(&mut t).is_empty());
}

#[test]
fn tasks_that_are_queued_behind_others_never_time_out() {
    let mut t = TestCore::new(with_timeout(Some(10))).worker(0, 1).client(0);
    submit_roots(&mut t, 0, &names("f", 9));
    assert!(in_state(&t, Queued) > 0);
    for _ in 0..10 {
        t.wait(Duration::from_secs(20));
    }
    assert!(timed_out(&mut t).is_empty());
    t.finish_all();
    assert_eq!(in_state(&t, Memory), 9);
}
