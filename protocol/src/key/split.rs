//! Prefix and group of a key, as `dask.utils.key_split` and `distributed`'s `key_split_group` find them.
//!
//! Their corner cases are followed, since prefixes are what durations are remembered by and what dashboards show:
//! any word of eight letters that begins with a to f ends the prefix, for one.

use std::borrow::Cow;

use crate::msgpack::Reader;

/// What Dask calls the prefix and group of keys that have none.
const OTHER: &str = "Other";

/// What Dask calls the prefix of keys that are a hash.
const DATA: &str = "data";

/// The prefix of a key given as msgpack.
pub(super) fn prefix(wire: &[u8]) -> Cow<'_, str> {
    let mut r = Reader::of_slice(wire);
    while r.is_array().unwrap_or(false) {
        if r.array().is_ok_and(|length| length == 0) {
            return OTHER.into();
        }
    }
    match text(&mut r) {
        Some(Cow::Borrowed(text)) => prefix_of_text(text),
        Some(Cow::Owned(text)) => prefix_of_text(&text).into_owned().into(),
        None => OTHER.into(),
    }
}

/// The group of a key given as msgpack: for a tuple, its first element.
pub(super) fn group(wire: &[u8]) -> Cow<'_, str> {
    let mut r = Reader::of_slice(wire);
    if r.is_array().unwrap_or(false) {
        return match r.array() {
            Ok(1..) => shown(&mut r),
            _ => OTHER.into(),
        };
    }
    match text(&mut r) {
        Some(Cow::Borrowed(text)) => group_of_text(text),
        Some(Cow::Owned(text)) => group_of_text(&text).into_owned().into(),
        None => OTHER.into(),
    }
}

/// The text of a str or of bytes.
fn text<'a>(r: &mut Reader<'a>) -> Option<Cow<'a, str>> {
    if r.is_str().ok()? {
        return r.str().ok().map(Cow::Borrowed);
    }
    r.bin().ok().map(String::from_utf8_lossy)
}

/// Python's `str` of a value.
fn shown<'a>(r: &mut Reader<'a>) -> Cow<'a, str> {
    match r.clone().str() {
        Ok(text) => text.into(),
        Err(_) => {
            struct Shown<'a>(&'a [u8]);
            impl std::fmt::Display for Shown<'_> {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    super::repr::write(self.0, f)
                }
            }
            r.raw()
                .map_or_else(|_| OTHER.into(), |wire| Shown(wire).to_string().into())
        }
    }
}

fn prefix_of_text(text: &str) -> Cow<'_, str> {
    let (first, rest) = match text.split_once('-') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    let Some(letter) = first.chars().next() else {
        return OTHER.into();
    };
    // How many bytes of `rest` belong to the name, each word with the hyphen before it.
    let mut taken = 0;
    for word in rest.iter().flat_map(|rest| rest.split('-')) {
        if !is_word(word) {
            break;
        }
        taken += 1 + word.len();
    }
    let name: Cow<'_, str> = if letter.is_alphabetic() {
        text[..first.len() + taken].into()
    } else {
        let head = first.split(',').next().unwrap_or_default();
        let head = head.trim_matches(|c| "_'()\"".contains(c));
        match taken {
            0 => head.into(),
            _ => [head, &text[first.len()..first.len() + taken]]
                .concat()
                .into(),
        }
    };
    if is_hash(&name) {
        DATA.into()
    } else if name.is_empty() {
        OTHER.into()
    } else if name.starts_with('<') {
        class_name(&name).map_or(OTHER.into(), |class| class.to_owned().into())
    } else {
        name
    }
}

fn group_of_text(text: &str) -> Cow<'_, str> {
    if text.starts_with('(') {
        let first = text.split(',').next().unwrap_or_default();
        first.trim_matches(|c| "()\"'".contains(c)).into()
    } else if is_hash(text) {
        DATA.into()
    } else if text.starts_with('<') {
        class_name(text).unwrap_or(OTHER).into()
    } else {
        prefix_of_text(text)
    }
}

/// Letters only, and not eight of them beginning with a to f, which Dask takes for a hash.
fn is_word(word: &str) -> bool {
    let mut letters = 0;
    for c in word.chars() {
        if !c.is_alphabetic() {
            return false;
        }
        letters += 1;
    }
    letters > 0 && !(letters == 8 && word.starts_with(|c| ('a'..='f').contains(&c)))
}

/// 32 hexadecimal digits.
fn is_hash(text: &str) -> bool {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 32 && text.bytes().all(is_hex)
}

/// `myclass` of `<module.myclass object at 0x1>`.
fn class_name(text: &str) -> Option<&str> {
    let inner = text.trim_matches(|c| c == '<' || c == '>');
    // Python splits at these four separators too.
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let word = inner.split(is_space).find(|word| !word.is_empty())?;
    word.rsplit('.').next()
}

#[cfg(test)]
mod tests {
    use crate::Key;

    #[test]
    fn the_examples_in_dask_hold() {
        for (text, prefix, group) in [
            ("x", "x", "x"),
            ("x-1", "x", "x"),
            ("x-1-2-3", "x", "x"),
            ("hello-world-1", "hello-world", "hello-world"),
            ("x-abcdefab", "x", "x"),
            ("('x-2', 1)", "x", "x-2"),
            ("ae05086432ca935f6eba409a8ecd4896", "data", "data"),
            (
                "<module.submodule.myclass object at 0xdaf372",
                "myclass",
                "myclass",
            ),
            ("_(x)", "x", "x"),
        ] {
            let key = Key::from(text);
            assert_eq!(key.prefix(), prefix, "{text}");
            assert_eq!(key.group(), group, "{text}");
        }
        let block = Key::tuple([Key::from("add-00ff"), Key::from(3)]);
        assert_eq!((&*block.prefix(), &*block.group()), ("add", "add-00ff"));
        assert_eq!(Key::from(5).prefix(), "Other");
    }

    #[test]
    fn a_long_tuple_costs_nothing_to_name() {
        let key = Key::tuple((0..100_000).map(Key::from));
        assert_eq!((&*key.prefix(), &*key.group()), ("Other", "0"));
    }
}
