//! `kubectl` as the way to the API server: it knows the user's contexts and ways to log in.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// The resource's full name.
const RESOURCE: &str = "scalingexperiments.oxidask.io";

/// Runs `kubectl` in one namespace.
pub(super) struct Kubectl {
    program: String,
    /// The context's own if not given.
    namespace: Option<String>,
}

impl Kubectl {
    pub(super) fn new(namespace: Option<String>) -> Self {
        Self {
            program: std::env::var("OXIDASK_KUBECTL").unwrap_or_else(|_| "kubectl".to_owned()),
            namespace,
        }
    }

    /// Makes an object that must not be there yet.
    ///
    /// # Errors
    /// With what kubectl says.
    pub(super) async fn create(&self, manifest: &Value) -> Result<()> {
        self.run(&["create", "-f", "-"], Some(&manifest.to_string()))
            .await
            .map(|_| ())
    }

    /// The status of an experiment, nil if it has none.
    ///
    /// # Errors
    /// With what kubectl says, if there is no such experiment for example.
    pub(super) async fn status(&self, name: &str) -> Result<Value> {
        let mut experiment = self.get(RESOURCE, name).await?;
        Ok(experiment["status"].take())
    }

    /// A ConfigMap.
    ///
    /// # Errors
    /// With what kubectl says.
    pub(super) async fn config_map(&self, name: &str) -> Result<Value> {
        self.get("configmap", name).await
    }

    /// Deletes an experiment and, through owner references, all that belongs to it.
    ///
    /// # Errors
    /// With what kubectl says.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        let arguments = [
            "delete",
            RESOURCE,
            name,
            "--wait=false",
            "--ignore-not-found",
        ];
        self.run(&arguments, None).await.map(|_| ())
    }

    async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self.run(&["get", kind, name, "-o", "json"], None).await?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {kind} gave no JSON"))
    }

    async fn run(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(self.namespace.iter().flat_map(|name| ["--namespace", name]))
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().with_context(|| {
            format!(
                "failed to start {}: install kubectl, or name it in OXIDASK_KUBECTL",
                self.program
            )
        })?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!(
                "kubectl {} failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
