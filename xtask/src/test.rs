//! `cargo xtask test`: what CI runs, every behaviour once, at small size.

use std::process::Command;

use anyhow::Result;

use crate::binaries::Binaries;
use crate::env::Python;
use crate::stage::{Report, Tally};
use crate::{check, kubernetes, soak, versions, wheel, workspace};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the stage that makes a Kubernetes cluster
    #[arg(long)]
    without_kubernetes: bool,
    /// Run only the stages with these names
    #[arg(long)]
    only: Vec<String>,
}

/// A part of the test that can be asked for by name.
struct Stage {
    name: &'static str,
    needs_kubernetes: bool,
    run: fn(&mut Tally, &Python) -> Result<()>,
}

/// In order: what fails fastest and explains most comes first. A new stage is a line here.
const STAGES: &[Stage] = &[
    Stage {
        name: "unit tests",
        needs_kubernetes: false,
        run: unit_tests,
    },
    Stage {
        name: "python",
        needs_kubernetes: false,
        run: python_package,
    },
    Stage {
        name: "tutorial",
        needs_kubernetes: false,
        run: tutorial,
    },
    Stage {
        name: "operations",
        needs_kubernetes: false,
        run: operations,
    },
    Stage {
        name: "workers",
        needs_kubernetes: false,
        run: workers,
    },
    Stage {
        name: "local clusters",
        needs_kubernetes: false,
        run: local_clusters,
    },
    Stage {
        name: "versions",
        needs_kubernetes: false,
        run: versions::oldest,
    },
    Stage {
        name: "conformance",
        needs_kubernetes: false,
        run: conformance,
    },
    Stage {
        name: "end to end",
        needs_kubernetes: false,
        run: end_to_end,
    },
    Stage {
        name: "kubernetes",
        needs_kubernetes: true,
        run: kubernetes::stage,
    },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut report = Report::default();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    if wanted("check") {
        check::stages(&mut report);
    }
    let python = Python::ensure()?;
    for stage in STAGES {
        if wanted(stage.name) && !(stage.needs_kubernetes && args.without_kubernetes) {
            report.run(stage.name, |tally| (stage.run)(tally, &python));
        }
    }
    report.close()
}

/// Everything that `cargo test` runs, except what needs release builds and a cluster.
fn unit_tests(tally: &mut Tally, python: &Python) -> Result<()> {
    let mut command = workspace::cargo(&[
        "test",
        "--quiet",
        "--workspace",
        "--exclude",
        "oxidask-e2e",
        "--locked",
        "--no-fail-fast",
    ]);
    tally.run(
        command
            .env("PATH", python.path())
            .env("OXIDASK_PYTHON", python.interpreter()),
    )
}

/// Folders of Python tests that need no cluster, each a run of pytest's own.
const PYTHON_TESTS: &[&str] = &["python/tests", "e2e/conformance/tests", "benches/tests"];

/// The linters over all our Python, and its tests that need no cluster.
fn python_package(tally: &mut Tally, python: &Python) -> Result<()> {
    let ruff = python.program("ruff");
    tally.run(workspace::command(&ruff).args(["check", "."]))?;
    tally.run(workspace::command(&ruff).args(["format", "--check", "."]))?;
    for tests in PYTHON_TESTS {
        if workspace::root().join(tests).exists() {
            tally.run(&mut python.command(&[
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                tests,
            ]))?;
        }
    }
    Ok(())
}

/// The programs of Dask's tutorial, small, on a cluster of ours.
fn tutorial(tally: &mut Tally, _python: &Python) -> Result<()> {
    tally.run(&mut workspace::cargo(&["xtask", "demo", "--size", "small"]))
}

/// A run of pytest over tests with real processes, none of which may take longer than three minutes.
fn pytest(python: &Python, which: &[&str]) -> Command {
    let mut command = python.command(&["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    command.args(["--timeout", "180"]).args(which);
    command
}

/// What a stock client may ask of a scheduler, on a cluster of ours.
fn operations(tally: &mut Tally, python: &Python) -> Result<()> {
    let binaries = Binaries::build()?;
    let mut command = pytest(python, &["e2e/python/tests"]);
    if let Some(scheduler) = &binaries.scheduler {
        command.env("OXIDASK_SCHEDULER", scheduler);
    }
    tally.run(&mut command)
}

/// The Python package as its user has it: it starts all our programs itself, and is installed from a wheel.
fn local_clusters(tally: &mut Tally, python: &Python) -> Result<()> {
    let binaries = Binaries::build()?;
    let tests = ["test_local.py", "test_wheel.py"].map(|file| format!("e2e/python/tests/{file}"));
    let mut command = pytest(python, &tests.each_ref().map(String::as_str));
    command.env("OXIDASK_WHEEL", wheel::build(None)?);
    let programs = [
        ("OXIDASK_SCHEDULER", binaries.scheduler),
        ("OXIDASK_WORKER", binaries.worker),
        ("OXIDASK_CLI", binaries.command),
    ];
    for (name, program) in programs {
        if let Some(program) = program {
            command.env(name, program);
        }
    }
    command.env("OXIDASK_PYTHON", python.interpreter());
    tally.run(&mut command)
}

/// What code in a task finds, and what a worker survives: our workers under a stock scheduler, then under ours, and
/// what needs connections of Python's own once more with all of them encrypted.
fn workers(tally: &mut Tally, python: &Python) -> Result<()> {
    let binaries = Binaries::build()?;
    let Some(worker) = binaries.worker else {
        return Ok(());
    };
    let ours = |which: &str| {
        let mut command = pytest(python, &["-k", which, "e2e/python/tests"]);
        command
            .env("OXIDASK_WORKER", &worker)
            .env("OXIDASK_PYTHON", python.interpreter());
        command
    };
    tally.run(&mut ours("test_worker"))?;
    if let Some(scheduler) = &binaries.scheduler {
        tally.run(ours("test_worker").env("OXIDASK_SCHEDULER", scheduler))?;
        let doors = "test_worker_inside or test_worker_doors or test_worker_libraries";
        let mut encrypted = ours(doors);
        encrypted
            .env("OXIDASK_SCHEDULER", scheduler)
            .env("OXIDASK_TLS", "1");
        tally.run(&mut encrypted)?;
    }
    Ok(())
}

/// Dask's own tests, as far as they come with its wheel.
fn conformance(tally: &mut Tally, python: &Python) -> Result<()> {
    soak::conformance(tally, python, None)
}

/// Tests with real processes: our binaries under a stock client, hostile peers, faults.
fn end_to_end(tally: &mut Tally, python: &Python) -> Result<()> {
    let binaries = Binaries::build()?;
    let mut command = workspace::cargo(&[
        "test",
        "--quiet",
        "--package",
        "oxidask-e2e",
        "--locked",
        "--no-fail-fast",
    ]);
    for (variable, program) in [
        ("OXIDASK_SCHEDULER", binaries.scheduler),
        ("OXIDASK_WORKER", binaries.worker),
        ("OXIDASK_CLI", binaries.command),
    ] {
        if let Some(program) = program {
            command.env(variable, program);
        }
    }
    tally.run(
        command
            .env("PATH", python.path())
            .env("OXIDASK_PYTHON", python.interpreter()),
    )
}
