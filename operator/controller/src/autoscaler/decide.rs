//! How many workers a group should have: pure.

use oxidask_operator_api::GroupBounds;

use crate::scheduler::Demand;

/// How many workers there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    minimum: i64,
    maximum: i64,
}

impl Limits {
    pub(super) fn new(minimum: Option<i64>, maximum: Option<i64>) -> Self {
        Self {
            minimum: minimum.unwrap_or(0).max(0),
            maximum: maximum.unwrap_or(i64::MAX).max(0),
        }
    }

    /// The nearest number within them. As upstream: the maximum wins over the
    /// minimum.
    fn clamp(self, n: i64) -> i64 {
        n.max(self.minimum).min(self.maximum)
    }
}

/// What each group is asked for: what the scheduler says of it, or else what
/// the groups before it cannot take. `groups`: the names, the default group
/// first, with the limits of each.
pub(super) fn shares(demand: &Demand, groups: &[(&str, Limits)]) -> Vec<i64> {
    let mut rest = demand.total.max(0);
    groups
        .iter()
        .map(|(name, limits)| {
            let share = match demand.by_group.get(*name) {
                Some(share) => (*share).max(0),
                None => rest,
            };
            rest = (rest - limits.clamp(share)).max(0);
            share
        })
        .collect()
}

/// The bounds of a further group.
pub(super) fn limits_of(bounds: &GroupBounds) -> Limits {
    Limits::new(bounds.minimum, bounds.maximum)
}

/// A decision and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decision {
    pub(super) target: i64,
    pub(super) reason: &'static str,
    pub(super) sentence: String,
}

/// How many workers there should be, of `current` ones, when `demand` are asked
/// for now and at most `recent` were lately.
///
/// Upwards at once. Downwards to what was asked for lately, and by at most a
/// quarter (but one) at a time, as upstream does.
pub(super) fn decide(current: i64, demand: i64, recent: i64, limits: Limits) -> Decision {
    let clamp = |n| limits.clamp(n);
    let decision = |target: i64, reason, sentence: String| Decision {
        target,
        reason,
        sentence,
    };
    let wanted = clamp(demand);
    if wanted > current {
        let reason = if demand > limits.maximum {
            "LimitedByMaximum"
        } else {
            "ScaledUp"
        };
        return decision(
            wanted,
            reason,
            format!("scaled up from {current} to {wanted}"),
        );
    }
    let lately = clamp(recent.max(demand));
    if lately >= current {
        let reason = match () {
            () if demand > limits.maximum => "LimitedByMaximum",
            () if wanted < current => "Stabilising",
            () if demand < limits.minimum => "LimitedByMinimum",
            () => "AsWanted",
        };
        return decision(current, reason, format!("{current} stay"));
    }
    let step = (current / 4).max(1);
    let target = lately.max(current - step);
    let reason = if target > lately {
        "LimitedByStep"
    } else {
        "ScaledDown"
    };
    decision(
        target,
        reason,
        format!("scaled down from {current} to {target}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(current: i64, demand: i64, recent: i64, limits: (i64, i64)) -> (i64, &'static str) {
        let limits = Limits::new(Some(limits.0), Some(limits.1));
        let decision = decide(current, demand, recent, limits);
        (decision.target, decision.reason)
    }

    #[test]
    fn up_goes_at_once_and_to_the_maximum_at_most() {
        assert_eq!(target(0, 7, 7, (0, 10)), (7, "ScaledUp"));
        assert_eq!(target(4, 70, 70, (0, 10)), (10, "LimitedByMaximum"));
        assert_eq!(target(10, 70, 70, (0, 10)), (10, "LimitedByMaximum"));
    }

    #[test]
    fn down_goes_by_a_quarter_and_to_the_minimum_at_most() {
        assert_eq!(target(20, 0, 0, (0, 50)), (15, "LimitedByStep"));
        assert_eq!(target(2, 0, 0, (0, 50)), (1, "LimitedByStep"));
        assert_eq!(target(1, 0, 0, (0, 50)), (0, "ScaledDown"));
        assert_eq!(target(2, 0, 0, (2, 50)), (2, "LimitedByMinimum"));
        // A maximum below what is there drains at the same pace.
        assert_eq!(target(20, 20, 20, (0, 4)), (15, "LimitedByStep"));
    }

    #[test]
    fn a_dip_of_the_demand_is_waited_out() {
        assert_eq!(target(8, 1, 8, (0, 50)), (8, "Stabilising"));
        assert_eq!(target(8, 1, 7, (0, 50)), (7, "ScaledDown"));
    }

    #[test]
    fn without_limits_the_demand_counts() {
        let decision = decide(3, 500, 500, Limits::new(None, None));
        assert_eq!(decision.target, 500);
    }

    #[test]
    fn a_total_is_taken_by_the_groups_in_their_order() {
        let groups = [
            ("default", Limits::new(Some(1), Some(4))),
            ("big", Limits::new(None, Some(2))),
            ("rest", Limits::new(None, None)),
        ];
        let taken = |total: i64| {
            let demand = Demand {
                total,
                ..Demand::default()
            };
            shares(&demand, &groups)
        };
        assert_eq!(taken(0), [0, 0, 0]);
        assert_eq!(taken(5), [5, 1, 0]);
        assert_eq!(taken(10), [10, 6, 4]);
    }

    #[test]
    fn what_the_scheduler_says_of_a_group_counts_for_it() {
        let groups = [
            ("default", Limits::new(None, None)),
            ("gpu", Limits::new(None, None)),
        ];
        let demand = Demand {
            total: 7,
            by_group: [("default".to_owned(), 5), ("gpu".to_owned(), 2)].into(),
        };
        assert_eq!(shares(&demand, &groups), [5, 2]);
    }
}
