//! The examples of scaling experiments as they are, small: native tasks, our own runner and its report.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use oxidask_e2e::{
    image,
    namespace::{Namespace, with_temp_namespace, with_temp_namespace_alone},
    operator,
    processes::program,
};
use oxidask_operator_api::ScalingExperimentStatus;

use crate::experiment::{gone, until};

/// The image that the examples name.
const IMAGE: &str = "ghcr.io/oxidask/dask:latest";

/// An example with the image under test, of another size, whose workers ask for next to no CPU: the nodes of the tests
/// share a small machine.
fn small(example: &str, size: &str, small_size: &str, replaced: &[(&str, &str)]) -> Result<String> {
    let image = image("dask");
    let worker = format!("image: {image}\n              resources: {{requests: {{cpu: 50m}}}}");
    let mut text = example.replacen(&format!("image: {IMAGE}"), &worker, 1);
    text = text.replace(IMAGE, &image);
    for (from, to) in [(size, small_size), ("repeats: 2", "repeats: 1")]
        .iter()
        .chain(replaced)
    {
        ensure!(text.contains(from), "the example has no {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

#[test]
fn example_of_pi_is_enough_although_the_operator_is_killed_in_the_middle() {
    with_temp_namespace_alone(async |namespace, alone| {
        operator::ensure(&namespace.cluster).await?;
        let example = include_str!("../../../examples/pi.yaml");
        namespace
            .apply(&small(example, "[2000000000]", "[20000000]", &[])?)
            .await?;
        let mut killed = false;
        let status = until(namespace, "pi", "the end", async |status| {
            if status.rows.len() > 2 && !killed {
                killed = true;
                operator::kill(namespace, alone).await?;
            }
            Ok(status.end_time.is_some())
        })
        .await?;
        ensure!(killed, "it ended before the operator was killed");
        is_complete(&status, 6)?;
        has_results(namespace, "pi").await?;
        namespace
            .kubectl(&["delete", "scalingexperiment", "pi"])
            .await?;
        gone(namespace, "pi", true).await
    });
}

#[test]
fn example_of_matmul_is_enough() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let example = include_str!("../../../examples/matmul.yaml");
        let chunk = [("chunk: 1000", "chunk: 300")];
        namespace
            .apply(&small(example, "[4000, 6000]", "[1200]", &chunk)?)
            .await?;
        let status = until(namespace, "matmul", "the end", async |status| {
            Ok(status.end_time.is_some())
        })
        .await?;
        is_complete(&status, 6)?;
        let moved =
            |row: &&oxidask_operator_api::experiment::ExperimentRow| row.bytes_moved > Some(0);
        ensure!(
            status.rows.iter().filter(moved).count() == 4,
            "workers on several nodes exchange blocks, one alone does not: {status:?}"
        );
        has_results(namespace, "matmul").await
    });
}

#[test]
fn native_cell_that_cannot_be_scheduled_is_reported_and_the_others_are_measured() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let example = include_str!("../../../examples/pi.yaml");
        let few = [
            ("nodes: [1, 2, 3]", "nodes: [1, 4]"),
            ("cores: [1, 2]", "cores: [1]"),
            ("startSeconds: 300", "startSeconds: 60"),
        ];
        namespace
            .apply(&small(example, "[2000000000]", "[20000000]", &few)?)
            .await?;
        let status = until(namespace, "pi", "the end", async |status| {
            Ok(status.end_time.is_some())
        })
        .await?;
        let failed: Vec<_> = status
            .rows
            .iter()
            .filter(|row| row.error.is_some())
            .collect();
        ensure!(
            failed.len() == 1 && failed[0].nodes == 4,
            "not the cell of four nodes alone: {status:?}"
        );
        ensure!(
            failed[0].reason.as_deref() == Some("Unschedulable"),
            "{status:?}"
        );
        ensure!(status.phase.as_deref() == Some("Complete"), "{status:?}");
        // The report draws what there is.
        has_results(namespace, "pi").await
    });
}

#[test]
fn command_makes_the_experiment_and_brings_its_results_home() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let folder = std::env::temp_dir().join(format!("{}-results", namespace.name));
        let mut command = tokio::process::Command::new(program("oxidask"));
        command.args([
            "experiment",
            "pi",
            "--kubernetes",
            "--namespace",
            &namespace.name,
        ]);
        command.args([
            "--image",
            &image("dask"),
            "--sizes",
            "20000000",
            "--repeats",
            "1",
        ]);
        command.args([
            "--workers",
            "1,2",
            "--threads",
            "1",
            "--name",
            "ours",
            "--output",
        ]);
        command.arg(&folder).kill_on_drop(true);
        if let Some(kubeconfig) = namespace.cluster.kubectl.kubeconfig() {
            command.env("KUBECONFIG", kubeconfig);
        }
        let output = command
            .output()
            .await
            .context("failed to start the command oxidask")?;
        let (text, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        ensure!(output.status.success(), "{text}\n{error}");
        ensure!(text.contains("speed-up"), "{text}");
        for name in ["table.json", "table.csv", "speedup.svg", "speedup.png"] {
            let length = std::fs::metadata(folder.join(name)).map_or(0, |about| about.len());
            ensure!(length > 0, "{name} is missing or empty");
        }
        std::fs::remove_dir_all(&folder)?;
        gone(namespace, "ours", true).await
    });
}

/// All cells have a time, a speed-up and what the runner counts.
fn is_complete(status: &ScalingExperimentStatus, cells: usize) -> Result<()> {
    ensure!(status.phase.as_deref() == Some("Complete"), "{status:?}");
    let counted = |row: &&oxidask_operator_api::experiment::ExperimentRow| {
        row.seconds.is_some() && row.tasks > Some(0) && row.compute_seconds.is_some()
    };
    ensure!(
        status.rows.iter().filter(counted).count() == cells,
        "{status:?}"
    );
    ensure!(
        status.table.iter().all(|row| row.speedup.is_some()),
        "{status:?}"
    );
    ensure!(
        status
            .summary
            .as_deref()
            .is_some_and(|summary| summary.contains("speed-up")),
        "no summary: {status:?}"
    );
    Ok(())
}

/// The report has left tables and plots.
async fn has_results(namespace: &Namespace, name: &str) -> Result<()> {
    let results = namespace
        .api::<ConfigMap>()
        .get(&format!("{name}-results"))
        .await?;
    let (data, plots) = (
        results.data.unwrap_or_default(),
        results.binary_data.unwrap_or_default(),
    );
    for (file, word) in [
        ("table.csv", "speedup"),
        ("table.json", "efficiency"),
        ("speedup.svg", "<svg"),
        ("summary.txt", "bound by"),
    ] {
        let has = data.get(file).is_some_and(|text| text.contains(word));
        ensure!(
            has,
            "{file} of the results does not hold {word:?}: {data:?}"
        );
    }
    let png = plots.get("speedup.png").map_or(&[][..], |png| &png.0);
    ensure!(png.starts_with(b"\x89PNG"), "speedup.png is no PNG");
    Ok(())
}
