//! The shape of a graph: which task needs which.

/// Dependencies of a graph by position, without cycles. Positions from [`len`](Self::len) on are tasks outside the
/// graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dag(Lists);

/// Why there is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// The numbers contradict each other.
    #[error("numbers of dependencies of a graph contradict each other")]
    Inconsistent,
    /// Tasks need each other in a circle: each needs the next, and the last the first.
    #[error("a graph of tasks has a cycle of {}", .0.len())]
    Cycle(Vec<u32>),
}

impl Dag {
    /// A graph from the number of dependencies of each node and all of them in a row.
    ///
    /// `positions`: how many positions exist, those outside the graph included.
    ///
    /// # Errors
    /// If a dependency does not exist, the numbers do not add up, or there is a cycle.
    pub fn new(
        degrees: &[u32],
        dependencies: Vec<u32>,
        positions: usize,
    ) -> Result<Self, DagError> {
        let mut starts = Vec::with_capacity(degrees.len() + 1);
        let mut at = 0_u32;
        starts.push(at);
        for degree in degrees {
            at = at.checked_add(*degree).ok_or(DagError::Inconsistent)?;
            starts.push(at);
        }
        let sound = at as usize == dependencies.len()
            && degrees.len() <= positions
            && dependencies
                .iter()
                .all(|dependency| (*dependency as usize) < positions);
        if !sound {
            return Err(DagError::Inconsistent);
        }
        let dag = Self(Lists {
            starts,
            nodes: dependencies,
        });
        match dag.cycle() {
            Some(cycle) => Err(DagError::Cycle(cycle)),
            None => Ok(dag),
        }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of what a node needs.
    pub fn dependencies(&self, node: usize) -> &[u32] {
        self.0.of(node as u32)
    }

    /// What each node needs inside the part of the graph where `wanted` is true.
    pub(super) fn needs_inside(&self, wanted: &[bool]) -> Lists {
        let mut lists = Lists {
            starts: vec![0],
            nodes: Vec::with_capacity(self.0.nodes.len()),
        };
        for (node, wanted) in wanted.iter().enumerate() {
            if *wanted {
                lists.nodes.extend(
                    self.dependencies(node)
                        .iter()
                        .filter(|need| (**need as usize) < self.len()),
                );
            }
            lists.starts.push(lists.nodes.len() as u32);
        }
        lists
    }

    /// Some cycle, if there is one.
    fn cycle(&self) -> Option<Vec<u32>> {
        if self.0.nodes.is_empty() {
            return None;
        }
        let needs = self.needs_inside(&vec![true; self.len()]);
        let users = needs.users();
        let mut missing: Vec<usize> = (0..self.len())
            .map(|node| needs.of(node as u32).len())
            .collect();
        let mut free: Vec<u32> = (0..self.len() as u32)
            .filter(|node| missing[*node as usize] == 0)
            .collect();
        let mut reached = 0;
        while let Some(node) = free.pop() {
            reached += 1;
            for user in users.of(node) {
                missing[*user as usize] -= 1;
                if missing[*user as usize] == 0 {
                    free.push(*user);
                }
            }
        }
        if reached == self.len() {
            return None;
        }
        // Each node that was not reached needs another such node, so that following them comes round.
        let mut path: Vec<u32> = Vec::new();
        let mut place = vec![usize::MAX; self.len()];
        let mut node = (0..self.len()).find(|node| missing[*node] > 0)? as u32;
        while place[node as usize] == usize::MAX {
            place[node as usize] = path.len();
            path.push(node);
            node = *needs
                .of(node)
                .iter()
                .find(|need| missing[**need as usize] > 0)?;
        }
        Some(path.split_off(place[node as usize]))
    }
}

/// For each node a list of neighbours, one list after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lists {
    /// Where each list begins; one more entry than nodes.
    starts: Vec<u32>,
    nodes: Vec<u32>,
}

impl Lists {
    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The neighbours of a node.
    pub(super) fn of(&self, node: u32) -> &[u32] {
        &self.nodes[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// Sorts each list.
    pub(super) fn sort_each(&mut self, mut sort: impl FnMut(&mut [u32])) {
        for pair in 0..self.starts.len() - 1 {
            let (start, end) = (self.starts[pair] as usize, self.starts[pair + 1] as usize);
            if end - start > 1 {
                sort(&mut self.nodes[start..end]);
            }
        }
    }

    /// The neighbours of a node, to be put into another order.
    pub(super) fn of_mut(&mut self, node: u32) -> &mut [u32] {
        &mut self.nodes
            [self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// The lists the other way round: if these are needs, who needs each node.
    pub(super) fn users(&self) -> Self {
        let n = self.len();
        let mut starts = vec![0_u32; n + 1];
        for need in &self.nodes {
            starts[*need as usize + 1] += 1;
        }
        for at in 0..n {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let mut nodes = vec![0; self.nodes.len()];
        for user in 0..n as u32 {
            for need in self.of(user) {
                nodes[next[*need as usize] as usize] = user;
                next[*need as usize] += 1;
            }
        }
        Self { starts, nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_found_and_named() {
        // 0 needs 1, 1 needs 2, 2 needs 1; 3 stands alone.
        let error = Dag::new(&[1, 1, 1, 0], vec![1, 2, 1], 4).unwrap_err();
        let DagError::Cycle(mut cycle) = error else {
            panic!("{error}")
        };
        cycle.sort_unstable();
        assert_eq!(cycle, [1, 2]);
        assert_eq!(Dag::new(&[1], vec![0], 1), Err(DagError::Cycle(vec![0])));
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused() {
        assert_eq!(Dag::new(&[1], vec![1], 1), Err(DagError::Inconsistent));
        assert_eq!(Dag::new(&[1], vec![], 1), Err(DagError::Inconsistent));
        assert_eq!(Dag::new(&[0, 0], vec![], 1), Err(DagError::Inconsistent));
        assert_eq!(
            Dag::new(&[u32::MAX, 2], vec![], 2),
            Err(DagError::Inconsistent)
        );
    }

    #[test]
    fn tasks_outside_the_graph_are_dependencies_without_needs() {
        let dag = Dag::new(&[1], vec![5], 6).unwrap();
        assert_eq!((dag.len(), dag.dependencies(0)), (1, &[5][..]));
    }
}
