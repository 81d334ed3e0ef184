//! What is computed once, what again, and what answers that come late change: the behaviours that distributed's tests of
//! the scheduler, of failed workers and of cancelled tasks describe.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::TaskStateName::{
    Erred, Forgotten, Memory, NoWorker, Processing, Queued, Released, Waiting,
};
use oxidask_scheduler_core::event::{Annotations, Event, Heartbeat, NewTask, WorkerStatus};
use oxidask_scheduler_core::testing::{TestCore, annotated, erred, finished, task};
use oxidask_scheduler_core::{Action, ClientId, Config, WorkerId};

fn cluster() -> TestCore {
    TestCore::default().worker(0, 1).worker(1, 1).client(0)
}

fn on(key: &str, needs: &[&str], worker: u32) -> NewTask {
    let annotations = Annotations {
        workers: vec![format!("w{worker}")],
        ..Annotations::default()
    };
    annotated(task(key, needs), annotations)
}

/// Everything that is handed out finishes; gives back the keys in order.
fn finish_all(t: &mut TestCore) -> Vec<String> {
    let mut order = Vec::new();
    while let Some(sent) = t.sent.values().min_by_key(|sent| sent.run_id).cloned() {
        order.push(sent.key.to_string());
        t.finish(&order.last().unwrap().clone());
    }
    order
}

fn freed(t: &mut TestCore, on: u32) -> Vec<String> {
    t.take_actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::FreeKeys { worker, keys, .. } | Action::RemoveReplicas { worker, keys, .. }
                if worker == WorkerId(on) =>
            {
                Some(keys)
            }
            _ => None,
        })
        .flatten()
        .map(|key| key.to_string())
        .collect()
}

#[test]
fn what_is_in_memory_is_not_computed_again() {
    let chain = || vec![task("x", &[]), task("y", &["x"])];
    let mut t = cluster();
    t.submit(0, chain(), &["y"]);
    assert_eq!(finish_all(&mut t), ["x", "y"]);
    t.submit(0, chain(), &["y"]);
    assert_eq!(finish_all(&mut t), Vec::<String>::new(), "the same graph");
    let longer = [chain(), vec![task("z", &["y"])]].concat();
    t.submit(0, longer, &["z"]);
    assert_eq!(finish_all(&mut t), ["z"], "a graph that goes on from it");
}

#[test]
fn inputs_that_were_released_are_computed_for_who_needs_them_again() {
    let mut t = cluster();
    let tasks = || vec![task("x", &[]), task("y", &["x"]), task("z", &["x"])];
    t.submit(0, tasks()[..2].to_vec(), &["y"]);
    finish_all(&mut t);
    assert_eq!(t.state("x"), Released);
    t.submit(0, tasks(), &["y", "z"]);
    assert_eq!(finish_all(&mut t), ["x", "z"], "y is there");
}

#[test]
fn a_failure_is_not_tried_again_by_submitting_it_again() {
    let mut t = cluster();
    let tasks = || vec![task("x", &[]), task("y", &["x"])];
    t.submit(0, tasks(), &["y"]);
    t.finish("x");
    t.fail("y");
    t.reports();
    t.submit(0, tasks(), &["y"]);
    assert!(t.sent.is_empty());
    assert_eq!(t.reports(), ["0: y erred: y failed"]);
}

#[test]
fn an_input_that_others_need_survives_what_is_released_beside_it() {
    let mut t = cluster();
    t.submit(
        0,
        vec![task("x", &[]), task("y", &["x"]), task("z", &["x"])],
        &["x", "y", "z"],
    );
    finish_all(&mut t);
    t.release(0, &["x", "z"]);
    assert_eq!(t.state("z"), Forgotten);
    assert_eq!(t.state("x"), Released, "y can be computed again");
    assert_eq!(t.state("y"), Memory);
}

#[test]
fn a_key_that_is_forgotten_can_come_back_at_once() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[])], &["x"]);
    let old = t.sent[&Key::from("x")].clone();
    t.release(0, &["x"]);
    t.submit(0, vec![task("x", &[])], &["x"]);
    let new = t.sent[&Key::from("x")].clone();
    t.take_actions();
    t.send(finished(&old));
    if old.worker != new.worker {
        assert_eq!(t.state("x"), Processing, "that was another attempt");
    }
    t.send(erred(&old));
    assert_ne!(t.state("x"), Erred);
    finish_all(&mut t);
    assert_eq!(t.state("x"), Memory);
}

#[test]
fn tasks_that_are_submitted_again_while_their_worker_still_has_the_old_ones_finish() {
    for n in [1, 3] {
        let mut t = TestCore::default().worker(0, 1).client(0);
        let names: Vec<String> = (0..n).map(|i| format!("fut-{i}")).collect();
        let blockers: Vec<String> = (0..5).map(|i| format!("block-{i}")).collect();
        let submit = |t: &mut TestCore, names: &[String]| {
            let tasks = names.iter().map(|name| task(name, &[])).collect();
            t.submit(
                0,
                tasks,
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        };
        submit(&mut t, &names);
        submit(&mut t, &blockers);
        let late = t.sent[&Key::from("fut-0")].clone();
        t.release(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
        submit(&mut t, &names);
        t.send(finished(&late));
        finish_all(&mut t);
        for name in names.iter().chain(&blockers) {
            assert_eq!(t.state(name), Memory, "{name} of {n}");
        }
    }
}

#[test]
fn a_result_of_a_worker_that_lost_its_right_to_the_task_is_dropped_there() {
    let mut t = cluster();
    t.submit(0, vec![on("x", &[], 0), on("y", &["x"], 1)], &["y"]);
    t.finish("x");
    let sent = t.sent[&Key::from("y")].clone();
    t.lose_worker(0);
    assert_eq!((t.state("x"), t.state("y")), (NoWorker, Waiting));
    assert_eq!(freed(&mut t, 1), ["y"]);
    // Worker 1 had fetched x and finished y before it heard of that.
    t.send(Event::KeysAdded {
        worker: WorkerId(1),
        keys: vec![Key::from("x")],
        stimulus_id: "gather".into(),
    });
    t.send(finished(&sent));
    assert_eq!((t.state("x"), t.state("y")), (NoWorker, Waiting));
    // It was told to forget y when x was lost.
    assert_eq!(freed(&mut t, 1), ["x"]);
}

#[test]
fn a_worker_that_holds_what_nobody_knows_is_told_to_drop_it() {
    let mut t = cluster();
    t.send(Event::KeysAdded {
        worker: WorkerId(0),
        keys: vec![Key::from("unheard-of")],
        stimulus_id: "gather".into(),
    });
    assert_eq!(freed(&mut t, 0), ["unheard-of"]);
}

#[test]
fn of_several_copies_the_loss_of_one_computes_nothing_again() {
    let mut t = cluster();
    t.submit(0, vec![on("x", &[], 0)], &["x"]);
    t.finish("x");
    t.send(Event::KeysAdded {
        worker: WorkerId(1),
        keys: vec![Key::from("x")],
        stimulus_id: "gather".into(),
    });
    t.take_actions();
    t.lose_worker(0);
    assert_eq!(t.state("x"), Memory);
    assert!(t.reports().is_empty());
    t.submit(0, vec![task("y", &["x"])], &["y"]);
    assert_eq!(finish_all(&mut t), ["y"]);
}

#[test]
fn what_a_lost_worker_held_and_ran_is_computed_elsewhere_and_nothing_else_is() {
    let mut t = cluster();
    t.submit(
        0,
        vec![
            task("a", &[]),
            task("b", &[]),
            task("c", &["a"]),
            task("d", &["b"]),
            task("e", &["c", "d"]),
        ],
        &["e"],
    );
    t.finish("a");
    t.finish("b");
    let lost = t.worker_of("c").unwrap();
    t.lose_worker(lost);
    let order = finish_all(&mut t);
    assert_eq!(t.state("e"), Memory);
    let count = |key: &str| order.iter().filter(|k| *k == key).count();
    assert_eq!([count("c"), count("d"), count("e")], [1, 1, 1], "{order:?}");
    assert_eq!(
        count("a") + count("b"),
        1,
        "that of the lost worker: {order:?}"
    );
}

#[test]
fn the_input_of_queued_tasks_is_computed_again_when_its_worker_is_replaced() {
    let mut t = TestCore::default().worker(0, 1).client(0);
    let names: Vec<String> = (0..5).map(|i| format!("('rootish', {i})")).collect();
    let mut tasks = vec![task("dep", &[])];
    tasks.extend(names.iter().map(|name| task(name, &["dep"])));
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    t.submit(0, tasks, &wanted);
    t.finish("dep");
    assert!(names.iter().any(|name| t.state(name) == Queued));
    t.lose_worker(0);
    assert!(names.iter().all(|name| t.state(name) == Waiting));
    t.add_worker(1, 1);
    finish_all(&mut t);
    assert!(names.iter().all(|name| t.state(name) == Memory));
}

#[test]
fn a_task_may_be_defined_anew_with_other_inputs_while_it_does_not_run() {
    let mut t = TestCore::default().client(0);
    t.submit(0, vec![task("o", &[])], &["o"]);
    t.submit(0, vec![task("x1", &[]), task("y", &["x1", "o"])], &["y"]);
    t.submit(0, vec![task("x2", &[]), task("y", &["x2", "o"])], &["y"]);
    t.add_worker(0, 1);
    finish_all(&mut t);
    assert_eq!(t.state("y"), Memory);
}

#[test]
fn scattered_data_become_a_task_and_a_task_may_get_scattered_data() {
    let mut t = cluster().client(1);
    let scatter = |t: &mut TestCore| {
        t.send(Event::DataAdded {
            client: Some(ClientId(0)),
            data: vec![(Key::from("x"), 10, vec![WorkerId(0)])],
        });
    };
    scatter(&mut t);
    t.submit(1, vec![task("x", &[])], &["x"]);
    assert_eq!(t.state("x"), Memory, "it is there");
    t.lose_worker(0);
    assert_eq!(t.state("x"), Processing, "and can now be computed again");
    t.add_worker(0, 1);
    scatter(&mut t);
    assert_eq!(t.state("x"), Memory, "it need not be computed");
}

#[test]
fn a_graph_with_a_failed_input_fails_with_it() {
    let mut t = cluster();
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.fail("x");
    t.reports();
    t.submit(0, vec![task("y", &["x"])], &["y"]);
    assert_eq!(t.reports(), ["0: y erred: x failed"]);
}

#[test]
fn resources_of_a_cancelled_task_are_free_for_the_next() {
    let mut t = TestCore::default().client(0);
    let mut worker = oxidask_scheduler_core::testing::new_worker(0, 2);
    worker.resources = vec![("A".into(), 1.0)];
    t.send(Event::WorkerAdded(worker));
    let needs_a = |key: &str| {
        let annotations = Annotations {
            resources: vec![("A".into(), 1.0)],
            ..Annotations::default()
        };
        annotated(task(key, &[]), annotations)
    };
    t.submit(0, vec![needs_a("x")], &["x"]);
    t.release(0, &["x"]);
    t.submit(0, vec![needs_a("y")], &["y"]);
    assert_eq!(t.state("y"), Processing);
    finish_all(&mut t);
    assert_eq!(t.state("y"), Memory);
}

#[test]
fn a_task_that_killed_workers_says_so_and_blames_the_last_one() {
    let config = Config {
        allowed_failures: 0,
        ..Config::default()
    };
    let mut t = TestCore::new(config).worker(0, 1).client(0);
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["y"]);
    t.lose_worker(0);
    assert_eq!((t.state("x"), t.state("y")), (Erred, Erred));
    let (blame, error) = t.core.task(&Key::from("y")).unwrap().error.unwrap();
    assert_eq!(blame, Key::from("x"));
    assert!(error.exception_text.contains("tcp://w0:1"), "{error:?}");
}

#[test]
fn tasks_that_merely_waited_on_a_worker_that_died_are_not_suspected_with_their_dependents() {
    let mut t = TestCore::default().worker(0, 1).client(0);
    t.submit(0, vec![task("x", &[]), task("y", &["x"])], &["y"]);
    t.lose_worker(0);
    let suspicious = |key: &str| t.core.task(&Key::from(key)).unwrap().suspicious;
    assert_eq!((suspicious("x"), suspicious("y")), (1, 0));
}

#[test]
fn a_sign_of_life_in_time_keeps_a_worker_and_without_a_limit_none_is_lost() {
    let mut t = cluster();
    for _ in 0..10 {
        t.wait(Duration::from_secs(100));
        for id in 0..2 {
            t.send(Event::Heartbeat(Heartbeat {
                worker: Some(WorkerId(id)),
                ..Heartbeat::default()
            }));
        }
    }
    let timed_out = |t: &mut TestCore| {
        let lost = |action: &Action| matches!(action, Action::WorkerTimedOut { .. });
        t.take_actions().iter().any(lost)
    };
    assert!(!timed_out(&mut t));

    let config = Config {
        worker_ttl: None,
        ..Config::default()
    };
    let mut t = TestCore::new(config).worker(0, 1).client(0);
    t.wait(Duration::from_secs(1_000_000));
    assert!(!timed_out(&mut t));
}

#[test]
fn all_workers_hear_of_one_that_left() {
    let mut t = cluster();
    t.take_actions();
    t.lose_worker(1);
    let told = t
        .take_actions()
        .into_iter()
        .find_map(|action| match action {
            Action::AnnounceWorkerRemoved { address, .. } => Some(address),
            _ => None,
        });
    assert_eq!(told.as_deref(), Some("tcp://w1:1"));
}

#[test]
fn a_restart_is_told_to_every_client_and_all_can_go_on() {
    let mut t = cluster().client(1);
    t.submit(0, vec![task("x", &[])], &["x"]);
    t.submit(1, vec![task("y", &[])], &["y"]);
    t.take_actions();
    t.send(Event::Restart);
    assert!(t.take_actions().contains(&Action::ReportRestart));
    assert_eq!(t.core.task_count(), 0);
    t.submit(1, vec![task("y", &[])], &["y"]);
    finish_all(&mut t);
    assert_eq!(t.reports(), ["1: y in memory"]);
}

#[test]
fn a_paused_worker_keeps_its_results_and_its_tasks() {
    let mut t = cluster();
    t.submit(0, vec![on("x", &[], 0), on("y", &[], 0)], &["x", "y"]);
    t.finish("x");
    t.send(Event::WorkerStatusChanged {
        worker: WorkerId(0),
        status: WorkerStatus::Paused,
    });
    assert_eq!((t.state("x"), t.state("y")), (Memory, Processing));
    t.submit(0, vec![task("z", &["x"])], &["z"]);
    assert_eq!(t.worker_of("z"), Some(1), "what is new goes elsewhere");
    finish_all(&mut t);
    assert_eq!((t.state("y"), t.state("z")), (Memory, Memory));
}

#[test]
fn a_lost_result_whose_input_needs_what_failed_meanwhile_fails_too() {
    let mut t = cluster();
    t.submit(
        0,
        vec![on("a", &[], 1), task("b", &["a"]), task("c", &["b"])],
        &["a", "c"],
    );
    // c is there before it is computed, so b is not needed, and does not hear of the failure of a.
    t.send(Event::DataAdded {
        client: None,
        data: vec![(Key::from("c"), 10, vec![WorkerId(0)])],
    });
    t.fail("a");
    assert_eq!((t.state("b"), t.state("c")), (Released, Memory));
    t.reports();
    t.lose_worker(0);
    assert_eq!((t.state("b"), t.state("c")), (Erred, Erred));
    assert!(t.reports().contains(&"0: c erred: a failed".to_owned()));
}
