//! Links between our documents lead to files that exist.

use std::path::Path;

use super::sources::Source;

pub(super) fn check(root: &Path, files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| {
        file.path
            .extension()
            .is_some_and(|extension| extension == "md")
    }) {
        let folder = file.path.parent().unwrap_or(Path::new(""));
        for target in relative_links(&file.text) {
            if !root.join(folder).join(target).exists() {
                findings.push(format!(
                    "{}: the link to {target} leads nowhere; correct it or write that file",
                    file.path.display()
                ));
            }
        }
    }
    findings
}

/// Targets of `[text](target)` that are paths, without their anchors.
fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| {
            !target.is_empty()
                && !target.contains("://")
                && !target.starts_with("mailto:")
                && !target.contains(char::is_whitespace)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_are_links_to_check() {
        let text = "[a](docs/a.md#part) [b](https://example.org) [c](#here) [d](../d.md)";
        assert_eq!(
            relative_links(text).collect::<Vec<_>>(),
            ["docs/a.md", "../d.md"]
        );
    }
}
