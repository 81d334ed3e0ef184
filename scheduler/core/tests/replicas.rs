//! Copies of results: which are dropped, and what moves when workers retire; the behaviours that distributed's tests of
//! the active memory manager describe.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::event::{
    Actors, AmmCommand, Annotations, Event, Heartbeat, UpdateGraph, WorkerStatus,
};
use oxidask_scheduler_core::testing::{TestCore, annotated, task};
use oxidask_scheduler_core::{Action, ClientId, Config, RequestId, WorkerId};

/// Workers 0 to `n` − 1 of one thread; the memory manager looks when it is told to.
fn cluster(n: u32) -> TestCore {
    let config = Config {
        active_memory_manager: false,
        work_stealing: false,
        ..Config::default()
    };
    let mut t = TestCore::new(config).client(0);
    for id in 0..n {
        t.add_worker(id, 1);
    }
    t
}

fn scatter(t: &mut TestCore, key: &str, on: &[u32]) {
    t.send(Event::DataAdded {
        client: Some(ClientId(0)),
        data: vec![(
            Key::from(key),
            10,
            on.iter().map(|id| WorkerId(*id)).collect(),
        )],
    });
}

fn submit_on(t: &mut TestCore, key: &str, needs: &[&str], worker: u32) {
    let annotations = Annotations {
        workers: vec![format!("w{worker}")],
        ..Annotations::default()
    };
    t.submit(0, vec![annotated(task(key, needs), annotations)], &[key]);
}

fn set_status(t: &mut TestCore, worker: u32, status: WorkerStatus) {
    t.send(Event::WorkerStatusChanged {
        worker: WorkerId(worker),
        status,
    });
}

fn look(t: &mut TestCore) {
    t.send(Event::MemoryManager(AmmCommand::RunOnce));
}

fn who_has(t: &TestCore, key: &str) -> Vec<u32> {
    let mut holders: Vec<u32> = t
        .core
        .who_has(&Key::from(key))
        .iter()
        .map(|id| id.0)
        .collect();
    holders.sort_unstable();
    holders
}

fn make_actor(t: &mut TestCore, key: &str) -> u32 {
    t.send(Event::UpdateGraph(UpdateGraph {
        client: ClientId(0),
        tasks: vec![task(key, &[])],
        wanted: vec![Key::from(key)],
        submitting_task: None,
        fifo_timeout: Duration::ZERO,
        actors: Actors::Wanted,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "update-graph".into(),
    }));
    let home = t.worker_of(key).unwrap();
    t.finish(key);
    home
}

#[test]
fn one_copy_stays_of_what_nobody_needs() {
    let mut t = cluster(4);
    scatter(&mut t, "x", &[0, 1, 2, 3]);
    look(&mut t);
    assert_eq!(who_has(&t, "x").len(), 1);
    look(&mut t);
    assert_eq!(who_has(&t, "x").len(), 1, "the last one always stays");
}

#[test]
fn the_manager_starts_stops_and_says_whether_it_runs() {
    let mut t = cluster(2);
    scatter(&mut t, "x", &[0, 1]);
    t.wait(Duration::from_secs(60));
    assert_eq!(who_has(&t, "x"), [0, 1], "it does not run");
    t.send(Event::MemoryManager(AmmCommand::Start));
    t.send(Event::MemoryManager(AmmCommand::Start));
    assert!(t.core.memory_manager_runs());
    t.wait(Duration::from_secs(3));
    assert_eq!(who_has(&t, "x").len(), 1);
    t.send(Event::MemoryManager(AmmCommand::Stop));
    assert!(!t.core.memory_manager_runs());
    scatter(&mut t, "y", &[0, 1]);
    t.wait(Duration::from_secs(60));
    assert_eq!(who_has(&t, "y"), [0, 1]);
}

#[test]
fn without_the_policy_a_look_drops_nothing() {
    let config = Config {
        reduce_replicas: false,
        ..Config::default()
    };
    let mut t = TestCore::new(config).worker(0, 1).worker(1, 1).client(0);
    scatter(&mut t, "x", &[0, 1]);
    look(&mut t);
    assert_eq!(who_has(&t, "x"), [0, 1]);
}

#[test]
fn the_fullest_worker_drops_what_its_processes_take_counts() {
    let mut t = cluster(3);
    scatter(&mut t, "x", &[0, 1, 2]);
    t.send(Event::Heartbeat(Heartbeat {
        worker: Some(WorkerId(1)),
        memory: 1_000_000,
        ..Heartbeat::default()
    }));
    // Worker 2 holds more than 0.
    scatter(&mut t, "y", &[2]);
    look(&mut t);
    assert_eq!(who_has(&t, "x"), [0]);
}

/// Copies that stay on four workers when tasks need them: so many run on worker 0, on worker 1, or wait.
#[test]
fn there_are_as_many_copies_as_workers_that_need_them() {
    let cases = [
        // (on worker 0, on worker 1, waiting, copies)
        (0, 0, 0, 1),
        (1, 0, 0, 1),
        (0, 0, 1, 1),
        (2, 0, 0, 1),
        (1, 1, 0, 2),
        (1, 1, 1, 3),
        (1, 1, 2, 4),
        (2, 1, 1, 3),
        (1, 1, 17, 4),
        (17, 1, 1, 3),
        // From twenty on it is not looked where they run.
        (18, 1, 1, 4),
    ];
    for (first, second, waiting, copies) in cases {
        let mut t = cluster(4);
        scatter(&mut t, "x", &[0, 1, 2, 3]);
        submit_on(&mut t, "y", &[], 3);
        for n in 0..first {
            submit_on(&mut t, &format!("first-{n}"), &["x"], 0);
        }
        for n in 0..second {
            submit_on(&mut t, &format!("second-{n}"), &["x"], 1);
        }
        for n in 0..waiting {
            let key = format!("waiting-{n}");
            t.submit(0, vec![task(&key, &["x", "y"])], &[&key]);
        }
        look(&mut t);
        let case = (first, second, waiting);
        assert_eq!(who_has(&t, "x").len(), copies, "{case:?}");
        if first > 0 && copies < 4 {
            assert!(
                who_has(&t, "x").contains(&0),
                "{case:?}: it is needed there"
            );
        }
    }
}

#[test]
fn a_paused_worker_drops_before_one_that_runs() {
    let mut t = cluster(5);
    scatter(&mut t, "x", &[0, 1, 2, 3, 4]);
    // The others are fuller.
    for id in [0, 1, 2, 4] {
        scatter(&mut t, &format!("filler-{id}"), &[id]);
    }
    set_status(&mut t, 3, WorkerStatus::Paused);
    for id in [0, 1, 2] {
        submit_on(&mut t, &format!("y-{id}"), &["x"], id);
    }
    t.submit(0, vec![task("z", &["x", "y-0"])], &["z"]);
    look(&mut t);
    assert_eq!(who_has(&t, "x"), [0, 1, 2, 4]);
}

/// The only copy on a worker that stays is not given up for one that a paused worker still needs.
#[test]
fn the_last_copy_on_a_running_worker_is_not_dropped_for_those_of_paused_ones() {
    // 0 is paused and needs it, 1 runs and does not.
    let mut t = cluster(2);
    scatter(&mut t, "x", &[0, 1]);
    submit_on(&mut t, "y", &["x"], 0);
    set_status(&mut t, 0, WorkerStatus::Paused);
    look(&mut t);
    assert_eq!(who_has(&t, "x"), [0, 1], "case 1");

    // 0 is paused, nobody needs it.
    let mut t = cluster(2);
    scatter(&mut t, "x", &[0, 1]);
    set_status(&mut t, 0, WorkerStatus::Paused);
    look(&mut t);
    assert_eq!(who_has(&t, "x"), [1], "case 2");

    // Both are paused (3), or both run (4); 0 needs it.
    for paused in [true, false] {
        let mut t = cluster(2);
        scatter(&mut t, "x", &[0, 1]);
        submit_on(&mut t, "y", &["x"], 0);
        if paused {
            set_status(&mut t, 0, WorkerStatus::Paused);
            set_status(&mut t, 1, WorkerStatus::Paused);
        }
        look(&mut t);
        assert_eq!(who_has(&t, "x"), [0], "case 3 or 4, paused: {paused}");
    }

    // 0 is paused and needs it, 1 runs and does not, 2 runs and needs it.
    let mut t = cluster(3);
    scatter(&mut t, "x", &[0, 1, 2]);
    submit_on(&mut t, "y1", &["x"], 0);
    submit_on(&mut t, "y2", &["x"], 2);
    set_status(&mut t, 0, WorkerStatus::Paused);
    look(&mut t);
    assert_eq!(who_has(&t, "x"), [0, 2], "case 5");
}

#[test]
fn ways_to_reach_an_actor_are_not_dropped() {
    let mut t = cluster(2);
    let home = make_actor(&mut t, "actor");
    t.send(Event::KeysAdded {
        worker: WorkerId(1 - home),
        keys: vec![Key::from("actor")],
        stimulus_id: "gather".into(),
    });
    look(&mut t);
    assert_eq!(who_has(&t, "actor"), [0, 1]);
}

/// What became of a request to retire: who may go, who stays. Empty while it goes on.
fn retired(t: &mut TestCore) -> Option<(Vec<u32>, Vec<u32>)> {
    t.take_actions()
        .into_iter()
        .find_map(|action| match action {
            Action::WorkersRetired { retired, kept, .. } => {
                let numbers = |ids: Vec<WorkerId>| ids.iter().map(|id| id.0).collect();
                Some((numbers(retired), numbers(kept)))
            }
            _ => None,
        })
}

fn retire(t: &mut TestCore, workers: &[u32]) {
    t.send(Event::RetireWorkers {
        request: RequestId(1),
        workers: workers.iter().map(|id| WorkerId(*id)).collect(),
        stimulus_id: "retire".into(),
    });
}

/// Workers carry out what they were asked to fetch. Gives back who was asked for how many keys.
fn fetch(t: &mut TestCore, except: &[u32]) -> Vec<(u32, usize)> {
    let asked: Vec<(WorkerId, Vec<Key>)> = t
        .take_actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::AcquireReplicas { worker, keys, .. } => {
                Some((worker, keys.into_iter().map(|(key, ..)| key).collect()))
            }
            _ => None,
        })
        .collect();
    let counts = asked.iter().map(|(worker, keys)| (worker.0, keys.len()));
    let counts = counts.collect();
    for (worker, keys) in asked {
        if !except.contains(&worker.0) {
            t.send(Event::KeysAdded {
                worker,
                keys,
                stimulus_id: "acquire".into(),
            });
        }
    }
    counts
}

#[test]
fn a_worker_retires_whether_or_not_the_manager_runs() {
    for command in [AmmCommand::Start, AmmCommand::Stop] {
        let mut t = cluster(2);
        t.send(Event::MemoryManager(command));
        scatter(&mut t, "x", &[0]);
        retire(&mut t, &[0]);
        assert_eq!(fetch(&mut t, &[]), [(1, 1)]);
        assert_eq!(retired(&mut t), Some((vec![0], vec![])));
    }
}

#[test]
fn a_retired_worker_that_is_not_removed_has_given_its_copies_away() {
    let mut t = cluster(2);
    scatter(&mut t, "x", &[0]);
    scatter(&mut t, "both", &[0, 1]);
    retire(&mut t, &[0]);
    fetch(&mut t, &[]);
    assert_eq!((who_has(&t, "x"), who_has(&t, "both")), (vec![1], vec![1]));
    let status = t.core.worker(WorkerId(0)).unwrap().status;
    assert_eq!(status, WorkerStatus::ClosingGracefully);
}

#[test]
fn a_retiring_worker_keeps_what_its_own_tasks_need() {
    let mut t = cluster(2);
    scatter(&mut t, "x", &[0, 1]);
    submit_on(&mut t, "y", &["x"], 0);
    retire(&mut t, &[0]);
    assert_eq!(who_has(&t, "x"), [0, 1]);
}

#[test]
fn copies_on_other_retiring_workers_do_not_count() {
    let mut t = cluster(3);
    scatter(&mut t, "x", &[0, 1]);
    retire(&mut t, &[0, 1]);
    let asked = fetch(&mut t, &[]);
    assert_eq!(asked, [(2, 1)], "once, though two workers leave");
    assert_eq!(retired(&mut t), Some((vec![0, 1], vec![])));
    assert_eq!(who_has(&t, "x"), [2]);
}

#[test]
fn of_workers_that_nobody_can_relieve_as_many_go_as_can() {
    let mut t = cluster(4);
    scatter(&mut t, "x", &[1]);
    scatter(&mut t, "y", &[2, 3]);
    t.take_actions();
    retire(&mut t, &[0, 1, 2, 3]);
    // Worker 1 has nobody to give x to, so it stays, and takes y.
    assert_eq!(fetch(&mut t, &[]), [(1, 1)]);
    let (mut gone, kept) = retired(&mut t).unwrap();
    gone.sort_unstable();
    assert_eq!((gone, kept), (vec![0, 2, 3], vec![1]));
    let status = t.core.worker(WorkerId(1)).unwrap().status;
    assert_eq!(status, WorkerStatus::Running);
    t.submit(0, vec![task("z", &[])], &["z"]);
    assert!(t.worker_of("z").is_some(), "those that stay take tasks");
}

#[test]
fn paused_workers_relieve_nobody() {
    let mut t = cluster(2);
    set_status(&mut t, 1, WorkerStatus::Paused);
    scatter(&mut t, "x", &[0]);
    retire(&mut t, &[0]);
    assert_eq!(retired(&mut t), Some((vec![], vec![0])));
    assert_eq!(
        t.core.worker(WorkerId(0)).unwrap().status,
        WorkerStatus::Running
    );
}

#[test]
fn a_paused_worker_that_cannot_retire_is_paused_again() {
    let mut t = cluster(1);
    scatter(&mut t, "x", &[0]);
    set_status(&mut t, 0, WorkerStatus::Paused);
    retire(&mut t, &[0]);
    assert_eq!(retired(&mut t), Some((vec![], vec![0])));
    assert_eq!(
        t.core.worker(WorkerId(0)).unwrap().status,
        WorkerStatus::Paused
    );
}

#[test]
fn a_taker_that_never_fetches_is_replaced_when_it_is_gone() {
    let mut t = cluster(3);
    scatter(&mut t, "x", &[0]);
    scatter(&mut t, "clutter", &[1]);
    retire(&mut t, &[0]);
    assert_eq!(fetch(&mut t, &[2]), [(2, 1)], "the emptier one is asked");
    assert_eq!(retired(&mut t), None);
    t.lose_worker(2);
    assert_eq!(fetch(&mut t, &[]), [(1, 1)]);
    assert_eq!(retired(&mut t), Some((vec![0], vec![])));
}

#[test]
fn a_taker_that_never_fetches_is_asked_again_or_replaced_after_a_while() {
    let mut t = cluster(2);
    scatter(&mut t, "x", &[0]);
    retire(&mut t, &[0]);
    assert_eq!(fetch(&mut t, &[1]), [(1, 1)]);
    t.wait(Duration::from_secs(11));
    assert_eq!(fetch(&mut t, &[]), [(1, 1)]);
    assert_eq!(retired(&mut t), Some((vec![0], vec![])));
}

#[test]
fn most_of_a_cluster_retires_at_once_and_nothing_is_lost() {
    let mut t = cluster(10);
    let keys: Vec<String> = (0..100).map(|n| format!("x-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        scatter(&mut t, key, &[n as u32 % 10]);
    }
    t.take_actions();
    retire(&mut t, &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let asked = fetch(&mut t, &[]);
    assert_eq!(asked.iter().map(|(_, keys)| keys).sum::<usize>(), 90);
    let (gone, kept) = retired(&mut t).unwrap();
    assert_eq!((gone.len(), kept.len()), (9, 0));
    assert!(keys.iter().all(|key| who_has(&t, key) == [9]));
}

#[test]
fn a_taker_that_retires_too_passes_on_what_it_got_or_was_to_get() {
    let mut t = cluster(3);
    scatter(&mut t, "x", &[0]);
    scatter(&mut t, "y", &[2]);
    retire(&mut t, &[0]);
    // Worker 1 is the emptier one and has not fetched yet when it is to go as well.
    assert_eq!(fetch(&mut t, &[1]), [(1, 1)]);
    t.send(Event::RetireWorkers {
        request: RequestId(2),
        workers: vec![WorkerId(1)],
        stimulus_id: "retire-2".into(),
    });
    assert_eq!(fetch(&mut t, &[]), [(2, 1)], "the next one is asked");
    assert!(who_has(&t, "x").contains(&2));
}

#[test]
fn a_worker_that_gets_new_results_while_it_leaves_gives_them_away_too() {
    let mut t = cluster(2);
    submit_on(&mut t, "running", &[], 0);
    scatter(&mut t, "x", &[0]);
    retire(&mut t, &[0]);
    t.finish("running");
    let mut asked = 0;
    for _ in 0..2 {
        asked += fetch(&mut t, &[])
            .iter()
            .map(|(_, keys)| keys)
            .sum::<usize>();
        if let Some(outcome) = t.core.worker(WorkerId(0)) {
            assert_eq!(outcome.status, WorkerStatus::ClosingGracefully);
        }
    }
    assert_eq!(asked, 2);
    assert_eq!(retired(&mut t), Some((vec![0], vec![])));
    assert!(who_has(&t, "running").contains(&1));
}

#[test]
fn a_worker_with_an_actor_does_not_retire_one_with_a_way_to_reach_it_does() {
    for has_proxy in [false, true] {
        let mut t = cluster(2);
        let home = make_actor(&mut t, "actor");
        if has_proxy {
            t.send(Event::KeysAdded {
                worker: WorkerId(1 - home),
                keys: vec![Key::from("actor")],
                stimulus_id: "gather".into(),
            });
        }
        t.take_actions();
        retire(&mut t, &[home]);
        assert_eq!(retired(&mut t), Some((vec![], vec![home])));
        retire(&mut t, &[1 - home]);
        assert_eq!(retired(&mut t), Some((vec![1 - home], vec![])));
        assert!(who_has(&t, "actor").contains(&home));
    }
}
