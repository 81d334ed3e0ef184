//! The versions of distributed that peers may have.

use oxidask_protocol::Value;

use super::workers::distributed_version;

/// The oldest, whose graphs are expressions as those of all later ones.
const OLDEST: (u32, u32) = (2025, 4);

/// The newest that was tried.
const NEWEST: (u32, u32) = (2026, 8);

/// Why a peer with these versions is refused; `None` if it is not. One that states no version speaks the protocol of
/// the newest.
pub fn refusal(versions: &Value, who: &str) -> Option<String> {
    let version = distributed_version(versions)?;
    let number = parse(version)?;
    let side = if number < OLDEST {
        "older"
    } else if number > NEWEST {
        "newer"
    } else {
        return None;
    };
    let ours = env!("CARGO_PKG_VERSION");
    Some(format!(
        "{who} has distributed {version}, which is {side} than what this scheduler (oxidask {ours}) speaks: \
         distributed {} to {}; install one of these there",
        name(OLDEST),
        name(NEWEST)
    ))
}

/// Year and month of a version such as `2026.8.0` or `2026.8.0+3.gabc`; `None` for any other form, which nobody
/// releases.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn name((year, month): (u32, u32)) -> String {
    format!("{year}.{month}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(version: &str) -> Value {
        let packages = Value::map([("distributed", Value::from(version))]);
        Value::map([("packages", packages)])
    }

    #[test]
    fn versions_of_the_range_are_let_in() {
        for version in [
            "2025.4.0",
            "2025.12.0",
            "2026.8.0",
            "2026.8.0+3.gabcdef0",
            "local",
        ] {
            assert_eq!(refusal(&with(version), "client c"), None, "{version}");
        }
        assert_eq!(refusal(&Value::Nil, "client c"), None);
    }

    #[test]
    fn others_are_told_their_version_and_ours() {
        for (version, side) in [
            ("2024.12.1", "older"),
            ("2025.3.0", "older"),
            ("2026.9.0", "newer"),
        ] {
            let text = refusal(&with(version), "worker tcp://a:1").expect(version);
            for part in [version, side, "worker tcp://a:1", "2025.4", "2026.8"] {
                assert!(text.contains(part), "{text:?} lacks {part:?}");
            }
        }
    }
}
