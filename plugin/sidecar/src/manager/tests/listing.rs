//! Channels are given out page by page.

use std::cell::Cell;

use outrigger_bolt::id::ChannelId;

use super::{Bench, every_channel, spoilt};
use crate::manager::ChannelView;

const CHANNELS: u8 = 50;

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_channels_are_all_of_them_once_in_the_order_of_their_ids() {
    let bench = Bench::with(|keys| (1..=CHANNELS).map(|index| spoilt(keys, index, |_| ())).collect());
    let page = |after: Option<&ChannelId>, wanted: fn(&ChannelView) -> bool| {
        let views = bench.manager.channels(None, after, 7, wanted);
        views.into_iter().map(|view| view.channel_id).collect::<Vec<_>>()
    };
    let all: Vec<_> = every_channel(&bench.manager).into_iter().map(|view| view.channel_id).collect();
    assert_eq!(all.len(), usize::from(CHANNELS));
    assert!(all.is_sorted());

    let mut found: Vec<ChannelId> = Vec::new();
    loop {
        let next = page(found.last(), |_| true);
        if next.is_empty() {
            break;
        }
        assert!(next.len() == 7 || found.len() + next.len() == all.len(), "only the last page is short");
        found.extend(next);
    }
    assert_eq!(found, all);

    let seen = Cell::new(0);
    let counted = |_: &ChannelView| {
        seen.set(seen.get() + 1);
        true
    };
    assert_eq!(bench.manager.channels(None, None, 7, counted).len(), 7);
    assert_eq!(seen.get(), 7, "a page costs what it shows");

    let is_even = |view: &ChannelView| view.channel_id.0[31].is_multiple_of(2);
    let even: Vec<_> = all.iter().copied().filter(|id| id.0[31].is_multiple_of(2)).collect();
    assert_eq!(page(None, is_even), even[..even.len().min(7)], "those that are passed over do not count");

    let some = &every_channel(&bench.manager)[20];
    let of_peer = bench.manager.channels(Some(&some.peer), None, 7, |_| true);
    assert_eq!(of_peer.iter().map(|view| view.channel_id).collect::<Vec<_>>(), [some.channel_id]);
    assert_eq!(bench.manager.channels(Some(&some.peer), Some(&some.channel_id), 7, |_| true).len(), 0);
}
