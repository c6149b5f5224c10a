//! The only reader of time and randomness in the daemon.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time and randomness from elsewhere than the machine: what a simulation gives, so that a run can be made again.
pub trait Source {
    /// Seconds since 1970.
    fn unix(&self) -> u64;

    /// Time that has passed since some moment; never goes back.
    fn elapsed(&self) -> Duration;

    /// Fills `bytes`. What comes from here guards no money.
    fn fill(&self, bytes: &mut [u8]);
}

thread_local! {
    /// What this thread has in place of the machine, since when.
    static STAND_IN: RefCell<Option<(Rc<dyn Source>, Instant)>> = const { RefCell::new(None) };
}

/// For as long as it lives, this thread has time and randomness from elsewhere.
#[must_use = "the machine's clock is back when this is dropped"]
pub struct StandIn(());

impl Drop for StandIn {
    fn drop(&mut self) {
        STAND_IN.set(None);
    }
}

fn stand_in() -> Option<(Rc<dyn Source>, Instant)> {
    STAND_IN.with_borrow(Clone::clone)
}

/// How far the time may be ahead of the tip's median time past. Where a block takes longer to come, what depends on this waits for it.
const AHEAD_SECS: u64 = 2 * 3600;

/// The time before which it cannot be, in unix seconds: the chain says so.
struct Floor(AtomicU64);

static FLOOR: Floor = Floor(AtomicU64::new(0));

impl Floor {
    fn raise(&self, unix: u64) {
        self.0.fetch_max(unix, Ordering::Relaxed);
    }

    fn latest(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0,
            median_time => median_time.saturating_add(AHEAD_SECS),
        }
    }

    fn or_later(&self, wall_unix: u64) -> u64 {
        wall_unix.max(self.0.load(Ordering::Relaxed))
    }
}

/// The operating system gave no random bytes. Nothing may be derived or opened without them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness: {0}")]
pub struct NoEntropy(pub String);

/// The machine's clock and its source of randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Gives this thread, and no other, time and randomness from `source`. No thread of the daemon asks for that.
    pub fn replace_on_this_thread(source: Rc<dyn Source>) -> StandIn {
        STAND_IN.set(Some((source, Instant::now())));
        StandIn(())
    }

    /// Seconds since 1970: the machine's clock, or the chain's where that is ahead (CLK-2). May go back (CLK-1). Never
    /// enters a key (KEY-2).
    pub fn now_unix() -> u64 {
        match stand_in() {
            Some((source, _)) => source.unix(),
            None => FLOOR.or_later(Self::wall_unix()),
        }
    }

    /// What the machine's clock says, in seconds since 1970; 0 where it stands before that.
    pub fn wall_unix() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// What the machine's clock says, as the time since 1970; nothing where it stands before that. For lines of the log.
    pub fn wall() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// It is this time or later, whatever the machine's clock says: the tip's median time past.
    pub fn not_before(unix: u64) {
        FLOOR.raise(unix);
    }

    /// The latest that it can be, in seconds since 1970, going by the chain alone: two hours after the newest median time past that was
    /// seen. Before one was, no time is known to be past. For what must not be lost to one wrong clock.
    pub fn latest_unix() -> u64 {
        FLOOR.latest()
    }

    /// A point on a clock that never goes back, for time limits.
    pub fn monotonic() -> Instant {
        stand_in().map_or_else(Instant::now, |(source, since)| since + source.elapsed())
    }

    /// `N` bytes fit for keys, from the operating system.
    pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
        let mut bytes = [0; N];
        Self::fill_random(&mut bytes)?;
        Ok(bytes)
    }

    /// A name that no other has: 48 bits of the time in milliseconds since 1970, and 80 random ones. In the order of bytes it comes
    /// behind those that were made before, as far as the clock went forward between them.
    pub fn timed_name() -> Result<[u8; 16], NoEntropy> {
        let mut name = [0; 16];
        let (time, rest) = name.split_at_mut(6);
        // The two bytes that are left out are 0 for the next eight thousand years.
        for (byte, now) in time.iter_mut().zip(Self::now_millis().to_be_bytes().into_iter().skip(2)) {
            *byte = now;
        }
        Self::fill_random(rest)?;
        Ok(name)
    }

    /// The same time as [`now_unix`](Self::now_unix), in milliseconds; whole seconds where it is not the machine's.
    fn now_millis() -> u64 {
        let secs = Self::now_unix();
        let machine = if stand_in().is_some() { Duration::ZERO } else { Self::wall() };
        let millis = u64::try_from(machine.as_millis()).unwrap_or(u64::MAX);
        millis.max(secs.saturating_mul(1000))
    }

    /// Fills `bytes` with bytes fit for keys, from the operating system.
    pub fn fill_random(bytes: &mut [u8]) -> Result<(), NoEntropy> {
        if let Some((source, _)) = stand_in() {
            source.fill(bytes);
            return Ok(());
        }
        getrandom::fill(bytes).map_err(|error| NoEntropy(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_time_has_begun() {
        assert_ne!(Clock::random_bytes::<32>().unwrap(), Clock::random_bytes::<32>().unwrap());
        assert!(Clock::now_unix() > 1_700_000_000);
        let names = [Clock::timed_name().unwrap(), Clock::timed_name().unwrap()];
        assert_ne!(names[0], names[1]);
        assert!(names[0][..6] <= names[1][..6]);
    }

    #[test]
    fn a_stand_in_is_for_its_own_thread_and_for_as_long_as_it_lives() {
        struct Still;
        impl Source for Still {
            fn unix(&self) -> u64 {
                7
            }
            fn elapsed(&self) -> Duration {
                Duration::from_secs(9)
            }
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(3);
            }
        }
        let before = Clock::monotonic();
        let stand_in = Clock::replace_on_this_thread(Rc::new(Still));
        assert_eq!((Clock::now_unix(), Clock::random_bytes()), (7, Ok([3; 4])));
        let name = [[0, 0, 0, 0, 0x1b, 0x58].as_slice(), &[3; 10]].concat();
        assert_eq!(Clock::timed_name().unwrap(), *name, "7,000 ms");
        assert!(Clock::monotonic() >= before + Duration::from_secs(9));
        std::thread::spawn(|| assert!(Clock::now_unix() > 1_700_000_000)).join().unwrap();
        drop(stand_in);
        assert!(Clock::now_unix() > 1_700_000_000);
        assert_ne!(Clock::random_bytes(), Ok([3; 32]));
    }

    #[test]
    fn clk_2_a_clock_that_is_behind_the_chain_is_not_believed() {
        const TIP: u64 = 1_700_000_000;
        let floor = Floor(AtomicU64::new(0));
        assert_eq!((floor.or_later(0), floor.latest()), (0, 0), "nothing is known yet");
        floor.raise(TIP);
        // 1970, an hour behind, and 2100.
        for (wall, now) in [(0, TIP), (TIP - 3600, TIP), (TIP, TIP), (TIP + 1, TIP + 1), (4_102_444_800, 4_102_444_800)]
        {
            assert_eq!(floor.or_later(wall), now);
        }
        assert_eq!(floor.latest(), TIP + 7200);
        floor.raise(TIP - 600);
        assert_eq!(floor.or_later(0), TIP, "a reorganisation does not take it back");
    }
}
