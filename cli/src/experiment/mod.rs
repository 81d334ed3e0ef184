//! Scaling experiments: a workload over numbers of workers and threads, and what bounds it.

mod cell;
pub mod control;
mod kubernetes;
pub mod measure;
mod plot;
mod python;
mod report;
mod sweep;
mod table;
pub mod verdict;
pub mod workload;

use anyhow::Result;

use crate::args::Workload;

/// Runs an experiment.
///
/// # Errors
/// If a cell cannot be measured or the results cannot be written.
pub(crate) async fn run(workload: Workload) -> Result<()> {
    match workload {
        Workload::Matmul(matmul) if matmul.sweep.kubernetes.kubernetes => {
            kubernetes::matmul(&matmul).await
        }
        Workload::Pi(pi) if pi.sweep.kubernetes.kubernetes => kubernetes::pi(&pi).await,
        Workload::Python(python) if python.sweep.kubernetes.kubernetes => {
            kubernetes::python(&python).await
        }
        Workload::Matmul(matmul) => sweep::run(&matmul.sweep, &workload::matmul(&matmul)).await,
        Workload::Pi(pi) => sweep::run(&pi.sweep, &workload::pi(&pi)).await,
        Workload::Python(program) => python::run(&program).await,
        Workload::Cell(cell) => cell::run(&cell).await,
        Workload::Report(report) => report::run(&report),
    }
}
