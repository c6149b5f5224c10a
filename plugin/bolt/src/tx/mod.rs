//! Transactions of a channel (BOLT 3), for anchors with zero-fee HTLC transactions.
//!
//! Everything here is a function of its arguments: two nodes that agree on them build the same bytes.

pub mod claim;
pub mod closing;
pub mod commitment;
pub mod fee;
pub mod funding;
pub mod htlc;
pub mod script;

use std::cmp::Ordering;

use bitcoin::TxOut;

use crate::amount::{Msat, Sat};

/// The side that pays the fee does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cost of {cost} exceeds the balance of {balance}")]
pub struct Unaffordable {
    /// What is to be paid.
    pub cost: Sat,
    /// What the payer has.
    pub balance: Msat,
}

impl Unaffordable {
    /// The balance in whole satoshis less the cost (BOLT 3, "Fee Payment").
    fn deduct(balance: Msat, cost: Sat) -> Result<Sat, Self> {
        balance.to_sat_floor().checked_sub(cost).ok_or(Self { cost, balance })
    }
}

/// Value first, then script bytes (BOLT 3, "Transaction Output Ordering").
fn output_order(a: &TxOut, b: &TxOut) -> Ordering {
    a.value.cmp(&b.value).then_with(|| a.script_pubkey.as_bytes().cmp(b.script_pubkey.as_bytes()))
}
