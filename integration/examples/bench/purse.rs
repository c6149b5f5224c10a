//! Coins of the harness's own, with which nodes are funded: blocks that every daemon would have to take in are mined before there
//! is one.

use std::collections::VecDeque;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Address, Amount, CompressedPublicKey, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    ecdsa,
};
use outrigger_integration::bitcoind::regtest_address;
use outrigger_integration::{Bitcoind, Done};
use serde_json::json;

/// Blocks whose reward it has.
const BLOCKS: u32 = 5;
/// Blocks before a reward can be spent (consensus).
const MATURITY: u32 = 100;
/// What each transaction pays, in satoshi; it is never large.
const FEE_SAT: u64 = 50_000;

/// The coins of one key.
pub(crate) struct Purse {
    key: SecretKey,
    coins: VecDeque<(OutPoint, u64)>,
}

impl Purse {
    /// Mines its coins on a chain that has no daemon yet.
    pub(crate) async fn mine(bitcoind: &Bitcoind) -> Done<Self> {
        let mut purse = Self { key: SecretKey::from_slice(&[0x17; 32])?, coins: VecDeque::new() };
        let hashes = bitcoind.mine(BLOCKS, &purse.address().to_string()).await?;
        bitcoind.mine_to_nobody(MATURITY).await?;
        for hash in hashes {
            let block = bitcoind.call("getblock", json!([hash, 2])).await?;
            let reward = &block["tx"][0];
            let txid = reward["txid"].as_str().ok_or("a block without a reward")?.parse()?;
            let value = reward["vout"][0]["value"].as_f64().ok_or("a reward without a value")?;
            purse.coins.push_back((OutPoint { txid, vout: 0 }, Amount::from_btc(value)?.to_sat()));
        }
        Ok(purse)
    }

    fn address(&self) -> Address {
        let key = CompressedPublicKey(self.key.public_key(&Secp256k1::new()));
        Address::p2wpkh(&key, Network::Regtest)
    }

    /// Pays each of these addresses by one transaction, and mines it.
    pub(crate) async fn pay(&mut self, bitcoind: &Bitcoind, payments: &[(String, u64)]) -> Done<()> {
        let needed = payments.iter().map(|(_, sat)| sat).sum::<u64>() + FEE_SAT;
        let (mut spent, mut sum) = (Vec::new(), 0);
        while sum < needed {
            let coin = self.coins.pop_front().ok_or("the purse is empty")?;
            sum += coin.1;
            spent.push(coin);
        }
        let mut output = Vec::new();
        for (address, sat) in payments {
            let script_pubkey = regtest_address(address)?.script_pubkey();
            output.push(TxOut { value: Amount::from_sat(*sat), script_pubkey });
        }
        let own = self.address().script_pubkey();
        output.push(TxOut { value: Amount::from_sat(sum - needed), script_pubkey: own.clone() });
        let input = |(previous_output, _): &(OutPoint, u64)| TxIn {
            previous_output: *previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let input = spent.iter().map(input).collect();
        let mut tx = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
        for (place, (_, sat)) in spent.iter().enumerate() {
            tx.input[place].witness = self.witness(&tx, place, &own, *sat)?;
        }
        bitcoind.call("sendrawtransaction", json!([serialize_hex(&tx), 0])).await?;
        bitcoind.mine_to_nobody(1).await?;
        let vout = u32::try_from(payments.len())?;
        self.coins.push_back((OutPoint { txid: tx.compute_txid(), vout }, sum - needed));
        Ok(())
    }

    fn witness(&self, tx: &Transaction, place: usize, own: &ScriptBuf, sat: u64) -> Done<Witness> {
        let (curve, sighash_type) = (Secp256k1::new(), EcdsaSighashType::All);
        let mut cache = SighashCache::new(tx);
        let digest = cache.p2wpkh_signature_hash(place, own, Amount::from_sat(sat), sighash_type)?;
        let signature = curve.sign_ecdsa(&Message::from(digest), &self.key);
        Ok(Witness::p2wpkh(&ecdsa::Signature { signature, sighash_type }, &self.key.public_key(&curve)))
    }
}
