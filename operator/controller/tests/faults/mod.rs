//! A scenario played once for each of its requests, with a fault at that request.

use std::fmt::Debug;

use crate::fake::{Fake, Fault};
use crate::life::Life;

/// How a scenario ended.
pub struct Played<E> {
    /// What must not depend on faults.
    pub end: E,
    /// Whether there were enough requests for the fault to happen.
    pub happened: bool,
    /// Requests in all.
    pub calls: usize,
}

/// Does what `script` says while an operator lives; one that dies is followed by the next.
pub async fn live<E>(
    fake: &Fake,
    script: impl Future<Output = ()>,
    end: impl Fn() -> E,
) -> Played<E> {
    let mut script = std::pin::pin!(script);
    let mut _life = Life::begin(fake);
    loop {
        tokio::select! {
            () = &mut script => break,
            () = fake.died.notified() => _life = Life::begin(fake),
        }
    }
    let (happened, calls) = fake.with(|state| (state.fault.is_none(), state.calls.len()));
    Played {
        end: end(),
        happened,
        calls,
    }
}

/// Plays the scenario with the fault at each request in turn; the end is always that without a fault.
///
/// `least`: requests that must have met it.
pub async fn at_every_request<E: PartialEq + Debug>(
    fault: Fault,
    least: usize,
    play: impl AsyncFn(Option<(usize, Fault)>) -> Played<E>,
) {
    let expected = play(None).await;
    let mut at = 0;
    loop {
        let played = play(Some((at, fault))).await;
        if !played.happened {
            break;
        }
        assert_eq!(played.end, expected.end, "after {fault:?} at request {at}");
        at += 1;
    }
    assert!(
        at > least && at + 20 > expected.calls,
        "only {at} of {} requests met the fault",
        expected.calls
    );
}
