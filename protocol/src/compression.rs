//! Decompression of sub-frames, for data that a peer compressed for somebody else.

use bytes::Bytes;

use crate::error::Place;
use crate::{DecodeError, DecodeErrorKind};

/// Decompresses one sub-frame. `algorithm` is its entry in the header's `compression`.
///
/// # Errors
/// If the algorithm is unknown, the data are damaged, or they would become larger than `limit` bytes.
pub fn decompress(algorithm: &str, data: &[u8], limit: u64) -> Result<Bytes, DecodeError> {
    let damaged = |reason: String| {
        DecodeError::at_place(
            Place::Apart,
            DecodeErrorKind::Decompress {
                algorithm: algorithm.chars().take(32).collect(),
                reason,
            },
        )
    };
    let too_large = |declared: u64| {
        DecodeError::at_place(
            Place::Apart,
            DecodeErrorKind::Limit {
                what: "bytes of a decompressed frame",
                declared,
                limit,
            },
        )
    };
    let out = match algorithm {
        "lz4" => {
            let (size, rest) =
                lz4_flex::block::uncompressed_size(data).map_err(|e| damaged(e.to_string()))?;
            if size as u64 > limit {
                return Err(too_large(size as u64));
            }
            // A block of n bytes cannot become more than 255 n, so a small frame cannot claim a large buffer.
            if size > rest.len().saturating_mul(255) {
                return Err(damaged(format!(
                    "{} bytes cannot become {size}",
                    rest.len()
                )));
            }
            lz4_flex::block::decompress(rest, size).map_err(|e| damaged(e.to_string()))?
        }
        "snappy" => {
            let size = snap::raw::decompress_len(data).map_err(|e| damaged(e.to_string()))?;
            if size as u64 > limit {
                return Err(too_large(size as u64));
            }
            if size > data.len().saturating_mul(64) {
                return Err(damaged(format!(
                    "{} bytes cannot become {size}",
                    data.len()
                )));
            }
            snap::raw::Decoder::new()
                .decompress_vec(data)
                .map_err(|e| damaged(e.to_string()))?
        }
        "zstd" => {
            let decoder =
                zstd::stream::read::Decoder::new(data).map_err(|e| damaged(e.to_string()))?;
            read_limited(decoder, limit)
                .map_err(damaged)?
                .ok_or_else(|| too_large(limit + 1))?
        }
        "zlib" => read_limited(flate2::read::ZlibDecoder::new(data), limit)
            .map_err(damaged)?
            .ok_or_else(|| too_large(limit + 1))?,
        _ => {
            return Err(damaged(
                "unknown algorithm; known are lz4, snappy, zlib and zstd".to_owned(),
            ));
        }
    };
    Ok(out.into())
}

/// Reads to the end, or gives `None` once more than `limit` bytes came out.
fn read_limited(reader: impl std::io::Read, limit: u64) -> Result<Option<Vec<u8>>, String> {
    use std::io::Read;
    let mut out = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(|e| e.to_string())?;
    Ok((out.len() as u64 <= limit).then_some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_gives_back_what_was_compressed_and_holds_its_limit() {
        let data = b"dask ".repeat(5000);
        let zlib = {
            use std::io::Write;
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&data).unwrap();
            encoder.finish().unwrap()
        };
        for (name, compressed) in [
            ("lz4", lz4_flex::block::compress_prepend_size(&data)),
            (
                "snappy",
                snap::raw::Encoder::new().compress_vec(&data).unwrap(),
            ),
            ("zstd", zstd::encode_all(&data[..], 1).unwrap()),
            ("zlib", zlib),
        ] {
            assert_eq!(
                decompress(name, &compressed, 25_000).unwrap(),
                data,
                "{name}"
            );
            let error = decompress(name, &compressed, 24_999).unwrap_err();
            assert!(
                matches!(error.kind, DecodeErrorKind::Limit { .. }),
                "{name}: {error}"
            );
            assert!(
                decompress(name, &compressed[..compressed.len() / 2], 25_000).is_err(),
                "{name}"
            );
        }
        assert!(decompress("lzma", &data, 1).is_err());
    }
}
