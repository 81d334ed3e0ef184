//! The life of tasks from graph to result and out again.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::TaskStateName::{
    Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting,
};
use oxidask_scheduler_core::event::{Actors, Annotations, Event, UpdateGraph, WorkerStatus};
use oxidask_scheduler_core::testing::{TestCore, annotated, erred, finished, new_worker, task};
use oxidask_scheduler_core::{Action, ClientId, Config, RequestId, WorkerId};

fn cluster() -> TestCore {
    TestCore::default().worker(0, 1).worker(1, 1).client(0)
}

#[test]
fn a_result_is_reported_kept_while_wanted_and_then_freed() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["y"]);
    assert_eq!((t.state("x"), t.state("y")), (Processing, Waiting));
    t.finish("x");
    assert_eq!((t.state("x"), t.state("y")), (Memory, Processing));
    t.finish("y");
    assert_eq!(
        (t.state("x"), t.state("y")),
        (Released, Memory),
        "a dependency that nobody needs is released"
    );
    assert_eq!(t.reports(), ["0: y in memory"]);
    t.release(0, &["y"]);
    assert_eq!((t.state("x"), t.state("y")), (Forgotten, Forgotten));
    let freed = t
        .take_actions()
        .iter()
        .any(|a| matches!(a, Action::FreeKeys { keys, .. } if keys == &[Key::from("y")]));
    assert!(freed);
}

#[test]
fn a_failure_blames_its_task_through_all_dependents() {
    let mut t = cluster();
    t.submit(
        0,
        vec![task("x", &[]), task("y", &["x"]), task("z", &["y"])],
        &["x", "z"],
    );
    t.fail("x");
    assert_eq!(
        (t.state("x"), t.state("y"), t.state("z")),
        (Erred, Erred, Erred)
    );
    assert_eq!(
        t.reports(),
        ["0: x erred: x failed", "0: z erred: x failed"]
    );
    t.submit(0, vec![task("u", &["y"])], &["u"]);
    assert_eq!(
        t.reports(),
        ["0: u erred: x failed"],
        "what depends on a failure fails at once"
    );
}

#[test]
fn retries_are_used_up_before_a_task_fails() {
    let mut t = cluster();
    let retries = Annotations {
        retries: 2,
        ..Annotations::default()
    };
    t.submit(0, vec![annotated(task("x", &[]), retries)], &["x"]);
    t.fail("x");
    t.fail("x");
    assert_eq!(t.state("x"), Processing);
    t.fail("x");
    assert_eq!(t.state("x"), Erred);
}

#[test]
fn retry_begins_at_the_task_that_is_to_blame() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["y"]);
    t.fail("x");
    t.take_actions();
    t.send(Event::RetryKeys {
        keys: vec![Key::from("y")],
    });
    assert_eq!((t.state("x"), t.state("y")), (Processing, Waiting));
    assert_eq!(t.reports(), ["0: y retried"]);
    t.finish("x");
    t.finish("y");
    assert_eq!(t.reports(), ["0: y in memory"]);
}

#[test]
fn a_lost_result_is_computed_again() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["x", "y"]);
    let holder = t.worker_of("x").unwrap();
    t.finish("x");
    t.take_actions();
    t.lose_worker(holder);
    assert_eq!((t.state("x"), t.state("y")), (Processing, Waiting));
    assert_eq!(t.reports(), ["0: x lost"]);
    t.finish("x");
    t.finish("y");
    assert_eq!(t.reports(), ["0: x in memory", "0: y in memory"]);
}

#[test]
fn scattered_data_cannot_be_computed_again() {
    let mut t = cluster();
    let data = vec![(Key::from("d"), 10, vec![WorkerId(0)])];
    t.send(Event::DataAdded {
        client: Some(ClientId(0)),
        data,
    });
    assert_eq!(t.reports(), ["0: d in memory"]);
    t.submit(0, vec![task("y", &["d"])], &["y"]);
    assert_eq!(t.worker_of("y"), Some(0), "a task goes to its data");
    t.lose_worker(0);
    assert_eq!((t.state("d"), t.state("y")), (Forgotten, Forgotten));
    assert_eq!(
        t.reports(),
        [
            "cancelled d: already forgotten",
            "cancelled y: already forgotten"
        ]
    );
}

#[test]
fn a_task_that_kills_its_workers_fails_after_the_allowed_deaths() {
    let mut t = TestCore::default().client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    for id in 0..3 {
        t.add_worker(id, 1);
        assert_eq!(t.worker_of("x"), Some(id));
        t.lose_worker(id);
    }
    t.add_worker(3, 1);
    t.lose_worker(3);
    assert_eq!(t.state("x"), Erred);
    let reports = t.reports();
    assert!(
        reports.iter().any(|r| r.contains("on 4 different workers")),
        "{reports:?}"
    );
}

#[test]
fn a_worker_that_leaves_as_it_should_is_not_held_against_its_tasks() {
    let mut t = TestCore::default().client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    for id in 0..10 {
        t.add_worker(id, 1);
        let event = Event::WorkerRemoved {
            worker: WorkerId(id),
            expected: true,
            stimulus_id: "retire".into(),
        };
        t.send(event);
    }
    assert_eq!(t.state("x"), Queued);
}

#[test]
fn results_of_a_run_that_was_taken_back_are_dropped() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[])], &["x"]);
    let first = t.sent[&Key::from("x")].clone();
    t.send(Event::Rescheduled {
        worker: first.worker,
        key: first.key.clone(),
    });
    let second = t.sent[&Key::from("x")].clone();
    assert_ne!(first.run_id, second.run_id);
    t.take_actions();
    if first.worker != second.worker {
        t.send(finished(&first));
        assert!(
            t.take_actions()
                .iter()
                .any(|a| matches!(a, Action::FreeKeys { worker, .. } if *worker == first.worker))
        );
    }
    t.send(erred(&first));
    assert_eq!(t.state("x"), Processing, "an old failure fails nothing");
    t.finish_all();
    assert_eq!(t.state("x"), Memory);
}

#[test]
fn freed_keys_go_before_the_next_attempt_on_the_same_worker() {
    let mut t = TestCore::default().worker(0, 1).client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.take_actions();
    t.send(Event::Rescheduled {
        worker: WorkerId(0),
        key: Key::from("x"),
    });
    let actions = t.take_actions();
    let free = actions
        .iter()
        .position(|a| matches!(a, Action::FreeKeys { .. }))
        .unwrap();
    let compute = actions
        .iter()
        .position(|a| matches!(a, Action::ComputeTask(_)))
        .unwrap();
    assert!(free < compute);
}

#[test]
fn a_graph_that_needs_lost_data_is_cancelled_as_a_whole() {
    let mut t = cluster();
    t.submit(0, vec![task("y", &["gone"])], &["y"]);
    assert_eq!(t.reports(), ["cancelled y: lost dependencies"]);
    assert_eq!(t.state("y"), Forgotten);
}

#[test]
fn a_placeholder_gets_its_definition_from_a_later_graph() {
    let mut t = cluster();
    t.send(Event::ClientDesiresKeys {
        client: ClientId(0),
        keys: vec![Key::from("x")],
    });
    assert_eq!(t.state("x"), Released);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.finish("x");
    assert_eq!(t.reports(), ["0: x in memory"]);
}

#[test]
fn cancelling_ends_dependents_that_nobody_else_wants() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["x", "y"]);
    t.send(Event::CancelKeys {
        client: ClientId(0),
        keys: vec![Key::from("x")],
        force: false,
        reason: None,
        message: None,
    });
    assert_eq!((t.state("x"), t.state("y")), (Forgotten, Forgotten));
}

#[test]
fn cancelling_spares_what_others_want_unless_forced() {
    let mut t = cluster().client(1);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.submit(1, vec![task("x", &[])], &["x"]);
    let cancel = |force| Event::CancelKeys {
        client: ClientId(0),
        keys: vec![Key::from("x")],
        force,
        reason: None,
        message: None,
    };
    t.send(cancel(false));
    assert_eq!(t.state("x"), Processing);
    t.send(cancel(true));
    assert_eq!(t.state("x"), Forgotten);
}

#[test]
fn fire_and_forget_tasks_end_when_they_are_done() {
    let mut t = cluster();
    t.send(Event::ClientAdded {
        client: ClientId(9),
        name: "fire-and-forget".into(),
    });
    t.submit(0, vec![task("x", &[]), task("y", &[])], &["x", "y"]);
    t.send(Event::ClientDesiresKeys {
        client: ClientId(9),
        keys: vec![Key::from("x"), Key::from("y")],
    });
    t.release(0, &["x", "y"]);
    assert_eq!((t.state("x"), t.state("y")), (Processing, Processing));
    t.finish("x");
    t.fail("y");
    assert_eq!((t.state("x"), t.state("y")), (Forgotten, Forgotten));
}

#[test]
fn roots_are_queued_beyond_the_saturation_of_their_workers() {
    let mut t = cluster();
    let names: Vec<String> = (0..10).map(|i| format!("('r-1', {i})")).collect();
    let tasks = names.iter().map(|name| task(name, &[])).collect();
    t.submit(
        0,
        tasks,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(t.sent.len(), 4, "two for each worker of one thread at 1.1");
    let counts = t.core.task_counts();
    assert_eq!(counts[Queued as usize], 6);
    t.finish_all();
    assert_eq!(t.core.task_counts()[Memory as usize], 10);
}

#[test]
fn without_saturation_siblings_go_to_the_same_worker() {
    let config = Config {
        worker_saturation: f64::INFINITY,
        ..Config::default()
    };
    let mut t = TestCore::new(config).worker(0, 1).worker(1, 1).client(0);
    let names: Vec<String> = (0..10).map(|i| format!("('r-1', {i})")).collect();
    let tasks = names.iter().map(|name| task(name, &[])).collect();
    t.submit(
        0,
        tasks,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let workers: Vec<u32> = names
        .iter()
        .map(|name| t.worker_of(name).unwrap())
        .collect();
    assert_eq!(workers, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
}

#[test]
fn restricted_tasks_wait_for_their_worker_or_go_elsewhere_if_they_may() {
    let mut t = cluster();
    let only = |loose| Annotations {
        workers: vec!["w7".into()],
        allow_other_workers: loose,
        ..Annotations::default()
    };
    t.submit(
        0,
        vec![
            annotated(task("x", &[]), only(false)),
            annotated(task("y", &[]), only(true)),
        ],
        &["x", "y"],
    );
    assert_eq!((t.state("x"), t.state("y")), (NoWorker, Processing));
    t.add_worker(7, 1);
    assert_eq!(t.worker_of("x"), Some(7));
}

#[test]
fn resources_count_in_full_amount() {
    let mut t = cluster();
    let mut with_gpu = new_worker(5, 1);
    with_gpu.resources = vec![("GPU".into(), 2.0)];
    t.send(Event::WorkerAdded(with_gpu));
    let needs = |amount| Annotations {
        resources: vec![("GPU".into(), amount)],
        ..Annotations::default()
    };
    t.submit(
        0,
        vec![
            annotated(task("x", &[]), needs(2.0)),
            annotated(task("y", &[]), needs(3.0)),
        ],
        &["x", "y"],
    );
    assert_eq!((t.worker_of("x"), t.state("y")), (Some(5), NoWorker));
}

#[test]
fn tasks_without_a_worker_fail_after_the_configured_time() {
    let config = Config {
        no_workers_timeout: Some(Duration::from_secs(10)),
        ..Config::default()
    };
    let mut t = TestCore::new(config).worker(0, 1).client(0);
    let only = Annotations {
        workers: vec!["w7".into()],
        ..Annotations::default()
    };
    t.submit(0, vec![annotated(task("x", &[]), only)], &["x"]);
    t.wait(Duration::from_secs(3));
    assert_eq!(t.state("x"), NoWorker);
    t.wait(Duration::from_secs(8));
    assert_eq!(t.state("x"), Erred);
}

#[test]
fn a_paused_worker_gets_nothing_new() {
    let mut t = cluster();
    t.send(Event::WorkerStatusChanged {
        worker: WorkerId(0),
        status: WorkerStatus::Paused,
    });
    t.submit(0, vec![task("x", &[]), task("y", &[])], &["x", "y"]);
    assert_eq!((t.worker_of("x"), t.worker_of("y")), (Some(1), Some(1)));
}

#[test]
fn a_retiring_worker_first_gives_away_what_only_it_holds() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[])], &["x"]);
    let holder = t.worker_of("x").unwrap();
    t.finish("x");
    t.take_actions();
    let retire = Event::RetireWorkers {
        request: RequestId(1),
        workers: vec![WorkerId(holder)],
        stimulus_id: "retire".into(),
    };
    t.send(retire);
    let other = WorkerId(1 - holder);
    let actions = t.take_actions();
    assert!(
        actions
            .iter()
            .any(|a| matches!(a, Action::AcquireReplicas { worker, .. } if *worker == other))
    );
    assert!(
        !actions
            .iter()
            .any(|a| matches!(a, Action::WorkersRetired { .. }))
    );
    t.send(Event::KeysAdded {
        worker: other,
        keys: vec![Key::from("x")],
        stimulus_id: "add".into(),
    });
    let retired = vec![WorkerId(holder)];
    assert!(t.take_actions().contains(&Action::WorkersRetired {
        request: RequestId(1),
        retired,
        kept: vec![]
    }));
    t.send(Event::WorkerRemoved {
        worker: WorkerId(holder),
        expected: true,
        stimulus_id: "retire".into(),
    });
    assert_eq!(t.state("x"), Memory);
    assert!(t.reports().is_empty(), "nothing is lost");
}

#[test]
fn the_last_worker_is_not_retired_while_it_holds_results() {
    let mut t = TestCore::default().worker(0, 1).client(0);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.finish("x");
    t.take_actions();
    t.send(Event::RetireWorkers {
        request: RequestId(1),
        workers: vec![WorkerId(0)],
        stimulus_id: "r".into(),
    });
    let kept = vec![WorkerId(0)];
    assert!(t.take_actions().contains(&Action::WorkersRetired {
        request: RequestId(1),
        retired: vec![],
        kept
    }));
    t.submit(0, vec![task("y", &[])], &["y"]);
    assert_eq!(t.worker_of("y"), Some(0), "it runs again");
}

#[test]
fn a_silent_worker_is_reported_once_its_time_is_over() {
    let mut t = cluster();
    assert!(t.core.next_deadline().is_some());
    t.wait(Duration::from_secs(200));
    assert!(t.take_actions().is_empty());
    t.wait(Duration::from_secs(101));
    let lost = t
        .take_actions()
        .iter()
        .filter(|a| matches!(a, Action::WorkerTimedOut { .. }))
        .count();
    assert_eq!(lost, 2);
}

#[test]
fn an_actor_is_not_made_again() {
    let mut t = cluster();
    t.send(Event::UpdateGraph(UpdateGraph {
        client: ClientId(0),
        tasks: vec![task("a", &[])],
        wanted: vec![Key::from("a")],
        submitting_task: None,
        fifo_timeout: Duration::ZERO,
        actors: Actors::Wanted,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "g".into(),
    }));
    let home = t.worker_of("a").unwrap();
    t.finish("a");
    t.take_actions();
    t.lose_worker(home);
    assert_eq!(t.state("a"), Erred);
    let reports = t.reports();
    assert!(
        reports[0].contains("Worker holding Actor was lost"),
        "{reports:?}"
    );
}

#[test]
fn later_graphs_come_after_earlier_ones_and_users_may_change_that() {
    let mut t = TestCore::default().client(0);
    let urgent = Annotations {
        priority: Some(10.0),
        ..Annotations::default()
    };
    t.submit(0, vec![task("a", &[])], &["a"]);
    t.submit(0, vec![task("b", &[])], &["b"]);
    t.submit(0, vec![annotated(task("c", &[]), urgent)], &["c"]);
    t.add_worker(0, 1);
    let mut order = Vec::new();
    while let Some(sent) = t.sent.values().min_by_key(|sent| sent.run_id).cloned() {
        order.push(sent.key.to_string());
        t.finish(&order.last().unwrap().clone());
    }
    assert_eq!(order, ["c", "a", "b"]);
}

#[test]
fn a_long_running_task_leaves_its_slot() {
    let mut t = TestCore::default().worker(0, 1).client(0);
    let names: Vec<String> = (0..5).map(|i| format!("('r-1', {i})")).collect();
    let tasks = names.iter().map(|name| task(name, &[])).collect();
    t.submit(
        0,
        tasks,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(t.sent.len(), 2);
    let sent = t.sent.values().next().unwrap().clone();
    t.send(Event::LongRunning {
        worker: sent.worker,
        key: sent.key,
        run_id: Some(sent.run_id),
        compute_duration: Some(0.1),
    });
    assert_eq!(t.sent.len(), 3);
}

#[test]
fn a_restart_forgets_everything() {
    let mut t = cluster();
    t.submit(
        0,
        vec![task("x", &[]), task("y", &["x"]), task("z", &[])],
        &["y", "z"],
    );
    t.finish("x");
    t.send(Event::Restart);
    assert_eq!(t.core.task_count(), 0);
    assert!(t.take_actions().contains(&Action::ReportRestart));
    assert!(t.core.idle_since().is_some());
}

#[test]
fn a_task_whose_input_exceeds_the_memory_of_its_worker_fails() {
    let mut t = TestCore::default().client(0);
    let mut small = new_worker(0, 1);
    small.memory_limit = 50;
    t.send(Event::WorkerAdded(small));
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["y"]);
    t.finish("x");
    assert_eq!(t.state("y"), Erred);
    assert!(t.reports()[0].contains("MemoryError"));
}

#[test]
fn missing_copies_are_forgotten_and_the_result_computed_again() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[])], &["x"]);
    let holder = WorkerId(t.worker_of("x").unwrap());
    t.finish("x");
    t.send(Event::ReplicasMissing {
        missing: vec![(Key::from("x"), holder)],
    });
    assert_eq!(t.state("x"), Processing);
}

#[test]
fn subtasks_come_before_the_rest_of_their_parents_generation() {
    let mut t = TestCore::default().client(0);
    t.submit(
        0,
        vec![task("parent", &[]), task("other", &[])],
        &["parent", "other"],
    );
    let parent = t.core.task(&Key::from("parent")).unwrap().priority.unwrap();
    t.send(Event::UpdateGraph(UpdateGraph {
        client: ClientId(0),
        tasks: vec![task("child", &[])],
        wanted: vec![Key::from("child")],
        submitting_task: Some(Key::from("parent")),
        fifo_timeout: Duration::ZERO,
        actors: Actors::None,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "g".into(),
    }));
    let child = t.core.task(&Key::from("child")).unwrap().priority.unwrap();
    assert!(child < parent);
}

#[test]
fn an_actor_is_lost_with_its_worker_though_others_hold_ways_to_reach_it() {
    let mut t = cluster();
    t.send(Event::UpdateGraph(UpdateGraph {
        client: ClientId(0),
        tasks: vec![task("actor", &[])],
        wanted: vec![Key::from("actor")],
        submitting_task: None,
        fifo_timeout: Duration::ZERO,
        actors: Actors::Wanted,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "update-graph".into(),
    }));
    let home = t.worker_of("actor").unwrap();
    t.finish("actor");
    t.submit(0, vec![task("user", &["actor"])], &["user"]);
    t.send(Event::KeysAdded {
        worker: WorkerId(1 - home),
        keys: vec![Key::from("actor")],
        stimulus_id: "gather".into(),
    });
    t.take_actions();
    t.lose_worker(home);
    assert_eq!((t.state("actor"), t.state("user")), (Erred, Erred));
}
