//! In which order the tasks of a graph should run: results are used up soon after they are made.

/// Dependencies of a graph by position. Positions from `len()` on are tasks outside the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dag {
    /// Where the dependencies of each node begin; one more entry than nodes.
    starts: Vec<u32>,
    dependencies: Vec<u32>,
}

impl Dag {
    /// A graph from the number of dependencies of each node and all of them in a row.
    ///
    /// `positions`: how many positions exist, those outside the graph included. `None` if the numbers contradict
    /// each other.
    pub fn new(degrees: &[u32], dependencies: Vec<u32>, positions: usize) -> Option<Self> {
        let mut starts = Vec::with_capacity(degrees.len() + 1);
        let mut at = 0_u32;
        starts.push(at);
        for degree in degrees {
            at = at.checked_add(*degree)?;
            starts.push(at);
        }
        let sound = at as usize == dependencies.len()
            && degrees.len() <= positions
            && dependencies
                .iter()
                .all(|dependency| (*dependency as usize) < positions);
        sound.then_some(Self {
            starts,
            dependencies,
        })
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions of what a node needs.
    pub fn dependencies(&self, node: usize) -> &[u32] {
        &self.dependencies[self.starts[node] as usize..self.starts[node + 1] as usize]
    }
}

/// All nodes that `wanted` needs (all nodes, if `None`), each after what it needs.
///
/// Nodes of a cycle, which Dask forbids, come last.
pub fn order(dag: &Dag, wanted: Option<&[u32]>) -> Vec<u32> {
    let n = dag.len();
    let mut state = vec![0_u8; n];
    let mut out = Vec::with_capacity(n);
    let mut stack: Vec<(u32, u32)> = Vec::new();
    let roots: Vec<u32> = wanted.map_or_else(|| (0..n as u32).collect(), <[u32]>::to_vec);
    for root in roots {
        if state[root as usize] != 0 {
            continue;
        }
        state[root as usize] = 1;
        stack.push((root, 0));
        while let Some((node, next)) = stack.last_mut() {
            match dag.dependencies(*node as usize).get(*next as usize) {
                Some(dependency) => {
                    *next += 1;
                    let dependency = *dependency;
                    if (dependency as usize) < n && state[dependency as usize] == 0 {
                        state[dependency as usize] = 1;
                        stack.push((dependency, 0));
                    }
                }
                None => {
                    out.push(*node);
                    stack.pop();
                }
            }
        }
    }
    out
}
