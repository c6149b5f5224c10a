//! What can be taken from the chain for us, as values: no transaction yet. A claim is derived from what stands in the chain
//! now and from the keys, so that a reorganisation has nothing to undo but the row of the spend (REO-5).

use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use outrigger_bolt::amount::{FeeratePerKw, Sat};
use outrigger_bolt::tx::{claim, script};

use crate::changes::ChannelParams;
use crate::commitments::htlc::HtlcKey;
use crate::signer::Signer;

/// Blocks that `to_remote` waits once its commitment is in a block (BOLT 3, `option_anchors`).
const TO_REMOTE_DELAY: u16 = 1;

/// The weight of a transaction with one claim and one P2WPKH output, without the claim's witness: version, locktime and
/// counts, an input, an output, and marker and flag.
const SWEEP_WEIGHT: u64 = 4 * (4 + 4 + 1 + 1 + 41 + 31) + 2;

/// The least that an output may be worth that is paid to the wallet: the dust limit of P2WPKH (BOLT 3, "Dust Limits").
pub const SWEEP_DUST: Sat = Sat::new(294);

/// What an output of a commitment in the chain is to us. The kinds of HTLCs and penalties have their place in rows; no
/// claim of them is made yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKind {
    /// Our anchor, which carries the fee of a commitment that is not in a block yet.
    Anchor,
    /// Our balance in our own commitment, ours after the peer's `to_self_delay`.
    ToLocal,
    /// Our balance in a commitment of the peer, ours after one block.
    ToRemote,
    /// An HTLC output of a commitment that is not revoked.
    Htlc(HtlcKey),
    /// The output of an HTLC transaction of ours, after its delay.
    SecondStage(HtlcKey),
    /// The peer's balance in a commitment that it has revoked.
    RevokedBalance,
    /// An HTLC output of a revoked commitment.
    RevokedHtlc(HtlcKey),
}

/// One output that is ours to take: where it is, how it is spent, by when, and what is lost otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub kind: ClaimKind,
    pub outpoint: OutPoint,
    /// The output itself.
    pub output: TxOut,
    /// The lowest height of a block that may hold the claim.
    pub from_height: u32,
    /// The height from which somebody else could take it; none for balances and anchors.
    pub deadline: Option<u32>,
    /// What is lost where the claim never confirms: the bound of any fee for it.
    pub at_stake: Sat,
    /// Of the commitment that it stands in (BOLT 3).
    pub commitment_number: u64,
    /// Relative locktime in blocks (BIP 68); 0 for none.
    pub delay: u16,
    pub witness_script: ScriptBuf,
}

/// The signer did not sign a claim, which means that it was asked for an input that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotClaim {
    #[error("input {0} is not in the transaction")]
    NoSuchInput(usize),
    #[error("claims of this kind are not made yet")]
    NotYet,
}

impl Claim {
    /// The input that spends it, without its witness. It signals that it may be replaced, and has its delay (BIP 68).
    pub fn input(&self) -> TxIn {
        let sequence = match self.delay {
            0 => Sequence::ENABLE_RBF_NO_LOCKTIME,
            blocks => Sequence::from_height(blocks),
        };
        TxIn { previous_output: self.outpoint, script_sig: ScriptBuf::new(), sequence, witness: Witness::new() }
    }

    /// What it is worth.
    pub fn value(&self) -> Sat {
        self.output.value.into()
    }

    /// The most weight units that its witness takes.
    pub fn witness_weight(&self) -> u64 {
        let empty_element = match self.kind {
            ClaimKind::ToLocal => 1,
            ClaimKind::Anchor
            | ClaimKind::ToRemote
            | ClaimKind::Htlc(_)
            | ClaimKind::SecondStage(_)
            | ClaimKind::RevokedBalance
            | ClaimKind::RevokedHtlc(_) => 0,
        };
        claim::witness_weight(empty_element, &self.witness_script)
    }

    /// The weight of a transaction that takes it alone and pays one P2WPKH output.
    pub fn sweep_weight(&self) -> u64 {
        SWEEP_WEIGHT.saturating_add(self.witness_weight())
    }

    /// Whether it can ever be taken at a gain: at the lowest feerate that is relayed, something is left that is not dust,
    /// and no more than half of it is paid in fees (OCC-2).
    pub fn is_worth_taking(&self) -> bool {
        let fee = FeeratePerKw::FLOOR.fee(self.sweep_weight());
        let half = Sat::new(self.value().get() / 2);
        fee <= half && self.value().saturating_sub(fee) >= SWEEP_DUST
    }

    /// The witness of input `input` of `spend`, which must be this claim's.
    pub fn witness(
        &self,
        signer: &dyn Signer,
        params: &ChannelParams,
        spend: &Transaction,
        input: usize,
    ) -> Result<Witness, CannotClaim> {
        let found = spend.input.get(input).is_some_and(|found| found.previous_output == self.outpoint);
        let missing = CannotClaim::NoSuchInput(input);
        if !found {
            return Err(missing);
        }
        match self.kind {
            ClaimKind::Anchor => {
                let signature = signer.sign_anchor(params, spend, input).ok_or(missing)?;
                Ok(claim::anchor_witness(&signature, &self.witness_script))
            }
            ClaimKind::ToLocal => {
                let place = (spend, input, self.value());
                let signature = signer.sign_to_local(params, self.commitment_number, place).ok_or(missing)?;
                Ok(claim::to_local_witness(&signature, &self.witness_script))
            }
            ClaimKind::ToRemote => {
                let signature = signer.sign_to_remote((spend, input, self.value())).ok_or(missing)?;
                Ok(claim::to_remote_witness(&signature, &self.witness_script))
            }
            ClaimKind::Htlc(_) | ClaimKind::SecondStage(_) | ClaimKind::RevokedBalance | ClaimKind::RevokedHtlc(_) => {
                Err(CannotClaim::NotYet)
            }
        }
    }
}

/// Our balance in a transaction of this commitment number that stands in the block at `height`: in our own commitment by
/// the script of its number, in any of the peer's by our payment key, which no number changes. So it is found in a
/// commitment that our rows do not explain too (BOLT 5, "Failing a Channel").
pub(super) fn balances(
    params: &ChannelParams,
    signer: &dyn Signer,
    commitment_number: u64,
    (tx, height): (&Transaction, u32),
) -> Vec<Claim> {
    let to_remote = script::to_remote(&params.local.basepoints.payment);
    let mut ours = vec![(ClaimKind::ToRemote, to_remote, TO_REMOTE_DELAY)];
    if let Some(script) = to_local_script(params, signer, commitment_number) {
        ours.push((ClaimKind::ToLocal, script, params.remote.to_self_delay));
    }
    let mut claims = Vec::new();
    let txid = tx.compute_txid();
    for (vout, output) in (0..).zip(&tx.output) {
        for (kind, witness_script, delay) in &ours {
            if output.script_pubkey == script::p2wsh(witness_script) {
                claims.push(Claim {
                    kind: *kind,
                    outpoint: OutPoint { txid, vout },
                    output: output.clone(),
                    from_height: height.saturating_add(u32::from(*delay)),
                    deadline: None,
                    at_stake: output.value.into(),
                    commitment_number,
                    delay: *delay,
                    witness_script: witness_script.clone(),
                });
            }
        }
    }
    claims
}

/// Our anchor in our own commitment, which is not in a block: spent at once, for what is `at_stake` in it.
pub(super) fn anchor(params: &ChannelParams, tx: &Transaction, vout: u32, at_stake: Sat) -> Option<Claim> {
    let output = tx.output.get(usize::try_from(vout).ok()?)?.clone();
    Some(Claim {
        kind: ClaimKind::Anchor,
        outpoint: OutPoint { txid: tx.compute_txid(), vout },
        output,
        from_height: 0,
        deadline: None,
        at_stake,
        commitment_number: 0,
        delay: 0,
        witness_script: script::anchor(&params.local.basepoints.funding_pubkey),
    })
}

/// The witness script of our balance in our own commitment of this number. Numbers beyond 2^48 name no commitment.
fn to_local_script(params: &ChannelParams, signer: &dyn Signer, commitment_number: u64) -> Option<ScriptBuf> {
    let point = signer.per_commitment_point(commitment_number);
    let keys = signer.commitment_keys(&params.local.basepoints, &params.remote.basepoints, &point).ok()?;
    Some(script::revocable(&keys, params.remote.to_self_delay))
}
