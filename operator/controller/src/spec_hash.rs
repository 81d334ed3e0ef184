//! A short hash of what the user asked for, to see later that it changed.
//!
//! Taken of the input of a child, never of its rendering: another version of
//! the operator may render differently, and must not restart anybody's pods
//! because of it. Labels and annotations of the resource itself are left out,
//! because tools of delivery change them at every turn.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Sixteen hexadecimal digits that depend on the value alone, not on the
/// order of its members.
///
/// # Panics
/// If the value cannot be JSON, which those of the resource types can.
pub fn spec_hash(input: &impl Serialize) -> String {
    let value = serde_json::to_value(input).expect("a resource is plain data");
    let mut hasher = Sha256::new();
    feed(&value, &mut hasher);
    let digest = hasher.finalize();
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            hasher.update(b"{");
            for name in names {
                hasher.update(Value::from(name.as_str()).to_string());
                hasher.update(b":");
                feed(&members[name], hasher);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                feed(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        leaf => hasher.update(leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_members_does_not_count_and_order_of_items_does() {
        let hash = |text: &str| spec_hash(&serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(hash(r#"{"a":1,"b":[1,2]}"#), hash(r#"{"b":[1,2],"a":1}"#));
        assert_ne!(hash(r#"{"a":1,"b":[1,2]}"#), hash(r#"{"a":1,"b":[2,1]}"#));
        assert_ne!(hash(r#"{"a":["b"]}"#), hash(r#"{"a":"b"}"#));
    }
}
