//! `cargo xtask check`: everything that can be said of the sources without running them.

use anyhow::Result;

use crate::stage::{Report, Tally};
use crate::{crds, tidy, workspace};

/// Tools that are used where they are installed: program, arguments.
const OPTIONAL_TOOLS: &[(&str, &[&str])] = &[
    (
        "helm",
        &["lint", "charts/oxidask-crds", "charts/oxidask-operator"],
    ),
    (
        "cargo-deny",
        &["--offline", "check", "bans", "licenses", "sources"],
    ),
    ("typos", &[]),
];

/// Without it the tests on Kubernetes would not be compiled.
const ON_A_CLUSTER: &str = "oxidask-e2e/kubernetes";

pub(crate) fn run() -> Result<()> {
    let mut report = Report::default();
    stages(&mut report);
    report.close()
}

/// The steps of the check; none of them writes to the sources.
pub(crate) fn stages(report: &mut Report) {
    report.run("format", |tally| {
        tally.run(&mut workspace::cargo(&["fmt", "--all", "--check"]))
    });
    report.run("tidy", |_| tidy::run());
    report.run("generated files", |_| crds::check());
    report.run("lints", |tally| {
        tally.run(&mut workspace::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--features",
            ON_A_CLUSTER,
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    });
    report.run("docs", |tally| {
        let mut command = workspace::cargo(&[
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--features",
            ON_A_CLUSTER,
            "--document-private-items",
            "--locked",
        ]);
        // Private items are documented here, so a link to one leads somewhere.
        let flags = "-D warnings -A rustdoc::private_intra_doc_links";
        tally.run(command.env("RUSTDOCFLAGS", flags))
    });
    for (program, arguments) in OPTIONAL_TOOLS {
        if workspace::installed(program) {
            report.run(program, |tally: &mut Tally| {
                tally.run(workspace::command(program).args(*arguments))
            });
        }
    }
}
