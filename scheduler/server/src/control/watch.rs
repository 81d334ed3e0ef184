//! Answers that are sent again after each change.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use tonic::Status;

/// What a streaming call answers with.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// `look` at once, and then its answer every `interval` if it differs from the last by `is_new`.
///
/// Ends with the connection, which ends with the scheduler.
pub(super) fn changes<T: Clone + Send + 'static>(
    interval: Duration,
    look: impl Fn() -> T + Send + 'static,
    is_new: fn(&T, &T) -> bool,
) -> Answers<T> {
    let state = (None::<T>, look);
    Box::pin(futures::stream::unfold(
        state,
        move |(last, look)| async move {
            let next = match last {
                None => look(),
                Some(last) => loop {
                    tokio::time::sleep(interval).await;
                    let now = look();
                    if is_new(&last, &now) {
                        break now;
                    }
                },
            };
            Some((Ok(next.clone()), (Some(next), look)))
        },
    ))
}
