//! What is done for one sink: by a thread of its own, or step by step.

use std::sync::atomic::Ordering;

use super::super::Persist;
use super::super::desk::Desk;
use super::super::ends::SinkFault;
use super::Hub;

impl Hub {
    /// What a sink's thread does: it hears what the sink holds, and then gives it one thing after the other.
    pub(super) fn serve(&self, number: usize, mut sink: Box<dyn Persist>) {
        let Some(desk) = self.desks.get(number) else { return };
        match desk.ends.until_well(|| sink.holdings()) {
            Some(Ok(holdings)) => self.learn(number, &holdings),
            // It is given everything in full, and says itself what is wrong.
            Some(Err(_)) => self.learn(number, &[]),
            None => return,
        }
        while let Some(work) = desk.next() {
            self.give(number, &mut *sink, work);
            while let Some(work) = desk.next_now() {
                self.give(number, &mut *sink, work);
            }
            sink.all_given();
        }
    }

    /// Whether there is anything to do for a sink that [`step`](Self::step) would do.
    pub fn has_work(&self, number: usize) -> bool {
        let is_due = |desk: &Desk| !desk.has_told.load(Ordering::Acquire) || desk.with(|lanes| lanes.has_work());
        self.desks.get(number).is_some_and(is_due)
    }

    /// Does one thing for a sink that has no thread: hears what it holds, or gives it what is next. Where it is in trouble it is asked
    /// again by the next call. For whoever steps the whole node in one thread.
    pub fn step(&self, number: usize, sink: &mut dyn Persist) {
        let Some(desk) = self.desks.get(number) else { return };
        if desk.has_told.load(Ordering::Acquire) {
            if let Some(work) = desk.next_now() {
                self.give(number, sink, work);
            }
            if !desk.with(|lanes| lanes.has_work()) {
                sink.all_given();
            }
            return;
        }
        match sink.holdings() {
            Ok(holdings) => {
                desk.ends.well();
                self.learn(number, &holdings);
            }
            Err(SinkFault::Passing(words)) => desk.ends.trouble(&words),
            Err(SinkFault::Lasting(words)) => {
                desk.ends.trouble(&words);
                self.learn(number, &[]);
            }
        }
    }
}
