//! What graph intake costs: CPU time of the helper process and of ours, per task of a graph.
//!
//! `cargo run --release -p oxidask-scheduler-server --example intake_cost`, with `OXIDASK_PYTHON` naming an
//! interpreter with dask. Prints medians over rounds for maps of 10,000 with a function by reference and by value,
//! and for merges of 1,000 and 8,000 delayed values, beside what a stock scheduler does with the same expression in
//! the same interpreter: unpickle, materialise, order, and pickle each node when it is sent.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use oxidask_protocol::{Key, Payload};
use oxidask_scheduler_server::graph::{GraphEvent, GraphIntake, IntakeConfig, MaterialiseRequest};

const ROUNDS: usize = 7;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let python =
        std::env::var_os("OXIDASK_PYTHON").ok_or("OXIDASK_PYTHON does not name an interpreter")?;
    let mut child = Command::new(&python)
        .args(["-W", "ignore", "-c", include_str!("intake_cost.py")])
        .stdout(Stdio::piped())
        .spawn()?;
    let intake = GraphIntake::new(IntakeConfig {
        python: Some(python.into()),
        helpers: 1,
        ..IntakeConfig::default()
    });
    println!(
        "{:24} {:>6} {:>8} {:>8} {:>14} {:>14}",
        "graph", "tasks", "helper", "ours", "stock intake", "stock pickling"
    );
    for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [
            name,
            given,
            intake_cost,
            pickling_cost,
            keys,
            header,
            frames @ ..,
        ] = &words[..]
        else {
            return Err(format!("cannot read {line:?}").into());
        };
        let wanted: Vec<Key> = keys.split(',').map(Key::from).collect();
        let request = MaterialiseRequest {
            expr: Payload::serialized(
                unhex(header),
                frames.iter().map(|frame| unhex(frame)).collect(),
            ),
            internal_priority: (*given == "given")
                .then(|| wanted.iter().cloned().zip(0..).collect()),
            wanted,
            annotations: None,
        };
        let (mut helper, mut ours, mut tasks) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            let (helper_before, ours_before) = (cpu_of_helper()?, cpu_of("self")?);
            let mut events = intake.submit("client", request.clone());
            while let Some(event) = events.recv().await {
                match event {
                    GraphEvent::Nodes(_) => {}
                    GraphEvent::Done(end) => tasks = end.nodes,
                    GraphEvent::Failed(error) => return Err(error.into()),
                }
            }
            helper.push(cpu_of_helper()? - helper_before);
            ours.push(cpu_of("self")? - ours_before);
        }
        let per_task = |mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            seconds[ROUNDS / 2] / tasks as f64 * 1e6
        };
        let (helper, ours) = (per_task(helper), per_task(ours));
        println!(
            "{name:24} {tasks:6} {helper:8.2} {ours:8.2} {intake_cost:>14} {pickling_cost:>14}"
        );
    }
    child.wait()?;
    Ok(())
}

/// CPU seconds of the first Python child of this process that serves graphs.
fn cpu_of_helper() -> Result<f64, Box<dyn std::error::Error>> {
    let mut total = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let children = std::fs::read_to_string(task?.path().join("children"))?;
        for pid in children.split_whitespace() {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.contains("oxidask.boot") {
                total += cpu_of(pid)?;
            }
        }
    }
    Ok(total)
}

/// CPU seconds of a process, to the nanosecond.
fn cpu_of(pid: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let mut total = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or("0").parse::<f64>()? / 1e9;
    }
    Ok(total)
}

fn unhex(text: &str) -> Bytes {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    text.trim_start_matches('-')
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}
