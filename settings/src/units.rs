//! Sizes and durations as users write them.

use std::time::Duration;

use oxidask_protocol::wire::Seconds;

/// Reads `"5 MB"`, `"1kiB"`, `"100"` as Dask's `parse_bytes` does; `kB` is 1000, `kiB` 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.replace(' ', "");
    let split = text
        .rfind(|c: char| !c.is_alphabetic())
        .map_or(0, |last| last + 1);
    let (number, unit) = text.split_at(split);
    let number: f64 = if number.is_empty() {
        1.0
    } else {
        number.parse().ok()?
    };
    let unit = unit.to_lowercase();
    let power = |c: char| "kmgtpe".find(c).map(|index| index as i32 + 1);
    let factor = match unit.trim_end_matches('b') {
        "" => 1.0,
        prefix if prefix.len() == 1 => 1000_f64.powi(power(prefix.chars().next()?)?),
        prefix if prefix.len() == 2 && prefix.ends_with('i') => {
            1024_f64.powi(power(prefix.chars().next()?)?)
        }
        _ => return None,
    };
    let bytes = number * factor;
    (bytes >= 0.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Reads `"5s"`, `"100 ms"`, `"1 hour"` or `"2.5"` (seconds) as Dask's `parse_timedelta` does.
pub fn parse_duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(Seconds::parse(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_decimal_and_binary_units() {
        for (text, bytes) in [
            ("100", 100),
            ("1kB", 1000),
            ("1 kiB", 1024),
            ("1k", 1000),
            ("5 MB", 5_000_000),
            ("1.5GiB", 3 << 29),
            ("1e3", 1000),
            ("MB", 1_000_000),
            ("10b", 10),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["5 foos", "x1", "-1MB", "1 mbib"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(parse_duration("5 minutes"), Some(Duration::from_secs(300)));
        assert_eq!(parse_duration("100 ms"), Some(Duration::from_millis(100)));
        assert_eq!(parse_duration("-1s"), None);
        assert_eq!(parse_duration("soon"), None);
    }
}
