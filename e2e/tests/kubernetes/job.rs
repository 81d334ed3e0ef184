//! A DaskJob from its creation to its end.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace},
    operator, wait,
};
use oxidask_operator_api::DaskJob;

use crate::manifest;

const DEADLINE: Duration = Duration::from_secs(90);

#[test]
fn job_that_succeeds_takes_its_cluster_away_and_keeps_its_output() {
    with_temp_namespace(async |namespace| {
        let program = "from dask.distributed import Client; print('sum', Client().submit(sum, [1, 2]).result())";
        run(namespace, program, "Successful").await?;
        until_cluster_is_gone(namespace).await?;
        let output = namespace
            .kubectl(&["logs", "-l", "dask.org/component=job-runner"])
            .await?;
        ensure!(output.contains("sum 3"), "{output}");
        Ok(())
    });
}

#[test]
fn job_that_fails_is_failed_and_takes_its_cluster_away() {
    with_temp_namespace(async |namespace| {
        run(namespace, "raise SystemExit(3)", "Failed").await?;
        until_cluster_is_gone(namespace).await
    });
}

async fn run(namespace: &Namespace, program: &str, end: &str) -> Result<()> {
    operator::ensure(&namespace.cluster).await?;
    namespace
        .apply(&manifest::job("once", &image("stock"), 1, program))
        .await?;
    let jobs = namespace.api::<DaskJob>();
    wait::until(format!("job {end}"), DEADLINE, async || {
        let status = jobs.get("once").await?.status.unwrap_or_default();
        let seen = status.job_status.unwrap_or_default();
        Ok(if seen == end { Ok(()) } else { Err(seen) })
    })
    .await
}

async fn until_cluster_is_gone(namespace: &Namespace) -> Result<()> {
    let label = "dask.org/cluster-name=once,dask.org/component in (scheduler, worker)";
    namespace
        .until_none::<Pod>(label, Duration::from_secs(30))
        .await
}
