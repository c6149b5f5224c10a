//! Closing transactions and the scripts they may pay to (BOLT 3, "Legacy Closing Transaction" and "Closing
//! Transaction"; BOLT 2, `shutdown`).

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use super::{Unaffordable, fee, output_order};
use crate::amount::{Msat, Sat};
use crate::features::{Feature, Features};

/// The sequence of a closing transaction under `closing_signed`.
const LEGACY_SEQUENCE: Sequence = Sequence::MAX;

/// What one side gets from the channel, before any fee.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// The `scriptpubkey` of the side's `shutdown`.
    pub script_pubkey: &'a Script,
    /// The side's final balance.
    pub balance: Msat,
}

impl Share<'_> {
    /// What the share's output is worth once `fee` is taken off it: nothing where it is OP_RETURN (BOLT 3, "Closing
    /// Transaction").
    pub fn value(&self, fee: Sat) -> Result<Sat, Unaffordable> {
        let value = Unaffordable::deduct(self.balance, fee)?;
        Ok(if self.script_pubkey.is_op_return() { Sat::ZERO } else { value })
    }

    /// Whether Bitcoin Core would not relay an output of this value to the share's script (BOLT 3, "Dust Limits").
    pub fn is_dust(&self, value: Sat) -> bool {
        value < self.dust_threshold()
    }

    /// The least that an output to the share's script must be worth to be relayed: 294 sat for P2WPKH, nothing for
    /// OP_RETURN (BOLT 3, "Dust Limits").
    pub fn dust_threshold(&self) -> Sat {
        self.script_pubkey.minimal_non_dust().into()
    }

    fn output(&self, value: Sat) -> TxOut {
        TxOut { value: value.into(), script_pubkey: self.script_pubkey.to_owned() }
    }
}

/// Which outputs a closing transaction of `option_simple_close` has (BOLT 2, `closing_complete`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingVariant {
    /// `closer_output_only`
    CloserOnly,
    /// `closee_output_only`
    CloseeOnly,
    /// `closer_and_closee_outputs`
    Both,
}

/// The outputs of a closing under `closing_signed`: the opener pays the fee, and outputs below the signing node's own
/// dust limit are left out.
pub fn closing_outputs(
    opener: &Share<'_>,
    accepter: &Share<'_>,
    fee_satoshis: Sat,
    dust_limit: Sat,
) -> Result<Vec<TxOut>, Unaffordable> {
    let to_opener = Unaffordable::deduct(opener.balance, fee_satoshis)?;
    let to_accepter = accepter.balance.to_sat_floor();
    let shares = [(opener, to_opener), (accepter, to_accepter)];
    let outputs = shares
        .into_iter()
        .filter_map(|(share, value)| fee::untrimmed(value, dust_limit).map(|value| share.output(value)));
    Ok(outputs.collect())
}

/// The outputs of a closing under `option_simple_close`: the closer pays the fee, and an OP_RETURN output is worth 0.
pub fn simple_closing_outputs(
    closer: &Share<'_>,
    closee: &Share<'_>,
    fee_satoshis: Sat,
    variant: ClosingVariant,
) -> Result<Vec<TxOut>, Unaffordable> {
    let (to_closer, to_closee) = (closer.value(fee_satoshis)?, closee.value(Sat::ZERO)?);
    Ok(match variant {
        ClosingVariant::CloserOnly => vec![closer.output(to_closer)],
        ClosingVariant::CloseeOnly => vec![closee.output(to_closee)],
        ClosingVariant::Both => vec![closer.output(to_closer), closee.output(to_closee)],
    })
}

/// The closing transaction that `closing_signed` negotiates, unsigned.
pub fn closing_transaction(funding_outpoint: OutPoint, outputs: Vec<TxOut>) -> Transaction {
    closing(funding_outpoint, outputs, LockTime::ZERO, LEGACY_SEQUENCE)
}

/// The closing transaction that `closing_complete` proposes, unsigned; `locktime` is that message's.
pub fn simple_closing_transaction(funding_outpoint: OutPoint, outputs: Vec<TxOut>, locktime: u32) -> Transaction {
    let locktime = LockTime::from_consensus(locktime);
    closing(funding_outpoint, outputs, locktime, Sequence::ENABLE_RBF_NO_LOCKTIME)
}

fn closing(funding_outpoint: OutPoint, mut output: Vec<TxOut>, lock_time: LockTime, sequence: Sequence) -> Transaction {
    output.sort_by(output_order);
    let input =
        TxIn { previous_output: funding_outpoint, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() };
    Transaction { version: Version::TWO, lock_time, input: vec![input], output }
}

/// The weight of a closing transaction that pays to these scripts, with signatures of the maximum 73 bytes.
pub fn closing_weight<'a>(scripts: impl IntoIterator<Item = &'a Script>) -> u64 {
    /// Version, counts, locktime and the funding input, four times, and the 224 of marker, flag and witness.
    const WITHOUT_OUTPUTS: u64 = 4 * (4 + 1 + 41 + 1 + 4) + 224;
    scripts.into_iter().fold(WITHOUT_OUTPUTS, |weight, script| {
        let output = TxOut { value: bitcoin::Amount::ZERO, script_pubkey: script.to_owned() };
        weight.saturating_add(output.weight().to_wu())
    })
}

/// Whether a `shutdown` may name this script under the features that both sides offer (BOLT 2, `shutdown`).
pub fn is_shutdown_script(script: &Script, features: &Features) -> bool {
    is_standard_shutdown_script(script, features.supports(Feature::SHUTDOWN_ANYSEGWIT))
        || (features.supports(Feature::SIMPLE_CLOSE) && is_simple_close_script(script))
}

/// Whether a `shutdown` may name this script (BOLT 2): a version 0 witness program, or with
/// `option_shutdown_anysegwit` one of version 1 to 16.
pub fn is_standard_shutdown_script(script: &Script, anysegwit: bool) -> bool {
    script.is_p2wpkh() || script.is_p2wsh() || (anysegwit && script.is_witness_program() && !is_version_0(script))
}

/// Whether `option_simple_close` lets a `shutdown` name this script: OP_RETURN and one minimal push of 6 to 80 bytes.
pub fn is_simple_close_script(script: &Script) -> bool {
    match script.as_bytes() {
        [0x6a, 0x4c, length @ 76..=80, data @ ..] => usize::from(*length) == data.len(),
        [0x6a, length @ 6..=75, data @ ..] => usize::from(*length) == data.len(),
        _ => false,
    }
}

fn is_version_0(script: &Script) -> bool {
    script.as_bytes().first() == Some(&0)
}
