//! When the operator is told that something is wrong, and right again: a function of what is found and of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::store::troubles::{Subject, Troubles};

/// What is wrong for shorter is not told: a bitcoind that is started again, a peer that comes back.
const HOLD: Duration = Duration::from_secs(10);

/// The same of what has not been right since the start of the node.
const HOLD_AT_START: Duration = Duration::from_secs(60);

/// The shortest time from one word that something is wrong to the next of the same. It doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(60);

/// It becomes no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// After so long without such a word it is the shortest again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 3600);

/// How something is found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Well,
    /// Neither: what was told stands.
    Unsure,
    Ill,
}

/// The course of something that is not well, or was not lately.
#[derive(Debug)]
struct Course {
    since: Option<Instant>,
    hold: Duration,
    told_at: Option<Instant>,
    wait: Duration,
}

impl Course {
    fn new(hold: Duration) -> Self {
        Self { since: None, hold, told_at: None, wait: FIRST_WAIT }
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_long = self.since.is_some_and(|since| now.saturating_duration_since(since) >= self.hold);
        is_long && self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= self.wait)
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= FORGOTTEN_AFTER)
    }

    fn told(&mut self, now: Instant) {
        let is_again = !self.is_forgotten(now);
        self.wait = if is_again { self.wait.saturating_mul(2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.told_at = Some(now);
    }
}

/// Follows everything that may be wrong. What it holds is bounded by what there is to look at.
#[derive(Debug)]
pub(super) struct Watch {
    told: Troubles,
    courses: BTreeMap<Subject, Course>,
    has_looked: bool,
}

impl Watch {
    /// `told` is what earlier runs of the node said.
    pub(super) fn new(told: Troubles) -> Self {
        Self { told, courses: BTreeMap::new(), has_looked: false }
    }

    /// What is told to be wrong now.
    pub(super) fn told(&self) -> &Troubles {
        &self.told
    }

    /// Takes in how everything is found, and gives what is to be told: that it is wrong (true), or right again. What is found no more,
    /// or does not `count`, is not told of.
    pub(super) fn look(
        &mut self,
        now: Instant,
        found: &[(Subject, How)],
        counts: impl Fn(&Subject) -> bool,
    ) -> Vec<(Subject, bool)> {
        let hold = if self.has_looked { HOLD } else { HOLD_AT_START };
        self.has_looked = true;
        let there: BTreeSet<_> = found.iter().map(|(subject, _)| subject).collect();
        self.told.0.retain(|subject| there.contains(subject));
        self.courses.retain(|subject, _| there.contains(subject));
        let mut news = Vec::new();
        for (subject, how) in found {
            match how {
                How::Well => {
                    if self.told.0.remove(subject) && counts(subject) {
                        news.push((subject.clone(), false));
                    }
                    if let Some(course) = self.courses.get_mut(subject) {
                        (course.since, course.hold) = (None, HOLD);
                    }
                    if self.courses.get(subject).is_some_and(|course| course.is_forgotten(now)) {
                        self.courses.remove(subject);
                    }
                }
                How::Unsure => {
                    if let Some(course) = self.courses.get_mut(subject) {
                        course.since = None;
                    }
                }
                How::Ill => {
                    let course = self.courses.entry(subject.clone()).or_insert_with(|| Course::new(hold));
                    course.since.get_or_insert(now);
                    if !self.told.0.contains(subject) && course.is_due(now) && counts(subject) {
                        course.told(now);
                        self.told.0.insert(subject.clone());
                        news.push((subject.clone(), true));
                    }
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    struct Bench {
        watch: Watch,
        begun: Instant,
    }

    impl Bench {
        fn new(told: &[Subject]) -> Self {
            Self { watch: Watch::new(Troubles(told.iter().cloned().collect())), begun: Instant::now() }
        }

        /// What is told of the chain at this second.
        fn at(&mut self, secs: u64, how: How) -> Option<bool> {
            let news = self.watch.look(self.begun + Duration::from_secs(secs), &[(Subject::Chain, how)], |_| true);
            assert!(news.len() <= 1);
            let told = news.first().map(|(_, is_wrong)| *is_wrong);
            if let Some(is_wrong) = told {
                assert_eq!(self.watch.told().0.contains(&Subject::Chain), is_wrong);
            }
            told
        }
    }

    #[test]
    fn what_is_wrong_for_ten_seconds_is_told_once_and_so_is_its_end() {
        let mut bench = Bench::new(&[]);
        assert_eq!(bench.at(0, How::Well), None);
        assert_eq!(bench.at(100, How::Ill), None);
        assert_eq!(bench.at(109, How::Ill), None);
        assert_eq!(bench.at(110, How::Ill), Some(true));
        assert_eq!(bench.at(5000, How::Ill), None);
        assert_eq!(bench.at(5001, How::Unsure), None);
        assert_eq!(bench.at(5002, How::Well), Some(false));
        assert_eq!(bench.at(5003, How::Well), None);
        // What is right for a moment begins anew.
        assert_eq!(bench.at(6000, How::Ill), None);
        assert_eq!(bench.at(6009, How::Well), None);
        assert_eq!(bench.at(6010, How::Ill), None);
        assert_eq!(bench.at(6019, How::Unsure), None);
        assert_eq!(bench.at(6020, How::Ill), None);
        assert_eq!(bench.at(6030, How::Ill), Some(true));
    }

    #[test]
    fn what_was_not_right_since_the_start_has_a_minute_and_what_was_told_before_it_is_told_no_more() {
        let mut bench = Bench::new(&[]);
        assert_eq!(bench.at(0, How::Ill), None);
        assert_eq!(bench.at(59, How::Ill), None);
        assert_eq!(bench.at(60, How::Ill), Some(true));
        let mut bench = Bench::new(&[Subject::Chain]);
        assert_eq!(bench.at(0, How::Ill), None);
        assert_eq!(bench.at(1000, How::Ill), None);
        assert_eq!(bench.at(1001, How::Well), Some(false));
        let mut bench = Bench::new(&[Subject::Chain]);
        assert_eq!(bench.at(0, How::Well), Some(false));
        // Once it was right, ten seconds are enough.
        assert_eq!(bench.at(1, How::Ill), None);
        assert_eq!(bench.at(11, How::Ill), Some(true));
    }

    #[test]
    fn what_flaps_for_a_week_is_told_a_bounded_number_of_times() {
        let mut bench = Bench::new(&[]);
        assert_eq!(bench.at(0, How::Well), None);
        let (week, mut wrong, mut right, mut at) = (7 * 24 * 3600, Vec::new(), 0, 1);
        // Away for ten seconds of each eleven.
        while at < week {
            bench.at(at, How::Ill).inspect(|_| wrong.push(at));
            bench.at(at + 10, How::Ill).inspect(|_| wrong.push(at + 10));
            right += usize::from(bench.at(at + 11, How::Well).is_some());
            at += 12;
        }
        assert_eq!(wrong.len(), right);
        let waits: Vec<_> = wrong.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (wait, least) in waits.iter().zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            assert!(*wait >= least * MINUTE && *wait < least * MINUTE + 12, "{waits:?}");
        }
        assert!(wrong.len() <= 7 * 24 + 7, "{}", wrong.len());
        // It was right for two hours: nothing is held against it.
        bench.at(at + 7200, How::Well);
        assert!(bench.watch.courses.is_empty());
    }

    #[test]
    fn what_is_gone_or_does_not_count_is_told_of_no_more() {
        let backup = || Subject::Backup("second".to_owned());
        let (begun, mut watch) = (Instant::now(), Watch::new(Troubles([backup()].into())));
        assert_eq!(watch.look(begun, &[(Subject::Chain, How::Well)], |_| true), []);
        assert!(watch.told().0.is_empty(), "the configuration has it no more");
        let mut look = |secs, how, counts: bool| {
            let found = [(Subject::Chain, How::Well), (backup(), how)];
            watch.look(begun + Duration::from_secs(secs), &found, |_| counts)
        };
        assert_eq!(look(1, How::Ill, false), []);
        assert_eq!(look(100, How::Ill, false), []);
        assert_eq!(look(101, How::Ill, true), [(backup(), true)]);
        assert_eq!(look(102, How::Well, false), []);
        assert_eq!(look(103, How::Well, true), []);
    }
}
