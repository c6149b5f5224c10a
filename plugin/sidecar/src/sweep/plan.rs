//! What to publish for a failed channel, planned: no clock, no disk, no call. The same arguments give the same plan.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_channel::{Claim, Publish, SWEEP_DUST};

use crate::wallet::Coin;

/// What a channel with little at stake may spend on fees all the same, as long as it is not more than what is at stake.
const SMALL_BUDGET: Sat = Sat::new(1000);
/// What a replacement must pay on top of what it replaces, for its own relaying (BIP 125, rule 4).
const INCREMENTAL: FeeratePerKw = FeeratePerKw::new(250);
/// Blocks without a confirmation after which the feerate of something without a deadline rises by a quarter.
const PATIENCE_BLOCKS: u32 = 6;
/// More steps of a quarter than any budget has.
const MOST_STEPS: u32 = 60;

/// Version, locktime and the counts of inputs and outputs, four times, and marker and flag.
const FRAME_WEIGHT: u64 = 4 * (4 + 4 + 1 + 1) + 2;
/// An input without its witness.
const INPUT_WEIGHT: u64 = 4 * 41;
/// A P2WPKH output.
const OUTPUT_WEIGHT: u64 = 4 * 31;

/// The world as a plan sees it. The mempool's floor moves while a transaction is on its way there, so plans stay a little
/// above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Market {
    /// Height of the best block.
    pub height: u32,
    /// What confirms soon, by the estimator.
    pub target: FeeratePerKw,
    /// The least that bitcoind's mempool takes now.
    pub floor: FeeratePerKw,
}

/// What was published before for the same output.
#[derive(Clone, Copy, Debug)]
pub struct Prior<'a> {
    pub tx: &'a Transaction,
    pub fee: Sat,
    /// The best height when the first transaction for this output was made.
    pub since_height: u32,
    /// How often the mempool refused it since a plan was last taken.
    pub refusals: u32,
}

/// A transaction to sign: what it spends, in the order of its inputs, and what it pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub tx: Transaction,
    pub spent: Vec<TxOut>,
    pub fee: Sat,
}

/// What to do for one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing of ours is needed: the commitment pays enough by itself, or has nothing of ours in it.
    Alone,
    /// No block may hold it yet.
    NotYet,
    /// What was published before still does, or no more may be spent.
    Keep,
    /// A new transaction, which takes the place of the one before.
    Make(Draft),
    /// It cannot be done now.
    Lacks(Lack),
}

/// Why something cannot be done now. It is planned again at each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Lack {
    /// The wallet has no confirmed coins that would pay.
    #[error(
        "the wallet lacks confirmed coins of about {0} to pay for it; send coins to an address of wallet.new_address. \
         Until then it is published without more fee at each block"
    )]
    Coins(Sat),
    /// It would cost more than may be spent on it.
    #[error("{fee} in fees would be needed now, and no more than {budget} are spent on it; it waits for lower fees")]
    Budget {
        /// What the mempool's least feerate asks for.
        fee: Sat,
        /// The share of what is at stake that may be spent.
        budget: Sat,
    },
}

/// The most that may be paid in fees for this much at stake (OCC-2): half of it; a little more where it is little.
pub fn budget(at_stake: Sat) -> Sat {
    Sat::new(at_stake.get() / 2).max(SMALL_BUDGET.min(at_stake))
}

/// Plans the child that carries the fee of our commitment through its anchor, so that both together reach the feerate.
/// `change` is where what is left of the coins goes. A child never joins the anchors of two channels (OCC-7).
pub fn plan_child(
    publish: &Publish,
    prior: Option<Prior<'_>>,
    coins: &[Coin],
    change: &ScriptBuf,
    market: &Market,
) -> Plan {
    let Some(anchor) = &publish.anchor else { return Plan::Alone };
    let package = Package { publish, anchor, budget: budget(publish.at_stake), market };
    let rate = package.rate(prior);
    if prior.is_none() && publish.fee >= ceil_fee(rate, publish.tx.weight().to_wu()) {
        return Plan::Alone;
    }
    if let Some(prior) = prior
        && is_intact(prior.tx, anchor, coins)
        && prior.fee >= package.fee(rate, prior.tx.weight().to_wu())
    {
        return Plan::Keep;
    }
    let may_be_less = package.spend(rate, prior, coins, change);
    match (may_be_less, prior) {
        (Ok(draft), _) => Plan::Make(draft),
        (Err(_), Some(_)) => Plan::Keep,
        (Err(lack), None) => Plan::Lacks(lack),
    }
}

struct Package<'a> {
    publish: &'a Publish,
    anchor: &'a Claim,
    budget: Sat,
    market: &'a Market,
}

impl Market {
    /// The least feerate that is planned with.
    fn least(&self) -> FeeratePerKw {
        FeeratePerKw::new(self.floor.get().saturating_add(self.floor.get() / 50))
    }
}

impl Package<'_> {
    fn rate(&self, prior: Option<Prior<'_>>) -> FeeratePerKw {
        let weight = self.weight(1).saturating_add(self.publish.tx.weight().to_wu());
        let most = rate_of(self.budget.saturating_add(self.publish.fee), weight);
        wanted(self.market, prior, self.anchor.deadline, most)
    }

    /// The weight of a child that spends the anchor and so many coins.
    fn weight(&self, coins: u64) -> u64 {
        let anchor = INPUT_WEIGHT.saturating_add(self.anchor.witness_weight());
        let coins = coins.saturating_mul(INPUT_WEIGHT.saturating_add(Coin::WITNESS_WEIGHT));
        FRAME_WEIGHT.saturating_add(OUTPUT_WEIGHT).saturating_add(anchor).saturating_add(coins)
    }

    /// What a child of this weight must pay so that parent and child reach the rate, and so that it does alone.
    fn fee(&self, rate: FeeratePerKw, child: u64) -> Sat {
        let together = ceil_fee(rate, child.saturating_add(self.publish.tx.weight().to_wu()));
        together.saturating_sub(self.publish.fee).max(ceil_fee(rate, child))
    }

    /// The fee of a child with so many coins: what the rate asks for, more than what it replaces (BIP 125, rules 3 and 4),
    /// within the budget.
    fn affordable_fee(&self, rate: FeeratePerKw, prior: Option<Prior<'_>>, coins: u64) -> Result<Sat, Lack> {
        let weight = self.weight(coins);
        let least = self.fee(self.market.least(), weight).max(replacing(prior, weight));
        if least > self.budget {
            return Err(Lack::Budget { fee: least, budget: self.budget });
        }
        Ok(self.fee(rate, weight).max(least).min(self.budget))
    }

    /// The child that takes the fewest coins: the smallest single one that suffices, else the largest together.
    fn spend(
        &self,
        rate: FeeratePerKw,
        prior: Option<Prior<'_>>,
        coins: &[Coin],
        change: &ScriptBuf,
    ) -> Result<Draft, Lack> {
        let mut by_value: Vec<&Coin> = coins.iter().collect();
        by_value.sort_by_key(|coin| (coin.output.value, coin.outpoint));
        let fee = self.affordable_fee(rate, prior, 1)?;
        let suffices = |taken: &[&Coin], fee: Sat| self.left(taken, fee).is_some_and(|left| left >= SWEEP_DUST);
        if let Some(coin) = by_value.iter().find(|coin| suffices(&[coin], fee)) {
            return Ok(self.draft(&[coin], fee, change));
        }
        let mut taken = Vec::new();
        let mut needed = fee;
        for coin in by_value.into_iter().rev() {
            taken.push(coin);
            needed = self.affordable_fee(rate, prior, taken.len() as u64)?;
            if suffices(&taken, needed) {
                return Ok(self.draft(&taken, needed, change));
            }
        }
        Err(Lack::Coins(needed.saturating_add(SWEEP_DUST)))
    }

    fn left(&self, coins: &[&Coin], fee: Sat) -> Option<Sat> {
        let coins = coins.iter().map(|coin| Sat::from(coin.output.value));
        coins.fold(self.anchor.value(), Sat::saturating_add).checked_sub(fee)
    }

    fn draft(&self, coins: &[&Coin], fee: Sat, change: &ScriptBuf) -> Draft {
        let left = self.left(coins, fee).unwrap_or(Sat::ZERO);
        let spends = coins.iter().map(|coin| TxIn {
            previous_output: coin.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        });
        let spent = std::iter::once(self.anchor.output.clone()).chain(coins.iter().map(|coin| coin.output.clone()));
        Draft {
            tx: Transaction {
                version: Version::TWO,
                lock_time: LockTime::ZERO,
                input: std::iter::once(self.anchor.input()).chain(spends).collect(),
                output: vec![TxOut { value: left.into(), script_pubkey: change.clone() }],
            },
            spent: spent.collect(),
            fee,
        }
    }
}

/// Plans the transaction that brings one output to the wallet, alone: what a stranger does to one does nothing to another.
/// `to` is where it goes, the script of the prior transaction where there is one. The fee stays within half of its value.
pub fn plan_sweep(claim: &Claim, prior: Option<Prior<'_>>, to: &ScriptBuf, market: &Market) -> Plan {
    if market.height.saturating_add(1) < claim.from_height {
        return Plan::NotYet;
    }
    let weight = claim.sweep_weight();
    let budget = Sat::new(claim.at_stake.get() / 2).min(claim.value().saturating_sub(SWEEP_DUST));
    let rate = wanted(market, prior, claim.deadline, rate_of(budget, weight));
    if prior.is_some_and(|prior| prior.fee >= ceil_fee(rate, weight)) {
        return Plan::Keep;
    }
    let least = ceil_fee(market.least(), weight).max(replacing(prior, weight));
    if least > budget {
        return if prior.is_some() { Plan::Keep } else { Plan::Lacks(Lack::Budget { fee: least, budget }) };
    }
    let fee = ceil_fee(rate, weight).max(least).min(budget);
    let value = claim.value().saturating_sub(fee);
    Plan::Make(Draft {
        tx: Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![claim.input()],
            output: vec![TxOut { value: value.into(), script_pubkey: to.clone() }],
        },
        spent: vec![claim.output.clone()],
        fee,
    })
}

/// The feerate to aim at. With a deadline it goes in a line from the estimate to `most`, which it reaches one block before
/// (OCC-6): an estimator that is wrong costs money, never the deadline. Without one it rises by a quarter for every six
/// blocks without a confirmation, and for every refusal.
fn wanted(market: &Market, prior: Option<Prior<'_>>, deadline: Option<u32>, most: FeeratePerKw) -> FeeratePerKw {
    let base = market.target.max(market.least());
    let since = prior.map_or(market.height, |prior| prior.since_height);
    let waited = market.height.saturating_sub(since);
    let refusals = prior.map_or(0, |prior| prior.refusals);
    let mut rate = u64::from(base.get());
    for _ in 0..(waited / PATIENCE_BLOCKS).saturating_add(refusals).min(MOST_STEPS) {
        rate = rate.saturating_add(rate.div_ceil(4));
    }
    let by_line = deadline.map_or(0, |deadline| {
        let whole = deadline.saturating_sub(1).saturating_sub(since).max(1);
        let span = u64::from(most.get().saturating_sub(base.get()));
        u64::from(base.get()).saturating_add(span.saturating_mul(u64::from(waited.min(whole))) / u64::from(whole))
    });
    FeeratePerKw::new(u32::try_from(rate.max(by_line)).unwrap_or(u32::MAX)).min(most.max(market.least()))
}

/// What a replacement of this weight must pay at least; nothing where there is nothing to replace.
fn replacing(prior: Option<Prior<'_>>, weight: u64) -> Sat {
    // Of a heavier transaction the feerate must rise too, not only the fee.
    prior.map_or(Sat::ZERO, |prior| {
        let prior_rate = rate_of(prior.fee, prior.tx.weight().to_wu());
        let fee = prior.fee.saturating_add(ceil_fee(INCREMENTAL, weight));
        fee.max(ceil_fee(prior_rate, weight).saturating_add(ceil_fee(INCREMENTAL, weight)))
    })
}

/// Whether a child still spends this anchor, and no coin of it is gone.
fn is_intact(child: &Transaction, anchor: &Claim, coins: &[Coin]) -> bool {
    let there = |input: &TxIn| {
        input.previous_output == anchor.outpoint || coins.iter().any(|coin| coin.outpoint == input.previous_output)
    };
    child.input.iter().any(|input| input.previous_output == anchor.outpoint) && child.input.iter().all(there)
}

/// The fee of this weight, rounded up. bitcoind rounds the size of each transaction up to whole virtual bytes, and a package
/// is two of them.
fn ceil_fee(rate: FeeratePerKw, weight: u64) -> Sat {
    rate.fee(weight.saturating_add(6)).saturating_add(Sat::new(1))
}

/// The feerate of this fee, rounded down.
fn rate_of(fee: Sat, weight: u64) -> FeeratePerKw {
    let rate = fee.get().saturating_mul(1000) / weight.max(1);
    FeeratePerKw::new(u32::try_from(rate).unwrap_or(u32::MAX))
}
