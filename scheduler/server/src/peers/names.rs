//! Names of workers: text or numbers, never mixed up.

use oxidask_protocol::Value;

/// A worker's name as a key: the int 1 and the text "1" are different names, as in Python.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerName {
    /// An int (or a bool, which Python takes for one, or a whole float).
    Int(i128),
    /// A text.
    Text(String),
}

impl PeerName {
    /// Reads a name; `None` if it is neither text nor number.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Str(text) => Some(Self::Text(text.clone())),
            Value::Int(number) => Some(Self::Int(*number)),
            Value::Bool(yes) => Some(Self::Int(i128::from(*yes))),
            Value::Float(number) if number.fract() == 0.0 => Some(Self::Int(*number as i128)),
            Value::Float(number) => Some(Self::Text(number.to_string())),
            _ => None,
        }
    }

    /// The name as Python's `str()` shows it.
    pub fn text(&self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_digits_are_different_names() {
        let number = PeerName::from_value(&Value::Int(1));
        assert_ne!(number, PeerName::from_value(&"1".into()));
        assert_eq!(number, PeerName::from_value(&Value::Float(1.0)));
        assert_eq!(number.map(|name| name.text()), Some("1".to_owned()));
    }
}
