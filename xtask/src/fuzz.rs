//! `cargo xtask soak fuzz`: each fuzz target for five minutes, and what they did into a page of results.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// Where the targets are, a workspace of its own.
const FOLDER: &str = "protocol/fuzz";

/// The targets, and what each is given.
const TARGETS: &[(&str, &str)] = &[
    ("frames", "a stream of bytes, in pieces of any size"),
    (
        "bodies",
        "a stream of bytes, its messages passed on piece by piece",
    ),
    ("messages", "frames, read as a message of every direction"),
    ("parts", "keys, durations, addresses, compressed frames"),
];

/// Seconds per target, unless told otherwise.
const SECONDS: &str = "300";

/// What stands above the table.
const INTRODUCTION: &str = "# Fuzzing of `protocol`

Written by `cargo xtask soak fuzz`. A target fails on a panic, an overflow, a message that is not read as it was
written, or on more memory allocated at one time than its source states as a multiple of the input
(`protocol/fuzz/fuzz_targets/`).

";

/// What one target did.
struct Done {
    target: &'static str,
    input: &'static str,
    /// From the fuzzer's closing lines and its last line of progress.
    executions: String,
    per_second: String,
    coverage: String,
    peak_mib: String,
}

/// Runs every target for as many seconds as the first argument says, 300 without one.
///
/// # Errors
/// When a target fails or the fuzzer is not installed.
pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    let seconds = arguments.first().map_or(SECONDS, String::as_str);
    ensure!(
        seconds.parse::<u32>().is_ok(),
        "{seconds} is no number of seconds"
    );
    ensure!(
        workspace::installed("cargo-fuzz"),
        "cargo-fuzz is not installed; run `cargo install cargo-fuzz`"
    );
    let folder = workspace::root().join(FOLDER);
    let seeds = workspace::cargo(&["run", "--quiet", "--example", "seeds"])
        .current_dir(&folder)
        .status()
        .context("failed to start cargo")?;
    ensure!(seeds.success(), "the seeds could not be written: {seeds}");
    let done = TARGETS
        .iter()
        .map(|(target, input)| run(target, input, seconds))
        .collect::<Result<Vec<_>>>()?;
    let results = workspace::root().join("benches/results");
    fs::create_dir_all(&results)?;
    fs::write(results.join("fuzz.md"), page(&done, seconds)?)
        .context("failed to write benches/results/fuzz.md")
}

fn run(target: &'static str, input: &'static str, seconds: &str) -> Result<Done> {
    // No sanitizer: there is no unsafe code to watch, and without one the pinned toolchain will do.
    let mut command = workspace::cargo(&["fuzz", "run", "--sanitizer", "none", "-O", target, "--"]);
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-max_len=20000", "-print_final_stats=1"])
        .current_dir(workspace::root().join("protocol"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("failed to start cargo fuzz")?;
    let output = child.stderr.take().context("the child has no output")?;
    let mut done = Done {
        target,
        input,
        executions: String::new(),
        per_second: String::new(),
        coverage: String::new(),
        peak_mib: String::new(),
    };
    let mut last_words = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let Some(word) = line.split(" ft: ").nth(1) {
            done.coverage = first_word(word);
            continue;
        }
        for (name, place) in [
            ("stat::number_of_executed_units:", &mut done.executions),
            ("stat::average_exec_per_sec:", &mut done.per_second),
            ("stat::peak_rss_mb:", &mut done.peak_mib),
        ] {
            if let Some(rest) = line.strip_prefix(name) {
                *place = first_word(rest);
            }
        }
        last_words.push(line);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!(
            "{target} found a failure; its input is in {FOLDER}/artifacts/{target}:\n{}",
            last_words.join("\n")
        );
    }
    println!(
        "{target}: {} executions, {} features",
        done.executions, done.coverage
    );
    Ok(done)
}

fn first_word(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn page(done: &[Done], seconds: &str) -> Result<String> {
    let mut page = INTRODUCTION.to_owned();
    writeln!(
        page,
        "Last run: `cargo xtask soak fuzz {seconds}` ({seconds} s per target) on {}. No failure.\n",
        machine()
    )?;
    writeln!(
        page,
        "| target | given | executions | per second | features reached | peak memory, MiB |"
    )?;
    writeln!(page, "| --- | --- | ---: | ---: | ---: | ---: |")?;
    for target in done {
        writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            target.target,
            target.input,
            target.executions,
            target.per_second,
            target.coverage,
            target.peak_mib
        )?;
    }
    Ok(page)
}

/// The processor and how many of it there are.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |line| line.trim_matches([' ', '\t', ':']).to_owned(),
        );
    format!("{cores} cores of {model}")
}
