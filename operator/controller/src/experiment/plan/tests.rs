//! Plans: single situations, and whole experiments in a made-up world in which
//! anything happens in any order.

use jiff::SignedDuration;
use oxidask_operator_api::ScalingExperimentStatus;
use oxidask_operator_api::experiment::CurrentCell;

use super::*;
use crate::experiment::note;
use crate::experiment::row::Ended;
use crate::experiment::seen::Group;
use crate::experiment::sweep::Limits;

/// A world with one experiment in it.
#[derive(Clone)]
struct World {
    now: Timestamp,
    began: Timestamp,
    cells: Vec<Cell>,
    limits: Limits,
    suspend: bool,
    report: bool,
    status: ScalingExperimentStatus,
    cluster: Cluster,
    groups: Vec<Group>,
    runners: Vec<Runner>,
    serial: usize,
    /// Every runner that was ever made: cell, and whether it had a row then.
    made: Vec<(i64, bool)>,
}

impl World {
    fn new(shapes: &[(i64, i64)], sizes: &[i64], repeats: i64) -> Self {
        let mut cells = Vec::new();
        for repeat in 0..repeats {
            for &(nodes, cores) in shapes {
                for &size in sizes {
                    let index = i64::try_from(cells.len()).unwrap();
                    let shape = Shape { nodes, cores };
                    cells.push(Cell {
                        index,
                        shape,
                        size,
                        repeat,
                    });
                }
            }
        }
        let start = Timestamp::from_second(1_000_000).unwrap();
        Self {
            now: start,
            began: start,
            cells,
            limits: Limits {
                start: Duration::from_secs(100),
                cell: Duration::from_secs(200),
                total: None,
            },
            suspend: false,
            report: true,
            status: ScalingExperimentStatus::default(),
            cluster: Cluster::Absent,
            groups: Vec::new(),
            runners: Vec::new(),
            serial: 0,
            made: Vec::new(),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            now: self.now,
            began: self.began,
            cells: &self.cells,
            limits: self.limits,
            suspend: self.suspend,
            template: "hash",
            report: self.report,
            timed: false,
            status: &self.status,
            cluster: self.cluster.clone(),
            groups: self.groups.clone(),
            runners: self.runners.clone(),
        }
    }

    fn plan(&self) -> Step {
        plan(&self.seen())
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn uid(&mut self) -> String {
        self.serial += 1;
        format!("uid-{}", self.serial)
    }

    /// Plans and carries out one step. `dies`: the process ends after what it
    /// did to the world and before it wrote the status.
    fn step(&mut self, dies: bool) -> Step {
        let step = self.plan();
        let mut status = self.status.clone();
        match step.clone() {
            Step::MakeCluster => self.cluster = Cluster::Starting(self.now, None),
            Step::RemoveCluster => {
                self.cluster = Cluster::Going;
                self.groups.iter_mut().for_each(|group| group.going = true);
            }
            Step::MakeGroup(shape) => self.groups.push(Group {
                name: format!("g-{}-{}", shape.nodes, shape.cores),
                shape: Some(shape),
                going: false,
                created: self.now,
                workers: assembling_workers(0),
            }),
            Step::RemoveGroup(name) => {
                let of_name = self.groups.iter_mut().filter(|group| group.name == name);
                of_name.for_each(|group| group.going = true);
            }
            Step::MakeRunner(cell, attempt) => {
                self.check_runner(&cell);
                let uid = self.uid();
                let name = format!("r-{}-{attempt}", cell.index);
                let role = Role::Cell {
                    cell: cell.index,
                    attempt,
                };
                self.add_runner(name, &uid, role);
                let cell = cell.index;
                note::note(
                    Step::NoteRunner { cell, attempt, uid },
                    &mut status,
                    &self.seen(),
                );
            }
            Step::MakeReport => {
                let uid = self.uid();
                self.add_runner("report".to_owned(), &uid, Role::Report);
            }
            Step::RemoveRunner { name, .. } => {
                let of_name = self.runners.iter_mut().filter(|runner| runner.name == name);
                of_name.for_each(|runner| runner.state = RunnerState::Going);
            }
            Step::PublishRows => note::published(&mut status, "results".to_owned(), self.report),
            Step::PublishReport => drop(note::finish(&mut status, true, None, self.now)),
            Step::Finish(trouble) => {
                drop(note::finish(&mut status, false, trouble, self.now));
            }
            pure => note::note(pure, &mut status, &self.seen()),
        }
        if !dies {
            self.status = status;
        }
        step
    }

    fn check_runner(&mut self, cell: &Cell) {
        let has_row = has_row(&self.status, cell.index);
        self.made.push((cell.index, has_row));
        assert!(!has_row, "cell {} is run again", cell.index);
        assert!(
            !self.runners.iter().any(is_under_way),
            "a second runner beside another"
        );
        let exact = self.groups.iter().filter(|group| {
            group.shape == Some(cell.shape) && !group.going && group.workers == Workers::Connected
        });
        assert_eq!(exact.count(), 1, "a runner without its workers");
        assert_eq!(self.groups.len(), 1, "a runner beside other workers");
        assert!(!self.suspend, "a runner of a suspended experiment");
    }

    fn add_runner(&mut self, name: String, uid: &str, role: Role) {
        self.runners.retain(|runner| runner.name != name);
        self.runners.push(Runner {
            name,
            uid: uid.to_owned(),
            role,
            created: self.now,
            state: RunnerState::Waiting(None),
        });
    }

    /// Everything that is due comes: the scheduler, workers, ends, deletions.
    fn settle(&mut self) {
        match self.cluster {
            Cluster::Starting(..) => self.cluster = Cluster::Ready,
            Cluster::Going => self.cluster = Cluster::Absent,
            Cluster::Absent | Cluster::Foreign | Cluster::Ready => {}
        }
        self.groups.retain(|group| !group.going);
        for group in &mut self.groups {
            group.workers = Workers::Connected;
        }
        self.runners
            .retain(|runner| runner.state != RunnerState::Going);
        for runner in &mut self.runners {
            runner.state = match runner.state.clone() {
                RunnerState::Waiting(_) => RunnerState::Running,
                RunnerState::Running => RunnerState::Ended(good()),
                other => other,
            };
        }
    }

    /// Plays until it is finished and tidy.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            let step = self.step(false);
            if is_finished(&self.status) && matches!(step, Step::Wait(..)) {
                return;
            }
            self.settle();
            self.pass(1);
        }
        panic!("it does not end: {:?}", self.status);
    }

    /// Plays until the plan waits; gives what it waits for.
    fn until_wait(&mut self) -> String {
        for _ in 0..100 {
            if let Step::Wait(_, what) = self.step(false) {
                return what;
            }
        }
        panic!("it never waits: {:?}", self.plan());
    }

    /// Plays until the runner of the first cell without a row runs.
    fn until_running(&mut self) {
        for _ in 0..100 {
            self.step(false);
            if self
                .runners
                .iter()
                .any(|runner| runner.state == RunnerState::Running)
            {
                return;
            }
            self.settle();
        }
        panic!("nothing runs: {:?}", self.status);
    }

    fn set_runner(&mut self, state: RunnerState) {
        let runner = self.runners.iter_mut().find(|runner| is_under_way(runner));
        runner.unwrap().state = state;
    }

    fn reasons(&self) -> Vec<Option<&str>> {
        let rows = self.status.rows.iter();
        rows.map(|row| row.reason.as_deref()).collect()
    }
}

fn good() -> Ended {
    Ended {
        exit_code: Some(0),
        reason: "Completed".to_owned(),
        message: "{\"seconds\": 2.5}".to_owned(),
        ran: Some(3.0),
    }
}

fn assembling_workers(ready: usize) -> Workers {
    Workers::Assembling {
        ready,
        what: format!("{ready} ready"),
        trouble: None,
    }
}

#[test]
fn every_cell_is_run_once_and_the_end_is_tidy() {
    let mut world = World::new(&[(1, 1), (1, 2), (3, 2)], &[10, 20], 2);
    world.finish();
    assert_eq!(world.status.phase.as_deref(), Some("Complete"));
    let cells: Vec<i64> = world.made.iter().map(|(cell, _)| *cell).collect();
    assert_eq!(cells, (0..12).collect::<Vec<_>>());
    assert_eq!(world.cluster, Cluster::Absent);
    assert!(
        world
            .runners
            .iter()
            .all(|runner| runner.role == Role::Report)
    );
}

#[test]
fn a_cell_that_cannot_be_scheduled_fails_with_the_reason_and_the_others_go_on() {
    let mut world = World::new(&[(1, 1), (4, 1), (2, 1)], &[10, 20], 1);
    for _ in 0..200 {
        let step = world.step(false);
        if matches!(step, Step::Wait(..)) && is_finished(&world.status) {
            break;
        }
        world.settle();
        for group in &mut world.groups {
            if group.shape == Some(Shape { nodes: 4, cores: 1 }) {
                group.workers = Workers::Assembling {
                    ready: 3,
                    what: "3 of 4 workers are ready".to_owned(),
                    trouble: Some(trouble("Unschedulable", "no node")),
                };
            }
        }
        world.pass(20);
    }
    assert_eq!(
        world.reasons(),
        [
            None,
            None,
            Some("Unschedulable"),
            Some("Unschedulable"),
            None,
            None
        ]
    );
    let error = world.status.rows[2].error.clone().unwrap();
    assert!(
        error.contains("3 of 4") && error.contains("no node"),
        "{error}"
    );
    assert_eq!(world.status.phase.as_deref(), Some("Complete"));
}

#[test]
fn workers_of_the_wrong_threads_fail_the_cell_at_once() {
    let mut world = World::new(&[(1, 2)], &[10], 1);
    for _ in 0..20 {
        world.step(false);
        world.settle();
        for group in &mut world.groups {
            group.workers = Workers::Wrong("4 threads".to_owned());
        }
    }
    assert_eq!(world.reasons(), [Some("WrongWorkers")]);
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
    assert_eq!(world.made, []);
}

#[test]
fn a_runner_whose_image_is_missing_fails_with_that_reason() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    world.until_running();
    world.set_runner(RunnerState::Waiting(Some(trouble(
        "ImagePullBackOff",
        "no such image",
    ))));
    assert!(world.until_wait().contains("ImagePullBackOff"));
    world.pass(101);
    world.step(false);
    assert_eq!(world.reasons(), [Some("ImagePullBackOff")]);
}

#[test]
fn a_runner_that_its_kubelet_does_not_end_is_ended_by_the_operator() {
    let mut world = World::new(&[(1, 1)], &[10, 20], 1);
    world.until_running();
    world.pass(359);
    assert!(world.until_wait().contains("computes"));
    world.pass(2);
    world.step(false);
    assert_eq!(world.reasons(), [Some("TimeLimit")]);
    assert!(matches!(world.step(false), Step::RemoveRunner { .. }));
}

#[test]
fn a_lost_runner_is_replaced_twice_and_then_the_cell_fails() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    for _ in 0..3 {
        world.until_running();
        world.runners.clear();
    }
    for _ in 0..3 {
        world.step(false);
    }
    assert_eq!(world.made, [(0, false); 3]);
    assert_eq!(world.reasons(), [Some("RunnerLost")]);
}

#[test]
fn an_evicted_runner_is_replaced_and_its_cell_measured() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    world.until_running();
    world.set_runner(RunnerState::Disrupted("Evicted".to_owned()));
    world.finish();
    assert_eq!(world.made.len(), 2);
    assert_eq!(world.status.rows[0].seconds, Some(2.5));
}

#[test]
fn a_runner_made_right_before_the_process_died_is_noted_and_not_made_again() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    while !matches!(world.plan(), Step::MakeRunner(..)) {
        world.step(false);
        world.settle();
    }
    world.step(true);
    assert!(matches!(world.step(false), Step::NoteRunner { .. }));
    world.finish();
    assert_eq!(world.made.len(), 1);
}

#[test]
fn a_suspended_experiment_has_nothing_and_goes_on_where_it_was() {
    let mut world = World::new(&[(1, 1), (2, 1)], &[10], 1);
    while world.status.rows.is_empty() {
        world.step(false);
        world.settle();
    }
    world.until_running();
    world.suspend = true;
    for _ in 0..20 {
        world.step(false);
        world.settle();
    }
    assert_eq!(world.status.phase.as_deref(), Some("Suspended"));
    assert_eq!((&world.cluster, world.runners.len()), (&Cluster::Absent, 0));
    world.pass(100_000);
    world.suspend = false;
    world.finish();
    assert_eq!(world.reasons(), [None, None]);
    assert_eq!(world.made, [(0, false), (1, false), (1, false)]);
}

#[test]
fn when_the_whole_time_is_over_the_rest_fails_and_the_end_comes() {
    let mut world = World::new(&[(1, 1), (2, 1)], &[10], 2);
    world.limits.total = Some(Duration::from_secs(50));
    while world.status.rows.is_empty() {
        world.step(false);
        world.settle();
    }
    world.pass(60);
    world.finish();
    let late = Some("TimeLimit");
    assert_eq!(world.reasons(), [None, late, late, late]);
    assert_eq!(world.status.phase.as_deref(), Some("Complete"));
}

#[test]
fn a_scheduler_that_does_not_start_ends_the_experiment_with_the_reason() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    world.until_wait();
    world.cluster = Cluster::Starting(world.now, Some(trouble("ImagePullBackOff", "no")));
    assert!(world.until_wait().contains("ImagePullBackOff"));
    world.pass(101);
    world.step(false);
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
    let message = world.status.message.clone().unwrap();
    assert!(message.starts_with("ImagePullBackOff: "), "{message}");
    assert_eq!(world.step(false), Step::RemoveCluster);
}

#[test]
fn time_without_an_operator_does_not_count_against_the_workers() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    while world.groups.is_empty() {
        world.step(false);
        if world.groups.is_empty() {
            world.settle();
        }
    }
    world.pass(5000);
    world.began = world.now;
    world.finish();
    assert_eq!(world.reasons(), [None]);
}

#[test]
fn a_changed_template_ends_the_experiment() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    world.step(false);
    world.status.template_hash = Some("other".to_owned());
    assert!(matches!(world.plan(), Step::Fail((reason, _)) if reason == "TemplateChanged"));
}

#[test]
fn a_clusters_name_that_is_taken_is_said() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    world.cluster = Cluster::Foreign;
    assert!(world.until_wait().contains("does not belong"));
    world.pass(101);
    world.step(false);
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
    assert!(matches!(world.step(false), Step::Wait(None, _)));
    assert_eq!(world.cluster, Cluster::Foreign);
}

#[test]
fn old_workers_that_do_not_go_fail_the_cell_in_the_end() {
    let mut world = World::new(&[(1, 1), (2, 1)], &[10], 1);
    world.until_running();
    world.set_runner(RunnerState::Ended(good()));
    while !world.groups[0].going {
        world.step(false);
        if matches!(world.plan(), Step::Wait(..)) {
            world
                .runners
                .retain(|runner| runner.state != RunnerState::Going);
        }
    }
    assert!(world.until_wait().contains("still there"));
    world.pass(101);
    world.step(false);
    assert_eq!(world.reasons(), [None, Some("OldWorkers")]);
}

#[test]
fn a_report_that_fails_does_not_take_the_measurements_away() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    while !world
        .runners
        .iter()
        .any(|runner| runner.role == Role::Report)
    {
        world.step(false);
        world.settle();
    }
    world.set_runner(RunnerState::Ended(Ended {
        exit_code: Some(1),
        message: "no font".to_owned(),
        ..Ended::default()
    }));
    assert_eq!(
        world.plan(),
        Step::Finish(Some(trouble("ReportFailed", "the report failed: no font")))
    );
    world.finish();
    assert_eq!(world.status.phase.as_deref(), Some("Complete"));
}

#[test]
fn without_a_single_time_there_is_no_report() {
    let mut world = World::new(&[(1, 1)], &[10], 1);
    world.until_running();
    world.set_runner(RunnerState::Ended(Ended {
        exit_code: Some(1),
        ..good()
    }));
    world.finish();
    assert_eq!(world.status.phase.as_deref(), Some("Failed"));
    assert!(
        world
            .runners
            .iter()
            .all(|runner| runner.role != Role::Report)
    );
}

/// Chances that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

/// Something happens, whatever the operator does.
fn happen(world: &mut World, dice: &mut Dice) {
    match dice.roll(12) {
        0..=2 => world.settle(),
        3 => world.pass(i64::try_from(dice.roll(60)).unwrap()),
        4 => world.suspend = dice.one_in(4),
        5 => {
            // A runner ends one way or another.
            let states = [
                RunnerState::Ended(good()),
                RunnerState::Ended(Ended {
                    exit_code: Some(1),
                    message: "no".to_owned(),
                    ..Ended::default()
                }),
                RunnerState::Disrupted("Evicted".to_owned()),
                RunnerState::Going,
            ];
            let state = states[dice.roll(4) as usize].clone();
            if let Some(runner) = world.runners.iter_mut().find(|runner| is_under_way(runner)) {
                runner.state = state;
            }
        }
        6 if dice.one_in(3) => world.runners.retain(|runner| !is_under_way(runner)),
        7 => {
            for group in &mut world.groups {
                group.workers = assembling_workers(0);
            }
        }
        // Somebody deletes the cluster.
        8 if dice.one_in(4) && world.cluster == Cluster::Ready => {
            world.cluster = Cluster::Going;
            world.groups.iter_mut().for_each(|group| group.going = true);
        }
        9 if dice.one_in(3) => world.groups.iter_mut().for_each(|group| group.going = true),
        10 => {
            // The operator is started anew.
            world.began = world.now;
        }
        _ => {}
    }
}

#[test]
fn any_order_of_events_ends_with_one_row_for_every_cell() {
    for seed in 1..=400_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut world = World::new(&[(1, 1), (2, 1), (2, 2)], &[10, 20], 2);
        world.report = dice.one_in(2);
        if dice.one_in(4) {
            world.limits.total = Some(Duration::from_secs(dice.roll(2000) + 1));
        }
        for _ in 0..400 {
            happen(&mut world, &mut dice);
            let rows = world.status.rows.len();
            let dies = dice.one_in(5);
            world.step(dies);
            if dies {
                world.began = world.now;
            }
            assert!(
                world.status.rows.len() >= rows,
                "seed {seed}: a row is gone"
            );
        }
        world.suspend = false;
        world.finish();
        let mut cells: Vec<i64> = world.status.rows.iter().map(|row| row.cell).collect();
        cells.sort_unstable();
        let failed = world.status.phase.as_deref() == Some("Failed");
        let complete = cells == (0..12).collect::<Vec<_>>();
        assert!(
            complete || (failed && cells.windows(2).all(|pair| pair[0] < pair[1])),
            "seed {seed}: {cells:?}"
        );
        assert!(
            matches!(world.cluster, Cluster::Absent),
            "seed {seed}: {:?}",
            world.cluster
        );
        assert!(!world.runners.iter().any(is_under_way), "seed {seed}");
    }
}

#[test]
fn a_note_of_another_cell_is_no_note_of_this_one() {
    let mut world = World::new(&[(1, 1)], &[10, 20], 1);
    world.step(false);
    world.status.current = Some(CurrentCell {
        cell: 1,
        attempt: 3,
        pod_uid: "u".to_owned(),
    });
    world.cluster = Cluster::Ready;
    assert_eq!(world.plan(), Step::MakeGroup(Shape { nodes: 1, cores: 1 }));
}
