//! The order in which ready tasks run and missing data are fetched.

use std::cmp::Ordering;

/// A task's priority as the scheduler sent it, then this worker's own counter.
///
/// Compared like Python's tuples, smaller first: a shorter tuple comes before
/// its extensions. Among equals the task that came last runs first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Priority {
    parts: [f64; 3],
    len: u8,
    generation: i64,
}

impl Priority {
    /// From the numbers of the wire, `[user, generation, order]`. Parts beyond the third are ignored.
    pub fn new(parts: &[f64]) -> Self {
        let len = parts.len().min(3);
        let mut own = [0.0; 3];
        own[..len].copy_from_slice(&parts[..len]);
        Self {
            parts: own,
            len: len as u8,
            generation: 0,
        }
    }

    /// The priority of replicas asked for by the scheduler: after computations of
    /// default priority, before those of low priority.
    /// Source: distributed `WorkerState._handle_acquire_replicas`.
    pub(crate) fn replica() -> Self {
        Self::new(&[1.0])
    }

    pub(crate) fn with_generation(self, generation: i64) -> Self {
        Self { generation, ..self }
    }

    fn parts(&self) -> &[f64] {
        &self.parts[..usize::from(self.len)]
    }
}

impl Eq for Priority {}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.parts(), other.parts());
        for (x, y) in a.iter().zip(b) {
            match x.total_cmp(y) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        a.len()
            .cmp(&b.len())
            .then(self.generation.cmp(&other.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_like_python_tuples() {
        let p = Priority::new;
        assert!(p(&[0.0, 1.0, 5.0]) < p(&[0.0, 2.0, 0.0]));
        assert!(p(&[-1.0, 9.0, 9.0]) < p(&[0.0, 0.0, 0.0]));
        assert!(p(&[1.0]) < p(&[1.0, 0.0, 0.0]));
        assert!(p(&[0.0, 9.0, 9.0]) < p(&[1.0]));
    }

    #[test]
    fn later_task_of_equal_priority_runs_first() {
        let p = Priority::new(&[0.0, 0.0, 0.0]);
        assert!(p.with_generation(-1) < p.with_generation(0));
    }
}
