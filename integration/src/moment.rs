//! The moment at which something is killed or cut, told by what the wire has carried.

use std::fmt;
use std::time::Duration;

use crate::proxy::{Proxy, Way};
use crate::{Dice, Done, until};

/// Time for a moment to come, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Once so many bytes have gone one way.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    way: Way,
    bytes: u64,
    /// What has passed by then since the wire is there.
    total: u64,
    /// Whether what comes after is held, so that both sides do all that they can without it; else the axe falls in the
    /// middle of their work.
    held: bool,
}

impl Moment {
    /// One before `bytes` have passed.
    pub fn thrown(dice: &mut Dice, bytes: u64) -> Self {
        let way = dice.one_of([Way::Out, Way::Back]);
        Self { way, bytes: dice.below(bytes), total: 0, held: dice.one_of([true, false]) }
    }

    /// Prepares the wire, before anything is sent.
    pub fn arm(&mut self, wire: &Proxy) {
        self.total = wire.passed(self.way).saturating_add(self.bytes);
        if self.held {
            wire.hold_after(self.way, usize::try_from(self.bytes).unwrap_or(usize::MAX));
        }
    }

    /// Waits for the moment, or until all is `over` without it.
    pub async fn come(self, wire: &Proxy, over: impl AsyncFn() -> Done<bool>) -> Done<()> {
        let what = format!("all to be over, or {self}");
        let over = until(LIMIT, &what, async || {
            let has_come = self.held && wire.held(self.way) > 0;
            Ok((has_come || over().await?).then_some(()))
        });
        if self.held {
            return over.await;
        }
        tokio::select! {
            passed = wire.until_passed(self.way, self.total) => passed,
            over = over => over,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hold = if self.held { ", the rest held" } else { "" };
        write!(f, "once {} bytes have gone {:?}{hold}", self.bytes, self.way)
    }
}
