//! What the next signature for each side would commit to. Kept up to date with every proposal, made anew from rows.

use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_bolt::tx::fee::is_trimmed;

use super::htlc::{HtlcKey, HtlcState, Offerer, Side, Stage};
use crate::changes::{ChannelParams, ChannelRows, HtlcRow, HtlcTotals, Removal, SideParams, Totals};

/// One side's commitment as the next `commitment_signed` for it makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) totals: Totals,
    pub(crate) feerate: FeeratePerKw,
    /// Whether an update is in it that the newest commitment lacks.
    pub(crate) changed: bool,
}

/// The view ahead. All scalars: O(1) to keep, and to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outlook {
    pub(crate) local: Next,
    pub(crate) remote: Next,
    pub(crate) next_local_htlc_id: u64,
    pub(crate) next_remote_htlc_id: u64,
    /// HTLCs that are proposed or committed anywhere.
    pub(crate) alive: usize,
    /// HTLCs with an output in the local and in the remote commitment if every one that is proposed or committed
    /// anywhere stood in both: the most that the opener may come to pay for.
    pub(crate) worst_local: usize,
    pub(crate) worst_remote: usize,
    /// Whether our `update_fee` is proposed and not signed.
    pub(crate) fee_proposed: bool,
    /// Whether the peer's `update_fee` is proposed and not signed. It is acknowledged also where it changes nothing: the
    /// peer waits for that.
    pub(crate) fee_received: bool,
    /// `commitment_signed` without any update that the peer sent on this connection.
    pub(crate) empty_commitments: u8,
    /// The peer's newest adds that are in no total yet: removals that pay for them may still come.
    pub(crate) deferred: HtlcTotals,
    /// HTLCs of ours that the peer has revoked to and not signed for.
    pub(crate) unsigned: Unsigned,
    /// HTLCs of ours that the peer has not signed for, those that it has not revoked to included.
    pub(crate) unanswered: u16,
}

/// HTLCs of ours that the peer has revoked to and not signed for: they are in the next local commitment, and the peer may not
/// have known of them when it made what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unsigned {
    pub(crate) count: u16,
    /// Those with an output in our commitment.
    pub(crate) outputs: usize,
    pub(crate) value: Msat,
}

impl ChannelParams {
    pub(crate) const fn side(&self, side: Side) -> &SideParams {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    pub(crate) const fn dust_limit(&self, owner: Side) -> Sat {
        self.side(owner).dust_limit
    }

    /// What this side must keep: the other side's `channel_reserve_satoshis`.
    pub(crate) const fn reserve_of(&self, side: Side) -> Sat {
        self.side(side.other()).channel_reserve
    }

    pub(crate) const fn opener(&self) -> Side {
        if self.is_opener { Side::Local } else { Side::Remote }
    }
}

impl Removal {
    /// Who has the amount of an HTLC that leaves like this.
    pub(crate) const fn winner(&self, offerer: Offerer) -> Side {
        match self {
            Self::Fulfilled(_) => offerer.side().other(),
            Self::Failed(_) => offerer.side(),
        }
    }
}

impl Outlook {
    /// The view from rows alone: updates that are due are in, proposals are not (there are none at rest).
    pub(crate) fn of_rows(rows: &ChannelRows) -> Self {
        let (head, params) = (&rows.head, &rows.params);
        let mut outlook = Self {
            local: Next { totals: head.local_commitment, feerate: head.fee.local, changed: false },
            remote: Next { totals: head.remote_commitment, feerate: head.fee.remote, changed: false },
            next_local_htlc_id: head.next_local_htlc_id,
            next_remote_htlc_id: head.next_remote_htlc_id,
            ..Self::default()
        };
        for (key, row) in &rows.htlcs {
            outlook.count_in(params, row.amount);
            match (key.offerer, row.state) {
                (Offerer::Local, HtlcState::Adding(Stage::Signed)) => outlook.is_unanswered(),
                (Offerer::Local, HtlcState::Adding(Stage::Revoked)) => {
                    outlook.is_unanswered();
                    outlook.is_unsigned(params, row.amount);
                }
                (Offerer::Local | Offerer::Remote, _) => {}
            }
        }
        // Removals first: an add may spend what they give.
        let (removals, adds): (Vec<_>, Vec<_>) =
            rows.htlcs.iter().partition(|(_, row)| matches!(row.state, HtlcState::Removing(_)));
        for (key, row) in removals.into_iter().chain(adds) {
            outlook.take_due(params, *key, row);
        }
        match head.fee.change {
            Some((feerate, Stage::Revoked)) => outlook.set_feerate(Side::Local, feerate),
            Some((_, Stage::Proposed | Stage::Signed | Stage::Acknowledged | Stage::Settled)) => {}
            None if !params.is_opener && head.fee.local != head.fee.remote => {
                outlook.set_feerate(Side::Remote, head.fee.local);
            }
            None => {}
        }
        outlook
    }

    pub(crate) const fn next(&self, owner: Side) -> &Next {
        match owner {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    pub(crate) fn next_mut(&mut self, owner: Side) -> &mut Next {
        match owner {
            Side::Local => &mut self.local,
            Side::Remote => &mut self.remote,
        }
    }

    pub(crate) fn set_feerate(&mut self, owner: Side, feerate: FeeratePerKw) {
        let next = self.next_mut(owner);
        next.feerate = feerate;
        next.changed = true;
    }

    /// Puts an add into the next commitment of `owner`; false where the offerer does not have the amount.
    #[must_use]
    pub(crate) fn put_add(&mut self, params: &ChannelParams, owner: Side, offerer: Offerer, amount: Msat) -> bool {
        let totals = self.next(owner).totals.with_htlc(offerer, amount, params.dust_limit(owner));
        self.put_totals(owner, totals)
    }

    /// Takes an HTLC out of the next commitment of `owner`; false where it is not in it.
    #[must_use]
    pub(crate) fn put_removal(
        &mut self,
        params: &ChannelParams,
        owner: Side,
        offerer: Offerer,
        (amount, removal): (Msat, &Removal),
    ) -> bool {
        let winner = removal.winner(offerer);
        let totals = self.next(owner).totals.without_htlc(offerer, amount, params.dust_limit(owner), winner);
        self.put_totals(owner, totals)
    }

    fn put_totals(&mut self, owner: Side, totals: Option<Totals>) -> bool {
        let Some(totals) = totals else { return false };
        let next = self.next_mut(owner);
        next.totals = totals;
        next.changed = true;
        true
    }

    /// Puts in the update that a row says is due in its sender's own commitment.
    pub(crate) fn take_due(&mut self, params: &ChannelParams, key: HtlcKey, row: &HtlcRow) {
        let (sender, stage) = row.state.update(key.offerer);
        if !stage.is_due(sender, sender) {
            return;
        }
        // The receiver's commitment holds the same update already, so the amounts are there.
        let in_balance = match (row.state, &row.removal) {
            (HtlcState::Adding(_), _) => self.put_add(params, sender, key.offerer, row.amount),
            (HtlcState::Removing(_), Some(removal)) => {
                self.put_removal(params, sender, key.offerer, (row.amount, removal))
            }
            (HtlcState::Removing(_), None) => false,
        };
        debug_assert!(in_balance, "an update that the receiver's commitment holds is affordable in the sender's");
    }

    /// An HTLC of ours is proposed.
    pub(crate) fn is_unanswered(&mut self) {
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// The peer has revoked to an HTLC of ours.
    pub(crate) fn is_unsigned(&mut self, params: &ChannelParams, amount: Msat) {
        let Unsigned { count, outputs: with_output, value } = self.unsigned;
        let (local, _) = outputs(params, amount);
        self.unsigned = Unsigned {
            count: count.saturating_add(1),
            outputs: with_output.saturating_add(local),
            value: value.saturating_add(amount),
        };
    }

    /// The peer has signed for all that it has revoked to.
    pub(crate) fn all_signed(&mut self) {
        let Unsigned { count, .. } = std::mem::take(&mut self.unsigned);
        self.unanswered = self.unanswered.saturating_sub(count);
    }

    /// One HTLC more that is proposed or committed somewhere.
    pub(crate) fn count_in(&mut self, params: &ChannelParams, amount: Msat) {
        self.alive = self.alive.saturating_add(1);
        let (local, remote) = outputs(params, amount);
        self.worst_local = self.worst_local.saturating_add(local);
        self.worst_remote = self.worst_remote.saturating_add(remote);
    }

    /// One HTLC less: its removal is irrevocable.
    pub(crate) fn count_out(&mut self, params: &ChannelParams, amount: Msat) {
        self.alive = self.alive.saturating_sub(1);
        let (local, remote) = outputs(params, amount);
        self.worst_local = self.worst_local.saturating_sub(local);
        self.worst_remote = self.worst_remote.saturating_sub(remote);
    }
}

/// The outputs that an HTLC of this amount has in the local and in the remote commitment: none or one each.
fn outputs(params: &ChannelParams, amount: Msat) -> (usize, usize) {
    let output = |owner| usize::from(!is_trimmed(amount, params.dust_limit(owner)));
    (output(Side::Local), output(Side::Remote))
}
