//! `cargo xtask crds`: the CRDs, from the types of `operator/api`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a file differs from the types
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut stale = Vec::new();
    for (file, text) in files()? {
        if std::fs::read_to_string(&file).ok().as_deref() == Some(text.as_str()) {
            continue;
        }
        if args.check {
            stale.push(file.display().to_string());
            continue;
        }
        let folder = file.parent().context("the file is in a folder")?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        std::fs::write(&file, text)
            .with_context(|| format!("failed to write {}", file.display()))?;
        println!("wrote {}", file.display());
    }
    if !stale.is_empty() {
        bail!(
            "differs from operator/api, run `cargo xtask crds`: {}",
            stale.join(", ")
        );
    }
    Ok(())
}

/// Fails if a file differs from what `run` would write.
pub(crate) fn check() -> Result<()> {
    run(&Args { check: true })
}

/// Every generated file with its text: `crds/` and the chart's copy.
fn files() -> Result<Vec<(PathBuf, String)>> {
    let root = workspace::root();
    let mut files = Vec::new();
    for crd in oxidask_operator_api::crds() {
        let name = crd
            .spec
            .names
            .singular
            .clone()
            .context("a CRD has a singular name")?;
        files.push((root.join(format!("crds/{name}.yaml")), yaml(&crd)?));
        files.push((
            root.join(format!("charts/oxidask-crds/templates/{name}.yaml")),
            template(&crd)?,
        ));
    }
    Ok(files)
}

const HEADER: &str = "# Written by `cargo xtask crds` from operator/api.\n";

fn yaml(crd: &CustomResourceDefinition) -> Result<String> {
    Ok(format!("{HEADER}{}", serde_saphyr::to_string(crd)?))
}

/// The CRD as a template of the chart: kept when the chart is uninstalled,
/// because with a CRD every resource of its kind goes.
fn template(crd: &CustomResourceDefinition) -> Result<String> {
    let mut crd: Value = serde_json::to_value(crd)?;
    crd["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    let text = serde_saphyr::to_string(&crd)?;
    if text.contains("{{") {
        bail!("the CRD has braces that Helm would take for its own");
    }
    Ok(format!(
        "{HEADER}{{{{- if .Values.install }}}}\n{text}{{{{- end }}}}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_crds_are_those_of_the_types() {
        run(&Args { check: true }).unwrap();
    }
}
