//! Pseudo-random numbers (xorshift). They are the same in each run, so that a failure can be reproduced.

/// A generator. The seed must not be 0.
pub struct Rng(pub u64);

impl Rng {
    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
