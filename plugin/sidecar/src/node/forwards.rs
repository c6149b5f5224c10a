//! `forward.*`, from the rows of what was relayed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use outrigger_bolt::id::ChannelId;
use outrigger_rpc_schema as schema;

use super::answers::storage;
use crate::clock::Clock;
use crate::manager::relay::register::Load;
use crate::rpc::{Answer, ForwardQuery, StatsQuery};
use crate::store::Reader;
use crate::store::forward::{Direction, ForwardRow, ForwardTotals, day_of, days};

/// What counts where the caller does not say.
const DEFAULT_PERIOD_SECS: u64 = 30 * 24 * 3600;

pub(super) fn list(reader: &Reader, query: ForwardQuery) -> Answer<Vec<schema::ForwardInfo>> {
    let direction = if query.newest_first { Direction::NewestFirst } else { Direction::OldestFirst };
    let rows = reader.forwards(query.after, direction, query.count).map_err(storage)?;
    Ok(rows.into_iter().map(|(seq, row)| info(seq, &row)).collect())
}

fn info(seq: u64, row: &ForwardRow) -> schema::ForwardInfo {
    schema::ForwardInfo {
        seq,
        settled_at: row.settled_at,
        incoming_channel_id: row.incoming.channel.to_string(),
        incoming_msat: row.incoming.amount.get(),
        outgoing_channel_id: row.outgoing.channel.to_string(),
        outgoing_msat: row.outgoing.amount.get(),
        fee_msat: row.incoming.amount.saturating_sub(row.outgoing.amount).get(),
    }
}

/// Sums over the days asked for; `pending` is what is being forwarded now.
pub(super) fn stats(reader: &Reader, query: StatsQuery, pending: Load) -> Answer<schema::ForwardReport> {
    let until_at = query.until_at.unwrap_or_else(Clock::now_unix);
    let since_at = query.since_at.unwrap_or_else(|| until_at.saturating_sub(DEFAULT_PERIOD_SECS));
    let period = (day_of(since_at), day_of(until_at));
    let (since_at, until_at) = days(period);
    let mut sum = ForwardTotals::default();
    let mut channels = BTreeMap::new();
    for ((incoming, outgoing), totals) in reader.forward_totals(period).map_err(storage)? {
        sum.add(&totals);
        of_channel(&mut channels, incoming, &totals, Edge::Incoming);
        if let Some(outgoing) = outgoing {
            of_channel(&mut channels, outgoing, &totals, Edge::Outgoing);
        }
    }
    let mut channels: Vec<_> = channels.into_values().collect();
    channels.sort_by_key(|channel| Reverse(channel.fees_msat));
    channels.truncate(query.count);
    Ok(schema::ForwardReport {
        since_at,
        until_at,
        settled: sum.settled,
        refused: sum.refused,
        failed: sum.failed,
        incoming_msat: sum.incoming.get(),
        outgoing_msat: sum.outgoing.get(),
        fees_msat: sum.fees().get(),
        pending: pending.htlcs,
        pending_msat: pending.value.get(),
        channels,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Incoming,
    Outgoing,
}

fn of_channel(
    channels: &mut BTreeMap<ChannelId, schema::ForwardChannel>,
    channel: ChannelId,
    totals: &ForwardTotals,
    edge: Edge,
) {
    let found = channels.entry(channel).or_insert_with(|| schema::ForwardChannel {
        channel_id: channel.to_string(),
        incoming: 0,
        incoming_msat: 0,
        outgoing: 0,
        outgoing_msat: 0,
        fees_msat: 0,
        refused: 0,
        failed: 0,
    });
    let add = |to: &mut u64, more: u64| *to = to.saturating_add(more);
    match edge {
        Edge::Incoming => {
            add(&mut found.incoming, totals.settled);
            add(&mut found.incoming_msat, totals.incoming.get());
        }
        Edge::Outgoing => {
            add(&mut found.outgoing, totals.settled);
            add(&mut found.outgoing_msat, totals.outgoing.get());
            add(&mut found.fees_msat, totals.fees().get());
            add(&mut found.refused, totals.refused);
            add(&mut found.failed, totals.failed);
        }
    }
}
