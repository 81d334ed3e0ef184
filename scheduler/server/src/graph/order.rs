//! In which order the tasks of a graph should run: results are used up soon after they are made.

use super::dag::{Dag, Lists};

/// All nodes that `wanted` needs (all nodes, if `None`), each after what it needs.
///
/// What the order is after, as `dask.order` is: a result should be used up soon after it is made, so that few
/// live at a time. Nodes are taken depth-first towards a *target*; after each node, whatever has become
/// ready and is the last user of some live result is run at once; and the next target is a user of the result
/// that was made last among those that still live. What a node needs is visited by need of space, the
/// largest first (Sethi and Ullman's rule for registers).
///
/// Time and space are linear in nodes and edges but for sorting the neighbours of each node.
pub fn order(dag: &Dag, wanted: Option<&[u32]>) -> Vec<u32> {
    let needed = needed(dag, wanted);
    let mut walk = Walk::new(dag, &needed);
    while let Some(target) = walk.target() {
        walk.reach(target);
    }
    walk.out
}

/// Which nodes `wanted` needs, directly or not.
fn needed(dag: &Dag, wanted: Option<&[u32]>) -> Vec<bool> {
    let Some(wanted) = wanted else {
        return vec![true; dag.len()];
    };
    let mut needed = vec![false; dag.len()];
    let mut stack: Vec<u32> = wanted.to_vec();
    while let Some(node) = stack.pop() {
        if (node as usize) < dag.len() && !std::mem::replace(&mut needed[node as usize], true) {
            stack.extend(dag.dependencies(node as usize));
        }
    }
    needed
}

/// The walk through the graph and what it has reached.
struct Walk {
    needs: Lists,
    users: Lists,
    /// Needs of each node that have not run.
    missing: Vec<u32>,
    /// Users of each node that have not run.
    unserved: Vec<u32>,
    /// How far the users of each node have been looked through for a next target.
    looked: Vec<u32>,
    /// Needs of each node that have not run and could not run yet. Nodes without needs of their own could always
    /// run, but count as such only when they have: they bring in something new.
    blocked: Vec<u32>,
    /// Nodes that are not blocked any more, since the last look at them.
    unblocked: Vec<u32>,
    /// How often each node is counted in [`Walk::exchange`]; all 0 outside.
    counts: Vec<u32>,
    done: Vec<bool>,
    out: Vec<u32>,
    /// Nodes that have run, whose results may still live; the latest on top.
    live: Vec<u32>,
    /// Where targets come from when nothing lives: nodes that nothing needs.
    sinks: Vec<u32>,
}

impl Walk {
    fn new(dag: &Dag, wanted: &[bool]) -> Self {
        let n = dag.len();
        let mut needs = dag.needs_inside(wanted);
        let mut users = needs.users();
        let missing: Vec<u32> = (0..n as u32)
            .map(|node| needs.of(node).len() as u32)
            .collect();
        let unserved: Vec<u32> = (0..n as u32)
            .map(|node| users.of(node).len() as u32)
            .collect();
        let space = space(&mut needs, &users, &missing);
        // A user that needs little beside is served first, so that the result is soon done with.
        users.sort_each(|users| users.sort_unstable_by_key(|user| (space[*user as usize], *user)));
        let mut sinks: Vec<u32> = (0..n as u32)
            .filter(|node| wanted[*node as usize] && unserved[*node as usize] == 0)
            .collect();
        sinks.reverse();
        Self {
            needs,
            users,
            blocked: missing.clone(),
            unblocked: Vec::new(),
            counts: vec![0; n],
            missing,
            unserved,
            looked: vec![0; n],
            done: vec![false; n],
            out: Vec::with_capacity(n),
            live: Vec::new(),
            sinks,
        }
    }

    /// The next node to work towards.
    fn target(&mut self) -> Option<u32> {
        while let Some(node) = self.live.last().copied() {
            let users = self.users.of(node);
            while let Some(user) = users.get(self.looked[node as usize] as usize) {
                if !self.done[*user as usize] {
                    return Some(*user);
                }
                self.looked[node as usize] += 1;
            }
            self.live.pop();
        }
        while let Some(sink) = self.sinks.pop() {
            if !self.done[sink as usize] {
                return Some(sink);
            }
        }
        None
    }

    /// Runs a node and all that it needs.
    fn reach(&mut self, target: u32) {
        // Each entry: a node, and how many of its needs have been looked at.
        let mut stack = vec![(target, 0)];
        while let Some((node, next)) = stack.last_mut() {
            let node = *node;
            let need = if self.done[node as usize] {
                None
            } else {
                self.needs.of(node).get(*next)
            };
            match need {
                Some(need) => {
                    *next += 1;
                    if !self.done[*need as usize] {
                        stack.push((*need, 0));
                    }
                }
                None => {
                    stack.pop();
                    if !self.done[node as usize] {
                        self.finish(node);
                    }
                }
            }
        }
    }

    /// Runs a node, and then what has become possible and does not let more results live.
    fn finish(&mut self, node: u32) {
        let mut ready = vec![node];
        loop {
            while let Some(node) = ready.pop() {
                if !self.done[node as usize] {
                    self.step(node, &mut ready);
                }
            }
            if !self.exchange(&mut ready) {
                return;
            }
        }
    }

    /// Runs a node; nodes that are now ready and free a result go to `ready`, the first on top.
    fn step(&mut self, node: u32, ready: &mut Vec<u32>) {
        self.done[node as usize] = true;
        self.out.push(node);
        if self.unserved[node as usize] > 0 {
            self.live.push(node);
        }
        let first = ready.len();
        let is_source = self.needs.of(node).is_empty();
        for user in self.users.of(node) {
            self.missing[*user as usize] -= 1;
            if is_source {
                unblock(&mut self.blocked, &mut self.unblocked, *user);
            }
            if self.missing[*user as usize] == 0 {
                for next in self.users.of(*user) {
                    unblock(&mut self.blocked, &mut self.unblocked, *next);
                }
                if self.frees(*user) {
                    ready.push(*user);
                }
            }
        }
        for need in self.needs.of(node) {
            self.unserved[*need as usize] -= 1;
            if self.unserved[*need as usize] == 1 {
                // Its last user may have been ready for long, but without freeing anything.
                let last = self
                    .users
                    .of(*need)
                    .iter()
                    .find(|user| !self.done[**user as usize]);
                ready.extend(last.filter(|user| self.missing[**user as usize] == 0));
            }
        }
        ready[first..].reverse();
    }

    /// Looks two steps ahead: nodes whose needs are all done or ready are run together with those needs, if at
    /// least as many results are freed as are made. That is how the pieces into which some results were split are
    /// joined before others are split (shuffles): no single step of it frees anything.
    ///
    /// What is to be run goes to `ready`. False if there is nothing.
    fn exchange(&mut self, ready: &mut Vec<u32>) -> bool {
        let mut joins = std::mem::take(&mut self.unblocked);
        joins.retain(|join| !self.done[*join as usize] && self.missing[*join as usize] > 0);
        let mut run = Vec::new();
        for join in &joins {
            for need in self.needs.of(*join) {
                if !self.done[*need as usize] && self.counts[*need as usize] == 0 {
                    self.counts[*need as usize] = 1;
                    run.push(*need);
                }
            }
            self.counts[*join as usize] = 1;
            run.push(*join);
        }
        // A result of this run that has a user outside it goes on living; what has none outside is freed.
        let lives = |node: u32, walk: &Self| {
            let users = walk.users.of(node);
            users.is_empty()
                || users
                    .iter()
                    .any(|user| !walk.done[*user as usize] && walk.counts[*user as usize] == 0)
        };
        let made = run.iter().filter(|node| lives(**node, self)).count();
        let mut inputs: Vec<u32> = run
            .iter()
            .flat_map(|node| self.needs.of(*node))
            .copied()
            .collect();
        inputs.retain(|input| {
            let live = self.done[*input as usize] && self.unserved[*input as usize] > 0;
            // Each is looked at once.
            live && std::mem::replace(&mut self.counts[*input as usize], 2) == 0
        });
        for input in &inputs {
            self.counts[*input as usize] = 0;
        }
        let freed = inputs.iter().filter(|input| !lives(**input, self)).count();
        for node in &run {
            self.counts[*node as usize] = 0;
        }
        if freed < made || run.is_empty() {
            return false;
        }
        ready.extend(run.iter().rev());
        true
    }

    /// Whether some result is no longer needed when a node has run.
    fn frees(&self, node: u32) -> bool {
        self.needs
            .of(node)
            .iter()
            .any(|need| self.unserved[*need as usize] == 1)
    }
}

/// How many results live at once while a node is made from nothing, if no results were shared; and the needs of
/// each node sorted by it, the largest first.
fn space(needs: &mut Lists, users: &Lists, missing: &[u32]) -> Vec<u32> {
    let n = missing.len();
    let mut space = vec![1_u32; n];
    let mut open = missing.to_vec();
    let mut stack: Vec<u32> = (0..n as u32)
        .filter(|node| open[*node as usize] == 0)
        .collect();
    while let Some(node) = stack.pop() {
        let own = needs.of_mut(node);
        own.sort_unstable_by_key(|need| (std::cmp::Reverse(space[*need as usize]), *need));
        let most = own
            .iter()
            .enumerate()
            .map(|(held, need)| space[*need as usize].saturating_add(held as u32))
            .max();
        space[node as usize] = most.unwrap_or(0).max(own.len() as u32 + 1);
        for user in users.of(node) {
            open[*user as usize] -= 1;
            if open[*user as usize] == 0 {
                stack.push(*user);
            }
        }
    }
    space
}

/// One need less stands in the way of a node.
fn unblock(blocked: &mut [u32], unblocked: &mut Vec<u32>, node: u32) {
    blocked[node as usize] -= 1;
    if blocked[node as usize] == 0 {
        unblocked.push(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph from what each node needs.
    fn dag(needs: &[&[u32]]) -> Dag {
        let degrees: Vec<u32> = needs.iter().map(|needs| needs.len() as u32).collect();
        Dag::new(&degrees, needs.concat(), 100).unwrap()
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        let dag = dag(&[&[], &[0], &[], &[2, 50]]);
        assert_eq!(order(&dag, Some(&[3])), [2, 3]);
        assert_eq!(order(&dag, Some(&[])), [0_u32; 0]);
    }

    #[test]
    fn a_chain_is_finished_before_the_next_begins() {
        let dag = dag(&[&[], &[], &[0], &[1], &[2], &[3]]);
        assert_eq!(order(&dag, None), [0, 2, 4, 1, 3, 5]);
    }

    #[test]
    fn the_need_that_takes_more_space_comes_first() {
        // 6 needs 0 alone and 5, which needs 1 to 4.
        let dag = dag(&[&[], &[], &[], &[], &[], &[1, 2, 3, 4], &[0, 5]]);
        assert_eq!(order(&dag, None), [1, 2, 3, 4, 5, 0, 6]);
    }

    #[test]
    fn the_last_user_of_a_result_follows_at_once() {
        // 0 and 1 are needed by both 2 and 3; 4 needs 2 and the distant 5.
        let dag = dag(&[&[], &[], &[0, 1], &[0, 1], &[2, 5], &[]]);
        let order = order(&dag, None);
        assert_eq!(order[..2], [0, 1]);
        assert!(
            order[2..4].contains(&2) && order[2..4].contains(&3),
            "{order:?}"
        );
    }

    #[test]
    fn pieces_are_joined_before_others_are_split() {
        // 0 and 1 are each split in three (2 to 4 and 5 to 7); 8, 9 and 10 each join a piece of both.
        let dag = dag(&[
            &[],
            &[],
            &[0],
            &[0],
            &[0],
            &[1],
            &[1],
            &[1],
            &[2, 5],
            &[3, 6],
            &[4, 7],
        ]);
        assert_eq!(order(&dag, None), [0, 2, 1, 5, 8, 3, 4, 6, 9, 7, 10]);
    }
}
