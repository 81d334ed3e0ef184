//! Waiting for a condition with a deadline: the only place where the tests sleep.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(100);

/// Outcome of one look: the value waited for, or what was seen instead.
pub type Look<T> = Result<Result<T, String>>;

/// Looks again and again until the condition gives a value.
///
/// # Errors
/// After `deadline`, with `what` was waited for and what was seen last; or at once when a look itself fails.
pub async fn until<T>(
    what: impl Display,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Look<T>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match look()
            .await
            .with_context(|| format!("failed to look for {what}"))?
        {
            Ok(value) => return Ok(value),
            Err(seen) if started.elapsed() > deadline => {
                bail!(
                    "{what}: not within {} s; last seen: {seen}",
                    deadline.as_secs_f64()
                );
            }
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn value_of_a_later_look_is_returned() {
        let mut looks = 0;
        let value = block_on(until("three looks", Duration::from_secs(5), async || {
            looks += 1;
            Ok(if looks == 3 {
                Ok(looks)
            } else {
                Err("fewer".to_owned())
            })
        }));
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn missed_deadline_says_what_was_wanted_and_what_was_seen() {
        let error = block_on(until::<()>("two pods", Duration::ZERO, async || {
            Ok(Err("one pod".into()))
        }))
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "two pods: not within 0 s; last seen: one pod"
        );
    }

    #[test]
    fn failed_look_ends_the_wait_at_once() {
        let error = block_on(until::<()>("a pod", Duration::from_secs(60), async || {
            bail!("refused")
        }))
        .unwrap_err();
        assert_eq!(format!("{error:#}"), "failed to look for a pod: refused");
    }
}
