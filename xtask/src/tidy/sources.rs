//! The text files of the project, read once for all checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace;

/// A file that git tracks or would track.
pub(super) struct Source {
    /// From the workspace's root.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Source {
    /// Whether it is Rust code that ends in a binary or library, tests excluded.
    pub(super) fn is_code_of(&self, folder: &str) -> bool {
        self.path.starts_with(Path::new(folder).join("src"))
            && self
                .path
                .extension()
                .is_some_and(|extension| extension == "rs")
            && !self
                .path
                .components()
                .any(|part| part.as_os_str() == "tests")
            && self
                .path
                .file_stem()
                .is_some_and(|stem| stem != "tests" && stem != "testing")
    }

    /// Numbered lines of code: comments and what follows `mod tests` left out.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut previous = "";
        self.text
            .lines()
            .enumerate()
            .take_while(move |(_, line)| {
                let tests =
                    previous.trim() == "#[cfg(test)]" && line.trim_start().starts_with("mod ");
                previous = line;
                !tests
            })
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// All Rust and Markdown files of the project.
pub(super) fn read(root: &Path) -> Result<Vec<Source>> {
    let output = workspace::command("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
            "*.md",
        ])
        .output()
        .context("failed to run git ls-files")?;
    let mut sources = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let path = PathBuf::from(line);
        // A file that was deleted but not yet staged is listed and missing.
        if let Ok(text) = std::fs::read_to_string(root.join(&path)) {
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_lines_end_at_the_tests_and_skip_comments() {
        let source = Source {
            path: "scheduler/core/src/lib.rs".into(),
            text: "//! doc\nuse a;\n// why\nfn f() {}\n#[cfg(test)]\nmod tests {\n use b;\n}\n"
                .to_owned(),
        };
        let lines: Vec<_> = source.code_lines().collect();
        assert_eq!(
            lines,
            [(2, "use a;"), (4, "fn f() {}"), (5, "#[cfg(test)]")]
        );
    }
}
