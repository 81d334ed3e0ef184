//! What is read beside messages: keys, durations, addresses, compressed frames.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxidask_protocol::Key;
use oxidask_protocol::address::{Address, Scheme};
use oxidask_protocol::compression::decompress;
use oxidask_protocol::wire::Seconds;
use oxidask_protocol_fuzz::within;

/// Largest decompressed frame. Above it an error comes, whatever the frame declares.
const LIMIT: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((which, rest)) = input.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match which % 7 {
        0 => within(rest.len() * 128 + 4096, "key", || key(rest)),
        1 => {
            let seconds = Seconds::parse(&text);
            assert!(seconds.is_none_or(f64::is_finite));
            let _ = Seconds(seconds).to_duration();
        }
        2 => {
            if let Ok(address) = Address::parse(&text, Scheme::Tcp, Some(1)) {
                let shown = address.to_string();
                assert_eq!(
                    Address::parse(&shown, Scheme::Tls, None).as_ref(),
                    Ok(&address)
                );
            }
        }
        n => {
            let algorithm = ["lz4", "snappy", "zlib", "zstd"][usize::from(n) - 3];
            // The result grows by doubling, and zlib's own tables are 64 KiB.
            let opened = within(4 * LIMIT + rest.len() + (128 << 10), algorithm, || {
                decompress(algorithm, rest, LIMIT as u64)
            });
            assert!(
                opened.is_ok_and(|bytes| bytes.len() <= LIMIT) || opened_is_error(algorithm, rest)
            );
        }
    }
});

fn opened_is_error(algorithm: &str, rest: &[u8]) -> bool {
    decompress(algorithm, rest, LIMIT as u64).is_err_and(|error| !error.to_string().is_empty())
}

fn key(wire: &[u8]) {
    let Ok(key) = Key::parse_wire(wire) else {
        return;
    };
    let again = Key::parse_wire(key.wire()).expect("a key's own bytes are a key");
    assert_eq!(again, key);
    assert_eq!(again.wire(), key.wire());
    let _ = (key.prefix(), key.group(), key.to_string());
    if let Some(parts) = key.as_tuple() {
        assert_eq!(Key::tuple(parts), key);
    }
}
