//! Which executors of this worker have a value.

/// Executors behind one address at most.
pub(crate) const MOST_EXECUTORS: usize = 64;

/// A set of executors, by their numbers below [`MOST_EXECUTORS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holders(u64);

impl Holders {
    /// None of them.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn one(executor: usize) -> Self {
        Self(1 << executor)
    }

    pub(crate) fn contains(self, executor: usize) -> bool {
        self.0 & (1 << executor) != 0
    }

    pub(crate) fn insert(&mut self, executor: usize) {
        self.0 |= 1 << executor;
    }

    pub(crate) fn remove(&mut self, executor: usize) {
        self.0 &= !(1 << executor);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one of the smallest number.
    pub(crate) fn first(self) -> Option<usize> {
        (!self.is_empty()).then_some(self.0.trailing_zeros() as usize)
    }

    /// All of them, smallest number first.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..MOST_EXECUTORS).filter(move |executor| self.contains(*executor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_knows_whom_it_holds() {
        let mut holders = Holders::one(3);
        holders.insert(63);
        assert_eq!(holders.iter().collect::<Vec<_>>(), [3, 63]);
        assert_eq!(holders.first(), Some(3));
        holders.remove(3);
        assert!(!holders.contains(3) && holders.contains(63));
        holders.remove(63);
        assert!(holders.is_empty() && holders.first().is_none());
    }
}
