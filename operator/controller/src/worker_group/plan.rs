//! How many workers to create and which to retire: pure, from what was seen.

use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::Timestamp;

use crate::scheduler::WorkerInfo;

/// A worker's Deployment as the plan sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Worker {
    /// Name of the Deployment.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// Whether its pod is ready.
    pub(crate) ready: bool,
    /// Whether it is chosen to be retired already.
    pub(crate) retiring: bool,
    /// Whether it was made from another spec than the present one.
    pub(crate) outdated: bool,
    /// Whether its pod is to go, by somebody else's wish, and is held so that
    /// it can be drained.
    pub(crate) evicted: bool,
    /// Address of its pod, if it has one.
    pub(crate) pod_ip: Option<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Workers to create.
    pub(crate) create: usize,
    /// Workers to retire, to be chosen by [`victims`].
    pub(crate) retire: usize,
}

/// What to do so that `desired` workers of the present spec stay. `unseen`:
/// workers that were created and do not show yet.
///
/// While workers are outdated there may be one more than wanted, and one
/// outdated worker is retired whenever enough others are ready.
pub(crate) fn plan(desired: usize, workers: &[Worker], unseen: usize) -> Plan {
    let staying: Vec<&Worker> = workers.iter().filter(|worker| !worker.retiring).collect();
    let outdated = staying.iter().filter(|worker| worker.outdated).count();
    let existing = staying.len() + unseen;
    let surge = usize::from(outdated > 0 && desired > 0);
    if existing < desired + surge {
        return Plan {
            create: desired + surge - existing,
            retire: 0,
        };
    }
    if existing > desired + surge {
        return Plan {
            create: 0,
            retire: (existing - desired - surge).min(staying.len()),
        };
    }
    // As many as wanted and one more for the roll-out: it takes the place of
    // an outdated one when all that are wanted are ready without that one.
    let ready = staying.iter().filter(|worker| worker.ready).count();
    let unready_outdated = staying
        .iter()
        .any(|worker| worker.outdated && !worker.ready);
    let rolling = surge == 1 && (ready > desired || unready_outdated);
    Plan {
        create: 0,
        retire: usize::from(rolling),
    }
}

/// The workers to retire, best first: those that are not connected, then
/// outdated ones, then those without tasks and results, then those without
/// tasks, then by bytes of results; the youngest of equals.
///
/// `infos`: what the scheduler knows of each worker, by Deployment; `None` if
/// it could not be asked. Then a ready worker counts as connected. So does the
/// replacement of an outdated worker that is ready and about to connect, or a
/// roll-out would retire what it has just made, again and again.
pub(crate) fn victims<'a>(
    count: usize,
    workers: &'a [Worker],
    infos: Option<&HashMap<String, WorkerInfo>>,
) -> Vec<&'a Worker> {
    let mut candidates: Vec<&Worker> = workers.iter().filter(|worker| !worker.retiring).collect();
    let rolling = candidates.iter().any(|worker| worker.outdated);
    candidates.sort_by_key(|worker| {
        let is_replacement = rolling && worker.ready && !worker.outdated;
        let info = infos.and_then(|infos| infos.get(&worker.name));
        let connected = match infos {
            Some(_) => info.is_some() || is_replacement,
            None => worker.ready,
        };
        let (processing, results, bytes) = info.map_or((0, 0, 0), |info| {
            (info.processing, info.results, info.bytes)
        });
        (
            connected,
            !worker.outdated,
            processing > 0,
            results > 0,
            bytes,
            processing,
            Reverse(worker.created),
            worker.name.clone(),
        )
    });
    candidates.truncate(count);
    candidates
}

/// By Deployment, what the scheduler knows of its worker: found by its name,
/// or by its pod's address where users chose other names.
pub(crate) fn by_deployment(
    workers: &[Worker],
    infos: Vec<WorkerInfo>,
) -> HashMap<String, Vec<WorkerInfo>> {
    let names: HashMap<&str, &str> = workers.iter().map(|w| (&*w.name, &*w.name)).collect();
    let hosts: HashMap<&str, &str> = workers
        .iter()
        .filter_map(|w| Some((w.pod_ip.as_deref()?, &*w.name)))
        .collect();
    let mut found: HashMap<String, Vec<WorkerInfo>> = HashMap::new();
    for info in infos {
        let deployment = hosts.get(info.host()).or_else(|| names.get(&*info.name));
        if let Some(deployment) = deployment {
            found
                .entry((*deployment).to_owned())
                .or_default()
                .push(info);
        }
    }
    found
}

/// Several workers of one pod as if they were one.
pub(crate) fn summed(of: &HashMap<String, Vec<WorkerInfo>>) -> HashMap<String, WorkerInfo> {
    of.iter()
        .map(|(name, infos)| {
            let mut sum = infos.first().cloned().unwrap_or_default();
            for info in infos.iter().skip(1) {
                sum.processing += info.processing;
                sum.results += info.results;
                sum.bytes += info.bytes;
            }
            (name.clone(), sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str, age: i64) -> Worker {
        Worker {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            created: Timestamp::from_second(1000 - age).unwrap(),
            ready: true,
            retiring: false,
            outdated: false,
            evicted: false,
            pod_ip: None,
        }
    }

    fn info(processing: u64, results: u64, bytes: u64) -> WorkerInfo {
        WorkerInfo {
            processing,
            results,
            bytes,
            ..WorkerInfo::default()
        }
    }

    fn names(workers: &[&Worker]) -> Vec<String> {
        workers.iter().map(|worker| worker.name.clone()).collect()
    }

    #[test]
    fn what_was_created_and_does_not_show_yet_is_not_created_again() {
        let workers = [worker("a", 1)];
        assert_eq!(
            plan(3, &workers, 0),
            Plan {
                create: 2,
                retire: 0
            }
        );
        assert_eq!(plan(3, &workers, 2), Plan::default());
    }

    #[test]
    fn workers_being_retired_do_not_count_and_are_not_chosen_again() {
        let mut workers = [worker("a", 1), worker("b", 2), worker("c", 3)];
        workers[0].retiring = true;
        assert_eq!(plan(2, &workers, 0), Plan::default());
        assert_eq!(
            plan(1, &workers, 0),
            Plan {
                create: 0,
                retire: 1
            }
        );
        assert_eq!(names(&victims(3, &workers, None)), ["b", "c"]);
        // More are wanted again while one goes: it is replaced, not kept.
        assert_eq!(
            plan(3, &workers, 0),
            Plan {
                create: 1,
                retire: 0
            }
        );
    }

    #[test]
    fn victims_are_those_whose_loss_costs_least() {
        let workers: Vec<Worker> = ["busy", "large", "small", "idle-old", "idle-new", "absent"]
            .iter()
            .zip([1, 2, 3, 9, 4, 5])
            .map(|(name, age)| worker(name, age))
            .collect();
        let infos = HashMap::from([
            ("busy".to_owned(), info(1, 0, 0)),
            ("large".to_owned(), info(0, 1, 900)),
            ("small".to_owned(), info(0, 5, 10)),
            ("idle-old".to_owned(), info(0, 0, 0)),
            ("idle-new".to_owned(), info(0, 0, 0)),
        ]);
        let order = names(&victims(6, &workers, Some(&infos)));
        assert_eq!(
            order,
            ["absent", "idle-new", "idle-old", "small", "large", "busy"]
        );
    }

    #[test]
    fn without_a_scheduler_pods_that_are_not_ready_go_first_then_the_youngest() {
        let mut workers = [worker("old", 9), worker("new", 1), worker("pending", 5)];
        workers[2].ready = false;
        assert_eq!(
            names(&victims(3, &workers, None)),
            ["pending", "new", "old"]
        );
    }

    #[test]
    fn a_roll_out_goes_one_by_one_and_waits_for_the_new_one() {
        let mut workers = vec![worker("a", 3), worker("b", 2)];
        for worker in &mut workers {
            worker.outdated = true;
        }
        assert_eq!(
            plan(2, &workers, 0),
            Plan {
                create: 1,
                retire: 0
            }
        );
        workers.push(Worker {
            ready: false,
            ..worker("c", 1)
        });
        assert_eq!(
            plan(2, &workers, 0),
            Plan::default(),
            "the new one is not ready yet"
        );
        workers[2].ready = true;
        assert_eq!(
            plan(2, &workers, 0),
            Plan {
                create: 0,
                retire: 1
            }
        );
        assert_eq!(names(&victims(1, &workers, None)), ["b"]);
        workers[1].retiring = true;
        assert_eq!(
            plan(2, &workers, 0),
            Plan {
                create: 1,
                retire: 0
            }
        );
    }

    #[test]
    fn a_roll_out_retires_an_outdated_worker_although_its_replacement_is_not_connected_yet() {
        let mut workers = [worker("old", 9), worker("new", 1)];
        workers[0].outdated = true;
        let infos = HashMap::from([("old".to_owned(), info(0, 5, 100))]);
        assert_eq!(names(&victims(1, &workers, Some(&infos))), ["old"]);
        workers[1].ready = false;
        assert_eq!(
            names(&victims(1, &workers, Some(&infos))),
            ["new"],
            "a broken one goes first"
        );
    }

    #[test]
    fn scaling_to_zero_retires_outdated_workers_without_a_surge() {
        let mut workers = vec![worker("a", 3)];
        workers[0].outdated = true;
        assert_eq!(
            plan(0, &workers, 0),
            Plan {
                create: 0,
                retire: 1
            }
        );
    }

    #[test]
    fn workers_are_found_by_name_or_by_their_pods_address() {
        let mut workers = [worker("g-worker-1", 1), worker("g-worker-2", 1)];
        workers[1].pod_ip = Some("10.0.0.2".to_owned());
        let info = |name: &str, address: &str| WorkerInfo {
            name: name.to_owned(),
            address: address.to_owned(),
            ..WorkerInfo::default()
        };
        let found = by_deployment(
            &workers,
            vec![
                info("g-worker-1", "tcp://10.0.0.1:1"),
                info("mine-0", "tcp://10.0.0.2:1"),
                info("mine-1", "tcp://10.0.0.2:2"),
                info("other-group", "tcp://10.0.0.9:1"),
            ],
        );
        assert_eq!(
            (
                found["g-worker-1"].len(),
                found["g-worker-2"].len(),
                found.len()
            ),
            (1, 2, 2)
        );
    }
}
