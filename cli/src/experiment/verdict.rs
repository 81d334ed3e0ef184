//! What bounds a cell: one of six, with the figures that say so.

use super::measure::Cell;

/// Tasks may leave so much of the slots idle in their last round before there are "too few" of them.
const IDLE_IN_LAST_ROUND: f64 = 0.25;

/// Computing above this part of the time means that computing is the bound, of whatever kind.
const BUSY: f64 = 0.75;

/// Times per task may grow by this factor before something is said to slow them down.
const SLOWER: f64 = 1.2;

/// What bounds a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The slots compute nearly all of the time, and each task takes as long as on one slot.
    Compute,
    /// Workers wait for values of each other.
    Transfer,
    /// Workers wait for tasks that the scheduler has.
    Scheduler,
    /// Tasks use as much CPU time more as they take longer: the CPUs wait for memory.
    MemoryBandwidth,
    /// There are more slots than CPUs.
    TooFewCores,
    /// There are fewer tasks than slots could take.
    TooFewTasks,
}

impl Bound {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Transfer => "transfer",
            Self::Scheduler => "scheduler",
            Self::MemoryBandwidth => "memory bandwidth",
            Self::TooFewCores => "too few cores",
            Self::TooFewTasks => "too few tasks",
        }
    }

    /// The name in rows of Kubernetes: one word.
    pub fn word(self) -> String {
        self.name().replace(' ', "-")
    }
}

/// A bound and a sentence with the figures behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What bounds the cell.
    pub bound: Bound,
    /// Why.
    pub sentence: String,
}

/// What bounds `cell`. `base`: the same workload with the fewest slots; `tasks`: tasks that are timed, 0 if unknown.
///
/// The first of these that holds: tasks leave more than a quarter of the slots idle in their last round → too few
/// tasks; slots compute for three quarters of the time or more → too few cores if there are more slots than CPUs,
/// memory bandwidth if each task's CPU time has grown by a fifth over the base, else compute; more of the other
/// time goes to transfers than to waiting → transfer; else the scheduler.
pub fn verdict(cell: &Cell, base: &Cell, tasks: u64) -> Verdict {
    let slots = cell.slots();
    let tasks = if tasks == 0 { cell.work.tasks } else { tasks };
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let rounds = (tasks as f64 / slots as f64).ceil().max(1.0);
    let idle = 1.0 - tasks as f64 / (rounds * slots as f64);
    if tasks > 0 && idle > IDLE_IN_LAST_ROUND {
        return Verdict {
            bound: Bound::TooFewTasks,
            sentence: format!(
                "{tasks} tasks on {slots} slots leave {} of the slots without work",
                percent(idle)
            ),
        };
    }
    let (computing, transferring, waiting) =
        (cell.computing(), cell.transferring(), cell.waiting());
    let cpus = cell.work.cpus as usize;
    let growth = |of: fn(&Cell) -> f64| per_task(cell, of) / per_task(base, of);
    let (wall, cpu) = (
        growth(|cell| cell.work.compute_seconds),
        growth(|cell| cell.work.cpu_seconds),
    );
    if cpus > 0 && slots > cpus && (computing >= BUSY || wall >= SLOWER) {
        return Verdict {
            bound: Bound::TooFewCores,
            sentence: format!(
                "{slots} slots share {cpus} CPUs: a task takes {wall:.1} times as long as with {} and uses {cpu:.1} times the CPU time",
                slots_of(base)
            ),
        };
    }
    if computing >= BUSY {
        if wall >= SLOWER && cpu >= SLOWER {
            return Verdict {
                bound: Bound::MemoryBandwidth,
                sentence: format!(
                    "a task takes {wall:.1} times as long as with {} and uses {cpu:.1} times the CPU time for the same work: the CPUs wait for memory that they share",
                    slots_of(base)
                ),
            };
        }
        return Verdict {
            bound: Bound::Compute,
            sentence: format!(
                "slots compute {} of the time, and a task takes {wall:.2} times as long as with {}: more CPUs will help",
                percent(computing),
                slots_of(base)
            ),
        };
    }
    if transferring > waiting {
        return Verdict {
            bound: Bound::Transfer,
            sentence: format!(
                "workers fetch {} from each other, which takes {} of the time; slots compute {}",
                crate::status::bytes(cell.work.bytes_moved as f64),
                percent(transferring),
                percent(computing)
            ),
        };
    }
    let each = per_task(cell, |cell| cell.work.compute_seconds) * 1e3;
    Verdict {
        bound: Bound::Scheduler,
        sentence: format!(
            "slots wait {} of the time: tasks of {each:.2} ms are shorter than what it takes to hand them out ({:.0} per second)",
            percent(waiting),
            cell.work.tasks as f64 / cell.seconds.max(f64::MIN_POSITIVE)
        ),
    }
}

fn slots_of(base: &Cell) -> String {
    match base.slots() {
        1 => "1 slot".to_owned(),
        slots => format!("{slots} slots"),
    }
}

fn per_task(cell: &Cell, of: fn(&Cell) -> f64) -> f64 {
    (of(cell) / cell.work.tasks.max(1) as f64).max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::measure::Work;

    fn cell(workers: usize, seconds: f64, work: Work) -> Cell {
        Cell {
            workload: "test".to_owned(),
            size: 1,
            workers,
            threads: 1,
            seconds,
            work: Work { cpus: 2, ..work },
        }
    }

    fn work(tasks: u64, compute_seconds: f64, cpu_seconds: f64) -> Work {
        Work {
            tasks,
            compute_seconds,
            cpu_seconds,
            ..Work::default()
        }
    }

    fn bound(measured: &Cell) -> Bound {
        verdict(measured, &cell(1, 10.0, work(100, 9.9, 9.9)), 0).bound
    }

    #[test]
    fn busy_slots_with_tasks_as_quick_as_before_are_bound_by_computing() {
        assert_eq!(bound(&cell(2, 5.1, work(100, 10.0, 10.0))), Bound::Compute);
    }

    #[test]
    fn one_task_on_two_slots_is_too_few() {
        assert_eq!(bound(&cell(2, 1.0, work(1, 1.0, 1.0))), Bound::TooFewTasks);
        assert_eq!(bound(&cell(2, 0.15, work(3, 0.297, 0.297))), Bound::Compute);
    }

    #[test]
    fn more_slots_than_cpus_are_too_few_cores() {
        assert_eq!(
            bound(&cell(4, 5.1, work(100, 20.0, 10.0))),
            Bound::TooFewCores
        );
    }

    #[test]
    fn the_same_work_for_more_cpu_time_is_waiting_for_memory() {
        assert_eq!(
            bound(&cell(2, 8.0, work(100, 15.5, 15.5))),
            Bound::MemoryBandwidth
        );
    }

    #[test]
    fn slots_that_wait_for_values_are_bound_by_transfers() {
        let work = Work {
            transfer_seconds: 12.0,
            bytes_moved: 1 << 30,
            ..work(100, 4.0, 5.0)
        };
        assert_eq!(bound(&cell(2, 10.0, work)), Bound::Transfer);
    }

    #[test]
    fn slots_that_wait_for_tasks_are_bound_by_the_scheduler() {
        assert_eq!(
            bound(&cell(2, 10.0, work(100_000, 2.0, 4.0))),
            Bound::Scheduler
        );
    }
}
