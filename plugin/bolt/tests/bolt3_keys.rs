//! BOLT 3, appendices D (per-commitment secrets) and E (key derivation).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use outrigger_bolt::keys::derivation::{
    derive_private_key, derive_public_key, revocation_private_key, revocation_public_key,
};
use outrigger_bolt::keys::{
    CorruptSecrets, InvalidSignature, SecretMismatch, SecretSlot, SecretStore, per_commitment_secret, sign, verify,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

const FIRST_INDEX: u64 = (1 << 48) - 1;

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/bolt3-secrets.json")).unwrap()
}

fn bytes32(value: &Value) -> [u8; 32] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn number(value: &Value) -> u64 {
    FIRST_INDEX - value.as_u64().unwrap()
}

#[test]
fn appendix_d_generation() {
    let fixture = fixture();
    let vectors = fixture["generation"].as_array().unwrap();
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let secret = per_commitment_secret(&bytes32(&vector["seed"]), number(&vector["index"]));
        assert_eq!(secret.secret_bytes(), bytes32(&vector["output"]), "{}", vector["name"]);
    }
}

#[test]
fn appendix_d_storage() {
    let fixture = fixture();
    let vectors = fixture["storage"].as_array().unwrap();
    assert_eq!(vectors.len(), 9);
    for vector in vectors {
        let mut store = SecretStore::new();
        for insert in vector["inserts"].as_array().unwrap() {
            let number = number(&insert["index"]);
            let before = store.clone();
            let outcome = store.insert(number, bytes32(&insert["secret"]));
            if insert["ok"].as_bool().unwrap() {
                assert!(outcome.is_ok(), "{} at {number}", vector["name"]);
                assert_eq!(store.get(number), Some(bytes32(&insert["secret"])));
            } else {
                assert_eq!(outcome, Err(SecretMismatch::WrongSeries { number }), "{}", vector["name"]);
                assert_eq!(store, before, "a refused secret leaves no trace");
            }
        }
    }
}

#[test]
fn secrets_come_in_order_and_are_known_only_once_received() {
    let seed = [7; 32];
    let mut store = SecretStore::new();
    assert_eq!(store.insert(1, [1; 32]), Err(SecretMismatch::OutOfOrder { expected: 0, got: 1 }));
    for number in 0..300 {
        assert_eq!(store.next_number(), number);
        assert_eq!(store.get(number), None);
        store.insert(number, per_commitment_secret(&seed, number).secret_bytes()).unwrap();
    }
    for number in 0..300 {
        assert_eq!(store.get(number), Some(per_commitment_secret(&seed, number).secret_bytes()), "{number}");
    }
    let again = store.insert(299, per_commitment_secret(&seed, 299).secret_bytes());
    assert_eq!(again, Err(SecretMismatch::OutOfOrder { expected: 300, got: 299 }));
    assert!(store.slots().count() <= 49);
}

#[test]
fn a_number_without_a_commitment_does_not_reveal_the_seed() {
    let seed = [0x01; 32];
    for number in [FIRST_INDEX, FIRST_INDEX + 1, u64::MAX - 1, u64::MAX] {
        let secret = per_commitment_secret(&seed, number).secret_bytes();
        assert_ne!(secret, seed);
        assert_ne!(secret, per_commitment_secret(&seed, 0).secret_bytes());
    }
    // A seed that is no valid key must not matter either.
    per_commitment_secret(&[0; 32], FIRST_INDEX);
    per_commitment_secret(&[0xff; 32], u64::MAX);
}

#[test]
fn rows_of_the_secret_store_are_checked_on_load() {
    let seed = [9; 32];
    let mut store = SecretStore::new();
    for number in 0..78 {
        assert_eq!(SecretStore::from_slots(store.slots().copied()), Ok(store.clone()), "after {number}");
        store.insert(number, per_commitment_secret(&seed, number).secret_bytes()).unwrap();
    }
    let slots: Vec<SecretSlot> = store.slots().copied().collect();
    for (place, slot) in slots.iter().enumerate() {
        let mut missing = slots.clone();
        missing.remove(place);
        let loaded = SecretStore::from_slots(missing);
        // Only the latest may be missing: that is an older store, which only a comparison with the channel reveals.
        assert!(loaded.is_err() || slot.number == 77, "without entry {}", slot.slot);

        let mut doubled = slots.clone();
        doubled.push(*slot);
        assert_eq!(SecretStore::from_slots(doubled), Err(CorruptSecrets(slot.slot)));

        let mut moved = slots.clone();
        moved[place].slot += 1;
        assert!(SecretStore::from_slots(moved).is_err());
    }
    let mut flipped = slots.clone();
    flipped[0].secret[5] ^= 1;
    assert!(SecretStore::from_slots(flipped).is_err(), "a secret that the later ones give must be what they give");
    let outside = SecretSlot { slot: 49, number: 0, secret: [1; 32] };
    assert_eq!(SecretStore::from_slots([outside]), Err(CorruptSecrets(49)));
}

#[test]
fn appendix_e_key_derivation() {
    let base_secret = secret_key("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let commitment_secret = secret_key("1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100");
    let base_point = public_key("036d6caac248af96f6afa7f904f550253a0f3ef3f5aa2fe6838a95b216691468e2");
    let commitment_point = public_key("025f7117a78150fe2ef97db7cfc83bd57b2e2c0d0dd25eaf467a4a1c2a45ce1486");
    assert_eq!(base_secret.public_key(&Secp256k1::new()), base_point);
    assert_eq!(commitment_secret.public_key(&Secp256k1::new()), commitment_point);

    assert_eq!(
        derive_public_key(&base_point, &commitment_point),
        Ok(public_key("0235f2dbfaa89b57ec7b055afe29849ef7ddfeb1cefdb9ebdc43f5494984db29e5"))
    );
    assert_eq!(
        derive_private_key(&base_secret, &commitment_point),
        Ok(secret_key("cbced912d3b21bf196a766651e436aff192362621ce317704ea2f75d87e7be0f"))
    );
    assert_eq!(
        revocation_public_key(&base_point, &commitment_point),
        Ok(public_key("02916e326636d19c33f13e8c0c3a03dd157f332f3e99c317c141dd865eb01f8ff0"))
    );
    assert_eq!(
        revocation_private_key(&base_secret, &commitment_secret),
        Ok(secret_key("d09ffff62ddb2297ab000cc85bcb4283fdeb6aa052affbc9dddcf33b61078110"))
    );
}

#[test]
fn opposite_points_do_not_panic() {
    let secp = Secp256k1::new();
    let point = secret_key(&"11".repeat(32)).public_key(&secp);
    assert!(revocation_public_key(&point, &point.negate(&secp)).is_ok());
    assert!(derive_public_key(&point, &point.negate(&secp)).is_ok());
}

#[test]
fn cst_10_high_s_signature_is_refused() {
    let secp = Secp256k1::new();
    let key = secret_key(&"42".repeat(32));
    let message = bitcoin::secp256k1::Message::from_digest([3; 32]);
    let low = sign(&message, &key);
    assert_eq!(verify(&message, &low, &key.public_key(&secp)), Ok(()));

    let high = high_s(&low.serialize_compact());
    assert_eq!(verify(&message, &high, &key.public_key(&secp)), Err(InvalidSignature::HighS));
    let other = bitcoin::secp256k1::Message::from_digest([4; 32]);
    assert_eq!(verify(&other, &low, &key.public_key(&secp)), Err(InvalidSignature::Mismatch));
    let zero = bitcoin::secp256k1::ecdsa::Signature::from_compact(&[0; 64]).unwrap();
    assert_eq!(verify(&message, &zero, &key.public_key(&secp)), Err(InvalidSignature::Mismatch));
}

/// The same signature with n - s.
fn high_s(compact: &[u8; 64]) -> bitcoin::secp256k1::ecdsa::Signature {
    let s = SecretKey::from_slice(&compact[32..]).unwrap().negate();
    let high = [&compact[..32], &s.secret_bytes()].concat();
    bitcoin::secp256k1::ecdsa::Signature::from_compact(&high).unwrap()
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig {
        cases: 32,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
    }
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn derived_keys_match_their_secrets(base in secret(), commitment in secret()) {
        let secp = Secp256k1::new();
        let (base_point, point) = (base.public_key(&secp), commitment.public_key(&secp));
        prop_assert_eq!(
            derive_private_key(&base, &point).map(|key| key.public_key(&secp)),
            derive_public_key(&base_point, &point)
        );
        prop_assert_eq!(
            revocation_private_key(&base, &commitment).map(|key| key.public_key(&secp)),
            revocation_public_key(&base_point, &point)
        );
    }

    #[test]
    fn stored_slots_of_any_shape_do_not_panic(
        slots in prop::collection::vec((0_u8.., any::<u64>(), any::<[u8; 32]>()), 0..6)
    ) {
        let slots = slots.into_iter().map(|(slot, number, secret)| SecretSlot { slot, number, secret });
        if let Ok(store) = SecretStore::from_slots(slots) {
            prop_assert!(store.next_number() < FIRST_INDEX);
        }
    }
}

fn secret() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_filter_map("no valid key", |bytes| SecretKey::from_slice(&bytes).ok())
}

fn secret_key(hex: &str) -> SecretKey {
    hex.parse().unwrap()
}

fn public_key(hex: &str) -> PublicKey {
    hex.parse().unwrap()
}
