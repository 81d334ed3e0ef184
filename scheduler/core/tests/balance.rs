//! Work moves to idle workers, and superfluous copies go.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::TaskStateName::Processing;
use oxidask_scheduler_core::event::{Annotations, Event};
use oxidask_scheduler_core::testing::{TestCore, annotated, task};
use oxidask_scheduler_core::{Action, ClientId, Config, WorkerId};

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("('r-1', {i})")).collect()
}

/// Ten tasks on worker 0, then worker 1 comes.
fn unbalanced(annotations: Annotations) -> TestCore {
    let config = Config {
        worker_saturation: f64::INFINITY,
        ..Config::default()
    };
    let mut t = TestCore::new(config).worker(0, 1).client(0);
    let names = names(10);
    let tasks = names
        .iter()
        .map(|name| annotated(task(name, &[]), annotations.clone()))
        .collect();
    t.submit(
        0,
        tasks,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    t.add_worker(1, 1);
    t
}

#[test]
fn an_idle_worker_gets_what_a_busy_one_gives_up() {
    let mut t = unbalanced(Annotations::default());
    t.wait(Duration::from_secs(1));
    assert!(!t.steals.is_empty());
    assert!(t.steals.iter().all(|(worker, ..)| *worker == WorkerId(0)));
    let key = t.steals[0].1.clone();
    t.answer_steal(true);
    assert_eq!(t.worker_of(key.as_str().unwrap()), Some(1));
    t.finish_all();
    assert!(t.core.idle_since().is_some());
}

#[test]
fn a_task_that_has_begun_stays() {
    let mut t = unbalanced(Annotations::default());
    t.wait(Duration::from_secs(1));
    let key = t.steals[0].1.clone();
    t.answer_steal(false);
    assert_eq!(
        (
            t.worker_of(key.as_str().unwrap()),
            t.state(key.as_str().unwrap())
        ),
        (Some(0), Processing)
    );
}

#[test]
fn restricted_tasks_are_not_stolen_by_others() {
    let mut t = unbalanced(Annotations {
        workers: vec!["w0".into()],
        ..Annotations::default()
    });
    t.wait(Duration::from_secs(1));
    assert!(t.steals.is_empty());
}

#[test]
fn tasks_that_may_run_elsewhere_too_are_stolen_by_others() {
    let mut t = unbalanced(Annotations {
        workers: vec!["w0".into()],
        allow_other_workers: true,
        ..Annotations::default()
    });
    t.wait(Duration::from_secs(1));
    assert!(!t.steals.is_empty());
    t.answer_steal(true);
    assert_eq!(
        t.sent
            .values()
            .filter(|sent| sent.worker == WorkerId(1))
            .count(),
        1
    );
}

#[test]
fn about_half_of_the_work_moves_and_no_more() {
    let mut t = unbalanced(Annotations::default());
    t.wait(Duration::from_secs(1));
    assert!((3..=5).contains(&t.steals.len()), "{}", t.steals.len());
}

#[test]
fn a_thief_that_is_gone_when_the_answer_comes_gets_nothing() {
    let mut t = unbalanced(Annotations::default());
    t.wait(Duration::from_secs(1));
    t.lose_worker(1);
    let key = t.steals[0].1.clone();
    t.answer_steal(true);
    assert_eq!(t.worker_of(key.as_str().unwrap()), Some(0));
}

#[test]
fn a_copy_that_nobody_needs_is_dropped_from_the_fullest_worker() {
    let mut t = TestCore::default().worker(0, 1).worker(1, 1).client(0);
    let data = vec![
        (Key::from("d"), 10, vec![WorkerId(0), WorkerId(1)]),
        (Key::from("e"), 10, vec![WorkerId(1)]),
    ];
    t.send(Event::DataAdded {
        client: Some(ClientId(0)),
        data,
    });
    t.take_actions();
    t.wait(Duration::from_secs(2));
    let dropped = t
        .take_actions()
        .into_iter()
        .find_map(|action| match action {
            Action::RemoveReplicas { worker, keys, .. } => Some((worker, keys)),
            _ => None,
        });
    assert_eq!(dropped, Some((WorkerId(1), vec![Key::from("d")])));
    assert_eq!(t.core.who_has(&Key::from("d")), [WorkerId(0)]);
}

#[test]
fn a_copy_is_kept_where_a_task_needs_it() {
    let mut t = TestCore::default().worker(0, 1).worker(1, 1).client(0);
    let data = vec![(Key::from("d"), 10, vec![WorkerId(0), WorkerId(1)])];
    t.send(Event::DataAdded {
        client: Some(ClientId(0)),
        data,
    });
    let only = |name: &str| Annotations {
        workers: vec![name.into()],
        ..Annotations::default()
    };
    let tasks = vec![
        annotated(task("x", &["d"]), only("w0")),
        annotated(task("y", &["d"]), only("w1")),
    ];
    t.submit(0, tasks, &["x", "y"]);
    t.wait(Duration::from_secs(2));
    assert_eq!(t.core.who_has(&Key::from("d")).len(), 2);
    t.finish("x");
    t.finish("y");
    t.wait(Duration::from_secs(2));
    assert_eq!(t.core.who_has(&Key::from("d")).len(), 1);
}
