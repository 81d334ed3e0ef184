//! Why a reconciliation did not end as wanted, and what follows from it.

use std::time::Duration;

/// What can go wrong in a reconciliation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server.
    #[error("failed to {action}")]
    Api {
        /// What we were doing, as a clause: "apply Deployment ns/name".
        action: String,
        /// What the API server or the network said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Certificates for a cluster.
    #[error("failed to {action}")]
    Certificates {
        /// What we were doing.
        action: String,
        /// What the cryptography said.
        #[source]
        source: rcgen::Error,
    },
    /// A request to a scheduler.
    #[error("failed to {action}")]
    Scheduler {
        /// What we were doing.
        action: String,
        /// What the scheduler or the network said.
        #[source]
        source: crate::scheduler::SchedulerError,
    },
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may pass: try again, later and later.
    Transient,
    /// It stays until somebody changes something: wait for that.
    Terminal,
    /// The operator may not do this: try again at long intervals.
    Forbidden,
}

impl Error {
    /// Makes an error of an API request, for `map_err`.
    pub fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api {
            action,
            source: Box::new(source),
        }
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => match status.code {
                    403 if status.message.contains("exceeded quota") => Class::Transient,
                    403 => Class::Forbidden,
                    // 404: the resource or its namespace went meanwhile.
                    // 422: the API server refuses what the user wrote.
                    400 | 404 | 422 => Class::Terminal,
                    _ => Class::Transient,
                },
                _ => Class::Transient,
            },
            Self::Scheduler { .. } | Self::Certificates { .. } => Class::Transient,
        }
    }

    /// Whether the API server understood and refused: neither overload nor a
    /// conflict nor a network, which pass.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(&**source, kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422)))
    }

    /// One word for a condition or an Event.
    pub fn reason(&self) -> String {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if !status.reason.is_empty() => status.reason.clone(),
                kube::Error::Api(_) => "ApiRefused".to_owned(),
                _ => "ApiUnreachable".to_owned(),
            },
            Self::Scheduler { .. } => "SchedulerUnreachable".to_owned(),
            Self::Certificates { .. } => "CertificatesFailed".to_owned(),
        }
    }

    /// The error with its causes, as one sentence.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        // The API server's own sentence, without the parts it is made of.
        if let Self::Api { source, .. } = self
            && let kube::Error::Api(status) = &**source
        {
            return format!("{text}: {}", status.message);
        }
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let next = error.to_string();
            if !text.contains(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            source = error.source();
        }
        text
    }
}

/// How long to wait before the `failures`-th attempt after an error: 0.25 s,
/// doubled up to 60 s, with up to a quarter taken off by `jitter` (0 to 1) so
/// that many resources do not come back at once.
pub fn backoff(failures: u32, jitter: f64) -> Duration {
    let base = Duration::from_millis(250);
    let wait = base
        .saturating_mul(1 << failures.min(16))
        .min(Duration::from_secs(60));
    wait.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> Error {
        let status = kube::core::Status::failure(message, "Reason").with_code(code);
        Error::api("apply Deployment ns/x")(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn conflicts_and_overload_are_tried_again_and_refusals_are_not() {
        for code in [409, 429, 500, 503, 504] {
            assert_eq!(api(code, "").class(), Class::Transient, "{code}");
        }
        assert_eq!(api(422, "").class(), Class::Terminal);
        assert_eq!(api(403, "pods is forbidden").class(), Class::Forbidden);
        assert_eq!(api(403, "exceeded quota: q").class(), Class::Transient);
    }

    #[test]
    fn waits_grow_to_a_minute() {
        assert_eq!(backoff(0, 0.0), Duration::from_millis(250));
        assert_eq!(backoff(3, 0.0), Duration::from_secs(2));
        assert_eq!(backoff(40, 0.0), Duration::from_secs(60));
        assert_eq!(backoff(40, 1.0), Duration::from_secs(45));
    }

    #[test]
    fn a_sentence_names_the_step_and_the_cause() {
        let text = api(422, "spec.replicas: Invalid value").sentence();
        assert!(
            text.starts_with("failed to apply Deployment ns/x: "),
            "{text}"
        );
        assert!(text.contains("Invalid value"), "{text}");
    }
}
