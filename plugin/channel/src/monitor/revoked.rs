//! A revoked commitment of the peer, script by script: what stands in the chain is compared with every script that
//! could stand there (BOLT 5, "Revoked Transaction Close Handling").

use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{ScriptBuf, Transaction};
use outrigger_bolt::keys::{CommitmentKeys, public_key};
use outrigger_bolt::tx::script;

use crate::changes::{ChannelParams, Evidence};
use crate::commitments::htlc::{HtlcKey, Offerer};

/// The keys of one revoked commitment of the peer; its secret is known.
pub struct RevokedCommitment<'a> {
    params: &'a ChannelParams,
    keys: CommitmentKeys,
}

/// What an output of a revoked commitment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedOutput {
    /// The peer's balance, taken with the revocation key.
    ToRemoteOwner,
    /// Our balance, ours after one block.
    ToUs,
    /// One of the two anchors.
    Anchor,
    /// An HTLC, taken with the revocation key. Of several HTLCs with one script it names the first: the script is all
    /// that matters here.
    Htlc(HtlcKey),
}

impl<'a> RevokedCommitment<'a> {
    pub(super) fn of(params: &'a ChannelParams, secret: [u8; 32]) -> Option<Self> {
        let point = public_key(&SecretKey::from_slice(&secret).ok()?);
        let keys = CommitmentKeys::derive(&params.remote.basepoints, &params.local.basepoints, &point).ok()?;
        Some(Self { params, keys })
    }

    /// The keys of this commitment; the owner is the peer.
    pub fn keys(&self) -> &CommitmentKeys {
        &self.keys
    }

    /// The witness script of the peer's own output. The delay is the one that we set.
    pub fn to_local_script(&self) -> ScriptBuf {
        script::revocable(&self.keys, self.params.local.to_self_delay)
    }

    /// The witness script of an HTLC output.
    pub fn htlc_script(&self, key: HtlcKey, evidence: &Evidence) -> ScriptBuf {
        match key.offerer {
            Offerer::Remote => script::offered_htlc(&self.keys, &evidence.payment_hash),
            Offerer::Local => script::received_htlc(&self.keys, &evidence.payment_hash, evidence.cltv_expiry),
        }
    }

    /// What each output of `tx` is, in its order; `None` for one that no script explains. `evidence` is walked once, and
    /// losing some of it costs the HTLCs that it was of, nothing else.
    pub fn outputs<'e>(
        &self,
        tx: &Transaction,
        evidence: impl Iterator<Item = (HtlcKey, &'e Evidence)>,
    ) -> Vec<Option<RevokedOutput>> {
        let scripts: Vec<_> = tx.output.iter().map(|output| output.script_pubkey.as_script()).collect();
        let mut found = vec![None; scripts.len()];
        let mut mark = |script_pubkey: &ScriptBuf, what: RevokedOutput| {
            for (script, slot) in scripts.iter().zip(found.iter_mut()) {
                if *script == script_pubkey.as_script() && slot.is_none() {
                    *slot = Some(what);
                }
            }
        };
        mark(&self.to_local_script().to_p2wsh(), RevokedOutput::ToRemoteOwner);
        mark(&script::to_remote(&self.keys.other_payment).to_p2wsh(), RevokedOutput::ToUs);
        for funding_pubkey in self.funding_pubkeys() {
            mark(&script::anchor(&funding_pubkey).to_p2wsh(), RevokedOutput::Anchor);
        }
        for (key, evidence) in evidence {
            mark(&self.htlc_script(key, evidence).to_p2wsh(), RevokedOutput::Htlc(key));
        }
        found
    }

    fn funding_pubkeys(&self) -> [PublicKey; 2] {
        [self.params.local.basepoints.funding_pubkey, self.params.remote.basepoints.funding_pubkey]
    }
}
