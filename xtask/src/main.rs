//! The project's own commands; `cargo xtask` lists them.

mod bench;
mod binaries;
mod check;
mod cluster;
mod crds;
mod demo;
mod env;
mod fix;
mod fuzz;
mod images;
mod kind;
mod kubernetes;
mod load;
mod metadata;
mod process;
mod soak;
mod stage;
mod static_binaries;
mod test;
mod tidy;
mod versions;
mod wheel;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "The project's own commands",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A new command is a variant here, with the sentence that the list shows, and a line in `main`.
#[derive(Subcommand)]
enum Command {
    /// Start a scheduler and workers, run the tutorial on them, print what it gave
    Demo(demo::Args),
    /// Run what CI runs: the check, then every test once at small size
    Test(test::Args),
    /// Check format, lints, docs and the architecture, without writing anything
    Check,
    /// Format and apply the lints' suggestions: the only command that writes
    Fix,
    /// Check the architecture alone: dependency directions, what the cores may use
    Tidy,
    /// Run the long form of a test: fuzzing, conformance, chaos, load
    Soak(soak::Args),
    /// Measure one row of the figures against stock Dask, alternating
    Bench(bench::Args),
    /// Make the project's Python environment if it is missing, and print its interpreter
    Env,
    /// Build the Python wheel with our programs in it
    Wheel(wheel::Args),
    /// Write the CRDs of `operator/api` to `crds/` and to their chart
    Crds(crds::Args),
    /// Build the container images
    Images(images::Args),
    /// Make, remove, load or look at the Kubernetes cluster of the tests
    #[command(subcommand)]
    Kind(kind::Kind),
    #[command(hide = true)]
    Guard(process::GuardArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Check => check::run(),
        Command::Fix => fix::run(),
        Command::Tidy => tidy::run(),
        Command::Soak(args) => soak::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Env => env::print(),
        Command::Wheel(args) => wheel::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Kind(command) => kind::run(command),
        Command::Guard(args) => process::guard(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
