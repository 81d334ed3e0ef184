//! Products of blocks: how much has to be moved, by where tasks are placed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use oxidask_protocol::Key;
use oxidask_scheduler_core::Config;
use oxidask_scheduler_core::testing::{TestCore, task};

/// Blocks of `n` × `n` on `workers`, in turn; then their product, each block a sum of `n` products, in pairs of sums
/// as dask.array makes them. Gives blocks that move: each input to each worker that needs it and has it not, and each
/// partial result whose sum is elsewhere.
fn moved(n: usize, workers: u32) -> usize {
    let mut t = TestCore::new(Config::default()).client(0);
    for worker in 0..workers {
        t.add_worker(worker, 1);
    }
    let block = |i: usize, j: usize| format!("('x-0', {i}, {j})");
    let blocks: Vec<String> = (0..n * n).map(|at| block(at / n, at % n)).collect();
    let names: Vec<&str> = blocks.iter().map(String::as_str).collect();
    t.submit(
        0,
        blocks.iter().map(|name| task(name, &[])).collect(),
        &names,
    );
    t.finish_all();
    let home: BTreeMap<String, u32> = blocks
        .iter()
        .map(|name| (name.clone(), t.core.who_has(&Key::from(name.as_str()))[0].0))
        .collect();

    let mut tasks = Vec::new();
    let mut wanted = Vec::new();
    let product = |i: usize, k: usize, j: usize| format!("('product-1', {i}, {k}, {j})");
    for i in 0..n {
        for j in 0..n {
            let products: Vec<String> = (0..n).map(|k| product(i, k, j)).collect();
            for (k, name) in products.iter().enumerate() {
                tasks.push(task(name, &[&block(i, k), &block(k, j)]));
            }
            let (low, high) = products.split_at(n.div_ceil(2));
            let partial = |half: usize| format!("('partial-1', {i}, {j}, {half})");
            for (half, inputs) in [low, high].into_iter().enumerate() {
                let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
                tasks.push(task(&partial(half), &inputs));
            }
            let sum = format!("('sum-1', {i}, {j})");
            tasks.push(task(&sum, &[&partial(0), &partial(1)]));
            wanted.push(sum);
        }
    }
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    t.submit(0, tasks, &wanted);
    let mut fetched: BTreeSet<(u32, String)> = BTreeSet::new();
    let mut sums = 0;
    for i in 0..n {
        for j in 0..n {
            let mut places = BTreeSet::new();
            for k in 0..n {
                let worker = t.worker_of(&product(i, k, j)).unwrap();
                places.insert(worker);
                for input in [block(i, k), block(k, j)] {
                    if home[&input] != worker {
                        fetched.insert((worker, input));
                    }
                }
            }
            sums += places.len() - 1;
        }
    }
    fetched.len() + sums
}

#[test]
fn a_product_on_two_workers_moves_little_more_than_it_must() {
    // Each worker needs all blocks and has half of them: 18 + 18.
    let moved = moved(6, 2);
    assert!(moved <= 36 * 3 / 2, "{moved} blocks");
}

#[test]
fn a_product_on_four_workers_moves_little_more_than_it_must() {
    // A square of 3 × 3 blocks needs 27 and its worker has about 9 of all, so 18 move to each of four.
    let moved = moved(6, 4);
    assert!(moved <= 72 * 3 / 2, "{moved} blocks");
}

#[test]
fn a_larger_product_moves_in_proportion() {
    // 16 squares of 4 × 4 of 16 × 16 blocks: 112 needed each, of which a sixteenth lies there.
    let moved = moved(16, 16);
    assert!(moved <= 16 * 105 * 3 / 2, "{moved} blocks");
}
