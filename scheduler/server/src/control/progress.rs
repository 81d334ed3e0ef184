//! Progress of several things, told in the order of their changes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::watch::Answers;

/// A deadline so far away that nobody waits for it, and near enough for the clock.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// So many milliseconds from now.
pub(super) fn deadline_after(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds).min(NEVER)
}

/// Sends each entry of a list once and again whenever it has changed, until the sender is gone.
///
/// A caller that reads slowly misses states in between, never the last.
pub(super) fn each_change<T: Clone + PartialEq + Send + Sync + 'static>(
    list: watch::Receiver<Vec<T>>,
) -> Answers<T> {
    let state = (list, Vec::<T>::new(), VecDeque::<T>::new(), true);
    Box::pin(futures::stream::unfold(
        state,
        |(mut list, mut told, mut due, mut is_first)| async move {
            loop {
                if let Some(next) = due.pop_front() {
                    return Some((Ok(next), (list, told, due, is_first)));
                }
                if !std::mem::take(&mut is_first) && list.changed().await.is_err() {
                    return None;
                }
                let now = list.borrow_and_update().clone();
                due.extend(
                    now.iter()
                        .enumerate()
                        .filter(|(i, entry)| told.get(*i) != Some(entry))
                        .map(|(_, entry)| entry.clone()),
                );
                told = now;
            }
        },
    ))
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn what_has_not_changed_is_told_once_and_the_last_state_always() {
        let (sender, receiver) = watch::channel(vec![1, 10]);
        let mut changes = each_change(receiver);
        assert_eq!(changes.next().await.unwrap().unwrap(), 1);
        assert_eq!(changes.next().await.unwrap().unwrap(), 10);
        sender.send_replace(vec![2, 10]);
        sender.send_replace(vec![3, 10]);
        drop(sender);
        assert_eq!(changes.next().await.unwrap().unwrap(), 3);
        assert!(changes.next().await.is_none());
    }
}
