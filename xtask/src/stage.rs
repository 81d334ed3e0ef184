//! Stages of a long command: each is timed, and the closing lines of the suites it ran are kept.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// What stages gave so far.
#[derive(Default)]
pub(crate) struct Report {
    done: Vec<Done>,
}

/// A stage that has run.
struct Done {
    name: &'static str,
    time: Duration,
    error: Option<anyhow::Error>,
    tally: Tally,
}

/// Tests counted from the closing lines of the suites that a stage ran.
#[derive(Default)]
pub(crate) struct Tally {
    suites: u64,
    passed: u64,
    failed: u64,
    /// Closing lines of suites that ran a test.
    lines: Vec<String>,
}

impl Report {
    /// Runs a stage and keeps its outcome; a failure does not stop the stages after it.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce(&mut Tally) -> Result<()>) {
        println!("\n──── {name}");
        let start = Instant::now();
        let mut tally = Tally::default();
        let error = stage(&mut tally).err();
        let time = start.elapsed();
        match &error {
            Some(error) => println!(
                "──── {name}: FAILED after {:.0} s: {error:#}",
                time.as_secs_f64()
            ),
            None => println!("──── {name}: ok, {:.0} s", time.as_secs_f64()),
        }
        self.done.push(Done {
            name,
            time,
            error,
            tally,
        });
    }

    /// Prints the table of stages and closing lines.
    ///
    /// # Errors
    /// When a stage failed.
    pub(crate) fn close(self) -> Result<()> {
        println!(
            "\n{:<24} {:>7} {:>8} {:>7} {:>7}",
            "stage", "", "seconds", "passed", "failed"
        );
        for stage in &self.done {
            let verdict = if stage.error.is_some() {
                "FAILED"
            } else {
                "ok"
            };
            let Tally { passed, failed, .. } = stage.tally;
            println!(
                "{:<24} {verdict:>7} {:>8.0} {passed:>7} {failed:>7}",
                stage.name,
                stage.time.as_secs_f64()
            );
        }
        println!();
        for stage in &self.done {
            for line in &stage.tally.lines {
                println!("{}: {line}", stage.name);
            }
        }
        let passed: u64 = self.done.iter().map(|stage| stage.tally.passed).sum();
        let failed: u64 = self.done.iter().map(|stage| stage.tally.failed).sum();
        println!("\n{passed} passed, {failed} failed");
        let broken: Vec<&str> = self
            .done
            .iter()
            .filter(|stage| stage.error.is_some())
            .map(|stage| stage.name)
            .collect();
        ensure!(broken.is_empty(), "failed: {}", broken.join(", "));
        Ok(())
    }
}

impl Tally {
    /// Runs a program, shows its output as it comes and counts the tests it reports.
    ///
    /// # Errors
    /// When the program cannot be started or fails.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<()> {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {program}"))?;
        let output = child
            .stdout
            .take()
            .context("the child has no standard output")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.with_context(|| format!("failed to read the output of {program}"))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            self.note(&line);
        }
        let status = child
            .wait()
            .with_context(|| format!("failed to wait for {program}"))?;
        ensure!(status.success(), "{} ended with {status}", shown(command));
        Ok(())
    }

    /// Counts a suite's closing line; any other line is ignored.
    fn note(&mut self, line: &str) {
        let line =
            line.trim_matches(|character: char| character == '=' || character.is_whitespace());
        let cargo = line.starts_with("test result:");
        let pytest = line.contains(" in ") && line.ends_with(['s', ')']);
        let plain = line.split_once(": ").is_some_and(|(suite, rest)| {
            !suite.contains(' ') && rest.starts_with(|c: char| c.is_ascii_digit())
        });
        if !(cargo || pytest || plain) {
            return;
        }
        let (Some(passed), failed) = (
            count(line, "passed").or_else(|| count(line, "failed").map(|_| 0)),
            count(line, "failed"),
        ) else {
            return;
        };
        let errors = count(line, "errors")
            .or_else(|| count(line, "error"))
            .unwrap_or(0);
        self.suites += 1;
        self.passed += passed;
        self.failed += failed.unwrap_or(0) + errors;
        if passed + failed.unwrap_or(0) + errors > 0 {
            self.lines.push(line.to_owned());
        }
    }
}

/// The number before `word` in a closing line, as in "3 passed; 1 failed".
fn count(line: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = line
        .split_whitespace()
        .map(|word| word.trim_end_matches([',', ';']))
        .collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
}

/// A command as a person would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(line: &str) -> (u64, u64, u64) {
        let mut tally = Tally::default();
        tally.note(line);
        (tally.suites, tally.passed, tally.failed)
    }

    #[test]
    fn closing_lines_of_cargo_pytest_and_our_own_suites_are_counted() {
        assert_eq!(
            tally(
                "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s"
            ),
            (1, 5, 0)
        );
        assert_eq!(
            tally("===== 2 failed, 7 passed, 1 skipped in 3.21s ====="),
            (1, 7, 2)
        );
        assert_eq!(tally("3 passed, 1 error in 64.21s (0:01:04)"), (1, 3, 1));
        assert_eq!(tally("tutorial: 12 passed, 0 failed"), (1, 12, 0));
    }

    #[test]
    fn other_lines_are_not_counted() {
        assert_eq!(tally("test frame::tests::all_passed in the end"), (0, 0, 0));
        assert_eq!(tally("running 3 tests"), (0, 0, 0));
    }
}
