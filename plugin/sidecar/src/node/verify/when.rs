//! When a backup is tried: a value that is given the time.

use std::time::{Duration, Instant};

use crate::store::backup::verify::Verdict;

/// The longest wait after a try that found something wrong, or could not compare everything.
const AGAIN: Duration = Duration::from_secs(600);

/// A backup that cannot be read for so many tries, one after the other, is told of: it may only have been away for the first.
const UNREADABLE: u32 = 3;

/// When the next try of one backup is due.
#[derive(Debug)]
pub(super) struct When {
    every: Duration,
    /// Nothing before the first try, which is due at once.
    next: Option<Instant>,
    /// How many tries could not read it, since the last one that could.
    unread: u32,
}

impl When {
    /// A try now, and again as long after one that went well; nothing where none is to be tried.
    pub(super) fn new(every: Option<Duration>) -> Option<Self> {
        every.map(|every| Self { every, next: None, unread: 0 })
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| now >= next)
    }

    /// Whether a try was made since the start.
    pub(super) const fn was_tried(&self) -> bool {
        self.next.is_some()
    }

    /// Takes note of what a try found that ended now. Says whether what could not be read has to be told as wrong by now.
    pub(super) fn tried(&mut self, verdict: &Verdict, now: Instant) -> bool {
        let soon = AGAIN.min(self.every);
        let (wait, unread) = match verdict {
            Verdict::Right(_) | Verdict::Partly(..) => (self.every, 0),
            Verdict::Later(_) | Verdict::Wrong(_) => (soon, 0),
            Verdict::Unread(_) => (soon, self.unread.saturating_add(1)),
        };
        self.unread = unread;
        self.next = now.checked_add(wait).or_else(|| now.checked_add(soon)).or(Some(now));
        unread >= UNREADABLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const INSTANT: Duration = Duration::from_nanos(1);

    fn words() -> String {
        "words".to_owned()
    }

    fn right() -> Verdict {
        Verdict::Right(2)
    }

    fn unread() -> Verdict {
        Verdict::Unread(words())
    }

    /// The next try is due after this long, and not before.
    fn assert_due_after(when: &When, tried: Instant, wait: Duration) {
        assert!(when.was_tried());
        let due = tried + wait;
        assert_eq!([tried, due - INSTANT, due, due + 10 * DAY].map(|now| when.is_due(now)), [false, false, true, true]);
    }

    #[test]
    fn a_restore_is_tried_at_once_and_then_again_as_often_as_is_configured() {
        let start = Instant::now();
        let mut when = When::new(Some(DAY)).unwrap();
        assert!(when.is_due(start) && !when.was_tried());
        let mut now = start;
        for verdict in [right(), right(), Verdict::Partly(Vec::new(), words()), right()] {
            assert!(when.is_due(now));
            assert!(!when.tried(&verdict, now));
            assert_due_after(&when, now, DAY);
            now += DAY;
        }
        // One that comes late is counted from its own end.
        now += 3 * HOUR;
        assert!(!when.tried(&right(), now));
        assert_due_after(&when, now, DAY);
    }

    #[test]
    fn what_is_wrong_or_could_not_be_compared_is_tried_again_soon() {
        let now = Instant::now();
        for verdict in [Verdict::Wrong(words()), Verdict::Later(words()), unread()] {
            for (every, wait) in [(DAY, AGAIN), (AGAIN / 2, AGAIN / 2)] {
                let mut when = When::new(Some(every)).unwrap();
                assert!(!when.tried(&verdict, now), "{verdict:?}");
                assert_due_after(&when, now, wait);
                // It is well again: the next is due as usual.
                assert!(!when.tried(&right(), now + wait));
                assert_due_after(&when, now + wait, every);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_from_the_third_try_on_that_follows_another() {
        let mut now = Instant::now();
        for between in [right(), Verdict::Partly(Vec::new(), words()), Verdict::Later(words()), Verdict::Wrong(words())]
        {
            let mut when = When::new(Some(DAY)).unwrap();
            let mut tell = |verdict: Verdict| {
                now += DAY;
                let is_told = when.tried(&verdict, now);
                if matches!(verdict, Verdict::Unread(_)) {
                    assert_due_after(&when, now, AGAIN);
                }
                is_told
            };
            assert_eq!([unread(), unread()].map(&mut tell), [false, false]);
            assert!(!tell(between), "the count begins anew");
            assert_eq!([unread(), unread(), unread(), unread()].map(&mut tell), [false, false, true, true]);
        }
    }

    #[test]
    fn nothing_is_tried_where_that_is_off() {
        assert!(When::new(None).is_none());
    }

    /// A wait beyond what the clock can tell ends no schedule, and makes none of one try after the other.
    #[test]
    fn a_wait_without_end_is_a_short_one() {
        let now = Instant::now();
        let mut when = When::new(Some(Duration::MAX)).unwrap();
        when.tried(&right(), now);
        assert_due_after(&when, now, AGAIN);
    }
}
