//! `cargo xtask soak NAME`: the long forms of tests, too long for every change.

use anyhow::{Context, Result};

use crate::binaries::Binaries;
use crate::env::Python;
use crate::stage::{Report, Tally};
use crate::{fuzz, kubernetes, load, process, versions};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which one; without a name they are listed
    name: Option<String>,
    /// Passed on to what runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// A long test that can be asked for by name.
struct Soak {
    name: &'static str,
    sentence: &'static str,
    run: fn(&mut Tally, &Python, &[String]) -> Result<()>,
}

/// A new soak is a line here.
const SOAKS: &[Soak] = &[
    Soak {
        name: "conformance",
        sentence: "all test ids, on a checkout of dask/distributed given by --distributed-tests PATH",
        run: |tally, python, rest| conformance(tally, python, Some(rest)),
    },
    Soak {
        name: "chaos",
        sentence: "executors and workers killed for 60 s under a map-reduce that checks its sums",
        run: chaos,
    },
    Soak {
        name: "fuzz",
        sentence: "each fuzz target of protocol for 5 minutes, or for the seconds given",
        run: |_, _, rest| fuzz::soak(rest),
    },
    Soak {
        name: "load",
        sentence: "1,000 workers and 200 clients: six loads, ours beside stock",
        run: load::soak,
    },
    Soak {
        name: "kubernetes",
        sentence: "the tests on a Kubernetes cluster that have a size, at their long one: 60 scale operations, 100 objects",
        run: |tally, python, _| kubernetes::long(tally, python),
    },
    Soak {
        name: "upstream",
        sentence: "dask-kubernetes' own tests with our operator, three rounds with our CRDs and three with theirs",
        run: kubernetes::upstream,
    },
    Soak {
        name: "versions",
        sentence: "smoke run and tutorial with clients of older versions of dask, or of those named, each with our \
                   scheduler and with our worker",
        run: versions::soak,
    },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    let Some(name) = &args.name else {
        for soak in SOAKS {
            println!("{:<16} {}", soak.name, soak.sentence);
        }
        return Ok(());
    };
    let soak = SOAKS
        .iter()
        .find(|soak| soak.name == name)
        .with_context(|| format!("no soak is called {name}; `cargo xtask soak` lists them"))?;
    process::install_signal_handling()?;
    let python = Python::ensure()?;
    let mut report = Report::default();
    report.run(soak.name, |tally| (soak.run)(tally, &python, &args.rest));
    report.close()
}

/// Our scheduler and four of our workers, which are killed at random.
fn chaos(tally: &mut Tally, python: &Python, rest: &[String]) -> Result<()> {
    let binaries = Binaries::build()?;
    let built = "both programs are built";
    let mut command = python.command(&["-m", "chaos"]);
    command.current_dir(crate::workspace::root().join("e2e/python"));
    command
        .arg("--scheduler")
        .arg(binaries.scheduler.as_ref().context(built)?)
        .arg("--worker")
        .arg(binaries.worker.as_ref().context(built)?)
        .args(rest);
    tally.run(&mut command)
}

/// Runs the conformance ids against our scheduler: those of dask's wheel alone, or with `whole`
/// all that its arguments ask for.
pub(crate) fn conformance(
    tally: &mut Tally,
    python: &Python,
    whole: Option<&[String]>,
) -> Result<()> {
    let binaries = Binaries::build()?;
    let mut command = python.command(&["e2e/conformance/run.py"]);
    if let Some(scheduler) = &binaries.scheduler {
        command.arg("--scheduler").arg(format!(
            "{} --host {{host}} --port {{port}} --no-dashboard",
            scheduler.display()
        ));
    }
    command.args(whole.unwrap_or(&[]));
    tally.run(&mut command)
}
