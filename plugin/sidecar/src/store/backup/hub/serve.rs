//! What is done for one sink: by a thread of its own, or step by step.

use std::sync::atomic::Ordering;

use redb::ReadableDatabase;

use super::super::desk::Desk;
use super::super::ends::SinkFault;
use super::super::image::TipRecord;
use super::super::start::has_life;
use super::super::{Holding, Persist};
use super::{Hub, News};
use crate::store::StoreError;

impl Hub {
    /// What a sink holds is known, and so is its record of the tip. Both are judged first: a sink that they prove to be ahead is given
    /// nothing, and left as it is. What is held counts once it is durable.
    pub(super) fn meet(&self, number: usize, sink: &mut dyn Persist, holdings: &[Holding]) -> Result<(), SinkFault> {
        let Some(desk) = self.desks.get(number) else { return Ok(()) };
        let tip = sink.kept_tip().and_then(|bytes| TipRecord::decode(&bytes).ok());
        if let Some(tip) = &tip
            && !self.may_follow(desk, tip)
        {
            return Ok(());
        }
        let Some(behind) = self.judged(desk, holdings) else { return Ok(()) };
        let settled = sink.settle();
        if settled.is_ok() {
            self.take_in(desk, behind, holdings);
            if let Some(Err(fault)) = tip.map(|tip| self.find_tip(desk, tip)) {
                let _ = self.news.send(News::Storage(fault));
            }
        }
        // What waits for its word waits for no write.
        self.has_told(desk);
        settled
    }

    /// Whether the database is not older than a record of the tip.
    fn may_follow(&self, desk: &Desk, tip: &TipRecord) -> bool {
        let judged = self.db.begin_read().map_err(StoreError::from);
        match judged.and_then(|transaction| self.start.judge_tip(&transaction, &desk.terms.name, tip)) {
            Ok(None) => return true,
            Ok(Some(proof)) => self.is_ahead(desk, proof),
            // Whoever hears it stops the node.
            Err(fault) => drop(self.news.send(News::Storage(fault))),
        }
        false
    }

    /// A sink cannot tell what it holds, and never will: it is given everything. Nothing that was to wait for its word goes on.
    fn learn_nothing(&self, number: usize) {
        if let Some(desk) = self.desks.get(number) {
            desk.is_mute.store(true, Ordering::Release);
            self.learn(number, &[]);
        }
    }

    /// Tells whoever waits for it that every required sink has told what it holds.
    pub(super) fn tell_if_heard(&self) {
        // Under the gate's lock: of two that tell at once the later one sees both.
        let gate = self.gate.lock();
        let is_heard = self.has_required && self.unheard().is_empty() && self.proof().is_none();
        drop(gate);
        if is_heard {
            let _ = self.news.send(News::Heard);
        }
    }

    /// A channel that it names may have gone since, and would be missed by a restore.
    fn find_tip(&self, desk: &Desk, tip: TipRecord) -> Result<(), StoreError> {
        desk.with(|lanes| {
            // What goes from here on is told to these lanes behind this.
            let transaction = self.db.begin_read()?;
            let mut gone = Vec::new();
            for (channel, _) in tip.channels.iter().flatten() {
                if !has_life(&transaction, channel)? {
                    gone.push(*channel);
                }
            }
            lanes.found_tip(tip, &gone);
            Ok(())
        })
    }

    /// What a sink's thread does: it hears what the sink holds, and then gives it one thing after the other.
    pub(super) fn serve(&self, number: usize, mut sink: Box<dyn Persist>) {
        let Some(desk) = self.desks.get(number) else { return };
        let met = desk.ends.until_well(|| {
            let holdings = sink.holdings()?;
            self.meet(number, &mut *sink, &holdings)
        });
        match met {
            Some(Ok(())) => {}
            // It is given everything in full, and says itself what is wrong.
            Some(Err(_)) => self.learn_nothing(number),
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
        let is_due = |desk: &Desk| is_unmet(desk) || desk.with(|lanes| lanes.has_work());
        self.desks.get(number).is_some_and(is_due)
    }

    /// Does one thing for a sink that has no thread: hears what it holds, or gives it what is next. Where it is in trouble it is asked
    /// again by the next call. For whoever steps the whole node in one thread.
    pub fn step(&self, number: usize, sink: &mut dyn Persist) {
        let Some(desk) = self.desks.get(number) else { return };
        if !is_unmet(desk) {
            if let Some(work) = desk.next_now() {
                self.give(number, sink, work);
            }
            if !desk.with(|lanes| lanes.has_work()) {
                sink.all_given();
            }
            return;
        }
        match sink.holdings().and_then(|holdings| self.meet(number, sink, &holdings)) {
            Ok(()) => desk.ends.well(),
            Err(SinkFault::Passing(words)) => desk.ends.trouble(&words),
            Err(SinkFault::Lasting(words)) => {
                desk.ends.trouble(&words);
                self.learn_nothing(number);
            }
        }
    }
}

/// Whether it is to be asked what it holds.
fn is_unmet(desk: &Desk) -> bool {
    !desk.has_told.load(Ordering::Acquire) || desk.with(|lanes| lanes.is_unknown())
}
