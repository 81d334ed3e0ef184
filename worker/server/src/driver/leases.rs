//! Segments that an executor maps, held until it has unmapped them.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::store::Segment;

/// By number of the segment: it, and how often the executor was given it.
#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<u64, (Arc<Segment>, u32)>);

impl Leases {
    /// The executor is given these.
    pub(super) fn grant(&mut self, segments: &[Arc<Segment>]) {
        for segment in segments {
            let lease = self.0.entry(segment.id());
            lease.or_insert_with(|| (segment.clone(), 0)).1 += 1;
        }
    }

    /// The executor has given them back, each as often as it is named.
    pub(super) fn give_back(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            if let Some((_, count)) = self.0.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(&id);
                }
            }
        }
    }
}
