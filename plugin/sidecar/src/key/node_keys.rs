//! The node's own secrets, each on a hardened BIP 32 branch of the seed.

use bitcoin::Network;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::ecdsa::{RecoverableSignature, Signature};
use bitcoin::secp256k1::{self, Message, PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::id::{NodeId, PaymentPreimage, PaymentSecret};
use zeroize::Zeroizing;

use super::seed::Seed;

/// The purpose of our branch, `m/9735'/coin'/branch'`. The wallet lives on BIP 84's.
const PURPOSE: u32 = 9735;

/// Branches below the purpose and the coin. A number once used keeps its meaning for ever.
#[derive(Clone, Copy)]
enum Branch {
    Node = 0,
    Channels = 1,
    Invoices = 2,
    Onions = 3,
    Backups = 4,
}

/// Node key, channel seeds, invoice secrets, onion session keys and what backups are sealed with. Wiped when dropped.
pub struct NodeKeys {
    secp: Secp256k1<secp256k1::All>,
    node: SecretKey,
    node_id: NodeId,
    channels: Zeroizing<[u8; 32]>,
    invoices: Zeroizing<[u8; 32]>,
    onions: Zeroizing<[u8; 32]>,
    backups: Zeroizing<[u8; 32]>,
}

impl NodeKeys {
    /// The keys of this seed on this network. The same seed gives other keys on test networks than on mainnet.
    pub fn derive(seed: &Seed, network: Network) -> Self {
        let secp = Secp256k1::new();
        let master = seed.master(network);
        let node = branch(&secp, &master, network, Branch::Node);
        let secret = |which| Zeroizing::new(branch(&secp, &master, network, which).secret_bytes());
        Self {
            node_id: NodeId::new(PublicKey::from_secret_key(&secp, &node)),
            node,
            channels: secret(Branch::Channels),
            invoices: secret(Branch::Invoices),
            onions: secret(Branch::Onions),
            backups: secret(Branch::Backups),
            secp,
        }
    }

    /// The node's name: its public key.
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The node's static key, for the BOLT 8 handshake.
    pub const fn node_secret(&self) -> &SecretKey {
        &self.node
    }

    /// SHA256 of the compressed point `point` times the node key (BOLT 4 and 8, `ECDH`).
    pub fn ecdh(&self, point: &PublicKey) -> [u8; 32] {
        SharedSecret::new(point, &self.node).secret_bytes()
    }

    /// The signature that an invoice ends with (BOLT 11), from which its payer recovers the node id.
    pub fn sign_invoice(&self, hash: &Message) -> RecoverableSignature {
        self.secp.sign_ecdsa_recoverable(hash, &self.node)
    }

    /// The node's signature of a gossip message (BOLT 7), given its digest.
    pub fn sign_gossip(&self, digest: &Message) -> Signature {
        self.secp.sign_ecdsa(digest, &self.node)
    }

    /// The seed of one channel's keys. `keys_index` must never be used for two channels.
    pub fn channel_seed(&self, keys_index: u64) -> [u8; 32] {
        prf(&self.channels, b"channel", &keys_index.to_be_bytes())
    }

    /// The preimage of the invoice with this random nonce, which is stored in place of it.
    pub fn invoice_preimage(&self, nonce: &[u8; 32]) -> PaymentPreimage {
        PaymentPreimage(prf(&self.invoices, b"preimage", nonce))
    }

    /// The payment secret of the invoice with this random nonce.
    pub fn payment_secret(&self, nonce: &[u8; 32]) -> PaymentSecret {
        PaymentSecret(prf(&self.invoices, b"payment_secret", nonce))
    }

    /// What backups are sealed with.
    pub fn backup_secret(&self) -> &[u8; 32] {
        &self.backups
    }

    /// The session key of the onion of one part of a payment (BOLT 4). `payment_id` is fresh for each payment, and no part
    /// of it has two packets.
    pub fn onion_session_key(&self, payment_id: &[u8; 32], part: u16) -> SecretKey {
        let mut candidate = prf(&self.onions, b"session", &[payment_id.as_slice(), &part.to_be_bytes()].concat());
        loop {
            // Fails for one candidate in 2^127.
            match SecretKey::from_slice(&candidate) {
                Ok(key) => return key,
                Err(_) => candidate = prf(&self.onions, b"again", &candidate),
            }
        }
    }
}

impl Drop for NodeKeys {
    fn drop(&mut self) {
        self.node.non_secure_erase();
    }
}

fn branch(secp: &Secp256k1<secp256k1::All>, master: &Xpriv, network: Network, branch: Branch) -> SecretKey {
    let coin = if network == Network::Bitcoin { 0 } else { 1 };
    let path = [PURPOSE, coin, branch as u32].map(|index| ChildNumber::Hardened { index });
    #[expect(clippy::expect_used, reason = "BIP 32: one path in 2^127 has no key")]
    let child = master.derive_priv(secp, &path).expect("a path has a key");
    child.private_key
}

/// HMAC-SHA256 of a label and an input.
fn prf(key: &[u8; 32], label: &[u8], input: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(&[u8::try_from(label.len()).unwrap_or(u8::MAX)]);
    engine.input(label);
    engine.input(input);
    Hmac::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn keys(byte: u8, network: Network) -> NodeKeys {
        let dir = tempfile::tempdir().unwrap();
        NodeKeys::derive(&Seed::create(dir.path(), || Ok([byte; 32])).unwrap(), network)
    }

    #[test]
    fn every_secret_is_another_one_and_the_same_again() {
        let all = |keys: &NodeKeys| {
            vec![
                keys.node.secret_bytes(),
                keys.channel_seed(0),
                keys.channel_seed(1),
                keys.channel_seed(u64::MAX),
                keys.invoice_preimage(&[0; 32]).0,
                keys.invoice_preimage(&[1; 32]).0,
                keys.payment_secret(&[0; 32]).0,
                keys.onion_session_key(&[0; 32], 0).secret_bytes(),
                keys.onion_session_key(&[1; 32], 0).secret_bytes(),
                keys.onion_session_key(&[1; 32], 1).secret_bytes(),
                *keys.backup_secret(),
            ]
        };
        let first = all(&keys(1, Network::Regtest));
        assert_eq!(first, all(&keys(1, Network::Regtest)));
        let mut seen: HashSet<[u8; 32]> = first.into_iter().collect();
        seen.extend(all(&keys(2, Network::Regtest)));
        seen.extend(all(&keys(1, Network::Bitcoin)));
        assert_eq!(seen.len(), 33);
    }

    #[test]
    fn both_sides_of_an_ecdh_agree() {
        let (ours, theirs) = (keys(1, Network::Regtest), keys(2, Network::Regtest));
        assert_eq!(ours.ecdh(theirs.node_id().public_key()), theirs.ecdh(ours.node_id().public_key()));
    }

    #[test]
    fn an_invoice_signature_gives_the_node_id_back() {
        let keys = keys(1, Network::Regtest);
        let hash = Message::from_digest([7; 32]);
        let recovered = keys.secp.recover_ecdsa(&hash, &keys.sign_invoice(&hash)).unwrap();
        assert_eq!(NodeId::new(recovered), keys.node_id());
    }

    /// Pins the derivation: coins and channels of an old seed must be found by every later release.
    #[test]
    fn the_derivation_never_changes() {
        let keys = keys(1, Network::Regtest);
        assert_eq!(keys.node_id().to_string(), "02205176050490b0be0c58d05cd4cbd0034783839815fb40206c8b09a753b49a59");
        assert_eq!(
            bitcoin::hex::DisplayHex::to_lower_hex_string(&keys.channel_seed(7)),
            "3ea9c0737615f345e7dcf9d0a00db13f995763dbf80f7002ffb39e5e6fe02322"
        );
    }
}
