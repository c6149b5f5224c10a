//! What is given to a sink: one thing after the other, and the images that go with it.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::OutPoint;
use outrigger_bolt::id::ChannelId;
use redb::ReadableDatabase;

use super::super::desk::Desk;
use super::super::image::{Image, RowChange, Update};
use super::super::kept::{id_in, image_in};
use super::super::lanes::{Whole, Work};
use super::super::{Answer, Full, Persist};
use super::{Hub, News, unknown_funding};
use crate::store::StoreError;
use crate::store::schema::Table;

impl Hub {
    /// Gives one thing to a sink and takes its answer.
    pub(super) fn give(&self, number: usize, sink: &mut dyn Persist, work: Work) {
        if let Err(fault) = self.try_to_give(number, sink, work) {
            // Whoever hears it stops the node.
            let _ = self.news.send(News::Storage(fault));
        }
    }

    fn try_to_give(&self, number: usize, sink: &mut dyn Persist, work: Work) -> Result<(), StoreError> {
        let Some(desk) = self.desks.get(number) else { return Ok(()) };
        match work {
            Work::Full { channel, funding, whole } => {
                let transaction = self.db.begin_read()?;
                let id = id_in(&transaction, &channel)?;
                desk.with(|lanes| lanes.reads(&channel, id, (self.clocks.now)()));
                let read = || self.image(&transaction, number, &channel);
                let funding = known(funding, &read)?;
                let made = || made(desk, (&channel, id), &read);
                let answer = match whole {
                    Whole::New => sink.persist_new_channel(&channel, funding, &Full::new(&made), id),
                    Whole::Again => sink.update_persisted_channel(&channel, funding, None, &Full::new(&made), id),
                };
                self.answered(number, (&channel, id), answer, whole == Whole::New);
            }
            Work::Update { funding, update } => {
                let (channel, id) = (update.channel, update.id);
                let read = || self.image(&self.db.begin_read()?, number, &channel);
                let funding = known(funding, &read)?;
                let update = self.keeping_what_is_owed(number, update);
                let made = || made(desk, (&channel, id), &read);
                let answer = sink.update_persisted_channel(&channel, funding, Some(&update), &Full::new(&made), id);
                self.answered(number, (&channel, id), answer, false);
            }
            Work::Tip(tip) => match sink.persist_tip(&tip) {
                Answer::Completed | Answer::InProgress => {}
                Answer::PermanentFailure(reason) => desk.ends.trouble(&reason),
            },
        }
        Ok(())
    }

    /// The image, with the preimages that the sink must still have here.
    pub(super) fn image(
        &self,
        transaction: &redb::ReadTransaction,
        number: usize,
        channel: &ChannelId,
    ) -> Result<Image, StoreError> {
        let mut image = image_in(transaction, (&self.network, &self.node_id), channel)?;
        for (key, preimage) in self.owed_by(number, channel) {
            image.rows.entry((Table::Preimage, key)).or_insert_with(|| preimage.to_vec());
        }
        Ok(image)
    }

    /// The update without the end of a preimage that the upstream channel does not have yet in this sink. The next full write takes
    /// that away.
    fn keeping_what_is_owed(&self, number: usize, update: Arc<Update>) -> Arc<Update> {
        let is_end = |change: &RowChange| change.table == Table::Preimage && change.value.is_none();
        if !update.changes.iter().any(is_end) {
            return update;
        }
        let owed: HashSet<_> = self.owed_by(number, &update.channel).into_iter().map(|(key, _)| key).collect();
        if owed.is_empty() {
            return update;
        }
        let mut kept = (*update).clone();
        kept.changes.retain(|change| !is_end(change) || !owed.contains(&change.key));
        Arc::new(kept)
    }

    /// Preimages of the channel whose upstream channel is not complete in the sink, by their keys.
    fn owed_by(&self, number: usize, channel: &ChannelId) -> Vec<(Vec<u8>, [u8; 32])> {
        let owed = self.owed.lock().of(channel);
        let Some(desk) = self.desks.get(number) else { return Vec::new() };
        let is_open = |upstream: &ChannelId, id: u64| desk.complete(upstream).is_some_and(|complete| complete < id);
        let open = owed.into_iter().filter(|owed| is_open(&owed.upstream, owed.id));
        open.map(|owed| (owed.key, owed.preimage)).collect()
    }
}

fn known(funding: OutPoint, image: &dyn Fn() -> Result<Image, StoreError>) -> Result<OutPoint, StoreError> {
    if funding == unknown_funding() { Ok(image()?.funding().unwrap_or(funding)) } else { Ok(funding) }
}

/// An image for the sink, which has all of it in hand from now on.
fn made(
    desk: &Desk,
    (channel, id): (&ChannelId, u64),
    image: &dyn Fn() -> Result<Image, StoreError>,
) -> Result<Image, StoreError> {
    let image = image()?;
    desk.with(|lanes| lanes.made(channel, id, image.size()));
    Ok(image)
}
