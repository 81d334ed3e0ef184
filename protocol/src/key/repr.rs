//! Keys as Python's `repr` shows them.

use std::fmt::{self, Write};

use crate::DecodeError;
use crate::msgpack::Reader;

/// Writes the `repr` of a key given as msgpack.
pub(super) fn write(wire: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = String::new();
    match value(&mut Reader::of_slice(wire), &mut text) {
        Ok(()) => f.write_str(&text),
        Err(_) => Err(fmt::Error),
    }
}

/// The `repr` of a str.
pub(crate) fn of_text(text: &str) -> String {
    let mut out = String::new();
    write_text(text, &mut out);
    out
}

fn value(r: &mut Reader<'_>, out: &mut String) -> Result<(), DecodeError> {
    match r.peek()? {
        0xa0..=0xbf | 0xd9..=0xdb => write_text(r.str()?, out),
        0xc4..=0xc6 => write_bytes(r.bin()?, out),
        0xc0 => {
            r.take_nil()?;
            out.push_str("None");
        }
        0xc2 | 0xc3 => out.push_str(if r.bool()? { "True" } else { "False" }),
        0xca | 0xcb => write_float(r.f64()?, out),
        0x90..=0x9f | 0xdc | 0xdd => {
            let length = r.array()?;
            out.push('(');
            for i in 0..length {
                if i > 0 {
                    out.push_str(", ");
                }
                value(r, out)?;
            }
            out.push_str(if length == 1 { ",)" } else { ")" });
        }
        _ => push(out, format_args!("{}", r.int()?)),
    }
    Ok(())
}

fn push(out: &mut String, arguments: fmt::Arguments<'_>) {
    out.write_fmt(arguments)
        .expect("writing to a String cannot fail");
}

/// Single quotes, unless the text has those and no double ones.
fn quote(has_single: bool, has_double: bool) -> char {
    if has_single && !has_double { '"' } else { '\'' }
}

fn write_text(text: &str, out: &mut String) {
    let quote = quote(text.contains('\''), text.contains('"'));
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if is_printable(c) => out.push(c),
            '\0'..='\u{ff}' => push(out, format_args!("\\x{:02x}", c as u32)),
            '\u{100}'..='\u{ffff}' => push(out, format_args!("\\u{:04x}", c as u32)),
            c => push(out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`, as near as the standard library knows: letters, marks, signs, but no controls,
/// separators, private or unassigned characters.
fn is_printable(c: char) -> bool {
    c.is_alphanumeric() || (!c.is_control() && !c.is_whitespace() && c.escape_debug().len() == 1)
}

fn write_bytes(bytes: &[u8], out: &mut String) {
    let quote = quote(bytes.contains(&b'\''), bytes.contains(&b'"'));
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b if char::from(b) == quote => out.extend(['\\', quote]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => push(out, format_args!("\\x{byte:02x}")),
        }
    }
    out.push(quote);
}

/// The shortest digits that give the number back, with an exponent below 1e-4 and from 1e16 on.
fn write_float(value: f64, out: &mut String) {
    if value.is_nan() {
        out.push_str("nan");
    } else if value == 0.0 || value.is_infinite() || (1e-4..1e16).contains(&value.abs()) {
        push(out, format_args!("{value:?}"));
    } else {
        let shown = format!("{value:e}");
        let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        push(out, format_args!("{digits}e{sign}{exponent:0>2}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::Key;

    #[test]
    fn keys_print_as_python_prints_them() {
        let key = Key::tuple([
            Key::from("sum-1"),
            Key::from(0),
            Key::tuple([Key::float(2.0)]),
        ]);
        assert_eq!(key.to_string(), "('sum-1', 0, (2.0,))");
        assert_eq!(Key::from("inc-1").to_string(), "inc-1");
        assert_eq!(format!("{:?}", Key::from("it's")), "\"it's\"");
    }
}
