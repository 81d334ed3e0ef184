//! Which tasks move to which idle workers: the behaviours that distributed's tests of stealing describe.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use oxidask_protocol::Key;
use oxidask_scheduler_core::action::{StealNote, StealOutcome, TaskStateName};
use oxidask_scheduler_core::event::{Actors, Annotations, Event, UpdateGraph, WorkerStatus};
use oxidask_scheduler_core::testing::{TestCore, annotated, finished, new_worker, task};
use oxidask_scheduler_core::{Action, ClientId, Config, WorkerId};

/// How often it is looked at the balance in these tests.
const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes that take a second to be moved.
const SECOND: f64 = 100e6;

fn config() -> Config {
    Config {
        work_stealing_interval: INTERVAL,
        active_memory_manager: false,
        bandwidth: SECOND,
        ..Config::default()
    }
}

/// Takes each task of a prefix to last a second.
fn lasting_a_second(prefixes: impl IntoIterator<Item = String>) -> Config {
    Config {
        default_task_durations: prefixes.into_iter().map(|name| (name, 1.0)).collect(),
        ..config()
    }
}

fn preferring(worker: usize) -> Annotations {
    Annotations {
        workers: vec![format!("w{worker}")],
        allow_other_workers: true,
        ..Annotations::default()
    }
}

fn scatter(t: &mut TestCore, key: &str, seconds: f64, on: &[usize]) {
    let holders = on.iter().map(|id| WorkerId(*id as u32)).collect();
    t.send(Event::DataAdded {
        client: Some(ClientId(0)),
        data: vec![(Key::from(key), (seconds * SECOND) as u64, holders)],
    });
}

fn submit_one(t: &mut TestCore, key: &str, needs: &[&str], mut annotations: Annotations, nth: i64) {
    annotations.priority = Some(-(nth as f64));
    t.submit(0, vec![annotated(task(key, needs), annotations)], &[key]);
}

/// Workers of one thread, each of which has begun the first of its tasks.
struct Placed {
    t: TestCore,
    begun: BTreeSet<Key>,
    workers: usize,
}

impl Placed {
    fn new(config: Config, workers: usize) -> Self {
        let mut t = TestCore::new(config).client(0);
        for id in 0..workers {
            t.add_worker(id as u32, 1);
        }
        Self {
            t,
            begun: BTreeSet::new(),
            workers,
        }
    }

    /// Each worker begins with what it has.
    fn begin(&mut self, key: &str) {
        let busy = self.worker_of(key);
        let has_begun = self.begun.iter().any(|key| self.holder(key) == busy);
        if !has_begun {
            self.begun.insert(Key::from(key));
        }
    }

    fn holder(&self, key: &Key) -> Option<usize> {
        self.t.sent.get(key).map(|sent| sent.worker.0 as usize)
    }

    fn worker_of(&self, key: &str) -> Option<usize> {
        self.holder(&Key::from(key))
    }

    /// Looks as often at the balance as there are workers, all requests being answered in between.
    fn balance(&mut self) {
        for _ in 0..self.workers {
            self.t.wait(INTERVAL);
            while let Some((_, key, _)) = self.t.steals.first().cloned() {
                let give = !self.begun.contains(&key);
                self.t.answer_steal(give);
                if give {
                    self.begin(key.as_str().unwrap());
                }
            }
        }
    }

    /// Prefixes of the tasks on each worker.
    fn tasks(&self) -> Vec<Vec<String>> {
        let mut tasks = vec![Vec::new(); self.workers];
        for (key, sent) in &self.t.sent {
            tasks[sent.worker.0 as usize].push(key.prefix().into_owned());
        }
        tasks
    }
}

/// What is where once it has been balanced. A task is the seconds that its one input takes to be moved; each lasts a
/// second and is named after the whole seconds of its input.
fn balanced(placed: &[&[f64]]) -> Vec<Vec<u32>> {
    let config = lasting_a_second((0..10).map(|n| n.to_string()));
    let mut cluster = Placed::new(config, placed.len());
    let mut n = 0;
    for (worker, tasks) in placed.iter().enumerate() {
        let mut tasks = tasks.to_vec();
        tasks.sort_by(|a, b| b.total_cmp(a));
        for seconds in tasks {
            let input = format!("input-{n}");
            let key = format!("{}-{n}", seconds as u32);
            let mut needs = Vec::new();
            if seconds > 0.0 {
                scatter(&mut cluster.t, &input, seconds, &[worker]);
                needs.push(&*input);
            }
            submit_one(&mut cluster.t, &key, &needs, preferring(worker), n);
            cluster.begin(&key);
            n += 1;
        }
    }
    cluster.balance();
    let mut result: Vec<Vec<u32>> = cluster
        .tasks()
        .iter()
        .map(|tasks| tasks.iter().map(|name| name.parse().unwrap()).collect())
        .collect();
    for tasks in &mut result {
        tasks.sort_by(|a, b| b.cmp(a));
    }
    result.sort_by(|a, b| b.cmp(a));
    result
}

/// The table of distributed's `test_balance`.
#[test]
fn work_is_spread_as_distributed_spreads_it() {
    type Case = (
        &'static str,
        &'static [&'static [f64]],
        &'static [&'static [u32]],
    );
    let cases: &[Case] = &[
        ("not moved without need", &[&[1.0], &[]], &[&[1], &[]]),
        ("balanced", &[&[0.0, 0.0], &[]], &[&[0], &[0]]),
        (
            "balanced even if it ends even",
            &[&[0.1, 0.1], &[]],
            &[&[0], &[0]],
        ),
        ("not too much", &[&[0.0, 0.0, 0.0], &[]], &[&[0, 0], &[0]]),
        (
            "from the one with most",
            &[&[0.0, 0.0], &[0.0, 0.0, 0.0], &[]],
            &[&[0, 0], &[0, 0], &[0]],
        ),
        (
            "to the one with least",
            &[&[0.0, 0.0, 0.0], &[0.0], &[]],
            &[&[0, 0], &[0], &[0]],
        ),
        ("the easier first", &[&[0.0, 1.0], &[]], &[&[1], &[0]]),
        (
            "spread evenly",
            &[&[0.0, 0.0, 0.0, 0.0], &[], &[]],
            &[&[0, 0], &[0], &[0]],
        ),
        (
            "the easier move",
            &[&[1.0, 0.0, 2.0, 0.0], &[], &[]],
            &[&[2, 1], &[0], &[0]],
        ),
        (
            "costly ones move if it pays",
            &[&[1.0, 1.0, 1.0], &[]],
            &[&[1, 1], &[1]],
        ),
        (
            "but not too many",
            &[&[1.0, 1.0, 1.0, 1.0], &[]],
            &[&[1, 1, 1], &[1]],
        ),
        (
            "nobody is clearly saturated",
            &[&[0.0, 0.0], &[0.0, 0.0], &[0.0, 0.0], &[]],
            &[&[0, 0], &[0, 0], &[0], &[0]],
        ),
        (
            "several saturated workers",
            &[
                &[4.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0],
                &[4.0, 2.0, 1.0, 1.0],
                &[],
                &[],
                &[],
            ],
            &[&[4, 2, 2, 2], &[4, 2, 1, 1], &[2], &[1], &[1]],
        ),
    ];
    for (name, placed, expected) in cases {
        let expected: Vec<Vec<u32>> = {
            let mut expected: Vec<Vec<u32>> = expected.iter().map(|tasks| tasks.to_vec()).collect();
            expected.sort_by(|a, b| b.cmp(a));
            expected
        };
        assert_eq!(balanced(placed), expected, "{name}");
    }
}

/// Tasks that share inputs: which inputs (seconds to be moved) lie where, and which tasks need what where.
struct Shared {
    inputs: &'static [(&'static str, f64)],
    held: &'static [&'static [&'static str]],
    tasks: Vec<Vec<&'static [&'static str]>>,
    saturation: f64,
}

impl Shared {
    /// The number of tasks on each worker in the end, for each order in which the workers may come.
    fn outcomes(&self) -> BTreeSet<Vec<usize>> {
        let n = self.held.len();
        permutations(n)
            .into_iter()
            .map(|order| self.outcome(&order))
            .collect()
    }

    /// `order[i]`: which worker of the description the i-th worker is.
    fn outcome(&self, order: &[usize]) -> Vec<usize> {
        let of = |described: usize| order.iter().position(|d| *d == described).unwrap();
        let name = |needs: &[&str]| format!("task-{}", needs.concat());
        let names: BTreeSet<String> = self
            .tasks
            .iter()
            .flatten()
            .map(|needs| name(needs))
            .collect();
        let config = Config {
            worker_saturation: self.saturation,
            ..lasting_a_second(names)
        };
        let mut cluster = Placed::new(config, order.len());
        for (input, seconds) in self.inputs {
            let holders: Vec<usize> = (0..order.len())
                .filter(|d| self.held[*d].contains(input))
                .map(of)
                .collect();
            scatter(&mut cluster.t, &format!("dep-{input}"), *seconds, &holders);
        }
        let mut n = 0;
        for described in order {
            for needs in &self.tasks[*described] {
                let inputs: Vec<String> =
                    needs.iter().map(|input| format!("dep-{input}")).collect();
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                let key = format!("{}-{n}", name(needs));
                submit_one(&mut cluster.t, &key, &inputs, preferring(of(*described)), n);
                cluster.begin(&key);
                n += 1;
            }
        }
        cluster.balance();
        let counts: Vec<usize> = cluster.tasks().iter().map(Vec::len).collect();
        (0..order.len()).map(|d| counts[of(d)]).collect()
    }
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..n {
        all = all
            .into_iter()
            .flat_map(|start: Vec<usize>| {
                let rest: Vec<usize> = (0..n).filter(|i| !start.contains(i)).collect();
                rest.into_iter()
                    .map(move |i| start.iter().copied().chain([i]).collect())
            })
            .collect();
    }
    all
}

fn only(outcome: &[usize]) -> BTreeSet<Vec<usize>> {
    BTreeSet::from([outcome.to_vec()])
}

const A: &[&str] = &["a"];

#[test]
fn tasks_with_a_large_input_move_only_when_there_is_work_enough() {
    let outcomes = |seconds: f64, tasks: usize| {
        let inputs: &'static [(&'static str, f64)] = Box::leak(Box::new([("a", seconds)]));
        Shared {
            inputs,
            held: &[&["a"], &[]],
            tasks: vec![vec![A; tasks], vec![]],
            saturation: 1.1,
        }
        .outcomes()
    };
    assert_eq!(outcomes(10.0, 10), only(&[10, 0]), "too little work");
    assert!(outcomes(10.0, 12).iter().all(|n| n[1] > 0), "work enough");
    assert_eq!(outcomes(20.0, 12), only(&[12, 0]), "too large an input");
    assert!(outcomes(10.0, 20).iter().all(|n| n[1] > 0));
    assert_eq!(outcomes(1.0, 2), only(&[2, 0]), "it would end as uneven");
}

#[test]
fn tasks_move_to_where_their_inputs_lie() {
    let even = Shared {
        inputs: &[("a", 1.0)],
        held: &[&["a"], &["a"]],
        tasks: vec![vec![A; 2], vec![]],
        saturation: 1.1,
    };
    assert_eq!(even.outcomes(), only(&[1, 1]));
    let to_the_copy = Shared {
        inputs: &[("a", 2.0)],
        held: &[&["a"], &["a"], &[]],
        tasks: vec![vec![A; 2], vec![], vec![]],
        saturation: 1.1,
    };
    assert_eq!(to_the_copy.outcomes(), only(&[1, 1, 0]));
    const AB: &[&str] = &["a", "b"];
    let to_the_larger = Shared {
        inputs: &[("a", 2.0), ("b", 1.0)],
        held: &[&["a", "b"], &["a"], &["b"]],
        tasks: vec![vec![AB; 3], vec![], vec![]],
        saturation: 1.1,
    };
    assert_eq!(to_the_larger.outcomes(), only(&[2, 1, 0]));
}

/// `n` tasks on worker 0, which may run elsewhere too or are restricted further; then worker 1 comes.
fn crowded(config: Config, n: usize, annotations: Annotations) -> TestCore {
    let mut t = TestCore::new(config).worker(0, 1).client(0);
    let names: Vec<String> = (0..n).map(|i| format!("f-{i}")).collect();
    let tasks = names
        .iter()
        .map(|name| annotated(task(name, &[]), annotations.clone()))
        .collect();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    t.submit(0, tasks, &wanted);
    t
}

fn unqueued() -> Config {
    Config {
        worker_saturation: f64::INFINITY,
        ..config()
    }
}

fn steals(t: &mut TestCore) -> usize {
    t.wait(INTERVAL);
    t.steals.len()
}

#[test]
fn a_task_that_is_restricted_to_several_workers_moves_among_them_only() {
    let annotations = Annotations {
        workers: vec!["w0".into(), "w1".into()],
        ..Annotations::default()
    };
    let mut t = crowded(unqueued(), 20, annotations);
    t.add_worker(2, 4);
    assert_eq!(steals(&mut t), 0, "worker 2 may run none of them");
    t.add_worker(1, 1);
    for _ in 0..20 {
        t.wait(INTERVAL);
        while !t.steals.is_empty() {
            t.answer_steal(true);
        }
    }
    let on = |t: &TestCore, id| t.sent.values().filter(|s| s.worker == WorkerId(id)).count();
    assert!(on(&t, 1) > 0, "{}", on(&t, 1));
    assert_eq!(on(&t, 2), 0);
}

#[test]
fn a_task_that_is_restricted_to_a_host_stays_on_it() {
    let annotations = Annotations {
        workers: vec!["machine".into()],
        ..Annotations::default()
    };
    let mut t = TestCore::new(unqueued()).client(0);
    let on_machine = |id: u32| {
        let mut worker = new_worker(id, 1);
        worker.host = "machine".into();
        worker
    };
    t.send(Event::WorkerAdded(on_machine(0)));
    let names: Vec<String> = (0..20).map(|i| format!("f-{i}")).collect();
    let tasks = names
        .iter()
        .map(|name| annotated(task(name, &[]), annotations.clone()))
        .collect();
    t.submit(
        0,
        tasks,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    t.add_worker(1, 2);
    assert_eq!(steals(&mut t), 0);
    t.send(Event::WorkerAdded(on_machine(2)));
    assert!(steals(&mut t) > 0);
    t.answer_steal(true);
    assert!(t.sent.values().all(|sent| sent.worker != WorkerId(1)));
}

#[test]
fn a_task_that_needs_a_resource_moves_to_workers_that_have_it() {
    let annotations = Annotations {
        resources: vec![("A".into(), 1.0)],
        ..Annotations::default()
    };
    let with_resources = |id: u32, resources: &[(&str, f64)]| {
        let mut worker = new_worker(id, 1);
        worker.resources = resources.iter().map(|(k, v)| ((*k).into(), *v)).collect();
        worker
    };
    let mut t = TestCore::new(unqueued()).client(0);
    t.send(Event::WorkerAdded(with_resources(
        0,
        &[("A", 2.0), ("C", 1.0)],
    )));
    let names: Vec<String> = (0..20).map(|i| format!("f-{i}")).collect();
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
    assert_eq!(steals(&mut t), 0, "worker 1 has no A");
    t.send(Event::WorkerAdded(with_resources(
        2,
        &[("A", 4.0), ("B", 5.0)],
    )));
    assert!(steals(&mut t) > 3, "the others of their resources differ");
}

#[test]
fn paused_workers_steal_nothing() {
    let mut t = crowded(unqueued(), 20, preferring(0));
    t.add_worker(1, 1);
    t.send(Event::WorkerStatusChanged {
        worker: WorkerId(1),
        status: WorkerStatus::Paused,
    });
    assert_eq!(steals(&mut t), 0);
    t.send(Event::WorkerStatusChanged {
        worker: WorkerId(1),
        status: WorkerStatus::Running,
    });
    assert!(steals(&mut t) > 3);
}

#[test]
fn tasks_that_the_user_calls_short_never_move_though_they_take_long() {
    let split = |name: &str| {
        let mut t = TestCore::new(unqueued()).worker(0, 1).client(0);
        let first = format!("{name}-first");
        submit_one(&mut t, &first, &[], preferring(0), 0);
        let sent = t.sent.remove(&Key::from(&*first)).unwrap();
        let Event::TaskFinished(mut done) = finished(&sent) else {
            unreachable!("finished gives a finished task")
        };
        done.compute = Some(1.0);
        t.send(Event::TaskFinished(done));
        for n in 0..20 {
            submit_one(&mut t, &format!("{name}-{n}"), &[], preferring(0), n);
        }
        t.add_worker(1, 1);
        steals(&mut t)
    };
    assert_eq!(split("split-shuffle"), 0);
    assert!(split("other") > 3, "which is so because of its name");
}

#[test]
fn many_short_tasks_are_worth_moving() {
    let config = Config {
        default_task_durations: vec![("f".into(), 0.002)],
        ..unqueued()
    };
    let mut t = crowded(config, 1000, preferring(0));
    t.add_worker(1, 1);
    for _ in 0..300 {
        t.wait(INTERVAL);
        while !t.steals.is_empty() {
            t.answer_steal(true);
        }
    }
    let moved = t.sent.values().filter(|s| s.worker == WorkerId(1)).count();
    assert!((200..=500).contains(&moved), "{moved}");
}

#[test]
fn actors_and_tasks_that_left_their_slot_stay() {
    let mut t = TestCore::new(unqueued()).worker(0, 1).client(0);
    let actors: Vec<_> = (0..9).map(|n| task(&format!("actor-{n}"), &[])).collect();
    let wanted: Vec<Key> = actors.iter().map(|task| task.key.clone()).collect();
    t.send(Event::UpdateGraph(UpdateGraph {
        client: ClientId(0),
        tasks: actors,
        wanted,
        submitting_task: None,
        fifo_timeout: Duration::ZERO,
        actors: Actors::Wanted,
        user_priority: 0.0,
        span_metadata: None,
        code: None,
        stimulus_id: "update-graph".into(),
    }));
    t.add_worker(1, 1);
    assert_eq!(steals(&mut t), 0, "actors");

    let mut t = crowded(unqueued(), 9, preferring(0));
    for (key, sent) in t.sent.clone() {
        t.send(Event::LongRunning {
            worker: sent.worker,
            key,
            run_id: Some(sent.run_id),
            compute_duration: Some(0.1),
        });
    }
    t.add_worker(1, 1);
    assert_eq!(steals(&mut t), 0, "long-running tasks");
}

#[test]
fn stealing_can_be_turned_off_and_has_its_interval() {
    let off = Config {
        work_stealing: false,
        ..unqueued()
    };
    let mut t = crowded(off, 20, preferring(0));
    t.add_worker(1, 1);
    t.wait(Duration::from_secs(60));
    assert!(t.steals.is_empty());

    let seldom = Config {
        work_stealing_interval: Duration::from_secs(30),
        ..unqueued()
    };
    let mut t = crowded(seldom, 20, preferring(0));
    t.add_worker(1, 1);
    t.wait(Duration::from_secs(29));
    assert!(t.steals.is_empty());
    t.wait(Duration::from_secs(2));
    assert!(!t.steals.is_empty());
}

/// What became of the answers to requests.
fn outcomes(t: &mut TestCore) -> Vec<StealOutcome> {
    let notes = t.take_actions().into_iter();
    notes
        .filter_map(|action| match action {
            Action::StealNoted(note) => Some(*note),
            _ => None,
        })
        .filter_map(|note| match note {
            StealNote::Answered { outcome, .. } => Some(outcome),
            StealNote::Requested(_) => None,
        })
        .collect()
}

/// A crowded worker 0 that was asked for tasks; worker 1 is idle.
fn asked() -> TestCore {
    let mut t = crowded(unqueued(), 20, preferring(0));
    t.add_worker(1, 1);
    assert!(steals(&mut t) > 3);
    t.take_actions();
    t
}

#[test]
fn what_was_asked_for_and_what_came_of_it_is_noted() {
    let mut t = crowded(unqueued(), 20, preferring(0));
    t.take_actions();
    t.add_worker(1, 1);
    let n = steals(&mut t);
    let requested: Vec<_> = t
        .take_actions()
        .into_iter()
        .filter_map(|action| match action {
            Action::StealNoted(note) => Some(*note),
            _ => None,
        })
        .collect();
    let [StealNote::Requested(requests)] = &*requested else {
        panic!("{requested:?}")
    };
    assert_eq!(requests.len(), n);
    assert!(requests.iter().all(|request| request.level == 0
        && &*request.victim == "tcp://w0:1"
        && &*request.thief == "tcp://w1:1"));
    assert!(
        requests
            .windows(2)
            .all(|pair| pair[0].thief_occupancy < pair[1].thief_occupancy),
        "moves under way count"
    );
    t.answer_steal(true);
    t.answer_steal(false);
    let thief = || "tcp://w1:1".into();
    assert_eq!(
        outcomes(&mut t),
        [
            StealOutcome::Confirmed(thief()),
            StealOutcome::AlreadyComputing(thief())
        ]
    );
}

#[test]
fn each_request_has_its_own_id() {
    let t = asked();
    let ids: BTreeSet<_> = t.steals.iter().map(|(_, _, id)| id.clone()).collect();
    assert_eq!(ids.len(), t.steals.len());
}

#[test]
fn no_more_than_half_is_asked_for_however_late_the_answers_are() {
    let mut t = asked();
    for _ in 0..50 {
        t.wait(INTERVAL);
    }
    let keys: BTreeSet<_> = t.steals.iter().map(|(_, key, _)| key.clone()).collect();
    assert_eq!(keys.len(), t.steals.len(), "nothing is asked for twice");
    assert!((8..=10).contains(&keys.len()), "{}", keys.len());
}

#[test]
fn what_has_moved_does_not_move_back() {
    let mut t = asked();
    let mut moved = BTreeSet::new();
    for _ in 0..20 {
        while let Some((_, key, _)) = t.steals.first().cloned() {
            assert!(moved.insert(key.clone()), "{key} moves a second time");
            t.answer_steal(true);
        }
        t.wait(INTERVAL);
    }
    assert!(!moved.is_empty());
}

#[test]
fn a_task_that_is_placed_anew_meanwhile_ignores_the_answer() {
    let mut t = asked();
    let (worker, key, stimulus_id) = t.steals.remove(0);
    let event = Event::Rescheduled {
        worker,
        key: key.clone(),
    };
    t.send(event);
    let place = t.worker_of(key.as_str().unwrap());
    assert!(place.is_some());
    t.take_actions();
    t.send(Event::StealResponded {
        worker,
        key: key.clone(),
        state: Some("executing".into()),
        stimulus_id,
    });
    assert_eq!(outcomes(&mut t), [StealOutcome::Aborted]);
    assert_eq!(t.worker_of(key.as_str().unwrap()), place);
}

#[test]
fn an_answer_with_another_id_is_stale() {
    let mut t = asked();
    let (worker, key, _) = t.steals[0].clone();
    t.send(Event::StealResponded {
        worker,
        key: key.clone(),
        state: Some("ready".into()),
        stimulus_id: "steal-of-old".into(),
    });
    assert_eq!(outcomes(&mut t), [StealOutcome::Stale]);
    assert_eq!(t.worker_of(key.as_str().unwrap()), Some(0));
    t.answer_steal(true);
    assert_eq!(
        t.worker_of(key.as_str().unwrap()),
        Some(1),
        "the right one counts"
    );
}

#[test]
fn a_task_that_its_worker_does_not_know_is_placed_anew() {
    for state in [None, Some("released".to_owned())] {
        let mut t = asked();
        let (worker, key, stimulus_id) = t.steals.remove(0);
        t.sent.remove(&key);
        t.send(Event::StealResponded {
            worker,
            key: key.clone(),
            state,
            stimulus_id,
        });
        let [StealOutcome::Rescheduled { thief_is_gone, .. }] = &*outcomes(&mut t) else {
            panic!("placed anew")
        };
        assert!(!thief_is_gone);
        assert!(t.sent.contains_key(&key), "and sent again");
    }
}

#[test]
fn a_new_worker_at_the_address_of_the_thief_is_not_the_thief() {
    let mut t = asked();
    t.lose_worker(1);
    let mut again = new_worker(7, 1);
    again.address = "tcp://w1:1".into();
    t.send(Event::WorkerAdded(again));
    t.take_actions();
    let key = t.steals[0].1.clone();
    t.answer_steal(true);
    let [StealOutcome::Rescheduled { thief_is_gone, .. }] = &*outcomes(&mut t) else {
        panic!("placed anew")
    };
    assert!(thief_is_gone);
    assert!(t.sent.contains_key(&key));
}

#[test]
fn a_task_that_is_released_meanwhile_is_forgotten_whatever_the_answer() {
    let mut t = asked();
    let (worker, key, stimulus_id) = t.steals.remove(0);
    t.release(0, &[key.as_str().unwrap()]);
    t.send(Event::StealResponded {
        worker,
        key: key.clone(),
        state: None,
        stimulus_id,
    });
    assert_eq!(outcomes(&mut t), []);
    assert_eq!(t.state(key.as_str().unwrap()), TaskStateName::Forgotten);
}

#[test]
fn a_restart_ends_all_requests() {
    let mut t = asked();
    let (worker, key, stimulus_id) = t.steals[0].clone();
    t.send(Event::Restart);
    assert_eq!(t.core.task_count(), 0);
    t.take_actions();
    t.send(Event::StealResponded {
        worker,
        key,
        state: Some("ready".into()),
        stimulus_id,
    });
    assert_eq!(outcomes(&mut t), []);
}
