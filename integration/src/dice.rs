//! Chance that can be repeated.

use std::time::SystemTime;

use crate::Done;

/// Numbers that a seed repeats (xorshift).
pub struct Dice(u64);

impl Dice {
    /// Begins with [`Self::seed`].
    pub fn thrown() -> Done<Self> {
        Ok(Self::seeded(Self::seed()?))
    }

    /// Begins with this seed.
    pub fn seeded(seed: u64) -> Self {
        // Zero would stay zero.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// Begins with a seed of its own for each step of each of the streams that one seed has: a step can be repeated without those
    /// before it.
    pub fn of_step(seed: u64, stream: u64, step: u64) -> Self {
        let mut mixed = Self::seeded(seed.wrapping_add(stream << 48).wrapping_add(step << 16));
        // Neighbours differ in few bits at first.
        for _ in 0..8 {
            mixed.below(1);
        }
        mixed
    }

    /// The seed in `OUTRIGGER_SEED`, or another at each call. It is printed.
    pub fn seed() -> Done<u64> {
        let seed: u64 = match std::env::var("OUTRIGGER_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos().into(),
        };
        println!("OUTRIGGER_SEED={seed}");
        Ok(seed)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }

    /// One of the choices, each as likely.
    pub fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        let index = usize::try_from(self.below(N as u64)).unwrap_or_default();
        choices[index]
    }
}
