//! Time that passes when the simulation says so, and randomness that a seed gives.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use outrigger_sidecar::clock::Source;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone)]
pub struct VirtualClock {
    elapsed: Cell<Duration>,
    rng: RefCell<ChaCha8Rng>,
}

/// When every simulation begins.
const BEGIN: u64 = 1_800_000_000;

impl VirtualClock {
    pub fn new(seed: u64) -> Self {
        Self { elapsed: Cell::default(), rng: RefCell::new(ChaCha8Rng::seed_from_u64(!seed)) }
    }

    pub fn pass(&self, time: Duration) {
        self.elapsed.set(self.elapsed.get() + time);
    }
}

impl Source for VirtualClock {
    fn unix(&self) -> u64 {
        BEGIN + self.elapsed.get().as_secs()
    }

    fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.rng.borrow_mut().fill_bytes(bytes);
    }
}
