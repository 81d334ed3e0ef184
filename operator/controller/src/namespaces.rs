//! Which namespaces the operator works on.

use std::str::FromStr;

/// A choice of namespaces, as `--namespace` gives it: `team-a`, or patterns
/// with `*` and `?`, several with commas, those after `!` left out again.
///
/// Source: kopf's `--namespace`. What is said later wins; a choice that begins
/// with `!` begins with all namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    pattern: String,
    /// Whether it takes namespaces out.
    out: bool,
}

/// All namespaces of any of some choices; all of them if there is no choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(Vec<Choice>);

impl Namespaces {
    /// Those of any of `choices`.
    pub fn new(choices: Vec<Choice>) -> Self {
        Self(choices)
    }

    /// Whether the operator works on a namespace.
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|choice| choice.contains(namespace))
    }

    /// The namespaces by name, where no pattern is among them: they can be
    /// watched one by one, without a right to see others.
    pub fn names(&self) -> Option<Vec<&str>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.iter().map(Choice::name).collect()
    }
}

impl Choice {
    /// The namespace, if the choice is a single name.
    fn name(&self) -> Option<&str> {
        match self.0.as_slice() {
            [term] if !term.out && !term.pattern.contains(['*', '?']) => Some(&term.pattern),
            _ => None,
        }
    }

    fn contains(&self, namespace: &str) -> bool {
        let mut inside = self.0.first().is_some_and(|term| term.out);
        for term in &self.0 {
            if matches(term.pattern.as_bytes(), namespace.as_bytes()) {
                inside = !term.out;
            }
        }
        inside
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let terms = text.split(',').map(|term| {
            let term = term.trim();
            let (pattern, out) = match term.strip_prefix('!') {
                Some(pattern) => (pattern, true),
                None => (term, false),
            };
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*?".contains(c);
            if pattern.is_empty() || !pattern.chars().all(known) {
                return Err(format!(
                    "{term:?} is neither a namespace nor a pattern of lower-case letters, digits, '-', '*' and '?'"
                ));
            }
            Ok(Term {
                pattern: pattern.to_owned(),
                out,
            })
        });
        terms.collect::<Result<_, _>>().map(Self)
    }
}

/// Whether `text` is of a pattern in which `*` stands for any characters and
/// `?` for one. Takes time in proportion to the product of the lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and how far it reaches so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    p = at + 1;
                    t = reach + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(choices: &[&str]) -> Namespaces {
        Namespaces::new(choices.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn no_choice_is_all_and_a_name_is_itself() {
        assert!(namespaces(&[]).contains("any"));
        let two = namespaces(&["a", "b"]);
        assert_eq!(two.names(), Some(vec!["a", "b"]));
        assert!(two.contains("b") && !two.contains("c"));
        assert_eq!(namespaces(&[]).names(), None);
    }

    #[test]
    fn patterns_take_in_and_out_in_their_order() {
        let some = namespaces(&["team-*,!*-test,team-own-test"]);
        assert_eq!(some.names(), None);
        for (name, inside) in [
            ("team-a", true),
            ("team-a-test", false),
            ("team-own-test", true),
            ("other", false),
        ] {
            assert_eq!(some.contains(name), inside, "{name}");
        }
        let rest = namespaces(&["!kube-*"]);
        assert!(rest.contains("default") && !rest.contains("kube-system"));
        assert_eq!(rest.names(), None);
    }

    #[test]
    fn stars_and_question_marks_stand_for_what_they_should() {
        for (pattern, text, fits) in [
            ("a*c", "abbc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*a*a*", "banana", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                fits,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_a_namespace_is_refused_with_what_may_be() {
        for text in ["", "A", "a_b", "a,", "!"] {
            let error = text.parse::<Choice>().unwrap_err();
            assert!(error.contains("pattern"), "{text}: {error}");
        }
    }
}
