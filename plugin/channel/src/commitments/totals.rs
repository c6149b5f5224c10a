//! Running totals of a commitment: an update costs the same however many HTLCs there are.

use outrigger_bolt::amount::{Msat, Sat};
use outrigger_bolt::tx::fee::is_trimmed;

use super::htlc::{Offerer, Side};
use crate::changes::{HtlcTotals, Totals};

impl Totals {
    /// HTLCs that have an output.
    pub(crate) fn untrimmed(&self) -> usize {
        usize::from(self.offered_by_local.untrimmed).saturating_add(usize::from(self.offered_by_remote.untrimmed))
    }

    /// All that the commitment shares out: the capacity.
    pub(crate) fn sum(&self) -> Msat {
        [self.to_local, self.to_remote, self.offered_by_local.value, self.offered_by_remote.value].into_iter().sum()
    }

    /// With one HTLC more in a commitment of this dust limit; `None` where its offerer does not have the amount.
    pub(crate) fn with_htlc(mut self, offerer: Offerer, amount: Msat, dust_limit: Sat) -> Option<Self> {
        let balance = self.balance_mut(offerer.side());
        *balance = balance.checked_sub(amount)?;
        self.counting(offerer, amount, dust_limit)
    }

    /// With one HTLC more whose amount is in no balance.
    pub(crate) fn counting(mut self, offerer: Offerer, amount: Msat, dust_limit: Sat) -> Option<Self> {
        let htlcs = self.offered_by_mut(offerer);
        htlcs.count = htlcs.count.checked_add(1)?;
        htlcs.value = htlcs.value.checked_add(amount)?;
        if !is_trimmed(amount, dust_limit) {
            htlcs.untrimmed = htlcs.untrimmed.checked_add(1)?;
        }
        Some(self)
    }

    /// With one HTLC less, its amount now `winner`'s; `None` where it was not counted in.
    pub(crate) fn without_htlc(
        mut self,
        offerer: Offerer,
        amount: Msat,
        dust_limit: Sat,
        winner: Side,
    ) -> Option<Self> {
        let htlcs = self.offered_by_mut(offerer);
        htlcs.count = htlcs.count.checked_sub(1)?;
        htlcs.value = htlcs.value.checked_sub(amount)?;
        if !is_trimmed(amount, dust_limit) {
            htlcs.untrimmed = htlcs.untrimmed.checked_sub(1)?;
        }
        let balance = self.balance_mut(winner);
        *balance = balance.checked_add(amount)?;
        Some(self)
    }

    fn balance_mut(&mut self, side: Side) -> &mut Msat {
        match side {
            Side::Local => &mut self.to_local,
            Side::Remote => &mut self.to_remote,
        }
    }

    fn offered_by_mut(&mut self, offerer: Offerer) -> &mut HtlcTotals {
        match offerer {
            Offerer::Local => &mut self.offered_by_local,
            Offerer::Remote => &mut self.offered_by_remote,
        }
    }
}
