//! Chance that can be repeated: every test that uses it prints its seed.

/// A small generator (xorshift64*), good enough for orders and moments.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded from `OXIDASK_SEED`, or else from the clock; prints the seed either way.
    pub fn from_environment() -> Self {
        let seed = std::env::var("OXIDASK_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .map_or(1, |since| since.subsec_nanos().into())
        });
        println!("OXIDASK_SEED={seed}");
        Self::new(seed)
    }

    fn new(seed: u64) -> Self {
        // Zero would stay zero; the constant spreads small seeds.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(number).unwrap_or_default() % end
    }

    /// Puts the items into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_orders_and_others_another_one() {
        let order = |seed| {
            let mut items: Vec<_> = (0..20).collect();
            Random::new(seed).shuffle(&mut items);
            items
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let mut sorted = order(7);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
