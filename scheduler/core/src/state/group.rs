//! Prefixes (tasks of one function) and groups (tasks of one layer).

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use super::set::Set;
use super::task::ResultType;
use crate::Time;
use crate::action::TaskStateName;
use crate::ids::WorkerId;

/// A prefix. Prefixes are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PrefixId(pub(crate) u32);

/// A group. A group is removed when all its tasks are forgotten; its id is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) u32);

/// Prefixes for which the user assumes at most this are never stolen. Unit: seconds.
///
/// Source: distributed `stealing.fast_tasks`.
const FAST: f64 = 0.001;

/// What is known of all tasks whose keys share `key_split`.
#[derive(Debug)]
pub(crate) struct Prefix {
    pub(crate) name: Arc<str>,
    /// Mean seconds of computing, new ones counting half; `None` if unknown.
    pub(crate) duration: Option<f64>,
    /// Its tasks are taken as too short to be moved whatever they are measured to take, since the user assumes at
    /// most [`FAST`] for them.
    pub(crate) fast: bool,
    /// Longest that a running task was seen to run. Unit: seconds.
    pub(crate) max_exec_time: f64,
    /// Known tasks by state, in the order of `TaskStateName`.
    pub(crate) states: [u64; 8],
    pub(crate) totals: PrefixTotals,
}

/// What the tasks of a prefix cost so far, for metrics; nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PrefixTotals {
    /// Seconds of computing.
    pub compute: f64,
    /// Seconds of moving data between workers.
    pub transfer: f64,
    /// Bytes of the results in memory now, copies not counted.
    pub output_bytes: u64,
    /// Times that a task was on a worker that died.
    pub suspicious: u64,
}

impl Prefix {
    /// A task was computed in `seconds`.
    pub(crate) fn observe(&mut self, seconds: f64) {
        self.totals.compute += seconds;
        self.duration = Some(match self.duration {
            Some(mean) => 0.5 * seconds + 0.5 * mean,
            None => seconds,
        });
    }

    /// A task has been running for `seconds` and goes on; the mean is wrong if that is much longer.
    pub(crate) fn observe_running(&mut self, seconds: f64) {
        self.max_exec_time = self.max_exec_time.max(seconds);
        if self.duration.is_some_and(|mean| seconds > 2.0 * mean) {
            self.duration = None;
        }
    }
}

/// What is known of all tasks whose keys share `key_split_group`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) prefix: PrefixId,
    /// Tasks by state, forgotten ones included, in the order of `TaskStateName`.
    pub(crate) states: [u64; 8],
    /// Groups that its tasks depend on; itself among them if they depend on each other.
    pub(crate) dependencies: Set<GroupId>,
    /// Where the last of its root tasks went, and how many more are to go there.
    pub(crate) last_worker: Option<(WorkerId, u64)>,
    /// Sum and count of the bytes of its results, for a mean.
    pub(crate) nbytes: (u64, u64),
    /// The class of the last result.
    pub(crate) result_type: Option<Arc<ResultType>>,
    /// The span of its tasks; `None` until one of them is part of a graph.
    pub(crate) span: Option<Arc<str>>,
    pub(crate) figures: Figures,
}

/// What the tasks of a group cost so far, for people; nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// When its first task began. `None` until one is done.
    pub start: Option<Time>,
    /// When its last task ended. `None` until one is done.
    pub stop: Option<Time>,
    /// Seconds by activity (`compute`, `transfer`, `disk-read`, …).
    pub durations: Vec<(Arc<str>, f64)>,
    /// Bytes of all results that it produced.
    pub nbytes_total: u64,
    /// Names of the classes of the results.
    pub types: Vec<Arc<str>>,
}

impl Figures {
    /// Kinds of activities and of results that are told apart; what comes later is not counted.
    const KINDS: usize = 100;

    /// A task spent time on an activity.
    pub(crate) fn spend(&mut self, activity: &str, seconds: f64) {
        let has_room = self.durations.len() < Self::KINDS;
        match self
            .durations
            .iter_mut()
            .find(|(known, _)| **known == *activity)
        {
            Some((_, sum)) => *sum += seconds,
            None if has_room => {
                self.durations.push((activity.into(), seconds));
            }
            None => {}
        }
    }

    /// A task that began and ended then has a result of this class.
    pub(crate) fn note(&mut self, start: Time, stop: Time, nbytes: u64, type_: &Arc<str>) {
        self.start = Some(self.start.map_or(start, |known| known.min(start)));
        self.stop = Some(self.stop.map_or(stop, |known| known.max(stop)));
        self.nbytes_total = self.nbytes_total.saturating_add(nbytes);
        if self.types.len() < Self::KINDS && !self.types.contains(type_) {
            self.types.push(Arc::clone(type_));
        }
    }

    /// Counts another group in.
    pub(crate) fn add(&mut self, other: &Self) {
        for (activity, seconds) in &other.durations {
            self.spend(activity, *seconds);
        }
        let (start, stop) = (other.start, other.stop);
        self.start = self.start.into_iter().chain(start).min();
        self.stop = self.stop.into_iter().chain(stop).max();
        self.nbytes_total = self.nbytes_total.saturating_add(other.nbytes_total);
        for type_ in &other.types {
            if self.types.len() < Self::KINDS && !self.types.contains(type_) {
                self.types.push(Arc::clone(type_));
            }
        }
    }
}

impl Group {
    /// Tasks that the group has had.
    pub(crate) fn len(&self) -> u64 {
        self.states.iter().sum()
    }

    pub(crate) fn mean_nbytes(&self) -> u64 {
        self.nbytes.0.checked_div(self.nbytes.1).unwrap_or(0)
    }
}

/// All prefixes and groups, by name and by id.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    prefixes: Vec<Prefix>,
    prefix_names: IndexMap<Arc<str>, PrefixId, FxBuildHasher>,
    groups: IndexMap<GroupId, Group, FxBuildHasher>,
    group_names: IndexMap<Arc<str>, GroupId, FxBuildHasher>,
    next_group: u32,
}

impl Groups {
    /// The group of that name, made if it is new; `prefix` gives its prefix.
    pub(crate) fn group<'a>(
        &mut self,
        name: &str,
        prefix: impl FnOnce() -> std::borrow::Cow<'a, str>,
    ) -> GroupId {
        if let Some(id) = self.group_names.get(name) {
            return *id;
        }
        let prefix = self.prefix(&prefix());
        let id = GroupId(self.next_group);
        self.next_group += 1;
        let name: Arc<str> = name.into();
        self.group_names.insert(Arc::clone(&name), id);
        self.groups.insert(
            id,
            Group {
                name,
                prefix,
                states: [0; 8],
                dependencies: Set::Empty,
                last_worker: None,
                nbytes: (0, 0),
                result_type: None,
                span: None,
                figures: Figures::default(),
            },
        );
        id
    }

    /// The prefix of that name, made if it is new.
    pub(crate) fn prefix(&mut self, name: &str) -> PrefixId {
        if let Some(id) = self.prefix_names.get(name) {
            return *id;
        }
        let id = PrefixId(self.prefixes.len() as u32);
        let name: Arc<str> = name.into();
        self.prefix_names.insert(Arc::clone(&name), id);
        self.prefixes.push(Prefix {
            name,
            duration: None,
            fast: false,
            max_exec_time: 0.0,
            states: [0; 8],
            totals: PrefixTotals::default(),
        });
        id
    }

    /// Assumes a duration for a prefix whose tasks never ran. Unit: seconds.
    pub(crate) fn set_default_duration(&mut self, prefix: &str, seconds: f64) {
        let id = self.prefix(prefix);
        let prefix = &mut self.prefixes[id.0 as usize];
        prefix.duration = Some(seconds);
        prefix.fast = seconds <= FAST;
    }

    pub(crate) fn get(&self, id: GroupId) -> &Group {
        &self.groups[&id]
    }

    pub(crate) fn get_mut(&mut self, id: GroupId) -> &mut Group {
        &mut self.groups[&id]
    }

    pub(crate) fn try_get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(crate) fn prefix_of(&self, id: GroupId) -> &Prefix {
        &self.prefixes[self.groups[&id].prefix.0 as usize]
    }

    pub(crate) fn prefix_of_mut(&mut self, id: GroupId) -> &mut Prefix {
        &mut self.prefixes[self.groups[&id].prefix.0 as usize]
    }

    pub(crate) fn prefix_by_id(&self, id: PrefixId) -> &Prefix {
        &self.prefixes[id.0 as usize]
    }

    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &Prefix> {
        self.prefixes.iter()
    }

    /// A task of the group comes into being, in state released.
    pub(crate) fn add_task(&mut self, id: GroupId) {
        let group = &mut self.groups[&id];
        group.states[TaskStateName::Released as usize] += 1;
        self.prefixes[group.prefix.0 as usize].states[TaskStateName::Released as usize] += 1;
    }

    /// A task of the group, with a result of so many bytes, changes its state. A group without known tasks goes: it is
    /// given back.
    pub(crate) fn change_state(
        &mut self,
        id: GroupId,
        from: TaskStateName,
        to: TaskStateName,
        nbytes: u64,
    ) -> Option<Group> {
        let group = &mut self.groups[&id];
        let prefix = &mut self.prefixes[group.prefix.0 as usize];
        if to == TaskStateName::Memory {
            prefix.totals.output_bytes += nbytes;
        }
        if from == TaskStateName::Memory {
            prefix.totals.output_bytes -= nbytes;
        }
        for states in [&mut group.states, &mut prefix.states] {
            states[from as usize] -= 1;
            states[to as usize] += 1;
        }
        if to == TaskStateName::Forgotten {
            prefix.states[to as usize] -= 1;
            if group.states[to as usize] == group.len() {
                let group = self.groups.swap_remove(&id)?;
                self.group_names.swap_remove(&group.name);
                return Some(group);
            }
        }
        None
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }
}
