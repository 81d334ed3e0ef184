//! Keys, durations and compressed frames against what Dask's own functions answered (`dask/record.py`).

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use oxidask_protocol::Key;
use oxidask_protocol::compression::decompress;
use oxidask_protocol::wire::Seconds;
use serde_json::Value;

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/dask")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(name: &str) -> Vec<Value> {
    let text = String::from_utf8(file(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn key(hex: &str) -> Key {
    let wire: Vec<u8> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    Key::parse_wire(&wire).unwrap_or_else(|error| panic!("{hex}: {error:?}"))
}

#[test]
fn prefix_group_str_and_repr_are_dasks() {
    let records = lines("keys.jsonl");
    assert!(records.len() == 500);
    let mut wrong = Vec::new();
    for record in records {
        let key = key(record["wire"].as_str().unwrap());
        for (what, ours) in [
            ("prefix", key.prefix().into_owned()),
            ("group", key.group().into_owned()),
            ("str", key.to_string()),
            ("repr", format!("{key:?}")),
        ] {
            if record[what] != ours {
                wrong.push(format!(
                    "{what} of {}: {ours:?}, dask {}",
                    record["repr"], record[what]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_are_equal_exactly_where_python_says_so() {
    let groups: Vec<Vec<String>> = serde_json::from_slice(&file("equal-keys.json")).unwrap();
    for (i, group) in groups.iter().enumerate() {
        for (j, other) in groups.iter().enumerate() {
            for (a, b) in group.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                assert_eq!(key(a) == key(b), i == j, "{a} and {b}");
            }
        }
    }
}

#[test]
fn durations_are_dasks() {
    for record in lines("durations.jsonl") {
        let text = record[0].as_str().unwrap();
        // As text, since a JSON reader may be a bit off.
        let seconds = record[1].as_str().map(|digits| digits.parse().unwrap());
        assert_eq!(Seconds::parse(text), seconds, "{text:?}");
    }
}

#[test]
fn frames_compressed_by_pythons_libraries_open() {
    let plain = [
        ("empty", Vec::new()),
        ("one", b"x".to_vec()),
        ("text", b"dask ".repeat(20_000)),
        ("noise", file("noise.plain")),
        ("zeros", vec![0; 300_000]),
    ];
    for (name, data) in plain {
        for algorithm in ["lz4", "snappy", "zlib", "zstd"] {
            let frame = file(&format!("{name}.{algorithm}"));
            let limit = data.len() as u64;
            let opened = decompress(algorithm, &frame, limit)
                .unwrap_or_else(|error| panic!("{name}.{algorithm}: {error}"));
            assert_eq!(opened, data, "{name}.{algorithm}");
            if limit > 0 {
                decompress(algorithm, &frame, limit - 1).unwrap_err();
            }
            for cut in [0, frame.len() / 2, frame.len() - 1] {
                assert_ne!(
                    decompress(algorithm, &frame[..cut], limit).ok().as_deref(),
                    Some(&data[..]),
                    "{name}.{algorithm} cut to {cut} bytes"
                );
            }
        }
    }
}
