//! `rebalance`: data from the fullest workers to the emptiest, until all are near the mean.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use oxidask_protocol::message::rpc::Rebalance;
use oxidask_protocol::{Key, Value};
use oxidask_scheduler_core::WorkerId;

use super::data::Named;
use super::replicate::{WhoHas, drop_copies, gather_on, partial_fail};
use super::{Answer, Outcome};
use crate::coordinate;
use crate::driver::Driver;
use crate::peers::Measure;
use crate::server::Server;

/// When a worker gives and takes (`distributed.worker.memory.rebalance`). Shares are of its memory limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// What counts as a worker's memory.
    pub measure: Measure,
    /// Workers nearer to the mean than half of this share are left alone.
    pub gap: f64,
    /// Workers below this share give nothing.
    pub sender_min: f64,
    /// Workers above this share take nothing.
    pub recipient_max: f64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            measure: Measure::Optimistic,
            gap: 0.1,
            sender_min: 0.3,
            recipient_max: 0.6,
        }
    }
}

/// A worker as far as balance goes.
#[derive(Clone, Debug)]
struct Load {
    worker: WorkerId,
    /// Unit: bytes.
    memory: i64,
    /// Unit: bytes; 0 without limit.
    limit: u64,
    /// Keys that it holds and that may move, with their sizes, in the order in which they are to go.
    keys: Vec<(Key, i64)>,
}

/// One key from one worker to another.
type Move = (Key, WorkerId, WorkerId);

/// `rebalance`.
pub(super) async fn rebalance(server: &Arc<Server>, body: Rebalance) -> Outcome {
    let ok = || Answer::ok();
    let rules = server.settings.rebalance;
    let (moves, addresses) = {
        let driver = server.driver();
        let workers: Vec<Named> = match &body.workers {
            None => driver
                .workers
                .iter()
                .map(|peer| (peer.id, Arc::clone(&peer.address)))
                .collect(),
            Some(names) => names
                .iter()
                .map(|name| super::data::worker(&driver, name))
                .collect::<Result<_, _>>()?,
        };
        if let Some(keys) = &body.keys {
            let missing: Vec<Key> = keys
                .iter()
                .filter(|key| driver.core().who_has(key).is_empty())
                .cloned()
                .collect();
            if !missing.is_empty() {
                return Answer::value(partial_fail(&missing));
            }
        }
        let allowed: Option<HashSet<&Key>> = body.keys.as_ref().map(|keys| keys.iter().collect());
        let loads: Vec<Load> = workers
            .iter()
            .filter_map(|(id, _)| load(&driver, rules.measure, *id, allowed.as_ref()))
            .collect();
        let holds = |key: &Key, worker| driver.core().who_has(key).contains(&worker);
        (plan(&rules, loads, holds), workers)
    };
    if moves.is_empty() {
        log(server, &mut server.driver(), &[], &addresses);
        return ok();
    }
    let address_of = |id: WorkerId| {
        let known = addresses.iter().find(|(known, _)| *known == id);
        known.map(|(_, address)| Arc::clone(address))
    };
    let mut by_recipient: Vec<(Named, WhoHas)> = Vec::new();
    for (key, sender, recipient) in &moves {
        let (Some(from), Some(to)) = (address_of(*sender), address_of(*recipient)) else {
            continue;
        };
        let item = (key.clone(), vec![from.to_string()]);
        match by_recipient.iter_mut().find(|((id, _), _)| id == recipient) {
            Some((_, items)) => items.push(item),
            None => by_recipient.push(((*recipient, to), vec![item])),
        }
    }
    super::replicate::log_gathers(server, &by_recipient, "rebalance");
    let gathers = by_recipient
        .into_iter()
        .map(|(taker, who_has)| gather_on(server, taker, who_has));
    join_all(gathers).await;
    let mut driver = server.driver();
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (key, sender, recipient) in moves {
        if driver.core().who_has(&key).contains(&recipient) {
            done.push((key, sender, recipient));
        } else {
            failed.push(key);
        }
    }
    log(server, &mut driver, &done, &addresses);
    let moved = done.into_iter().map(|(key, sender, _)| (key, sender));
    drop_copies(server, &mut driver, moved.collect(), "rebalance");
    // Failures are told only to those who named keys.
    if failed.is_empty() || body.keys.is_none() {
        return ok();
    }
    Answer::value(partial_fail(&failed))
}

/// Says in the event log how many keys each worker gave and got.
fn log(server: &Server, driver: &mut Driver, done: &[Move], addresses: &[Named]) {
    let counts = |side: fn(&Move) -> WorkerId| {
        Value::map(addresses.iter().filter_map(|(id, address)| {
            let count = done.iter().filter(|done| side(done) == *id).count();
            (count > 0).then(|| (&**address, Value::from(count)))
        }))
    };
    let event = Value::map([
        ("action", Value::from("rebalance")),
        ("senders", counts(|(_, sender, _)| *sender)),
        ("recipients", counts(|(_, _, recipient)| *recipient)),
        ("moved_keys", done.len().into()),
    ]);
    coordinate::log_event(server, driver, &["all"], &event);
}

fn load(
    driver: &Driver,
    measure: Measure,
    id: WorkerId,
    allowed: Option<&HashSet<&Key>>,
) -> Option<Load> {
    let peer = driver.workers.get(id)?;
    let view = driver.core().worker(id)?;
    let keys = driver
        .core()
        .has_what(id)
        .into_iter()
        .filter(|key| allowed.is_none_or(|allowed| allowed.contains(key)))
        .filter_map(|key| {
            let nbytes = driver.core().nbytes(&key)?;
            Some((key, i64::try_from(nbytes).unwrap_or(i64::MAX)))
        })
        .collect();
    Some(Load {
        worker: id,
        memory: i64::try_from(peer.memory.by(measure, view.nbytes)).unwrap_or(i64::MAX),
        limit: peer.memory_limit,
        keys,
    })
}

/// Which keys are to move where. `holds`: whether a worker has a copy already.
///
/// Greedy: the sender and the recipient that are farthest from the mean come first. A key moves only if its sender
/// stays above the mean and its recipient below.
/// Source: distributed `Scheduler._rebalance_find_msgs`.
fn plan(rules: &Rules, loads: Vec<Load>, holds: impl Fn(&Key, WorkerId) -> bool) -> Vec<Move> {
    if loads.is_empty() {
        return Vec::new();
    }
    let mean = loads.iter().map(|load| load.memory).sum::<i64>() / loads.len() as i64;
    // Bytes to move at most; bytes to move at least; place in `loads`.
    let mut senders: BinaryHeap<(i64, i64, Reverse<usize>)> = BinaryHeap::new();
    let mut recipients: BinaryHeap<(i64, i64, Reverse<usize>)> = BinaryHeap::new();
    for (at, load) in loads.iter().enumerate() {
        let limit = load.limit as f64;
        let (half_gap, sender_min, recipient_max) = match load.limit {
            0 => (0, 0, i64::MAX),
            _ => (
                (rules.gap / 2.0 * limit) as i64,
                (rules.sender_min * limit) as i64,
                (rules.recipient_max * limit) as i64,
            ),
        };
        let over = load.memory - mean;
        if !load.keys.is_empty() && over >= half_gap && load.memory >= sender_min {
            senders.push((over, over - half_gap, Reverse(at)));
        } else if -over > half_gap && load.memory < recipient_max {
            recipients.push((-over, -over - half_gap, Reverse(at)));
        }
    }
    let mut next_key = vec![0_usize; loads.len()];
    let mut moves = Vec::new();
    while !recipients.is_empty() {
        let Some((most, least, Reverse(from))) = senders.pop() else {
            break;
        };
        while let Some((key, nbytes)) = loads[from].keys.get(next_key[from]) {
            next_key[from] += 1;
            if *nbytes > most {
                continue;
            }
            let mut skipped = Vec::new();
            let mut taker = None;
            while let Some(recipient) = recipients.pop() {
                if *nbytes > recipient.0 {
                    skipped.push(recipient);
                    break;
                }
                if !holds(key, loads[recipient.2.0].worker) {
                    taker = Some(recipient);
                    break;
                }
                skipped.push(recipient);
            }
            recipients.extend(skipped);
            let Some((room, need, Reverse(to))) = taker else {
                continue;
            };
            moves.push((key.clone(), loads[from].worker, loads[to].worker));
            if least - nbytes > 0 {
                senders.push((most - nbytes, least - nbytes, Reverse(from)));
            }
            if need - nbytes > 0 {
                recipients.push((room - nbytes, need - nbytes, Reverse(to)));
            }
            break;
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(worker: u32, memory: i64, keys: &[(&str, i64)]) -> Load {
        Load {
            worker: WorkerId(worker),
            memory,
            limit: 1000,
            keys: keys.iter().map(|(key, n)| ((*key).into(), *n)).collect(),
        }
    }

    #[test]
    fn keys_go_from_the_fullest_to_the_emptiest_until_the_mean() {
        let full: Vec<(String, i64)> = (0..8).map(|i| (format!("x{i}"), 100)).collect();
        let full: Vec<(&str, i64)> = full.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        let moves = plan(
            &Rules::default(),
            vec![load(1, 800, &full), load(2, 0, &[])],
            |_, _| false,
        );
        assert_eq!(moves.len(), 4);
        assert!(moves.iter().all(|(_, from, to)| (from.0, to.0) == (1, 2)));
    }

    #[test]
    fn a_balanced_cluster_and_empty_workers_are_left_alone() {
        assert!(plan(&Rules::default(), Vec::new(), |_, _| false).is_empty());
        let near = vec![load(1, 420, &[("x", 10)]), load(2, 400, &[])];
        assert!(plan(&Rules::default(), near, |_, _| false).is_empty());
        let low = vec![load(1, 200, &[("x", 10)]), load(2, 0, &[])];
        assert!(plan(&Rules::default(), low, |_, _| false).is_empty());
    }

    #[test]
    fn what_the_recipient_has_and_what_is_too_large_stays() {
        let loads = || vec![load(1, 800, &[("x", 100), ("y", 700)]), load(2, 0, &[])];
        assert_eq!(plan(&Rules::default(), loads(), |_, _| false).len(), 1);
        assert!(plan(&Rules::default(), loads(), |key, _| *key == Key::from("x")).is_empty());
    }
}
