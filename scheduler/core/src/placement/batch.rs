//! A batch of tasks that share inputs, divided among the workers so that little has to be moved.
//!
//! Placed one by one in their order, tasks that share inputs scatter: each choice is good and all together fetch
//! everything everywhere. Where a graph brings many tasks whose inputs are in memory or come from nothing, and most
//! inputs are needed by several of them, such as in a product of two arrays, they are divided as a whole: a part for
//! each worker as large as its share of the threads, grown task by task by what needs fewest bytes that the part does
//! not need already. Products of blocks end in squares of blocks, and all that is summed into one result stays on one
//! worker.

use std::collections::BTreeSet;

use crate::action::TaskStateName::Memory;
use crate::ids::{TaskId, WorkerId};
use crate::state::task::Task;
use crate::{Core, IdMap, IdSet};

/// A batch has at least this many tasks per thread; fewer are placed one by one.
const TASKS_PER_THREAD: u64 = 2;

/// Most tasks of a batch times workers: what a plan may cost. About 0.1 s.
const MOST: usize = 1_000_000;

/// Most inputs of a task that is planned.
const INPUTS: usize = 256;

/// An input is needed by this many tasks of a batch on average, at least. Sums of two arrays, trees of reductions and
/// the like have one for each, and nothing to plan.
const SHARING: usize = 2;

/// Less work than this stays where its inputs are, as a worker that has no more is not robbed. Unit: seconds.
const WORTH_DIVIDING: f64 = crate::stealing::WORTH_ROBBING;

/// How far dependents are followed to the result that tasks contribute to.
const DEPTH: usize = 4;

/// Tasks that contribute to one result, and what they need together.
#[derive(Debug, Default)]
struct Bundle {
    tasks: Vec<TaskId>,
    inputs: Vec<usize>,
}

/// Bundles and inputs of a batch by number, in the order of the tasks.
#[derive(Debug, Default)]
struct Batch {
    bundles: Vec<Bundle>,
    /// Bytes of each input, and the bundles that need it.
    inputs: Vec<(TaskId, u64, Vec<usize>)>,
    tasks: usize,
    /// Inputs of all tasks, as often as they are needed.
    uses: usize,
}

impl Core {
    /// Plans where these tasks will go, as far as their inputs are in memory or come from nothing, if they are many and
    /// share inputs. Each goes there when it is ready.
    pub(crate) fn plan_batch(&mut self, tasks: &[TaskId]) {
        let workers = self.running.len();
        let enough = TASKS_PER_THREAD * self.total_nthreads;
        if workers < 2
            || (tasks.len() as u64) < enough
            || tasks.len().saturating_mul(workers) > MOST
        {
            return;
        }
        let plannable = tasks.iter().copied().filter(|id| self.is_plannable(*id));
        let mut plannable: Vec<TaskId> = plannable.collect();
        if (plannable.len() as u64) < enough || self.seconds_of(&plannable) <= WORTH_DIVIDING {
            return;
        }
        plannable.sort_by_key(|id| self.tasks[*id].rank());
        let batch = self.batch(&plannable);
        if !batch.shares_inputs() {
            return;
        }
        let parts = self.grow(&batch);
        for (part, worker) in self.match_parts(&batch, parts) {
            for bundle in part {
                let tasks = batch.bundles[bundle].tasks.iter();
                self.planned.extend(tasks.map(|id| (*id, worker)));
            }
        }
    }

    /// What was planned and is not placed yet will be placed by itself: the workers are others than those that it was
    /// planned for.
    pub(crate) fn forget_plan(&mut self) {
        self.planned.clear();
    }

    /// Whether a task may run anywhere, its inputs are there or come from nothing, and others need one of them too.
    fn is_plannable(&self, id: TaskId) -> bool {
        let task: &Task = &self.tasks[id];
        if !(1..=INPUTS).contains(&task.dependencies.len()) {
            return false;
        }
        let mut is_shared = false;
        for input in task.dependencies.iter() {
            let input = &self.tasks[input];
            if input.state != Memory && !input.dependencies.is_empty() {
                return false;
            }
            is_shared |= input.dependents.len() > 1;
        }
        is_shared
            && !task.is_actor
            && task.special().restriction.is_none()
            && task.worker_restrictions().is_empty()
            && task.resource_restrictions().is_empty()
            && !self.is_rootish(id)
            // What is too short to be stolen shall not be sent away either: its inputs would be copied for nothing.
            && self.level_of_moving(id).is_some()
    }

    /// Expected seconds of computing of all these tasks.
    fn seconds_of(&self, tasks: &[TaskId]) -> f64 {
        let seconds = |id: &TaskId| self.expected_duration(self.tasks[*id].group);
        tasks.iter().map(seconds).sum()
    }

    /// The result that a task contributes to: as long as there is one dependent, that one.
    fn contributes_to(&self, id: TaskId) -> TaskId {
        let mut at = id;
        for _ in 0..DEPTH {
            match self.tasks[at].dependents.first() {
                Some(only) if self.tasks[at].dependents.len() == 1 => at = only,
                _ => break,
            }
        }
        at
    }

    fn batch(&self, ready: &[TaskId]) -> Batch {
        let mut batch = Batch {
            tasks: ready.len(),
            ..Batch::default()
        };
        let mut bundles: IdMap<TaskId, usize> = IdMap::default();
        let mut inputs: IdMap<TaskId, usize> = IdMap::default();
        for id in ready {
            let fresh = batch.bundles.len();
            let bundle = *bundles.entry(self.contributes_to(*id)).or_insert(fresh);
            if bundle == fresh {
                batch.bundles.push(Bundle::default());
            }
            batch.bundles[bundle].tasks.push(*id);
            batch.uses += self.tasks[*id].dependencies.len();
            for input in self.tasks[*id].dependencies.iter() {
                let fresh = batch.inputs.len();
                let number = *inputs.entry(input).or_insert(fresh);
                if number == fresh {
                    let bytes = self.nbytes_or_default(input);
                    batch.inputs.push((input, bytes, Vec::new()));
                }
                let users = &mut batch.inputs[number].2;
                if users.last() != Some(&bundle) && !users.contains(&bundle) {
                    users.push(bundle);
                    batch.bundles[bundle].inputs.push(number);
                }
            }
        }
        batch
    }

    /// A part of the bundles for each running worker, as large as its share of the threads.
    fn grow(&self, batch: &Batch) -> Vec<(Vec<usize>, u32)> {
        let mut threads: Vec<u32> = self
            .running
            .iter()
            .map(|worker| self.workers[worker].nthreads)
            .collect();
        threads.sort_unstable_by_key(|threads| std::cmp::Reverse(*threads));
        let mut left: BTreeSet<usize> = (0..batch.bundles.len()).collect();
        let (mut tasks_left, mut threads_left) = (
            batch.tasks as f64,
            threads.iter().map(|n| f64::from(*n)).sum::<f64>(),
        );
        let mut parts = Vec::with_capacity(threads.len());
        for threads in threads {
            // The rest is shared by those that have no part yet, so that rounding does not add up.
            let share = tasks_left * f64::from(threads) / threads_left;
            let part = batch.part(&mut left, share);
            tasks_left -= part
                .iter()
                .map(|bundle| batch.bundles[*bundle].tasks.len())
                .sum::<usize>() as f64;
            threads_left -= f64::from(threads);
            parts.push((part, threads));
        }
        parts
    }

    /// Gives each part to a worker with as many threads, those first that hold most of what the part needs.
    fn match_parts(
        &self,
        batch: &Batch,
        parts: Vec<(Vec<usize>, u32)>,
    ) -> Vec<(Vec<usize>, WorkerId)> {
        let mut pairs = Vec::new();
        for (number, (part, threads)) in parts.iter().enumerate() {
            let needs: IdSet<usize> = part
                .iter()
                .flat_map(|bundle| batch.bundles[*bundle].inputs.iter().copied())
                .collect();
            for worker in self
                .running
                .iter()
                .filter(|worker| self.workers[*worker].nthreads == *threads)
            {
                let held = needs.iter().map(|input| &batch.inputs[*input]);
                let held = held.filter(|(id, ..)| self.tasks[*id].who_has.contains(*worker));
                pairs.push((
                    held.map(|(_, bytes, _)| *bytes).sum::<u64>(),
                    number,
                    *worker,
                ));
            }
        }
        pairs.sort_by_key(|(bytes, number, worker)| (std::cmp::Reverse(*bytes), *number, *worker));
        let mut parts: Vec<Option<Vec<usize>>> =
            parts.into_iter().map(|(part, _)| Some(part)).collect();
        let mut taken: IdSet<WorkerId> = IdSet::default();
        let mut matched = Vec::with_capacity(parts.len());
        for (_, number, worker) in pairs {
            if taken.contains(&worker) {
                continue;
            }
            if let Some(part) = parts[number].take() {
                taken.insert(worker);
                matched.push((part, worker));
            }
        }
        matched
    }
}

impl Batch {
    /// Whether most tasks have several inputs, and most inputs are needed by several tasks: else there is nothing to
    /// bring together.
    fn shares_inputs(&self) -> bool {
        2 * self.uses >= 3 * self.tasks && self.uses >= SHARING * self.inputs.len()
    }

    /// Takes bundles of about `share` tasks out of those left: first the next in order, then always the one that needs
    /// fewest bytes more; the next in order among equals.
    fn part(&self, left: &mut BTreeSet<usize>, share: f64) -> Vec<usize> {
        let bytes_of = |bundle: usize| -> u64 {
            let inputs = self.bundles[bundle].inputs.iter();
            inputs.map(|input| self.inputs[*input].1).sum()
        };
        let mut missing: IdMap<usize, u64> = left
            .iter()
            .map(|bundle| (*bundle, bytes_of(*bundle)))
            .collect();
        // By the order alone until the part needs something.
        let mut next: BTreeSet<(u64, usize)> =
            left.iter().map(|bundle| (u64::MAX, *bundle)).collect();
        let mut needed: IdSet<usize> = IdSet::default();
        let (mut part, mut tasks) = (Vec::new(), 0.0);
        while let Some((_, bundle)) = next.first().copied() {
            let size = self.bundles[bundle].tasks.len() as f64;
            // Half of a bundle too many is as good as half too few.
            if !part.is_empty() && tasks + size / 2.0 > share || share <= 0.0 {
                break;
            }
            if part.is_empty() {
                next = missing
                    .iter()
                    .map(|(bundle, bytes)| (*bytes, *bundle))
                    .collect();
            }
            next.remove(&(missing[&bundle], bundle));
            left.remove(&bundle);
            part.push(bundle);
            tasks += size;
            for input in &self.bundles[bundle].inputs {
                if !needed.insert(*input) {
                    continue;
                }
                let (_, bytes, users) = &self.inputs[*input];
                for user in users {
                    let Some(missing) = missing.get_mut(user) else {
                        continue;
                    };
                    if next.remove(&(*missing, *user)) {
                        next.insert((*missing - bytes, *user));
                    }
                    *missing -= bytes;
                }
            }
        }
        part
    }
}
