//! What goes wrong: peers, executors, late and contradictory messages.

mod support;

use std::time::Duration;

use oxidask_worker_core::{Config, EventKind};
use support::{TestCore, address, error, key, keys};

#[test]
fn run_of_a_freed_task_is_dropped_in_silence() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.free(&["x"]);
    assert_eq!(t.state("x"), Some("cancelled"));
    t.take();
    t.executed("x").expect(&["drop x"]);
    assert_eq!(t.state("x"), None);
}

#[test]
fn run_of_a_task_freed_and_wanted_again_answers_the_new_run() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.free(&["x"]);
    t.compute("x", &[]);
    t.expect(&["execute x"]);
    assert_eq!(t.state("x"), Some("executing"));
    t.executed("x").expect(&["task-finished x run 2"]);
}

#[test]
fn seceded_run_wanted_again_tells_so_in_arrears() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.free(&["x"]);
    t.send(EventKind::Seceded {
        key: key("x"),
        compute_duration: Duration::from_secs(1),
    });
    t.take();
    t.compute("x", &[]);
    t.expect(&["long-running x in arrears"]);
}

#[test]
fn freed_run_whose_value_is_to_be_fetched_becomes_a_replica() {
    let mut t = TestCore::with_threads(2);
    t.compute("x", &[]);
    t.free(&["x"]);
    t.compute("y", &[("x", "a")]);
    assert_eq!(t.state("x"), Some("resumed"));
    t.take();
    t.executed("x").expect(&["add-keys x", "execute y"]);
}

#[test]
fn resumed_run_that_fails_is_fetched_instead() {
    let mut t = TestCore::with_threads(2);
    t.compute("x", &[]);
    t.free(&["x"]);
    t.compute("y", &[("x", "a")]);
    t.take();
    t.send(EventKind::ExecuteFailed {
        key: key("x"),
        error: error("boom"),
    });
    t.expect(&["gather x from tcp://a:1"]);
}

#[test]
fn transfer_of_a_freed_task_that_is_to_be_computed_counts_as_its_result() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.free(&["y"]);
    assert_eq!(t.state("x"), Some("cancelled"));
    t.compute("x", &[]);
    assert_eq!(t.state("x"), Some("resumed"));
    t.take();
    t.gathered("a", &["x"]).expect(&["task-finished x run 2"]);
}

#[test]
fn transfer_that_fails_for_a_resumed_task_leads_to_its_computation() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.free(&["y"]);
    t.compute("x", &[]);
    t.take();
    t.send(EventKind::GatherFailed {
        worker: address("a"),
    });
    t.expect(&["execute x"]);
}

#[test]
fn busy_peer_is_left_alone_for_a_while() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.take();
    t.send(EventKind::GatherBusy {
        worker: address("a"),
    });
    t.expect(&["request-refresh-who-has x"]);
    t.advance(Duration::from_millis(149)).expect(&[]);
    assert_eq!(t.core.next_deadline().map(|d| d.0), Some(150_000_000));
    t.advance(Duration::from_millis(1))
        .expect(&["gather x from tcp://a:1"]);
}

#[test]
fn value_absent_at_its_holder_is_asked_for_until_somebody_has_it() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.gathered("a", &[]);
    assert_eq!(t.state("x"), Some("missing"));
    t.take();
    t.advance(Duration::from_millis(100))
        .expect(&["request-refresh-who-has x"]);
    t.advance(Duration::from_secs(1))
        .expect(&["request-refresh-who-has x"]);
    t.send(EventKind::RefreshWhoHas(vec![(
        key("x"),
        vec![address("b")],
    )]));
    t.expect(&["gather x from tcp://b:1"]);
    assert_eq!(t.core.next_deadline(), None);
}

#[test]
fn unreachable_peer_loses_all_its_replicas() {
    let mut t = TestCore::new(Config {
        message_bytes: 1,
        ..Config::default()
    });
    t.compute("y", &[("x1", "a"), ("x2", "a")]);
    t.expect(&["gather x1 from tcp://a:1"]);
    t.send(EventKind::GatherFailed {
        worker: address("a"),
    });
    assert_eq!(
        (t.state("x1"), t.state("x2")),
        (Some("missing"), Some("missing"))
    );
}

#[test]
fn removed_worker_is_not_asked_any_more() {
    let mut t = TestCore::with_threads(1);
    t.send(EventKind::Pause);
    t.compute("y", &[("x", "a")]);
    t.send(EventKind::RemoveWorker(address("a")));
    assert_eq!(t.state("x"), Some("missing"));
}

#[test]
fn unusable_value_fails_the_tasks_that_wait_for_it() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.take();
    t.send(EventKind::GatherErred {
        worker: address("a"),
        error: error("bad bytes"),
    });
    t.expect(&["task-erred y run 1: bad bytes"]);
    t.free(&["y"]);
    assert_eq!((t.state("x"), t.state("y")), (None, None));
}

#[test]
fn task_freed_while_waiting_takes_its_fetches_along() {
    let mut t = TestCore::with_threads(1);
    t.compute("y", &[("x", "a")]);
    t.free(&["y"]);
    t.take();
    t.gathered("a", &["x"]).expect(&["drop x"]);
    assert_eq!(t.core.snapshot().count(), 0);
}

#[test]
fn dead_executor_tries_its_suspects_one_by_one_and_blames_the_guilty() {
    let mut t = TestCore::new(Config {
        nthreads: 2,
        allowed_failures: 1,
        ..Config::default()
    });
    t.compute("bad", &[]);
    t.compute("good", &[]);
    t.compute("later", &[]);
    t.take();
    let died = |running: &[&str]| EventKind::ExecutorLost {
        running: keys(running),
        queued: Vec::new(),
        resident: Vec::new(),
        error: error("killed by signal 9"),
    };
    t.send(died(&["bad", "good"]));
    t.expect(&["execute later"]);
    t.executed("later")
        .expect(&["task-finished later run 3", "execute good"]);
    t.executed("good")
        .expect(&["task-finished good run 2", "execute bad"]);
    t.send(died(&["bad"])).expect(&["execute bad"]);
    t.send(died(&["bad"]))
        .expect(&["task-erred bad run 1: killed by signal 9"]);
}

#[test]
fn suspect_of_an_executor_of_its_own_runs_again_beside_others() {
    let mut t = TestCore::new(Config {
        nthreads: 2,
        allowed_failures: 1,
        isolated: true,
        ..Config::default()
    });
    t.compute("bad", &[]);
    t.compute("good", &[]);
    t.take();
    let died = |running: &[&str]| EventKind::ExecutorLost {
        running: keys(running),
        queued: Vec::new(),
        resident: Vec::new(),
        error: error("killed by signal 9"),
    };
    t.send(died(&["bad"])).expect(&["execute bad"]);
    t.send(died(&["bad"]))
        .expect(&["task-erred bad run 1: killed by signal 9"]);
    t.executed("good").expect(&["task-finished good run 2"]);
    // One that has seceded shares its executor with the next: nobody knows which of them it was.
    t.compute("c", &[]);
    t.compute("d", &[]);
    t.take();
    t.send(died(&["c", "d"])).expect(&["execute d"]);
    t.executed("d")
        .expect(&["task-finished d run 4", "execute c"]);
}

#[test]
fn values_lost_with_an_executor_are_withdrawn_and_waited_for() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.executed("x");
    t.compute("running", &[]);
    t.compute("y", &[("x", "me")]);
    t.take();
    t.send(EventKind::ExecutorLost {
        running: keys(&["running"]),
        queued: Vec::new(),
        resident: keys(&["x"]),
        error: error("exit code 1"),
    });
    t.expect(&["drop x", "release-worker-data x", "execute running"]);
    assert_eq!(
        (t.state("x"), t.state("y")),
        (Some("missing"), Some("waiting"))
    );
}

#[test]
fn tasks_that_had_not_started_are_no_suspects() {
    let mut t = TestCore::with_threads(2);
    t.compute("a", &[]);
    t.compute("b", &[]);
    t.take();
    t.send(EventKind::ExecutorLost {
        running: keys(&["a"]),
        queued: keys(&["b"]),
        resident: Vec::new(),
        error: error("exit code 1"),
    });
    t.expect(&["execute b"]);
    t.executed("b")
        .expect(&["task-finished b run 2", "execute a"]);
}

#[test]
fn answers_to_no_question_change_nothing() {
    let mut t = TestCore::with_threads(1);
    t.executed("x");
    t.gathered("a", &["x"]);
    t.send(EventKind::GatherBusy {
        worker: address("a"),
    });
    t.send(EventKind::Rescheduled(key("x")));
    t.send(EventKind::RefreshWhoHas(vec![(
        key("x"),
        vec![address("a")],
    )]));
    t.compute("x", &[]);
    t.executed("x").executed("x");
    t.expect(&["execute x", "task-finished x run 1"]);
}

#[test]
fn reschedule_is_passed_on_and_the_task_forgotten() {
    let mut t = TestCore::with_threads(1);
    t.compute("x", &[]);
    t.take();
    t.send(EventKind::Rescheduled(key("x")))
        .expect(&["reschedule x"]);
    assert_eq!(t.state("x"), None);
}
