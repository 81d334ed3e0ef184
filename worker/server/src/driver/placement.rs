//! Which of the worker's executors gets a task.

/// What counts about an executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// It has started and set its plugins up.
    pub(super) ready: bool,
    /// Tasks at once.
    pub(super) threads: usize,
    /// Tasks that it has, those that have seceded apart.
    pub(super) busy: usize,
    /// Bytes of the task's dependencies that it alone has.
    pub(super) held: u64,
}

impl Candidate {
    fn has_room(self) -> bool {
        self.ready && self.busy < self.threads
    }
}

/// The number of the executor for a task; none while the right one is not ready.
///
/// `only`: the task must run there, because of a value that never leaves that executor, an actor, or what plugins
/// keep in the first one.
///
/// Elsewhere one with a free thread is taken, of several the one that holds the most bytes, then the one with the
/// most room. Where none has a free thread (tasks that take next to no time are handed over ahead) the task waits
/// for an executor that is being started, and else goes where the fewest are per thread.
pub(super) fn place(candidates: &[Candidate], only: Option<usize>) -> Option<usize> {
    if let Some(only) = only {
        return candidates[only].ready.then_some(only);
    }
    let free = candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.has_room())
        .min_by_key(|(number, candidate)| {
            let room = candidate.threads - candidate.busy;
            (
                std::cmp::Reverse(candidate.held),
                std::cmp::Reverse(room),
                *number,
            )
        });
    if let Some((number, _)) = free {
        return Some(number);
    }
    if candidates.iter().any(|candidate| !candidate.ready) {
        return None;
    }
    let per_thread = |candidate: &Candidate| candidate.busy * 1024 / candidate.threads.max(1);
    candidates
        .iter()
        .enumerate()
        .min_by_key(|(number, candidate)| {
            (
                per_thread(candidate),
                std::cmp::Reverse(candidate.held),
                *number,
            )
        })
        .map(|(number, _)| number)
}

/// Threads of executor `number` of `count`, where `nthreads` are shared as evenly as can be.
pub(super) fn threads(nthreads: usize, count: usize, number: usize) -> usize {
    nthreads / count + usize::from(number < nthreads % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(busy: usize, held: u64) -> Candidate {
        Candidate {
            ready: true,
            threads: 1,
            busy,
            held,
        }
    }

    #[test]
    fn task_goes_to_a_free_executor_that_holds_what_it_needs() {
        assert_eq!(place(&[candidate(0, 0), candidate(0, 10)], None), Some(1));
        assert_eq!(place(&[candidate(0, 0), candidate(1, 10)], None), Some(0));
        assert_eq!(place(&[candidate(0, 0), candidate(0, 0)], None), Some(0));
    }

    #[test]
    fn task_that_is_bound_goes_nowhere_else() {
        let mut candidates = [candidate(0, 0), candidate(5, 0)];
        assert_eq!(place(&candidates, Some(1)), Some(1));
        candidates[1].ready = false;
        assert_eq!(place(&candidates, Some(1)), None);
    }

    #[test]
    fn task_waits_for_an_executor_that_starts_rather_than_behind_another() {
        let mut candidates = [candidate(1, 0), candidate(0, 0)];
        candidates[1].ready = false;
        assert_eq!(place(&candidates, None), None);
        candidates[0].busy = 0;
        assert_eq!(place(&candidates, None), Some(0));
    }

    #[test]
    fn tasks_handed_ahead_are_spread() {
        assert_eq!(place(&[candidate(3, 0), candidate(2, 0)], None), Some(1));
        let wide = Candidate {
            threads: 4,
            ..candidate(4, 0)
        };
        assert_eq!(place(&[candidate(2, 0), wide], None), Some(1));
    }

    #[test]
    fn threads_are_shared_evenly_and_none_is_lost() {
        for (nthreads, count) in [(1, 1), (4, 4), (7, 3), (8, 3), (64, 64)] {
            let shares: Vec<_> = (0..count)
                .map(|number| threads(nthreads, count, number))
                .collect();
            assert_eq!(shares.iter().sum::<usize>(), nthreads);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
