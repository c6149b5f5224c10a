//! BOLT 4: failures on their way back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use outrigger_bolt::amount::Msat;
use outrigger_bolt::onion::failure::{BADONION, Failure, NODE, PERM, UPDATE, Unwrapped, create, seal, unwrap, wrap};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::Value;

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn secrets(values: &[Value]) -> Vec<[u8; 32]> {
    values.iter().map(|value| bytes(value).try_into().unwrap()).collect()
}

#[test]
fn onion_error_test_vector() {
    let vector: Value = serde_json::from_str(include_str!("fixtures/bolt04-onion-error-test.json")).unwrap();
    let hops = vector["generate"]["hops"].as_array().unwrap();
    let shared: Vec<Value> = hops.iter().map(|hop| hop["hop_shared_secret"].clone()).collect();
    let shared = secrets(&shared);
    let mut reason = create(&shared[4], &Failure::TemporaryNodeFailure);
    for secret in shared[..4].iter().rev() {
        reason = wrap(secret, reason);
    }
    assert_eq!(hex::encode(&reason), vector["errorpacket"].as_str().unwrap());
    assert_eq!(unwrap(&shared, &reason), Unwrapped::Attributed { hop: 4, failure: Failure::TemporaryNodeFailure });
}

#[test]
fn appendix_trace_of_a_failure_with_tlvs() {
    let vector: Value = serde_json::from_str(include_str!("fixtures/bolt4-failure-trace.json")).unwrap();
    let shared = secrets(vector["shared_secrets"].as_array().unwrap());
    let reasons = vector["reasons"].as_array().unwrap();
    let padded_len = vector["padded_len"].as_u64().unwrap().try_into().unwrap();
    let mut reason = seal(&shared[4], &bytes(&vector["failuremsg"]), padded_len);
    assert_eq!(reason, bytes(&reasons[4]));
    for place in (0..4).rev() {
        reason = wrap(&shared[place], reason);
        assert_eq!(reason, bytes(&reasons[place]), "node {place}");
    }
    let failure = Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat::new(100), height: 800_000 };
    assert_eq!(unwrap(&shared, &reason), Unwrapped::Attributed { hop: 4, failure });
}

fn all_failures() -> Vec<(u16, Failure)> {
    let sha256_of_onion = [5; 32];
    let channel_update = vec![1, 2, 3];
    let htlc_msat = Msat::new(77);
    vec![
        (NODE | 2, Failure::TemporaryNodeFailure),
        (PERM | NODE | 2, Failure::PermanentNodeFailure),
        (PERM | NODE | 3, Failure::RequiredNodeFeatureMissing),
        (BADONION | PERM | 4, Failure::InvalidOnionVersion { sha256_of_onion }),
        (BADONION | PERM | 5, Failure::InvalidOnionHmac { sha256_of_onion }),
        (BADONION | PERM | 6, Failure::InvalidOnionKey { sha256_of_onion }),
        (UPDATE | 7, Failure::TemporaryChannelFailure { channel_update: channel_update.clone() }),
        (PERM | 8, Failure::PermanentChannelFailure),
        (PERM | 9, Failure::RequiredChannelFeatureMissing),
        (PERM | 10, Failure::UnknownNextPeer),
        (UPDATE | 11, Failure::AmountBelowMinimum { htlc_msat, channel_update: channel_update.clone() }),
        (UPDATE | 12, Failure::FeeInsufficient { htlc_msat, channel_update: channel_update.clone() }),
        (UPDATE | 13, Failure::IncorrectCltvExpiry { cltv_expiry: 9, channel_update: channel_update.clone() }),
        (UPDATE | 14, Failure::ExpiryTooSoon { channel_update: Vec::new() }),
        (PERM | 15, Failure::IncorrectOrUnknownPaymentDetails { htlc_msat, height: 800_000 }),
        (18, Failure::FinalIncorrectCltvExpiry { cltv_expiry: 4 }),
        (19, Failure::FinalIncorrectHtlcAmount { incoming_htlc_amt: htlc_msat }),
        (UPDATE | 20, Failure::ChannelDisabled { disabled_flags: 0, channel_update }),
        (21, Failure::ExpiryTooFar),
        (PERM | 22, Failure::InvalidOnionPayload { tlv_type: 70_000, offset: 12 }),
        (23, Failure::MppTimeout),
        (BADONION | PERM | 24, Failure::InvalidOnionBlinding { sha256_of_onion }),
        (PERM | 16, Failure::Other { code: PERM | 16, data: vec![1] }),
    ]
}

#[test]
fn every_failure_code_comes_back_as_it_was_sent() {
    let shared = [[1; 32], [2; 32], [3; 32]];
    for (code, failure) in all_failures() {
        assert_eq!(failure.code(), code, "{failure}");
        assert_eq!(failure.is_permanent(), code & PERM != 0);
        assert_eq!(Failure::decode(&failure.encode()), failure);
        for hop in 0..3 {
            let mut reason = create(&shared[hop], &failure);
            assert_eq!(reason.len(), 32 + 2 + 2 + 256);
            for secret in shared[..hop].iter().rev() {
                reason = wrap(secret, reason);
            }
            assert_eq!(unwrap(&shared, &reason), Unwrapped::Attributed { hop, failure: failure.clone() });
        }
    }
}

#[test]
fn a_malformed_answer_is_told_to_the_origin() {
    let sha256_of_onion = [8; 32];
    let told = |code| Failure::from_malformed(code, sha256_of_onion);
    assert_eq!(told(0xc005), Failure::InvalidOnionHmac { sha256_of_onion });
    assert_eq!(told(0xc018), Failure::InvalidOnionBlinding { sha256_of_onion });
    assert_eq!(told(0xc0ff), Failure::Other { code: 0xc0ff, data: sha256_of_onion.to_vec() });
}

#[test]
fn a_failure_that_breaks_the_format_is_still_its_hops() {
    let shared = [[1; 32]];
    let cases: [(&[u8], Failure); 4] = [
        (&[], Failure::Other { code: 0, data: Vec::new() }),
        (&[0x40], Failure::Other { code: 0, data: vec![0x40] }),
        (&[0x40, 15, 1, 2], Failure::Other { code: PERM | 15, data: vec![1, 2] }),
        (&[0x10, 7, 0, 5, 1], Failure::Other { code: UPDATE | 7, data: vec![0, 5, 1] }),
    ];
    for (message, failure) in cases {
        assert_eq!(unwrap(&shared, &seal(&shared[0], message, 256)), Unwrapped::Attributed { hop: 0, failure });
    }
}

#[test]
fn bad_input_70_reasons_that_no_hop_made() {
    let shared = [[1; 32], [2; 32]];
    for length in [0, 1, 31, 32, 33, 36, 292, 65_535] {
        assert_eq!(unwrap(&shared, &vec![0xa5; length]), Unwrapped::Unattributable, "{length} bytes");
    }
    let reason = create(&[3; 32], &Failure::MppTimeout);
    assert_eq!(unwrap(&shared, &reason), Unwrapped::Unattributable);
    assert_eq!(unwrap(&[], &reason), Unwrapped::Unattributable);
    // The secret that stands in for the missing hops must not be one that a failure can be made with.
    assert_eq!(unwrap(&[], &create(&[0; 32], &Failure::MppTimeout)), Unwrapped::Unattributable);
    let huge = Failure::TemporaryChannelFailure { channel_update: vec![0; 70_000] };
    let cut = Failure::Other { code: UPDATE | 7, data: Vec::new() };
    assert_eq!(unwrap(&shared, &create(&shared[0], &huge)), Unwrapped::Attributed { hop: 0, failure: cut });
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig {
        cases: 96,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
    }
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn failures_of_random_bytes_do_not_panic(message in prop::collection::vec(any::<u8>(), 0..600)) {
        let decoded = Failure::decode(&message);
        prop_assert_eq!(Failure::decode(&decoded.encode()), decoded);
        prop_assert_eq!(unwrap(&[[1; 32]], &message), Unwrapped::Unattributable);
        let sealed = seal(&[1; 32], &message, 256);
        let authentic = matches!(unwrap(&[[1; 32]], &sealed), Unwrapped::Attributed { hop: 0, .. });
        prop_assert!(authentic);
    }

    #[test]
    fn a_spoilt_reason_is_nobodys(place in 0_usize..292, bit in 0_u32..8) {
        let mut reason = create(&[1; 32], &Failure::MppTimeout);
        reason[place] ^= 1 << bit;
        prop_assert_eq!(unwrap(&[[1; 32]], &reason), Unwrapped::Unattributable);
    }
}
