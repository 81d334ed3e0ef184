//! Our order of tasks against `dask.order`'s on real graphs: at most so many results live at once, in less time.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

use std::process::Command;
use std::time::{Duration, Instant};

use oxidask_scheduler_server::graph::dag::Dag;
use oxidask_scheduler_server::graph::order::order;

struct Case {
    name: String,
    /// Most results that live at once with `dask.order`.
    peak: usize,
    /// What `dask.order` took.
    time: Duration,
    dag: Dag,
}

fn cases() -> Vec<Case> {
    let python =
        std::env::var_os("OXIDASK_PYTHON").expect("OXIDASK_PYTHON names an interpreter with dask");
    let out = Command::new(python)
        .args(["-W", "ignore", "-c", include_str!("graphs.py")])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(parse)
        .collect()
}

fn parse(line: &str) -> Case {
    let words: Vec<&str> = line.splitn(5, ' ').collect();
    let (mut degrees, mut dependencies) = (Vec::new(), Vec::new());
    for needs in words[4].split(';') {
        let before = dependencies.len();
        dependencies.extend(
            needs
                .split(',')
                .filter(|word| !word.is_empty())
                .map(|word| word.parse::<u32>().unwrap()),
        );
        degrees.push((dependencies.len() - before) as u32);
    }
    assert_eq!(degrees.len(), words[1].parse::<usize>().unwrap());
    Case {
        name: words[0].to_owned(),
        peak: words[2].parse().unwrap(),
        time: Duration::from_secs_f64(words[3].parse().unwrap()),
        dag: Dag::new(&degrees, dependencies, degrees.len()).unwrap(),
    }
}

/// Most results that live at once when the tasks run one by one. Results that nothing needs are kept.
fn peak(dag: &Dag, sequence: &[u32]) -> usize {
    let mut users = vec![0_usize; dag.len()];
    for node in 0..dag.len() {
        dag.dependencies(node)
            .iter()
            .for_each(|need| users[*need as usize] += 1);
    }
    let (mut live, mut most) = (0_usize, 0);
    for node in sequence {
        live += 1;
        most = most.max(live);
        for need in dag.dependencies(*node as usize) {
            users[*need as usize] -= 1;
            live -= usize::from(users[*need as usize] == 0);
        }
    }
    most
}

#[test]
fn no_more_results_live_than_with_dask_order_and_it_takes_a_tenth_of_the_time() {
    let cases = cases();
    let mut bad = Vec::new();
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for Case {
        name,
        peak: reference,
        time,
        dag,
    } in &cases
    {
        let begin = Instant::now();
        let sequence = order(dag, None);
        let taken = begin.elapsed();
        assert_is_order(dag, &sequence);
        let peak = peak(dag, &sequence);
        println!(
            "{name:16} {:6} tasks, peak {peak:5} : {reference:5}, {taken:>10.1?} : {time:.1?}",
            dag.len()
        );
        if peak as f64 > 1.15 * *reference as f64 + 1.0 {
            bad.push(name.as_str());
        }
        ours += taken;
        theirs += *time;
    }
    assert!(bad.is_empty(), "too many results live in {bad:?}");
    // Without optimisation there is no telling how much slower we are; it is no wonder if it is 10 times.
    let factor = if cfg!(debug_assertions) { 2 } else { 10 };
    assert!(
        factor * ours < theirs,
        "{ours:?} is too much against {theirs:?}"
    );
}

fn assert_is_order(dag: &Dag, sequence: &[u32]) {
    let mut place = vec![usize::MAX; dag.len()];
    sequence
        .iter()
        .enumerate()
        .for_each(|(at, node)| place[*node as usize] = at);
    assert_eq!(sequence.len(), dag.len());
    for node in 0..dag.len() {
        assert!(place[node] < usize::MAX);
        assert!(
            dag.dependencies(node)
                .iter()
                .all(|need| place[*need as usize] < place[node])
        );
    }
}
