//! When the operator is told that something is wrong, and right again: a function of what is found and of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::store::troubles::{Subject, Troubles};

/// What is wrong for shorter is not told: a bitcoind that is started again, a peer that comes back.
const HOLD: Duration = Duration::from_secs(10);

/// The same of what has not been right since the start of the node.
const HOLD_AT_START: Duration = Duration::from_secs(60);

/// What is right again for shorter is not told either. It doubles with each word that something is wrong, so that what comes and goes
/// is told to be wrong for as long as it does, and seldom to be right.
const FIRST_CALM: Duration = Duration::from_secs(10);

/// It becomes no longer than this.
const LONGEST_CALM: Duration = Duration::from_secs(3600);

/// After so long without a word that something is wrong it is the shortest again.
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
    ill_since: Option<Instant>,
    hold: Duration,
    told_at: Option<Instant>,
    well_since: Option<Instant>,
    calm: Duration,
}

impl Course {
    fn new(hold: Duration) -> Self {
        Self { ill_since: None, hold, told_at: None, well_since: None, calm: FIRST_CALM }
    }

    /// Whether it is wrong for long enough.
    fn is_wrong(&mut self, now: Instant) -> bool {
        self.well_since = None;
        now.saturating_duration_since(*self.ill_since.get_or_insert(now)) >= self.hold
    }

    /// Whether it is right for long enough.
    fn is_right(&mut self, now: Instant) -> bool {
        (self.ill_since, self.hold) = (None, HOLD);
        now.saturating_duration_since(*self.well_since.get_or_insert(now)) >= self.calm
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= FORGOTTEN_AFTER)
    }

    fn told(&mut self, now: Instant) {
        let is_again = !self.is_forgotten(now);
        self.calm = if is_again { self.calm.saturating_mul(2).min(LONGEST_CALM) } else { FIRST_CALM };
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
                    let is_told = self.told.0.contains(subject);
                    if is_told || self.courses.contains_key(subject) {
                        let course = self.courses.entry(subject.clone()).or_insert_with(|| Course::new(HOLD));
                        let is_right = course.is_right(now);
                        let is_over = course.is_forgotten(now);
                        if is_told && is_right {
                            self.told.0.remove(subject);
                            if counts(subject) {
                                news.push((subject.clone(), false));
                            }
                        }
                        if is_over && !self.told.0.contains(subject) {
                            self.courses.remove(subject);
                        }
                    }
                }
                How::Unsure => {
                    if let Some(course) = self.courses.get_mut(subject) {
                        (course.ill_since, course.well_since) = (None, None);
                    }
                }
                How::Ill => {
                    let course = self.courses.entry(subject.clone()).or_insert_with(|| Course::new(hold));
                    let is_wrong = course.is_wrong(now);
                    if is_wrong && !self.told.0.contains(subject) && counts(subject) {
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
        assert_eq!(bench.at(5002, How::Well), None);
        assert_eq!(bench.at(5011, How::Well), None);
        assert_eq!(bench.at(5012, How::Well), Some(false));
        assert_eq!(bench.at(5013, How::Well), None);
        // What is right for a moment begins anew.
        assert_eq!(bench.at(6000, How::Ill), None);
        assert_eq!(bench.at(6009, How::Well), None);
        assert_eq!(bench.at(6010, How::Ill), None);
        assert_eq!(bench.at(6019, How::Unsure), None);
        assert_eq!(bench.at(6020, How::Ill), None);
        assert_eq!(bench.at(6030, How::Ill), Some(true));
        // So does what is wrong for a moment; and behind a second word it is to be right for twice as long.
        assert_eq!(bench.at(6031, How::Well), None);
        assert_eq!(bench.at(6050, How::Ill), None);
        assert_eq!(bench.at(6051, How::Well), None);
        assert_eq!(bench.at(6070, How::Well), None);
        assert_eq!(bench.at(6071, How::Well), Some(false));
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
        assert_eq!(bench.at(1001, How::Well), None);
        assert_eq!(bench.at(1011, How::Well), Some(false));
        let mut bench = Bench::new(&[Subject::Chain]);
        assert_eq!(bench.at(0, How::Well), None);
        assert_eq!(bench.at(10, How::Well), Some(false));
        // Once it was right, ten seconds are enough.
        assert_eq!(bench.at(11, How::Ill), None);
        assert_eq!(bench.at(21, How::Ill), Some(true));
    }

    #[test]
    fn what_flaps_for_a_week_is_told_to_be_wrong_and_a_bounded_number_of_times_to_be_right() {
        let mut bench = Bench::new(&[]);
        assert_eq!(bench.at(0, How::Well), None);
        let (week, mut wrong, mut right, mut at) = (7 * 24 * 3600, Vec::new(), Vec::new(), 1);
        // Away for ten seconds, and there for sixty.
        while at < week {
            for (second, how) in [(0, How::Ill), (10, How::Ill), (11, How::Well), (70, How::Well)] {
                match bench.at(at + second, how) {
                    Some(true) => wrong.push(at + second),
                    Some(false) => right.push(at + second),
                    None => {}
                }
            }
            at += 71;
        }
        // It is to be right for 10, 20, 40 and then 80 seconds, which it never is.
        assert_eq!((wrong.len(), right.len()), (4, 3), "{wrong:?} {right:?}");
        // It was right for two hours: nothing is held against it.
        assert_eq!(bench.at(at, How::Well), None);
        assert_eq!(bench.at(at + 7200, How::Well), Some(false));
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
        assert_eq!(look(112, How::Well, false), []);
        assert_eq!(look(113, How::Well, true), []);
    }
}
