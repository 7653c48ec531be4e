//! Chance, from a seed.

/// Knuth's linear congruential generator.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.roll(2);
        dice
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("31 bits") % sides
    }

    pub fn is(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    /// Mostly little, sometimes much.
    pub fn size(&mut self) -> usize {
        let most = self.pick(&[1, 1, 30, 30, 30, 130, 300, 1000, 6000]);
        let most = if most == 6000 && self.is(6) { 70_000 } else { most };
        self.roll(most + 1)
    }
}
