//! The ordinary life of tasks: compute, fetch, report, free.

mod support;

use std::time::Duration;

use oxidask_worker_core::{Config, EventKind};
use support::{TestCore, address, error, key, keys};

#[test]
fn task_without_dependencies_runs_and_is_reported() {
    let mut t = TestCore::with_threads(1);
    let run = t.compute("x", &[]);
    t.expect(&["execute x"]);
    t.executed("x")
        .expect(&[&format!("task-finished x run {run}")]);
    assert_eq!(t.state("x"), Some("memory"));
    t.free(&["x"]).expect(&["drop x", "release-worker-data x"]);
    assert_eq!(t.state("x"), None);
}

#[test]
fn dependency_is_fetched_and_announced_before_the_task_runs() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.expect(&["gather x from tcp://a:1"]);
    t.gathered("a", &["x"]).expect(&["add-keys x", "execute y"]);
}

#[test]
fn one_transfer_per_peer_carries_all_that_is_needed() {
    let mut t = TestCore::with_threads(4);
    t.compute("y1", &[("x1", "a"), ("x2", "a")]);
    t.expect(&["gather x1 x2 from tcp://a:1"]);
    t.compute("y2", &[("x3", "a")]);
    t.compute("y3", &[("x4", "a"), ("x5", "b")]);
    t.expect(&["gather x5 from tcp://b:1"]);
    t.gathered("a", &["x1", "x2"]);
    assert_eq!(
        t.take(),
        [
            "add-keys x1 x2",
            "execute y1",
            "gather x4 x3 from tcp://a:1"
        ]
    );
}

#[test]
fn message_size_limit_splits_transfers() {
    let mut t = TestCore::new(Config {
        message_bytes: 250,
        ..Config::default()
    });
    t.compute("y", &[("x1", "a"), ("x2", "a"), ("x3", "a")]);
    assert_eq!(t.take(), ["gather x1 x2 from tcp://a:1"]);
    t.gathered("a", &["x1", "x2"]);
    assert_eq!(t.take(), ["add-keys x1 x2", "gather x3 from tcp://a:1"]);
}

#[test]
fn connection_limit_counts_only_above_the_throttle() {
    let config = Config {
        incoming_connections: 1,
        incoming_throttle_bytes: 150,
        ..Config::default()
    };
    let mut t = TestCore::new(config);
    t.compute("y", &[("x1", "a"), ("x2", "b"), ("x3", "c")]);
    t.expect(&["gather x1 from tcp://a:1", "gather x2 from tcp://b:1"]);
    t.send(EventKind::GatherBusy {
        worker: address("a"),
    });
    t.expect(&["request-refresh-who-has x1", "gather x3 from tcp://c:1"]);
}

#[test]
fn smaller_priority_runs_first_and_the_last_among_equals() {
    let mut t = TestCore::with_threads(1);
    t.compute("first", &[]);
    t.compute_with("low", &[], &[], 5.0);
    t.compute_with("a", &[], &[], 1.0);
    t.compute_with("b", &[], &[], 1.0);
    t.take();
    t.executed("first");
    assert_eq!(t.take()[1], "execute b");
    t.executed("b");
    assert_eq!(t.take()[1], "execute a");
    t.executed("a");
    assert_eq!(t.take()[1], "execute low");
}

#[test]
fn resources_limit_what_runs_and_are_given_back() {
    let mut t = TestCore::new(Config {
        nthreads: 4,
        resources: vec![("GPU".into(), 1.0)],
        ..Config::default()
    });
    t.compute_with("a", &[], &[("GPU", 1.0)], 0.0);
    t.compute_with("b", &[], &[("GPU", 1.0)], 0.0);
    t.compute("c", &[]);
    t.expect(&["execute a", "execute c"]);
    assert_eq!(t.state("b"), Some("constrained"));
    t.send(EventKind::ExecuteFailed {
        key: key("a"),
        error: error("boom"),
    });
    t.expect(&["task-erred a run 1: boom", "execute b"]);
}

#[test]
fn seceded_task_frees_its_slot() {
    let mut t = TestCore::with_threads(1);
    t.compute("a", &[]);
    t.compute("b", &[]);
    t.take();
    t.send(EventKind::Seceded {
        key: key("a"),
        compute_duration: Duration::from_secs(1),
    });
    t.expect(&["long-running a", "execute b"]);
    t.executed("a").expect(&["task-finished a run 1"]);
}

#[test]
fn value_freed_while_a_task_here_needs_it_is_kept_until_then() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.executed("x");
    t.compute("busy", &[]);
    t.compute("y", &[("x", "me")]);
    t.take();
    t.free(&["x"]).expect(&[]);
    assert_eq!(t.state("x"), Some("memory"));
    t.executed("busy")
        .expect(&["task-finished busy run 2", "execute y"]);
    t.executed("y")
        .expect(&["task-finished y run 3", "drop x", "release-worker-data x"]);
}

#[test]
fn superfluous_replica_that_is_needed_is_announced_again() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.executed("x");
    t.compute("y", &[("x", "me")]);
    t.take();
    t.send(EventKind::RemoveReplicas(keys(&["x"])))
        .expect(&["add-keys x"]);
    t.executed("y");
    t.take();
    t.send(EventKind::RemoveReplicas(keys(&["x"])))
        .expect(&["drop x", "release-worker-data x"]);
}

#[test]
fn replica_is_acquired_without_a_task_that_needs_it() {
    let mut t = TestCore::with_threads(1);
    let who_has = vec![(key("x"), vec![address("a")])];
    t.send(EventKind::AcquireReplicas {
        who_has,
        nbytes: vec![(key("x"), 10)],
    });
    t.expect(&["gather x from tcp://a:1"]);
    t.gathered("a", &["x"]).expect(&["add-keys x"]);
}

#[test]
fn known_result_is_reported_again_under_the_new_run() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.executed("x");
    t.take();
    t.compute("x", &[]);
    t.expect(&["task-finished x run 2"]);
}

#[test]
fn ready_task_is_given_to_a_thief_and_forgotten() {
    let mut t = TestCore::with_threads(1);
    t.compute("a", &[]);
    t.compute("b", &[]);
    t.take();
    t.send(EventKind::StealRequest(key("b")))
        .expect(&["steal-response b ready"]);
    assert_eq!(t.state("b"), None);
    t.send(EventKind::StealRequest(key("a")))
        .expect(&["steal-response a executing"]);
    t.send(EventKind::StealRequest(key("z")))
        .expect(&["steal-response z null"]);
    assert_eq!(t.state("a"), Some("executing"));
}

#[test]
fn paused_worker_starts_nothing_and_goes_on_afterwards() {
    let mut t = TestCore::with_threads(1);
    t.send(EventKind::Pause);
    t.compute("a", &[]);
    t.compute("b", &[("x", "p")]);
    t.expect(&[]);
    t.send(EventKind::Unpause);
    t.expect(&["execute a", "gather x from tcp://p:1"]);
}

#[test]
fn short_tasks_are_handed_ahead_and_long_ones_are_not() {
    let mut t = TestCore::with_threads(1);
    t.compute("inc-0", &[]);
    t.send(EventKind::Executed {
        key: key("inc-0"),
        nbytes: 1,
        duration: Duration::from_micros(20),
    });
    t.take();
    for i in 1..40 {
        t.compute(&format!("inc-{i}"), &[]);
    }
    assert_eq!(t.take().len(), 33, "one runs, 32 wait in the executor");
    t.compute("slow-1", &[]);
    t.expect(&[]);
}

#[test]
fn scattered_value_makes_waiting_tasks_ready() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.take();
    t.send(EventKind::Scattered(vec![(key("x"), 5)]))
        .expect(&["execute y"]);
    t.gathered("a", &["x"]).expect(&[]);
    assert_eq!(t.core.stats().nbytes, 5);
}
