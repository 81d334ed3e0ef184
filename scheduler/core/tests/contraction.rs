//! Products of blocks: how much has to be moved, by where tasks are placed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oxidask_scheduler_core::Config;
use oxidask_scheduler_core::event::{Annotations, Event, NewTask};
use oxidask_scheduler_core::testing::{TestCore, annotated, finished, task};

/// `x @ x` of `n` × `n` blocks on some workers of one thread, as dask.array writes it.
struct Product {
    n: usize,
    workers: u32,
    /// The blocks are part of the graph; else they lie on the workers, in turn.
    fresh: bool,
    /// Summands that are added at once; dask.array's `split_every`.
    split_every: usize,
    /// After each round of tasks a second goes by, and whatever is asked back is given up.
    stealing: bool,
}

impl Product {
    fn blocks(&self) -> Vec<NewTask> {
        let pairs = (0..self.n).flat_map(|i| (0..self.n).map(move |j| (i, j)));
        pairs.map(|(i, j)| task(&block(i, j), &[])).collect()
    }

    /// Products of blocks, partial sums of them, and sums of these. The last ones are wanted.
    fn tasks(&self) -> Vec<NewTask> {
        let mut tasks = Vec::new();
        for i in 0..self.n {
            for j in 0..self.n {
                let mut level: Vec<String> = Vec::new();
                for k in 0..self.n {
                    let name = format!("('product-1', {i}, {k}, {j})");
                    tasks.push(task(&name, &[&block(i, k), &block(k, j)]));
                    level.push(name);
                }
                let mut depth = 0;
                while level.len() > 1 {
                    depth += 1;
                    let sums = level.chunks(self.split_every).enumerate();
                    let sums = sums.map(|(at, inputs)| {
                        let name = format!("('sum-{depth}', {i}, {j}, {at})");
                        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                        tasks.push(task(&name, &inputs));
                        name
                    });
                    level = sums.collect();
                }
            }
        }
        tasks
    }

    /// Runs it. Gives blocks that move: each result to each worker that needs it and did not compute it.
    fn moved(&self) -> usize {
        let mut t = TestCore::new(Config::default()).client(0);
        for worker in 0..self.workers {
            t.add_worker(worker, 1);
        }
        let mut places = BTreeMap::new();
        let mut tasks = self.blocks();
        if !self.fresh {
            let names: Vec<String> = tasks.iter().map(|task| task.key.to_string()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            t.submit(0, tasks.clone(), &names);
            self.run(&mut t, &tasks, &mut places);
            tasks = Vec::new();
        }
        tasks.extend(self.tasks());
        let needed: BTreeSet<String> = tasks
            .iter()
            .flat_map(|task| task.dependencies.iter().map(ToString::to_string))
            .collect();
        let names: Vec<String> = tasks.iter().map(|task| task.key.to_string()).collect();
        let wanted = names.iter().filter(|name| !needed.contains(*name));
        let wanted: Vec<&str> = wanted.map(String::as_str).collect();
        t.submit(0, tasks.clone(), &wanted);
        self.run(&mut t, &tasks, &mut places);
        let moves: BTreeSet<(u32, String)> = tasks
            .iter()
            .flat_map(|task| {
                let place = places[&task.key.to_string()];
                let inputs = task.dependencies.iter().map(ToString::to_string);
                inputs.map(move |input| (place, input))
            })
            .filter(|(place, input)| places[input] != *place)
            .collect();
        moves.len()
    }

    /// Each worker in turn finishes the first of its tasks, until none is left.
    fn run(&self, t: &mut TestCore, tasks: &[NewTask], places: &mut BTreeMap<String, u32>) {
        let mut left: Vec<String> = tasks.iter().map(|task| task.key.to_string()).collect();
        while !left.is_empty() {
            let before = left.len();
            for worker in 0..self.workers {
                let next = left.iter().position(|key| t.worker_of(key) == Some(worker));
                if let Some(next) = next {
                    let key = left.remove(next);
                    t.finish(&key);
                    places.insert(key, worker);
                }
            }
            if self.stealing {
                t.wait(Duration::from_secs(1));
                for _ in 0..tasks.len() {
                    t.answer_steal(true);
                }
            }
            assert!(
                left.len() < before,
                "nothing is under way, {before} tasks are left"
            );
        }
    }
}

fn block(i: usize, j: usize) -> String {
    format!("('x-0', {i}, {j})")
}

fn expect_at_most(limit: usize, n: usize, workers: u32) {
    for fresh in [false, true] {
        for split_every in [3, 4] {
            let product = Product {
                n,
                workers,
                fresh,
                split_every,
                stealing: false,
            };
            let moved = product.moved();
            assert!(
                moved <= limit,
                "{moved} blocks, not {limit}; fresh {fresh}, {split_every} at once"
            );
        }
    }
}

#[test]
fn a_product_on_two_workers_moves_little_more_than_it_must() {
    // Each worker needs all blocks and has half of them: 18 + 18.
    expect_at_most(36 * 3 / 2, 6, 2);
}

#[test]
fn a_product_on_four_workers_moves_little_more_than_it_must() {
    // A square of 3 × 3 blocks needs 27 and its worker may have 9 of them, so 18 move to each of four.
    expect_at_most(72 * 3 / 2, 6, 4);
}

#[test]
fn a_product_on_many_workers_moves_in_proportion() {
    // 16 squares of 2 × 2 of 8 × 8 blocks: 28 needed each, of which 4 may lie there.
    expect_at_most(16 * 24 * 3 / 2, 8, 16);
}

#[test]
fn workers_whose_part_is_still_to_come_do_not_take_others_parts() {
    let product = Product {
        n: 6,
        workers: 4,
        fresh: true,
        split_every: 4,
        stealing: true,
    };
    let moved = product.moved();
    assert!(moved <= 72 * 3 / 2, "{moved} blocks");
}

#[test]
fn short_tasks_that_share_inputs_stay_where_these_are() {
    let mut t = TestCore::new(Config::default()).client(0);
    for worker in 0..4 {
        t.add_worker(worker, 1);
    }
    let only_first = Annotations {
        workers: vec!["w0".into()],
        ..Annotations::default()
    };
    let names =
        |from: usize, to: usize| (from..to).map(|i| format!("short-{i}")).collect::<Vec<_>>();
    let inputs = names(0, 10);
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let tasks = inputs
        .iter()
        .map(|key| annotated(task(key, &[]), only_first.clone()));
    t.submit(0, tasks.collect(), &inputs);
    while let Some(sent) = t.sent.values().next().cloned() {
        t.sent.remove(&sent.key);
        let Event::TaskFinished(mut finished) = finished(&sent) else {
            unreachable!("what finishes a task")
        };
        finished.compute = Some(0.001);
        t.send(Event::TaskFinished(finished));
    }
    let all = names(10, 110);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let tasks = all.iter().map(|key| task(key, &inputs));
    t.submit(0, tasks.collect(), &all);
    assert!(all.iter().all(|key| t.worker_of(key) == Some(0)));
    t.wait(Duration::from_secs(1));
    assert!(t.steals.is_empty(), "0.1 s of work is not worth robbing");
}
