//! BOLT 9: bits, unknown bits and dependencies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use outrigger_bolt::features::{Feature, FeatureError, Features};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

#[test]
fn bits_are_counted_from_the_last_byte() {
    let features = Features::from_be_bytes(&[0x02, 0x01]);
    assert_eq!(features.bits().collect::<Vec<_>>(), [0, 9]);
    assert!(features.requires(Feature::DATA_LOSS_PROTECT));
    assert!(features.supports(Feature::VAR_ONION_OPTIN));
    assert!(!features.requires(Feature::VAR_ONION_OPTIN));
}

#[test]
fn leading_zero_bytes_make_no_difference_and_are_not_written() {
    let features = Features::from_be_bytes(&[0, 0, 0x10, 0x00]);
    assert_eq!(features, Features::from_be_bytes(&[0x10, 0x00]));
    assert_eq!(features.to_be_bytes(), [0x10, 0x00]);
    assert_eq!(Features::from_be_bytes(&[0; 9]), Features::empty());
    assert_eq!(Features::empty().to_be_bytes(), [0_u8; 0]);
}

#[test]
fn channel_type_anchors_is_bits_12_and_22() {
    assert_eq!(Features::channel_type_anchors().to_be_bytes(), [0x40, 0x10, 0x00]);
}

#[test]
fn our_init_keeps_the_rules_we_hold_others_to() {
    let ours = Features::init();
    assert_eq!(ours.check(&ours), Ok(()));
    assert_eq!(ours.check_dependencies(), Ok(()));
    let bits: Vec<_> = ours.bits().collect();
    assert_eq!(bits, [0, 5, 8, 12, 14, 17, 23, 27, 44, 47, 61]);
    assert!(bits.windows(2).all(|pair| pair[0] / 2 != pair[1] / 2), "never both bits of a pair");
}

#[test]
fn both_bits_of_a_pair_are_taken_as_required() {
    let both = Features::empty().offer(Feature::SPLICE).require(Feature::SPLICE);
    assert!(both.requires(Feature::SPLICE));
    assert_eq!(both.check(&Features::init()), Err(FeatureError::UnknownRequired(62)));
}

#[test]
fn bad_input_10_unknown_even_bit() {
    let ours = Features::init();
    for bit in [2, 28, 100, 65534] {
        let peer = Features::init().with_bit(bit);
        assert_eq!(peer.check(&ours), Err(FeatureError::UnknownRequired(usize::from(bit))));
    }
    for bit in [3, 29, 101, 65535] {
        assert_eq!(Features::init().with_bit(bit).check(&ours), Ok(()), "odd bit {bit} is ignored");
    }
}

/// Bits beyond 65535 fit into an `init` too, and are held to the same rule.
#[test]
fn bad_input_10_unknown_even_bit_at_the_end_of_the_longest_init() {
    let mut bytes = vec![0; 65_000];
    bytes[0] = 0x40;
    assert_eq!(Features::from_be_bytes(&bytes).check(&Features::init()), Err(FeatureError::UnknownRequired(519_998)));
    bytes[0] = 0x80;
    assert_eq!(Features::from_be_bytes(&bytes).check(&Features::init()), Ok(()));
}

#[test]
fn bad_input_11_missing_dependency_bit() {
    let ours = Features::init();
    for (feature, needs) in
        [(Feature::ZEROCONF, Feature::SCID_ALIAS), (Feature::SIMPLE_CLOSE, Feature::SHUTDOWN_ANYSEGWIT)]
    {
        let alone = Features::empty().offer(feature);
        assert_eq!(alone.check(&ours), Err(FeatureError::MissingDependency { feature, needs }));
        assert_eq!(alone.offer(needs).check(&ours), Ok(()));
        let required = Features::empty().require(feature).offer(needs);
        assert_eq!(required.check_dependencies(), Ok(()));
    }
}

/// A peer may leave out what BOLT 9 assumes of everybody.
#[test]
fn an_assumed_feature_counts_as_set() {
    let peer = Features::empty().offer(Feature::BASIC_MPP);
    assert_eq!(peer.check(&Features::init()), Ok(()));
    let requires_all_assumed = Features::empty()
        .require(Feature::DATA_LOSS_PROTECT)
        .require(Feature::VAR_ONION_OPTIN)
        .require(Feature::STATIC_REMOTEKEY)
        .require(Feature::PAYMENT_SECRET)
        .require(Feature::CHANNEL_TYPE);
    assert_eq!(requires_all_assumed.check(&Features::empty()), Ok(()));
}

#[test]
fn errors_name_the_bits_in_bolt_words() {
    let error = Features::empty().offer(Feature::ZEROCONF).check(&Features::init()).unwrap_err();
    assert_eq!(error.to_string(), "option_zeroconf without option_scid_alias, which it depends on");
    assert_eq!(FeatureError::UnknownRequired(28).to_string(), "required feature bit 28 is not understood");
}

/// A failing seed is printed and kept beside this file.
fn seeds_kept() -> ProptestConfig {
    ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("regressions"))
}

proptest! {
    #![proptest_config(seeds_kept())]

    #[test]
    fn any_bytes_come_back_minimal(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let features = Features::from_be_bytes(&bytes);
        let written = features.to_be_bytes();
        prop_assert!(written.first() != Some(&0));
        prop_assert!(bytes.ends_with(&written));
        prop_assert_eq!(Features::from_be_bytes(&written), features.clone());
        let rebuilt = features.bits().fold(Features::empty(), |set, bit| set.with_bit(u16::try_from(bit).unwrap()));
        prop_assert_eq!(rebuilt, features);
    }

    #[test]
    fn a_union_has_the_bits_of_both(one in proptest::collection::vec(any::<u8>(), 0..20), two: [u8; 8], bit in 0..200_u16) {
        let (one, two) = (Features::from_be_bytes(&one), Features::from_be_bytes(&two));
        let union = one.union(&two);
        prop_assert_eq!(union.has_bit(bit), one.has_bit(bit) || two.has_bit(bit));
        prop_assert_eq!(union, two.union(&one));
    }
}
