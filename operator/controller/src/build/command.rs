//! Where a container's words start a scheduler or a worker.
//!
//! Stock images are started in a few well-known ways; what is none of them is
//! not guessed at.

use serde_json::{Value, json};

/// A program of Dask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `dask-scheduler`.
    Scheduler,
    /// `dask-worker`.
    Worker,
}

impl Program {
    /// The word after `dask`, and the end of the program's name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
        }
    }
}

/// The words that start a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Which container of the pod.
    pub(crate) container: usize,
    /// `command` or `args`.
    list: &'static str,
    /// The first of the words.
    start: usize,
    /// How many words they are.
    len: usize,
    /// The interpreter that they name by its path, if they do.
    pub(crate) python: Option<String>,
}

/// Finds the words that start a program in the first container that has them:
/// at the beginning of `command` or `args`, or behind a word `--`, as after
/// `tini -g --`.
pub(crate) fn find(pod: &Value, program: Program) -> Option<Found> {
    let containers = pod["containers"].as_array()?;
    containers
        .iter()
        .enumerate()
        .find_map(|(index, container)| {
            ["command", "args"].into_iter().find_map(|list| {
                let words: Vec<&str> = container[list]
                    .as_array()?
                    .iter()
                    .map(|word| word.as_str().unwrap_or_default())
                    .collect();
                let starts = (0..words.len()).filter(|at| *at == 0 || words[at - 1] == "--");
                starts.into_iter().find_map(|start| {
                    let (len, python) = named(&words[start..], program)?;
                    Some(Found {
                        container: index,
                        list,
                        start,
                        len,
                        python,
                    })
                })
            })
        })
}

/// How many of the first words name the program, and the interpreter's path.
fn named(words: &[&str], program: Program) -> Option<(usize, Option<String>)> {
    let (first, rest) = words.split_first()?;
    let file = first.rsplit('/').next().unwrap_or_default();
    let word = program.word();
    if file == format!("dask-{word}") {
        return Some((1, None));
    }
    if file == "dask" && rest.first() == Some(&word) {
        return Some((2, None));
    }
    if !is_python(file) {
        return None;
    }
    let is_flag = |word: &&&str| matches!(**word, "-u" | "-B" | "-O" | "-OO" | "-E" | "-s");
    let flags = rest.iter().take_while(is_flag).count();
    let python = first.starts_with('/').then(|| (*first).to_owned());
    match &rest[flags..] {
        ["-m", module, ..] if *module == format!("distributed.cli.dask_{word}") => {
            Some((flags + 3, python))
        }
        ["-m", "dask", next, ..] if *next == word => Some((flags + 4, python)),
        _ => None,
    }
}

/// `python`, `python3`, `python3.12`.
fn is_python(file: &str) -> bool {
    file.strip_prefix("python")
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

impl Found {
    /// Whether the program gets this flag.
    pub(crate) fn has_flag(&self, pod: &Value, flag: &str) -> bool {
        let container = &pod["containers"][self.container];
        let words = |list: &str| container[list].as_array().cloned().unwrap_or_default();
        let after = words(self.list).into_iter().skip(self.start + self.len);
        let more = match self.list {
            "command" => words("args"),
            _ => Vec::new(),
        };
        after.chain(more).any(|word| {
            let word = word.as_str().unwrap_or_default();
            word == flag
                || word
                    .strip_prefix(flag)
                    .is_some_and(|rest| rest.starts_with('='))
        })
    }

    /// Puts words right after those that start the program.
    pub(crate) fn insert(&self, pod: &mut Value, words: &[&str]) {
        if let Some(list) = pod["containers"][self.container][self.list].as_array_mut() {
            let at = self.start + self.len;
            list.splice(at..at, words.iter().map(|word| json!(word)));
        }
    }

    /// Puts one word in the place of those that start the program.
    pub(crate) fn replace(&self, pod: &mut Value, word: &str) {
        if let Some(list) = pod["containers"][self.container][self.list].as_array_mut() {
            list.splice(self.start..self.start + self.len, [json!(word)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(command: &[&str], args: &[&str]) -> Value {
        json!({"containers": [{"name": "side"}, {"name": "c", "command": command, "args": args}]})
    }

    /// The words after the program was replaced by `X`.
    fn replaced(command: &[&str], args: &[&str], program: Program) -> Option<String> {
        let mut pod = pod(command, args);
        find(&pod, program)?.replace(&mut pod, "X");
        let words = ["command", "args"].map(|list| {
            let words = pod["containers"][1][list].as_array().unwrap();
            words
                .iter()
                .map(|word| word.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(" ")
        });
        Some(words.join(" | "))
    }

    #[test]
    fn every_usual_way_to_start_a_worker_is_found() {
        for (command, args, expected) in [
            (
                &[][..],
                &["dask-worker", "--name", "a"][..],
                " | X --name a",
            ),
            (&[], &["/opt/conda/bin/dask-worker"], " | X"),
            (&[], &["dask", "worker", "tcp://s:1"], " | X tcp://s:1"),
            (
                &["python", "-m", "distributed.cli.dask_worker"],
                &["-n"],
                "X | -n",
            ),
            (
                &[],
                &["python3.12", "-u", "-m", "dask", "worker", "a"],
                " | X a",
            ),
            (&["tini", "-g", "--", "dask-worker"], &[], "tini -g -- X | "),
            (
                &["/usr/bin/prepare.sh"],
                &["dask-worker"],
                "/usr/bin/prepare.sh | X",
            ),
        ] {
            assert_eq!(
                replaced(command, args, Program::Worker).as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn what_is_not_surely_the_program_is_not_found() {
        for (command, args) in [
            (&[][..], &[][..]),
            (&["sh", "-c", "dask-worker x"], &[]),
            (&[], &["dask-scheduler"]),
            (&[], &["run", "dask-worker"]),
            (&[], &["dask-cuda-worker"]),
            (
                &[],
                &["python", "worker.py", "-m", "distributed.cli.dask_worker"],
            ),
            (&[], &["dask"]),
            (&["pythonic", "-m", "distributed.cli.dask_worker"], &[]),
        ] {
            assert_eq!(
                replaced(command, args, Program::Worker),
                None,
                "{command:?} {args:?}"
            );
        }
    }

    #[test]
    fn an_interpreter_with_a_path_is_remembered() {
        let python = |word: &str| {
            let pod = pod(&[], &[word, "-m", "distributed.cli.dask_scheduler"]);
            find(&pod, Program::Scheduler).unwrap().python
        };
        assert_eq!(
            python("/opt/conda/bin/python").as_deref(),
            Some("/opt/conda/bin/python")
        );
        assert_eq!(python("python3"), None);
    }

    #[test]
    fn a_flag_is_seen_wherever_it_stands() {
        for (command, args, has) in [
            (&[][..], &["dask-worker", "--nthreads", "2"][..], true),
            (&[], &["dask-worker", "--nthreads=2"], true),
            (&["dask-worker"], &["--nthreads", "2"], true),
            (&["dask-worker"], &["--nthreadsx"], false),
            (&[], &["dask-worker"], false),
        ] {
            let pod = pod(command, args);
            let found = find(&pod, Program::Worker).unwrap();
            assert_eq!(
                found.has_flag(&pod, "--nthreads"),
                has,
                "{command:?} {args:?}"
            );
        }
    }
}
