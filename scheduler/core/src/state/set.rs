//! Small ordered sets of ids: nothing allocated for none and one, a hash only for many.

use std::hash::Hash;

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// Elements held without a hash.
const FEW: usize = 7;

/// A set in insertion order, until a removal from more than [`FEW`] moves the last element into the gap.
/// The order depends on the calls alone, never on a hash.
#[derive(Clone, Debug, Default)]
pub(crate) enum Set<T> {
    #[default]
    Empty,
    One(T),
    Few(Box<Few<T>>),
    Many(Box<IndexSet<T, FxBuildHasher>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Few<T> {
    len: u8,
    items: [T; FEW],
}

impl<T: Copy + Eq + Hash> Set<T> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Few(few) => usize::from(few.len),
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn contains(&self, item: T) -> bool {
        match self {
            Self::Many(many) => many.contains(&item),
            small => small.iter().any(|x| x == item),
        }
    }

    pub(crate) fn first(&self) -> Option<T> {
        self.iter().next()
    }

    /// Adds an element; false if it was there.
    pub(crate) fn insert(&mut self, item: T) -> bool {
        if self.contains(item) {
            return false;
        }
        match self {
            Self::Empty => *self = Self::One(item),
            Self::One(first) => {
                let mut items = [*first; FEW];
                items[1] = item;
                *self = Self::Few(Box::new(Few { len: 2, items }));
            }
            Self::Few(few) if usize::from(few.len) < FEW => {
                few.items[usize::from(few.len)] = item;
                few.len += 1;
            }
            Self::Few(few) => {
                let mut many: IndexSet<T, FxBuildHasher> = few.items.iter().copied().collect();
                many.insert(item);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => {
                many.insert(item);
            }
        }
        true
    }

    /// Takes an element out; false if it was not there.
    pub(crate) fn remove(&mut self, item: T) -> bool {
        match self {
            Self::Empty => false,
            Self::One(first) => {
                let found = *first == item;
                if found {
                    *self = Self::Empty;
                }
                found
            }
            Self::Few(few) => {
                let len = usize::from(few.len);
                let Some(at) = few.items[..len].iter().position(|x| *x == item) else {
                    return false;
                };
                few.items.copy_within(at + 1..len, at);
                few.len -= 1;
                match few.len {
                    0 => *self = Self::Empty,
                    1 => *self = Self::One(few.items[0]),
                    _ => {}
                }
                true
            }
            Self::Many(many) => {
                let found = many.swap_remove(&item);
                if many.is_empty() {
                    *self = Self::Empty;
                }
                found
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        let (slice, many): (&[T], _) = match self {
            Self::Empty => (&[], None),
            Self::One(item) => (std::slice::from_ref(item), None),
            Self::Few(few) => (&few.items[..usize::from(few.len)], None),
            Self::Many(many) => (&[], Some(many.iter())),
        };
        slice.iter().chain(many.into_iter().flatten()).copied()
    }

    /// The elements, for loops that change the set or what it belongs to.
    pub(crate) fn to_vec(&self) -> Vec<T> {
        self.iter().collect()
    }
}

impl<T: Copy + Eq + Hash> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut set = Self::Empty;
        items.into_iter().for_each(|item| {
            set.insert(item);
        });
        set
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(calls in prop::collection::vec((any::<bool>(), 0_u32..20), 0..200)) {
            let mut set = Set::default();
            let mut model = std::collections::BTreeSet::new();
            for (insert, item) in calls {
                if insert {
                    prop_assert_eq!(set.insert(item), model.insert(item));
                } else {
                    prop_assert_eq!(set.remove(item), model.remove(&item));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert!(set.iter().all(|x| model.contains(&x)));
                prop_assert!(model.iter().all(|x| set.contains(*x)));
            }
        }
    }

    #[test]
    fn a_set_of_ids_takes_sixteen_bytes() {
        assert_eq!(size_of::<Set<u32>>(), 16);
    }
}
