//! Unsafe code stands where memory is shared, computed on or given back, and says why it is sound.

use super::sources::Source;

/// Folders and files that may hold unsafe code.
const PLACES: &[&str] = &[
    "worker/kernels",
    "worker/server",
    "python",
    "settings/src/process/spare_memory.rs",
];

pub(super) fn check(files: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| {
        file.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (index, _) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| opens_unsafe(line))
        {
            let place = format!("{}:{}", file.path.display(), index + 1);
            if !PLACES.iter().any(|folder| file.path.starts_with(folder)) {
                findings.push(format!("{place}: unsafe code belongs into the kernels and shared memory only; use a safe crate such as rustix"));
            }
            let explained = lines[..index]
                .iter()
                .rev()
                .take_while(|above| is_comment_or_attribute(above))
                .any(|above| above.contains("SAFETY:"));
            if !explained {
                findings.push(format!(
                    "{place}: say why this is sound in a `// SAFETY:` comment right above it"
                ));
            }
        }
    }
    findings
}

/// Whether a line of code opens an unsafe block, function or implementation.
fn opens_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    // The word is put together, so that this file does not find itself.
    let word = concat!("un", "safe");
    [" {", " fn ", " impl "].iter().any(|after| {
        code.split_once(&format!("{word}{after}"))
            .is_some_and(|(before, _)| {
                !before.contains('"')
                    && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            })
    })
}

fn is_comment_or_attribute(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("//") || line.starts_with("#[")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&[Source {
            path: path.into(),
            text: text.to_owned(),
        }])
        .len()
    }

    #[test]
    fn unsafe_code_outside_its_places_or_without_a_reason_is_found() {
        let block = concat!("let x = un", "safe { read(p) };\n");
        assert_eq!(findings("protocol/src/frame.rs", block), 2);
        assert_eq!(findings("worker/kernels/src/chunk.rs", block), 1);
        assert_eq!(
            findings(
                "worker/kernels/src/chunk.rs",
                &format!("// SAFETY: p is aligned.\n{block}")
            ),
            0
        );
    }
}
