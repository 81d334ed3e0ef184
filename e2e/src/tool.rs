//! kubectl and helm, as a user calls them.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt, process::Command};

/// A program with the kubeconfig of the cluster under test.
#[derive(Clone, Debug)]
pub struct Tool {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
}

impl Tool {
    pub(crate) fn new(program: &Path, kubeconfig: Option<&Path>) -> Self {
        Self {
            program: program.to_path_buf(),
            kubeconfig: kubeconfig.map(Path::to_path_buf),
        }
    }

    /// The kubeconfig that it uses; `None`: as kubectl finds it itself.
    #[must_use]
    pub fn kubeconfig(&self) -> Option<&Path> {
        self.kubeconfig.as_deref()
    }

    /// What it prints on standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the message holds its standard error.
    pub async fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        self.feed(arguments, "").await
    }

    /// As [`run`](Self::run), with `input` on standard input.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn feed<S: AsRef<str>>(&self, arguments: &[S], input: &str) -> Result<String> {
        let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let line = words.join(" ");
        let mut command = Command::new(&self.program);
        command.args(&words);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start {}", self.program.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends before it has read all tells why by its exit status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child
            .wait_with_output()
            .await
            .with_context(|| format!("lost sight of {} {line}", self.name()))?;
        if !output.status.success() {
            bail!(
                "{} {line}: {}: {}",
                self.name(),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
    fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}
