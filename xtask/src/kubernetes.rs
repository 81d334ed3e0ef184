//! The tests on Kubernetes: a cluster is made, our images are loaded, the tests run, the cluster is taken down.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{
    binaries,
    env::Python,
    images,
    kind::{self, Cache, process as programs},
    metadata::Metadata,
    process,
    stage::Tally,
    workspace,
};

/// How many tests run beside each other: more would wait for the machine's two cores, and then for their deadlines.
const AT_ONCE: &str = "--test-threads=2";

/// The stage of `cargo xtask test`. A cluster that was there already is used, and stays.
///
/// # Errors
/// When no cluster can be made on this machine, an image cannot be built, or a test fails.
pub(crate) fn stage(tally: &mut Tally, python: &Python) -> Result<()> {
    let cache = Cache::open()?;
    let stays = kind::is_up(&cache)?;
    if !stays {
        let cache = Cache::open()?;
        process::before_an_interrupt_ends_us(move || {
            if let Err(error) = kind::down_at_once(&cache) {
                eprintln!("the cluster is left, `cargo xtask kind down` removes it: {error:#}");
            }
        })?;
    }
    let tested = kind::up(&cache)
        .context("no Kubernetes cluster to test on (--without-kubernetes leaves this stage out)")
        .and_then(|()| images::build_and_load(images::TESTED))
        .and_then(|()| all_tests(&cache, tally, python));
    process::leave_it_to_an_interrupt();
    if stays {
        return tested;
    }
    let down = kind::down(&cache).context("failed to take the cluster down");
    tested.and(down)
}

/// First what the operator does, then whether it had exactly the rights for it.
fn all_tests(cache: &Cache, tally: &mut Tally, python: &Python) -> Result<()> {
    tally.run(tests(cache, python)?.args(["--lib", "--test=kubernetes", "--", AT_ONCE]))?;
    tally.run(tests(cache, python)?.arg("--test=rights"))
}

/// Runs those tests whose names contain `filter`, for `cargo xtask kind test`.
///
/// # Errors
/// When a test fails.
pub(crate) fn run(cache: &Cache, filter: Option<&str>, operator: &str) -> Result<()> {
    let mut command = tests(cache, &Python::ensure()?)?;
    command
        .arg("--test=kubernetes")
        .args(filter)
        .args(["--", AT_ONCE, "--nocapture"])
        .env("OXIDASK_E2E_OPERATOR", operator);
    programs::run(&mut command)
}

/// What has a number in the tests, at the size that takes long.
const LONG: [(&str, &str); 2] = [
    ("OXIDASK_SCALE_OPERATIONS", "60"),
    ("OXIDASK_DELETED_OBJECTS", "100"),
];

/// `cargo xtask soak kubernetes`.
///
/// # Errors
/// As [`stage`].
pub(crate) fn long(tally: &mut Tally, python: &Python) -> Result<()> {
    let cache = Cache::open()?;
    kind::up(&cache)?;
    images::build_and_load(images::TESTED)?;
    let chosen = ["scaling_", "objects_deleted_", "namespace_with_clusters"];
    tally.run(
        tests(&cache, python)?
            .args(["--test=kubernetes", "--", "--test-threads=1", "--nocapture"])
            .args(chosen)
            .envs(LONG),
    )
}

/// `cargo xtask soak upstream`: the tests of dask-kubernetes itself, on the cluster of `cargo xtask kind up`.
///
/// # Errors
/// When no cluster can be made, or a test fails.
pub(crate) fn upstream(tally: &mut Tally, python: &Python, rest: &[String]) -> Result<()> {
    let cache = Cache::open()?;
    kind::up(&cache)?;
    images::build_and_load(&["stock"])?;
    let operator = operator()?;
    let mut command = kind::reaching(&cache, &python.interpreter())?;
    command
        .arg(workspace::root().join("e2e/upstream/run.py"))
        .arg("--operator")
        .arg(operator)
        .args(["--image", "localhost/oxidask/stock:dev", "--our-crds"])
        .arg(workspace::root().join("crds"))
        .args(rest);
    tally.run(&mut command)
}

/// `cargo xtask bench operator`: our operator and the stock one on fake nodes.
///
/// # Errors
/// When no cluster can be made, or the measurement fails.
pub(crate) fn bench(python: &Python, rest: &[String]) -> Result<()> {
    let cache = Cache::open()?;
    kind::up(&cache)?;
    let kwok = kind::kwok(&cache)?;
    images::build_and_load(&["stock", "dask"])?;
    let operator = operator()?;
    let mut crds = kind::reaching(&cache, Path::new("kubectl"))?;
    crds.args(["apply", "--server-side", "--force-conflicts", "-f"]);
    programs::run(crds.arg(workspace::root().join("crds")))?;
    let packages = ["benches", "e2e/python"].map(|folder| workspace::root().join(folder));
    let packages = std::env::join_paths(packages).context("the workspace's path has a colon")?;
    programs::run(
        kind::reaching(&cache, &python.interpreter())?
            .args(["-m", "operators"])
            .args(rest)
            .arg("--operator")
            .arg(operator)
            .arg("--kwok")
            .arg(kwok.program)
            .arg("--kwok-module")
            .arg(kwok.module)
            .env("PYTHONPATH", packages),
    )
}

/// Our operator, built to be run on this machine.
fn operator() -> Result<PathBuf> {
    const PROGRAM: &str = "oxidask-operator";
    programs::run(&mut workspace::cargo(&[
        "build",
        "--release",
        "--locked",
        "--bin",
        PROGRAM,
    ]))?;
    let folder = Metadata::read()?.target_directory.join("release");
    Ok(folder.join(PROGRAM))
}

/// `cargo test` on the cluster of `cargo xtask kind up`, whatever `KUBECONFIG` names.
fn tests(cache: &Cache, python: &Python) -> Result<Command> {
    let mut command = workspace::cargo(&[
        "test",
        "--locked",
        "--package",
        "oxidask-e2e",
        "--features",
        "kubernetes",
    ]);
    command
        .env_remove("KUBECONFIG")
        .env("OXIDASK_STOCK_CHART", stock_chart(python)?)
        .env("OXIDASK_PYTHON", python.interpreter())
        .envs(command_program()?)
        .env("PATH", kind::path_with_tools(cache)?);
    Ok(command)
}

/// The command `oxidask`, as a variable for the tests that run it.
fn command_program() -> Result<Option<(&'static str, PathBuf)>> {
    Ok(binaries::command()?.map(|path| ("OXIDASK_CLI", path)))
}

/// The chart of the stock operator, which comes with the package dask-kubernetes.
fn stock_chart(python: &Python) -> Result<String> {
    let find = "import importlib.util; print(*importlib.util.find_spec('dask_kubernetes').submodule_search_locations)";
    let package = programs::read(&mut python.command(&["-c", find]))
        .context("dask-kubernetes is not in the Python environment")?;
    Ok(format!(
        "{package}/operator/deployment/helm/dask-kubernetes-operator"
    ))
}
