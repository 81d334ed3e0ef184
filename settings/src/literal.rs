//! Values of `DASK_…` variables, read as Python's `ast.literal_eval` reads them.

use indexmap::IndexMap;

use crate::Tree;

/// Deepest nesting of lists and dicts.
const MAX_DEPTH: usize = 50;

/// The value that a variable's text stands for; a text that is no literal stands for itself.
pub(crate) fn interpret(text: &str) -> Tree {
    if let Some(value) = literal(text) {
        return value;
    }
    match text.to_lowercase().as_str() {
        "none" | "null" => Tree::Nil,
        "false" => Tree::Bool(false),
        "true" => Tree::Bool(true),
        _ => Tree::Text(text.to_owned()),
    }
}

fn literal(text: &str) -> Option<Tree> {
    let mut parser = Parser {
        rest: text.trim_start_matches([' ', '\t']),
    };
    let value = parser.value(0)?;
    parser.skip_space();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Option<Tree> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match self.rest.chars().next()? {
            '[' => self.sequence('[', ']', depth).map(Tree::List),
            '(' => self.parenthesis(depth),
            '{' => self.braces(depth),
            '"' | '\'' => self.text().map(Tree::Text),
            'b' | 'r' | 'u' if self.rest[1..].starts_with(['"', '\'']) => {
                let raw = self.rest.starts_with('r');
                self.rest = &self.rest[1..];
                if raw {
                    self.raw_text().map(Tree::Text)
                } else {
                    self.text().map(Tree::Text)
                }
            }
            '+' | '-' | '.' | '0'..='9' => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Option<Tree> {
        let end = self
            .rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let value = match &self.rest[..end] {
            "None" => Tree::Nil,
            "True" => Tree::Bool(true),
            "False" => Tree::Bool(false),
            _ => return None,
        };
        self.rest = &self.rest[end..];
        Some(value)
    }

    fn number(&mut self) -> Option<Tree> {
        let mut negative = false;
        while let Some(sign @ ('+' | '-')) = self.rest.chars().next() {
            negative ^= sign == '-';
            self.rest = &self.rest[1..];
            self.skip_space();
        }
        let mut end = 0;
        let bytes = self.rest.as_bytes();
        while let Some(&byte) = bytes.get(end) {
            let exponent_sign = matches!(byte, b'+' | b'-')
                && matches!(bytes.get(end.wrapping_sub(1)), Some(b'e' | b'E'))
                && !self.rest.starts_with("0x");
            if !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'_') && !exponent_sign {
                break;
            }
            end += 1;
        }
        let token = &self.rest[..end];
        self.rest = &self.rest[end..];
        if token.starts_with('_') || token.ends_with('_') || token.contains("__") {
            return None;
        }
        let digits = token.replace('_', "");
        let lower = digits.to_lowercase();
        let sign = if negative { -1 } else { 1 };
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if let Some(digits) = lower.strip_prefix(prefix) {
                return i64::from_str_radix(digits, radix)
                    .ok()
                    .map(|n| Tree::Int(sign * n));
            }
        }
        if lower.bytes().all(|b| b.is_ascii_digit()) {
            let leading_zero = lower.len() > 1 && lower.starts_with('0');
            if lower.is_empty() || (leading_zero && lower.bytes().any(|b| b != b'0')) {
                return None;
            }
            return match lower.parse::<i64>() {
                Ok(n) => Some(Tree::Int(sign * n)),
                Err(_) => lower
                    .parse()
                    .ok()
                    .map(|x: f64| Tree::Float(sign as f64 * x)),
            };
        }
        // Rust reads "inf" and "nan" as numbers, Python does not.
        if !lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return None;
        }
        lower
            .parse()
            .ok()
            .map(|x: f64| Tree::Float(sign as f64 * x))
    }

    fn text(&mut self) -> Option<String> {
        let quote = self.quote()?;
        let mut text = String::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                self.rest = rest;
                return Some(text);
            }
            match self.take()? {
                '\\' => match self.take()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    '0' => text.push('\0'),
                    '\n' => {}
                    'x' => text.push(self.hex(2)?),
                    'u' => text.push(self.hex(4)?),
                    'U' => text.push(self.hex(8)?),
                    escaped @ ('\\' | '\'' | '"') => text.push(escaped),
                    other => {
                        text.push('\\');
                        text.push(other);
                    }
                },
                other => text.push(other),
            }
        }
    }

    fn raw_text(&mut self) -> Option<String> {
        let quote = self.quote()?;
        let end = self.rest.find(quote)?;
        let text = self.rest[..end].to_owned();
        self.rest = &self.rest[end + quote.len()..];
        Some(text)
    }

    fn quote(&mut self) -> Option<&'static str> {
        let quote = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| self.rest.starts_with(quote))?;
        self.rest = &self.rest[quote.len()..];
        Some(quote)
    }

    fn hex(&mut self, digits: usize) -> Option<char> {
        let code = self.rest.get(..digits)?;
        self.rest = &self.rest[digits..];
        char::from_u32(u32::from_str_radix(code, 16).ok()?)
    }

    fn sequence(&mut self, open: char, close: char, depth: usize) -> Option<Vec<Tree>> {
        self.expect(open)?;
        let mut values = Vec::new();
        loop {
            if self.expect(close).is_some() {
                return Some(values);
            }
            values.push(self.value(depth + 1)?);
            if self.expect(',').is_none() {
                self.expect(close)?;
                return Some(values);
            }
        }
    }

    /// A tuple, or a value in parentheses.
    fn parenthesis(&mut self, depth: usize) -> Option<Tree> {
        let before = self.rest;
        let mut values = self.sequence('(', ')', depth)?;
        let text = &before[..before.len() - self.rest.len()];
        let inside = text.trim_end_matches(')').trim_end();
        if values.len() == 1 && !inside.ends_with(',') {
            return values.pop();
        }
        Some(Tree::List(values))
    }

    /// A dict or a set.
    fn braces(&mut self, depth: usize) -> Option<Tree> {
        self.expect('{')?;
        let mut map = IndexMap::new();
        let mut set = Vec::new();
        loop {
            if self.expect('}').is_some() {
                break;
            }
            let key = self.value(depth + 1)?;
            if self.expect(':').is_some() {
                let key = match key {
                    Tree::Text(text) => text,
                    other => other.to_string(),
                };
                map.insert(key, self.value(depth + 1)?);
            } else {
                set.push(key);
            }
            if self.expect(',').is_none() {
                self.expect('}')?;
                break;
            }
        }
        match (map.is_empty(), set.is_empty()) {
            (_, true) => Some(Tree::Map(map)),
            (true, false) => Some(Tree::List(set)),
            (false, false) => None,
        }
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Tree {
        Tree::Text(value.to_owned())
    }

    #[test]
    fn texts_are_read_as_python_reads_them() {
        let one_two = Tree::List(vec![Tree::Int(1), Tree::Int(2)]);
        let dict = Tree::Map([("a".to_owned(), Tree::Int(1))].into_iter().collect());
        let table = [
            ("1", Tree::Int(1)),
            ("-1", Tree::Int(-1)),
            ("1_000", Tree::Int(1000)),
            ("0x1F", Tree::Int(31)),
            ("007", text("007")),
            ("1.5", Tree::Float(1.5)),
            (".5", Tree::Float(0.5)),
            ("1e-3", Tree::Float(1e-3)),
            ("1e400", Tree::Float(f64::INFINITY)),
            ("inf", text("inf")),
            ("nan", text("nan")),
            ("None", Tree::Nil),
            ("null", Tree::Nil),
            ("TRUE", Tree::Bool(true)),
            ("False", Tree::Bool(false)),
            ("yes", text("yes")),
            ("5s", text("5s")),
            ("10 MiB", text("10 MiB")),
            ("1.2.3", text("1.2.3")),
            ("tcp://127.0.0.1:8786", text("tcp://127.0.0.1:8786")),
            ("", text("")),
            ("'5'", text("5")),
            (r#""a\n\x41\u00e9""#, text("a\nAé")),
            ("'a", text("'a")),
            ("[1, 2]", one_two.clone()),
            ("[1, 2,]", one_two.clone()),
            ("(1, 2)", one_two.clone()),
            ("{1, 2}", one_two),
            ("(1)", Tree::Int(1)),
            ("(1,)", Tree::List(vec![Tree::Int(1)])),
            ("[]", Tree::List(vec![])),
            ("{'a': 1}", dict),
            ("[1, x]", text("[1, x]")),
            ("[1] 2", text("[1] 2")),
            (" 1 ", Tree::Int(1)),
        ];
        for (input, value) in table {
            assert_eq!(interpret(input), value, "{input:?}");
        }
    }

    #[test]
    fn deep_nesting_is_taken_as_text() {
        let deep = "[".repeat(100_000);
        assert_eq!(interpret(&deep), text(&deep));
    }
}
