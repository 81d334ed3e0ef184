//! How many workers would be right, and which could go.

use crate::ids::TaskId;
use crate::state::worker::Worker;
use crate::{Core, IdMap, WorkerId};

/// Queued tasks whose duration is looked up, for a guess at all of them.
const SAMPLE: usize = 100;

/// More workers are wanted when data take this share of their memory.
pub(crate) const FULL: f64 = 0.6;

/// Which workers could go (Dask's `workers_to_close`).
#[derive(Clone, Debug, Default)]
pub struct ToClose {
    /// Memory limits of those that stay over data held. Default 2.
    pub memory_ratio: Option<f64>,
    /// How many shall go.
    pub n: Option<usize>,
    /// How many stay at least.
    pub minimum: Option<usize>,
    /// How many shall stay.
    pub target: Option<usize>,
    /// Workers that go or stay together: worker → group. Empty: each by itself.
    pub groups: Vec<(WorkerId, String)>,
    /// Workers that may go at all (plugins say so). `None`: any.
    pub candidates: Option<Vec<WorkerId>>,
}

impl Core {
    /// How many workers would do the present work in `target_duration` seconds.
    ///
    /// Enough threads for the work but no more than there are tasks; twice the present workers where memory is short.
    /// Source: distributed `adaptive_target`.
    pub fn adaptive_target(&self, target_duration: f64) -> usize {
        let workers = self.workers.len();
        let ready = self.queued.len() + self.unrunnable.len();
        let mut threads = (self.expected_seconds() / target_duration).ceil();
        let tasks = ready
            + self
                .workers
                .values()
                .map(|w| w.processing.len())
                .sum::<usize>();
        threads = threads.min(tasks as f64);
        let mut wanted = threads as usize;
        if workers > 0 {
            wanted = (threads * workers as f64 / self.total_nthreads as f64).ceil() as usize;
        } else if ready > 0 {
            wanted = wanted.max(1);
        }
        let limit = self.sum(|w| w.memory_limit);
        if limit > 0 && self.sum(|w| w.nbytes) as f64 > FULL * limit as f64 {
            wanted = wanted.max(2 * workers);
        }
        if wanted >= workers {
            wanted
        } else {
            workers - self.workers_to_close(&ToClose::default()).len()
        }
    }

    /// Expected seconds of all work that is assigned or could be.
    pub fn expected_seconds(&self) -> f64 {
        self.total_occupancy() + self.parked_seconds()
    }

    /// Expected seconds of the tasks that no worker has yet.
    fn parked_seconds(&self) -> f64 {
        let parked = self.queued.iter().chain(self.unrunnable.keys().copied());
        self.seconds_of_parked(parked, self.queued.len() + self.unrunnable.len())
    }

    /// Expected seconds of `count` tasks, by the first of them.
    pub(crate) fn seconds_of_parked(&self, ids: impl Iterator<Item = TaskId>, count: usize) -> f64 {
        let seconds: f64 = ids
            .take(SAMPLE)
            .map(|id| self.expected_duration(self.tasks[id].group))
            .sum();
        seconds * (count as f64 / SAMPLE as f64).max(1.0)
    }

    fn sum(&self, of: impl Fn(&Worker) -> u64) -> u64 {
        self.workers.values().map(of).sum()
    }

    /// Workers that could go without loss, those with the least to move first.
    ///
    /// Idle ones go before busy ones, as many as asked for, or as long as those that stay could hold `memory_ratio`
    /// times the data. Source: distributed `workers_to_close`.
    pub fn workers_to_close(&self, choice: &ToClose) -> Vec<WorkerId> {
        let workers = self.workers.len();
        let n = choice
            .n
            .or_else(|| choice.target.map(|target| workers.saturating_sub(target)));
        let stay = workers.saturating_sub(n.unwrap_or(0));
        let ratio = choice.memory_ratio.or_else(|| n.is_none().then_some(2.0));
        let is_busy = |id: &WorkerId| !self.workers[id].processing.is_empty();
        if n.unwrap_or(0) == 0 && self.workers.keys().all(is_busy) {
            return Vec::new();
        }
        let groups = self.groups_that_may_go(choice);
        let total_of = |ids: &[WorkerId], of: fn(&Worker) -> u64| {
            ids.iter().map(|id| of(&self.workers[id])).sum::<u64>()
        };
        let mut limit: u64 = groups
            .iter()
            .map(|ids| total_of(ids, |w| w.memory_limit))
            .sum();
        let held: u64 = groups.iter().map(|ids| total_of(ids, |w| w.nbytes)).sum();
        let mut order: Vec<(bool, u64, Vec<WorkerId>)> = groups
            .into_iter()
            .map(|ids| (ids.iter().any(is_busy), total_of(&ids, |w| w.nbytes), ids))
            .collect();
        order.sort_by_key(|(busy, nbytes, _)| (*busy, *nbytes));

        let mut close: Vec<WorkerId> = Vec::new();
        for (busy, _, ids) in order {
            let remain = workers - close.len() - ids.len();
            if (n.is_none() && busy) || choice.minimum.is_some_and(|minimum| remain < minimum) {
                break;
            }
            limit -= total_of(&ids, |w| w.memory_limit);
            let asked = n.is_some() && remain >= stay;
            let fits = ratio.is_some_and(|ratio| limit as f64 >= ratio * held as f64);
            if !asked && !fits {
                break;
            }
            close.extend(ids);
        }
        close
    }

    /// Workers that go or stay together. Those with long-running tasks stay, since these often submit others, and so
    /// do those that take part in a shuffle.
    fn groups_that_may_go(&self, choice: &ToClose) -> Vec<Vec<WorkerId>> {
        let named = &choice.groups;
        let candidates = choice.candidates.as_ref();
        let mut groups: IdMap<(Option<&str>, Option<WorkerId>), Vec<WorkerId>> = IdMap::default();
        for (id, worker) in &self.workers {
            if !worker.long_running.is_empty()
                || candidates.is_some_and(|candidates| !candidates.contains(id))
                || self
                    .shuffles
                    .values()
                    .any(|s| s.participating.contains(*id))
            {
                continue;
            }
            let group = named
                .iter()
                .find(|(worker, _)| worker == id)
                .map(|(_, group)| group.as_str());
            groups
                .entry((group, group.is_none().then_some(*id)))
                .or_default()
                .push(*id);
        }
        groups.into_values().collect()
    }
}
