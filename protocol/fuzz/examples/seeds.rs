//! Writes the recorded messages to `corpus/`, for the fuzzer to begin with.

use std::path::Path;

use bytes::Bytes;
use oxidask_protocol::frame::{FrameDecoder, Limits};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = |target: &str| -> std::io::Result<std::path::PathBuf> {
        let folder = here.join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let (frames, bodies, messages) = (corpus("frames")?, corpus("bodies")?, corpus("messages")?);
    for file in std::fs::read_dir(here.join("../tests/golden"))? {
        let file = file?.path();
        if file
            .extension()
            .is_none_or(|extension| extension != "jsonl")
        {
            continue;
        }
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        for (i, line) in std::fs::read_to_string(&file)?.lines().enumerate() {
            let record: serde_json::Value = serde_json::from_str(line)?;
            let Some(hex) = record["hex"].as_str() else {
                continue;
            };
            let wire = (0..hex.len() / 2)
                .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16))
                .collect::<Result<Vec<u8>, _>>()?;
            for folder in [&frames, &bodies] {
                std::fs::write(
                    folder.join(format!("{name}-{i}")),
                    [&[200], &wire[..]].concat(),
                )?;
            }
            if let Some(input) = oxidask_protocol_fuzz::input(&cut(&wire)?) {
                std::fs::write(messages.join(format!("{name}-{i}")), input)?;
            }
        }
    }
    let parts = corpus("parts")?;
    for file in std::fs::read_dir(here.join("../tests/dask"))? {
        let file = file?.path();
        let which = match file.extension().and_then(|extension| extension.to_str()) {
            Some("lz4") => 3,
            Some("snappy") => 4,
            Some("zlib") => 5,
            Some("zstd") => 6,
            _ => continue,
        };
        let name = file.file_name().unwrap_or_default();
        std::fs::write(
            parts.join(name),
            [&[which], &std::fs::read(&file)?[..]].concat(),
        )?;
    }
    Ok(())
}

fn cut(wire: &[u8]) -> Result<Vec<Bytes>, Box<dyn std::error::Error>> {
    let mut decoder = FrameDecoder::new(Limits::default());
    decoder.space().0.extend_from_slice(wire);
    Ok(decoder.poll()?.ok_or("a recorded message is not whole")?)
}
