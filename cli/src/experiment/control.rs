//! The control: the same kernels in plain processes, without scheduler, wire or store.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use oxidask_client::{Chunk, Kernel};

use super::workload::Task;
use crate::args::ControlPart;

/// How long the workload takes in `workers` processes of `threads` threads, from the start signal to the last end.
/// Each process has its inputs ready before the signal, and computes an equal share of the tasks.
///
/// # Errors
/// If a process cannot be started or fails.
pub(crate) fn control(task: &Task, workers: usize, threads: usize, pin: bool) -> Result<f64> {
    let own = std::env::current_exe()?;
    let cpus = std::thread::available_parallelism()?.get();
    let text = serde_json::to_string(task)?;
    let mut children = Vec::with_capacity(workers);
    for part in 0..workers {
        let mut command = if pin {
            let mut command = Command::new("taskset");
            command.args(["-c", &(part % cpus).to_string()]).arg(&own);
            command
        } else {
            Command::new(&own)
        };
        command.args(["control", "--task", &text, "--part", &part.to_string()]);
        command.args([
            "--of",
            &workers.to_string(),
            "--threads",
            &threads.to_string(),
        ]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        children.push(Process::new(
            child.context("failed to start a control process")?,
        )?);
    }
    for child in &mut children {
        ensure!(
            child.line()? == "ready",
            "a control process failed to prepare"
        );
    }
    let start = Instant::now();
    for child in &mut children {
        child.go()?;
    }
    for child in &mut children {
        ensure!(child.line()? == "done", "a control process failed");
    }
    let seconds = start.elapsed().as_secs_f64();
    for mut child in children {
        child.child.wait()?;
    }
    Ok(seconds)
}

struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn new(mut child: Child) -> Result<Self> {
        let output = child
            .stdout
            .take()
            .context("a control process has no output")?;
        Ok(Self {
            output: BufReader::new(output),
            child,
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn go(&mut self) -> Result<()> {
        let input = self
            .child
            .stdin
            .as_mut()
            .context("a control process has no input")?;
        input.write_all(b"go\n")?;
        Ok(input.flush()?)
    }
}

/// One process: its part of the tasks.
///
/// # Errors
/// If the task cannot be read or a kernel fails.
pub(crate) fn part(part: &ControlPart) -> Result<()> {
    let task: Task = serde_json::from_str(&part.task).context("--task is no workload")?;
    let jobs = jobs(&task, part.part, part.of)?;
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some((kernel, inputs)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            std::hint::black_box(kernel.run(inputs, u64::MAX)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..part.threads.max(1))
            .map(|_| scope.spawn(work))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(_) => anyhow::bail!("a kernel panicked"),
            })
    })?;
    println!("done");
    Ok(())
}

/// Kernels with their inputs that process `part` of `of` runs.
fn jobs(task: &Task, part: u64, of: u64) -> Result<Vec<(Kernel, Vec<Chunk>)>> {
    if let Task::Pi { samples, .. } = task {
        let kernels = Task::points(*samples, task.tasks(of as usize)).into_iter();
        let own = kernels
            .enumerate()
            .filter(|(at, _)| *at as u64 % of == part);
        return Ok(own.map(|(_, kernel)| (kernel, Vec::new())).collect());
    }
    let Some((left, right)) = task.matrices()? else {
        return Ok(Vec::new());
    };
    let product = left.matmul(&right)?;
    // Rows of chunks stay together, as a good placement would have them.
    let tasks = product.graph().tasks;
    let wanted = product.keys();
    let share = wanted.len().div_ceil(of as usize);
    let own = wanted
        .chunks(share.max(1))
        .nth(part as usize)
        .unwrap_or(&[]);
    let mut known = std::collections::HashMap::new();
    let mut jobs = Vec::new();
    for key in own {
        let find = |key: &oxidask_client::Key| tasks.iter().find(|task| task.key == *key);
        let task = find(key).context("a task of the product is missing")?;
        let mut inputs = Vec::with_capacity(task.inputs.len());
        for input in &task.inputs {
            inputs.push(value(input, &tasks, &mut known)?);
        }
        jobs.push((task.kernel.clone(), inputs));
    }
    Ok(jobs)
}

/// The value of an input, computed here once.
fn value(
    key: &oxidask_client::Key,
    tasks: &[oxidask_client::Task],
    known: &mut std::collections::HashMap<oxidask_client::Key, Chunk>,
) -> Result<Chunk> {
    if let Some(chunk) = known.get(key) {
        return Ok(chunk.clone());
    }
    let task = tasks.iter().find(|task| task.key == *key);
    let task = task.context("an input of the product is missing")?;
    let mut inputs = Vec::new();
    for input in &task.inputs {
        inputs.push(value(input, tasks, known)?);
    }
    let chunk = task.kernel.run(&inputs, u64::MAX)?;
    known.insert(key.clone(), chunk.clone());
    Ok(chunk)
}
