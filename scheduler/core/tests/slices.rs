//! Large graphs and releases are taken in by parts, and nobody notices but by waiting less.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::TaskStateName::{Forgotten, Memory, Processing, Released};
use oxidask_scheduler_core::event::{Annotations, Event, NewTask, UpdateGraph};
use oxidask_scheduler_core::testing::{TestCore, annotated, finished, task};
use oxidask_scheduler_core::{Action, ClientId, Config};

/// Graphs and releases of more than `slice` come in parts.
fn core(slice: usize) -> TestCore {
    let config = Config {
        slice,
        ..Config::default()
    };
    TestCore::new(config)
        .worker(0, 1)
        .worker(1, 1)
        .client(0)
        .client(1)
}

/// Pairs of a root and what follows it.
fn pairs(n: usize) -> (Vec<NewTask>, Vec<String>) {
    let name = |what: &str, i: usize| format!("('{what}-1', {i})");
    let both = |i: usize| {
        let root = name("root", i);
        [task(&root, &[]), task(&name("next", i), &[&root])]
    };
    (
        (0..n).flat_map(both).collect(),
        (0..n).map(|i| name("next", i)).collect(),
    )
}

fn graph(client: u32, mut tasks: Vec<NewTask>, wanted: &[String]) -> Event {
    for (i, task) in tasks.iter_mut().enumerate() {
        task.order = i as i64;
    }
    Event::UpdateGraph(UpdateGraph {
        client: ClientId(client),
        tasks,
        wanted: wanted.iter().map(|key| Key::from(key.as_str())).collect(),
        submitting_task: None,
        fifo_timeout: Duration::ZERO,
        actors: Default::default(),
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "update-graph".into(),
    })
}

fn release(client: u32, keys: &[String]) -> Event {
    Event::ClientReleasesKeys {
        client: ClientId(client),
        keys: keys.iter().map(|key| Key::from(key.as_str())).collect(),
    }
}

/// Runs a graph to its end, one worker after the other. Gives the keys in the order in which they were sent.
fn run(t: &mut TestCore) -> Vec<String> {
    let mut order = Vec::new();
    loop {
        for action in t.take_actions() {
            if let Action::ComputeTask(compute) = action {
                order.push(compute.key.to_string());
            }
        }
        let Some(sent) = order
            .iter()
            .find_map(|key| t.sent.get(&Key::from(key.as_str())))
        else {
            return order;
        };
        let sent = sent.clone();
        t.sent.remove(&sent.key);
        t.send(finished(&sent));
    }
}

#[test]
fn a_large_graph_runs_in_the_order_in_which_it_runs_when_it_comes_at_once() {
    let orders = [1000, 3].map(|slice| {
        let mut t = core(slice);
        let (tasks, wanted) = pairs(20);
        t.send(graph(0, tasks, &wanted));
        run(&mut t)
    });
    assert_eq!(orders[0].len(), 40);
    assert_eq!(orders[0], orders[1]);
}

#[test]
fn nothing_of_a_large_graph_starts_before_all_of_it_is_known() {
    let mut t = core(3);
    let (tasks, wanted) = pairs(20);
    t.send_only(graph(0, tasks, &wanted));
    while t.core.task_count() < 40 {
        assert!(t.sent.is_empty());
        t.send_only(Event::Tick);
    }
    assert!(t.sent.is_empty());
    assert!(t.core.idle_since().is_none(), "there is something to do");
    t.send(Event::Tick);
    assert!(!t.sent.is_empty());
}

#[test]
fn others_are_served_while_a_large_graph_comes_in() {
    let mut t = core(2);
    let (tasks, wanted) = pairs(50);
    t.send_only(graph(0, tasks, &wanted));
    t.send_only(Event::Tick);
    t.send_only(graph(1, vec![task("small", &[])], &["small".to_owned()]));
    assert_eq!(t.state("small"), Processing);
    t.finish("small");
    assert_eq!(t.state("small"), Memory);
}

#[test]
fn what_a_client_sends_behind_its_large_graph_comes_after_it() {
    let mut t = core(2);
    let (tasks, wanted) = pairs(10);
    t.send_only(graph(0, tasks, &wanted));
    t.send_only(release(0, &wanted));
    t.send_only(graph(0, vec![task("after", &[])], &["after".to_owned()]));
    assert_eq!(t.state("after"), Forgotten, "it waits for its turn");
    t.send(Event::Tick);
    assert!(!t.core.is_behind(ClientId(0)));
    assert_eq!(t.state("after"), Processing);
    assert_eq!(t.core.task_count(), 1, "what was released is forgotten");
}

#[test]
fn a_large_release_ends_in_the_same_state() {
    let mut t = core(2);
    let (tasks, wanted) = pairs(20);
    t.send(graph(0, tasks, &wanted));
    run(&mut t);
    t.send_only(release(0, &wanted[1..]));
    assert!(t.core.is_behind(ClientId(0)));
    t.send(Event::Tick);
    assert_eq!(t.state(&wanted[0]), Memory);
    assert_eq!(t.core.task_count(), 2, "one result, and how it is made");
}

#[test]
fn a_graph_whose_only_wanted_key_is_released_is_forgotten_by_parts() {
    let mut t = core(3);
    let (mut tasks, parts) = pairs(20);
    let inputs: Vec<&str> = parts.iter().map(String::as_str).collect();
    tasks.push(task("sum", &inputs));
    let wanted = ["sum".to_owned()];
    t.send(graph(0, tasks.clone(), &wanted));
    run(&mut t);
    assert_eq!(t.core.task_count(), 41);
    t.send_only(release(0, &wanted));
    let left = t.core.task_count();
    assert!((30..40).contains(&left), "{left} are left");
    // Who needs some of it again finds it.
    let kept = parts.iter().find(|key| t.state(key) != Forgotten).unwrap();
    t.send_only(graph(
        1,
        vec![task("again", &[kept])],
        &["again".to_owned()],
    ));
    t.send(Event::Tick);
    assert_eq!(t.core.task_count(), 3);
    t.finish_all();
    assert_eq!(t.state("again"), Memory);
}

#[test]
fn a_client_that_leaves_while_its_graph_comes_in_leaves_nothing() {
    let mut t = core(2);
    let (tasks, wanted) = pairs(20);
    t.send_only(graph(0, tasks, &wanted));
    t.send_only(Event::Tick);
    t.send(Event::ClientRemoved {
        client: ClientId(0),
    });
    assert_eq!(t.core.task_count(), 0);
    assert!(t.core.idle_since().is_some());
}

#[test]
fn a_restart_ends_what_is_taken_in() {
    let mut t = core(2);
    let (tasks, wanted) = pairs(20);
    t.send_only(graph(0, tasks, &wanted));
    t.send_only(Event::Tick);
    t.send_only(Event::ClientRemoved {
        client: ClientId(0),
    });
    t.send_only(Event::Restart);
    assert!(!t.core.has_slices());
    assert_eq!(t.core.task_count(), 0);
}

#[test]
fn a_large_graph_that_needs_lost_data_is_cancelled_as_a_whole() {
    let mut t = core(2);
    let (mut tasks, mut wanted) = pairs(10);
    tasks.push(task("needy", &["nobody-has-it"]));
    wanted.push("needy".to_owned());
    t.send(graph(0, tasks, &wanted));
    assert_eq!(t.core.task_count(), 0);
    let reports = t.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].ends_with("lost dependencies"), "{reports:?}");
}

#[test]
fn data_that_another_client_lets_go_of_meanwhile_stay_for_a_large_graph() {
    let mut t = core(2);
    t.send(graph(1, vec![task("data", &[])], &["data".to_owned()]));
    t.finish("data");
    let (mut tasks, mut wanted) = pairs(10);
    tasks.insert(0, task("user", &["data"]));
    wanted.push("user".to_owned());
    t.send_only(graph(0, tasks, &wanted));
    // Known and looked at.
    while t.core.task_count() < 22 {
        t.send_only(Event::Tick);
    }
    t.send_only(Event::Tick);
    t.send_only(release(1, &["data".to_owned()]));
    assert_eq!(t.state("data"), Memory);
    let sent = run_all(&mut t);
    assert!(sent.contains(&"user".to_owned()));
    assert!(
        !sent.contains(&"data".to_owned()),
        "it was not computed again"
    );
}

fn run_all(t: &mut TestCore) -> Vec<String> {
    t.take_actions();
    t.send(Event::Tick);
    run(t)
}

#[test]
fn results_that_are_there_are_not_computed_again_for_a_large_graph() {
    let mut t = core(2);
    let chain = || vec![task("a", &[]), task("b", &["a"])];
    t.send(graph(1, chain(), &["b".to_owned()]));
    run(&mut t);
    assert_eq!((t.state("a"), t.state("b")), (Released, Memory));
    let (mut tasks, mut wanted) = pairs(10);
    tasks.splice(0..0, chain());
    tasks.push(task("c", &["b"]));
    wanted.push("c".to_owned());
    t.send(graph(0, tasks, &wanted));
    let sent = run(&mut t);
    assert!(sent.contains(&"c".to_owned()));
    assert!(!sent.contains(&"a".to_owned()) && !sent.contains(&"b".to_owned()));
}

#[test]
fn tasks_with_priorities_of_their_own_go_first_in_a_large_graph() {
    let mut t = core(2);
    let (mut tasks, mut wanted) = pairs(20);
    let urgent = Annotations {
        priority: Some(10.0),
        ..Annotations::default()
    };
    tasks.push(annotated(task("urgent", &[]), urgent));
    wanted.push("urgent".to_owned());
    t.send(graph(0, tasks, &wanted));
    assert_eq!(run(&mut t)[0], "urgent");
}
