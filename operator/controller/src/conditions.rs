//! Conditions of a resource's status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that is stored; the API server refuses longer ones.
const MAX_MESSAGE: usize = 1024;

/// What is to be said of one type of condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) type_: &'static str,
    pub(crate) status: bool,
    /// One word in CamelCase.
    pub(crate) reason: String,
    /// A sentence for the resource's owner.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(
        type_: &'static str,
        status: bool,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            status,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The conditions for a status: those of `findings`, each with the time at
/// which its status last changed.
pub(crate) fn merged(
    old: &[Condition],
    findings: &[Finding],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    findings
        .iter()
        .map(|finding| {
            let status = if finding.status { "True" } else { "False" };
            let before = old
                .iter()
                .find(|condition| condition.type_ == finding.type_);
            let since = match before {
                Some(before) if before.status == status => before.last_transition_time.clone(),
                _ => Time(whole_seconds(now)),
            };
            Condition {
                type_: finding.type_.to_owned(),
                status: status.to_owned(),
                reason: camel_case(&finding.reason),
                message: shortened(&finding.message),
                last_transition_time: since,
                observed_generation: generation,
            }
        })
        .collect()
}

/// The findings whose status or reason is news, compared with `old`.
pub(crate) fn news<'a>(old: &[Condition], findings: &'a [Finding]) -> Vec<&'a Finding> {
    findings
        .iter()
        .filter(|finding| {
            let status = if finding.status { "True" } else { "False" };
            !old.iter().any(|condition| {
                condition.type_ == finding.type_
                    && condition.status == status
                    && condition.reason == camel_case(&finding.reason)
            })
        })
        .collect()
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The API server takes letters, digits and a few signs.
fn camel_case(reason: &str) -> String {
    let word: String = reason.chars().filter(char::is_ascii_alphanumeric).collect();
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
        word
    } else {
        format!("Reason{word}")
    }
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_time_changes_with_the_status_only() {
        let first = merged(
            &[],
            &[Finding::new("Ready", false, "Starting", "")],
            Some(1),
            at(10),
        );
        let second = merged(
            &first,
            &[Finding::new("Ready", false, "ImagePullBackOff", "no")],
            Some(1),
            at(20),
        );
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!(second[0].reason, "ImagePullBackOff");
        let third = merged(
            &second,
            &[Finding::new("Ready", true, "Ready", "")],
            Some(1),
            at(30),
        );
        assert_eq!(third[0].last_transition_time.0, at(30));
    }

    #[test]
    fn another_reason_is_news_and_another_message_is_not() {
        let old = merged(
            &[],
            &[Finding::new("Ready", false, "Starting", "1 of 2")],
            None,
            at(0),
        );
        assert!(news(&old, &[Finding::new("Ready", false, "Starting", "2 of 3")]).is_empty());
        assert_eq!(
            news(&old, &[Finding::new("Ready", false, "Unschedulable", "")]).len(),
            1
        );
    }

    #[test]
    fn messages_are_bounded() {
        let long = merged(
            &[],
            &[Finding::new("Ready", false, "X", "é".repeat(5000))],
            None,
            at(0),
        );
        assert!(long[0].message.chars().count() <= MAX_MESSAGE + 1);
    }
}
