//! Everything anew: keys forgotten, workers restarted by their nannies.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use oxidask_protocol::Value;
use oxidask_protocol::message::decode_one;
use oxidask_protocol::message::rpc::{Restart, RestartWorkers};
use oxidask_protocol::wire::{Name, Seconds};
use oxidask_scheduler_core::Event;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::data::Named;
use super::reply::{Refusal, raise};
use super::{Answer, Outcome, coerce};
use crate::aside::Hook;
use crate::coordinate;
use crate::membership;
use crate::server::Server;

/// `restart`: forgets all keys, then restarts all workers.
pub(super) async fn restart(server: &Arc<Server>, body: Restart) -> Outcome {
    info!(
        stimulus_id = body.stimulus_id,
        "restarting workers and releasing all keys"
    );
    server.driver().handle(Event::Restart);
    server.aside.tell(Hook::Restart, Vec::new(), Vec::new());
    let request = RestartWorkers {
        workers: None,
        timeout: body.timeout,
        on_error: "raise".to_owned(),
        stimulus_id: body.stimulus_id,
    };
    restart_workers(server, request, body.wait_for_workers).await?;
    Answer::nil()
}

/// `restart_workers`: `{address: "OK", "removed" or "timed out"}`.
pub(super) async fn workers(server: &Arc<Server>, body: RestartWorkers) -> Outcome {
    let out = restart_workers(server, body, true).await?;
    Answer::value(Value::Map(
        out.into_iter()
            .map(|(address, what)| (Value::from(&*address), what.into()))
            .collect(),
    ))
}

/// What became of each worker.
type Fates = Vec<(Arc<str>, &'static str)>;

/// Restarts workers through their nannies, removes those without.
pub(crate) async fn restart_workers(
    server: &Arc<Server>,
    body: RestartWorkers,
    wait_for_workers: bool,
) -> Result<Fates, Refusal> {
    let RestartWorkers {
        workers,
        timeout,
        on_error,
        stimulus_id,
    } = body;
    let timeout = duration(timeout);
    let deadline = Instant::now() + timeout;
    let raises = on_error == "raise";
    let before = server.driver().workers.len();
    let asked = chosen(server, workers)?;
    let (with_nanny, without): (Vec<_>, Vec<_>) = asked
        .iter()
        .cloned()
        .partition(|(_, nanny)| nanny.is_some());
    let mut out: Fates = Vec::new();
    if !without.is_empty() {
        warn!(
            workers = without.len(),
            "workers without a nanny are shut down, not restarted"
        );
        let mut driver = server.driver();
        for ((id, address), _) in &without {
            membership::remove_worker(server, &mut driver, *id, false, true, &stimulus_id);
            out.push((Arc::clone(address), "removed"));
        }
    }
    let kills = with_nanny.iter().map(|(worker, nanny)| {
        let nanny = nanny.clone().unwrap_or_default();
        kill(server, worker.clone(), nanny, timeout, &stimulus_id)
    });
    let mut bad: Vec<Arc<str>> = Vec::new();
    for ((id, address), killed) in join_all(kills).await {
        if killed? {
            out.push((address, "OK"));
        } else {
            out.push((Arc::clone(&address), "timed out"));
            let mut driver = server.driver();
            membership::remove_worker(server, &mut driver, id, false, true, &stimulus_id);
            bad.push(address);
        }
    }
    if !bad.is_empty() {
        let text = format!(
            "{}/{} nanny worker(s) did not shut down within {}s: {bad:?}",
            bad.len(),
            with_nanny.len(),
            timeout.as_secs_f64()
        );
        error!("{text}");
        if raises {
            return Err(raise("TimeoutError", &text));
        }
    }
    let names = Value::array(asked.iter().map(|((_, address), _)| &**address));
    let event = Value::map([
        ("action", Value::from("restart-workers")),
        ("workers", names),
        ("client", Value::Nil),
    ]);
    coordinate::log_event(server, &mut server.driver(), &["all"], &event);
    if !wait_for_workers {
        return Ok(out);
    }
    let mut changes = server.driver().watch_workers();
    // The old workers leave when their streams end; only then does the count say anything.
    let back = async {
        loop {
            {
                let driver = server.driver();
                let old = asked
                    .iter()
                    .any(|((id, _), _)| driver.workers.get(*id).is_some());
                if !old && driver.workers.len() >= before {
                    return;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout_at(deadline, back).await.is_ok() {
        return Ok(out);
    }
    let missing = before.saturating_sub(server.driver().workers.len());
    let mut text = format!(
        "Waited for {} worker(s) to reconnect after restarting but, after {}s, {missing} have not returned. \
         Consider a longer timeout, or `wait_for_workers=False`.",
        asked.len(),
        timeout.as_secs_f64()
    );
    if !without.is_empty() {
        text += &format!(
            " The {} worker(s) not using Nannies were just shut down instead of restarted (restart is only possible \
             with Nannies). If your deployment system does not automatically re-launch terminated processes, then \
             those workers will never come back, and `Client.restart` will always time out. Do not use \
             `Client.restart` in that case.",
            without.len()
        );
    }
    if raises {
        return Err(raise("TimeoutError", &text));
    }
    error!(stimulus_id, "{text}");
    let driver = server.driver();
    let nannies: Vec<&str> = driver
        .workers
        .iter()
        .filter_map(|peer| peer.nanny.as_deref())
        .collect();
    for ((_, address), nanny) in &with_nanny {
        if nanny
            .as_deref()
            .is_none_or(|nanny| !nannies.contains(&nanny))
            && let Some((_, what)) = out.iter_mut().find(|(known, _)| known == address)
        {
            *what = "timed out";
        }
    }
    Ok(out)
}

fn duration(timeout: Seconds) -> Duration {
    Duration::try_from_secs_f64(timeout.0.unwrap_or(f64::MAX).max(0.0))
        .unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
}

/// The workers that are meant, each with its nanny; unknown ones are passed over.
fn chosen(
    server: &Server,
    names: Option<Vec<Name>>,
) -> Result<Vec<(Named, Option<String>)>, Refusal> {
    let driver = server.driver();
    let with_nanny = |peer: &crate::peers::WorkerPeer| {
        ((peer.id, Arc::clone(&peer.address)), peer.nanny.clone())
    };
    let Some(names) = names else {
        return Ok(driver.workers.iter().map(with_nanny).collect());
    };
    let mut out: Vec<(Named, Option<String>)> = Vec::new();
    for name in &names {
        let address = coerce(&driver, name)?;
        if let Some(peer) = driver.workers.by_address(&address)
            && !out.iter().any(|((id, _), _)| *id == peer.id)
        {
            out.push(with_nanny(peer));
        }
    }
    Ok(out)
}

/// Has a nanny kill its worker, which it then starts again. False if it could not be reached or took too long.
async fn kill(
    server: &Server,
    worker: Named,
    nanny: String,
    timeout: Duration,
    stimulus_id: &str,
) -> (Named, Result<bool, Refusal>) {
    let request = Value::map([
        ("op", Value::from("kill")),
        ("reason", stimulus_id.into()),
        ("reply", true.into()),
    ]);
    let answer = tokio::time::timeout(timeout, server.pool.call(&nanny, &request)).await;
    let killed = match answer {
        Ok(Ok(frames)) => match decode_one::<Value>(&frames) {
            Ok(answer) => match super::failure_in(&answer) {
                Some(failure) => Err(failure),
                None => Ok(true),
            },
            Err(_) => Ok(false),
        },
        Ok(Err(error)) => {
            warn!(nanny, %error, "failed to reach a nanny");
            Ok(false)
        }
        Err(_) => Ok(false),
    };
    (worker, killed)
}
