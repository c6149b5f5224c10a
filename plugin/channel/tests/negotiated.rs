//! What the features of both sides change about a channel: its alias, the script that was fixed upfront, its announcement
//! (BOLT 2, "Channel Establishment v1"; BOLT 7, "The `announcement_signatures` Message").
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod duo;

use bitcoin::ScriptBuf;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::secp256k1::{Message as Digest, SecretKey};
use duo::{Alice, Bob, Duo, SHUTDOWN_SCRIPT, Terms, Who, context, node_id, node_secret, order, scid_alias, signer};
use outrigger_bolt::features::{Feature, Features};
use outrigger_bolt::id::ShortChannelId;
use outrigger_bolt::keys::sign;
use outrigger_bolt::wire::{AcceptChannel, AnnouncementSignatures, ChannelReady, Message, OpenChannel, Shutdown};
use outrigger_channel::{
    Channel, Effect, Input, Link, Opening, OpeningInput, OpeningStep, Phase, Rule, Signer, Violation,
};

fn all() -> Terms {
    Terms { features: Features::init(), ..Terms::default() }
}

fn open_channel(terms: &Terms) -> (Opening, OpenChannel) {
    let alice = signer(Alice);
    let (opening, message) = Opening::open(order(terms), &context(500, &terms.alice, &alice)).expect("an order");
    let Message::OpenChannel(open) = message else { panic!("{message:?}") };
    (opening, open)
}

fn accept_channel(open: &OpenChannel, terms: &Terms) -> Result<AcceptChannel, Rule> {
    let bob = signer(Bob);
    let own = (0, scid_alias(Bob));
    match Opening::accept(open, node_id(Alice), own, &terms.features, &context(500, &terms.bob, &bob)) {
        Ok((_, Message::AcceptChannel(accept))) => Ok(accept),
        Ok((_, other)) => panic!("{other:?}"),
        Err(Violation::Fail(rule)) => Err(rule),
        Err(Violation::Warn(rule)) => panic!("{rule} fails the opening"),
    }
}

/// What Bob says of an `open_channel` that is good but for this change.
fn refused(terms: &Terms, change: impl FnOnce(&mut OpenChannel)) -> Rule {
    let (_, mut open) = open_channel(terms);
    change(&mut open);
    accept_channel(&open, terms).expect_err("a refusal")
}

/// What Alice says of an `accept_channel` that is good but for this change.
fn refused_accept(terms: &Terms, change: impl FnOnce(&mut AcceptChannel)) -> String {
    let (mut opening, open) = open_channel(terms);
    let mut accept = accept_channel(&open, terms).expect("good terms");
    change(&mut accept);
    let alice = signer(Alice);
    let message = Message::AcceptChannel(accept);
    match opening.step(OpeningInput::Message(&message), &context(500, &terms.alice, &alice)) {
        OpeningStep::Gone { effects, reason } => {
            assert!(matches!(effects.as_slice(), [Effect::Send(Message::Error(_))]), "{effects:?}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unannounced_channel_has_the_alias_type_where_both_offer_it() {
    let (plain, alias) = (Features::channel_type_anchors(), Features::channel_type_anchors_scid_alias());
    let announced = Terms { announce: true, ..all() };
    for (terms, expected) in [(all(), &alias), (announced, &plain), (Terms::default(), &plain)] {
        let (_, open) = open_channel(&terms);
        assert_eq!(open.channel_type.as_ref(), Some(expected));
        let accept = accept_channel(&open, &terms).expect("good terms");
        assert_eq!(accept.channel_type.as_ref(), Some(expected));
    }
    // The accepter takes both, whatever it would have asked for.
    let (_, mut open) = open_channel(&all());
    open.channel_type = Some(plain.clone());
    assert_eq!(accept_channel(&open, &all()).expect("good terms").channel_type, Some(plain));
}

#[test]
fn an_alias_type_that_was_not_negotiated_or_is_changed_is_refused() {
    let alias = Features::channel_type_anchors_scid_alias();
    let asked = |open: &mut OpenChannel| open.channel_type = Some(Features::channel_type_anchors_scid_alias());
    assert_eq!(refused(&Terms::default(), asked), Rule::ChannelTypeUnsuitable);
    let changed = Rule::ChannelTypeChanged.to_string();
    assert_eq!(refused_accept(&Terms::default(), |accept| accept.channel_type = Some(alias)), changed);
    let plain = Features::channel_type_anchors();
    assert_eq!(refused_accept(&all(), |accept| accept.channel_type = Some(plain)), changed);
}

#[test]
fn fnd_11_bad_input_30_a_channel_type_without_confirmations_is_refused() {
    for base in [Features::channel_type_anchors(), Features::channel_type_anchors_scid_alias()] {
        let zero_conf = base.require(Feature::ZEROCONF);
        for terms in [all(), Terms::default()] {
            let zero_conf = zero_conf.clone();
            assert_eq!(refused(&terms, |open| open.channel_type = Some(zero_conf)), Rule::ChannelTypeUnsuitable);
        }
    }
}

#[test]
fn bad_input_31_an_announced_channel_with_the_alias_type_is_refused() {
    let announced = |open: &mut OpenChannel| open.channel_flags |= 1;
    assert_eq!(refused(&all(), announced), Rule::AliasAnnounced);
    let zero_conf = Features::channel_type_anchors_scid_alias().require(Feature::ZEROCONF);
    let both = |open: &mut OpenChannel| {
        open.channel_flags |= 1;
        open.channel_type = Some(zero_conf);
    };
    assert_eq!(refused(&all(), both), Rule::AliasAnnounced);
}

fn aliases_sent(duo: &mut Duo, who: Who) -> Vec<Option<ShortChannelId>> {
    let outbox = duo.side(who).outbox.iter();
    let alias =
        |message: &Message| if let Message::ChannelReady(m) = message { Some(m.short_channel_id) } else { None };
    outbox.filter_map(alias).collect()
}

#[test]
fn the_alias_is_sent_kept_and_sent_again() {
    let mut duo = Duo::born(&all());
    duo.confirm();
    for who in [Alice, Bob] {
        assert_eq!(aliases_sent(&mut duo, who), [Some(scid_alias(who))]);
    }
    // Lost, and made again from the rows.
    duo.reconnect();
    duo.receive(Alice);
    duo.receive(Bob);
    for who in [Alice, Bob] {
        assert_eq!(aliases_sent(&mut duo, who), [Some(scid_alias(who))]);
    }
    duo.run();
    for who in [Alice, Bob] {
        let loaded = Channel::load(duo.side(who).channel.rows().clone()).expect("rows of a channel");
        let summary = loaded.summary(503);
        assert_eq!(summary.local_scid_alias, scid_alias(who));
        assert_eq!(summary.remote_scid_alias, Some(scid_alias(who.other())));
        assert_eq!(summary.hint_scid, Some(scid_alias(who.other())), "the peer's name for it, in hints and updates");
        assert_eq!(summary.short_channel_id.map(|scid| scid.to_string()).as_deref(), Some("501x4x0"));
        assert!(scid_alias(who).block_height() >= 1 << 23, "never the real id of a channel");
    }
}

#[test]
fn bad_input_36_a_repeated_channel_ready_may_bring_another_alias_and_nothing_else() {
    let mut duo = Duo::normal(&all());
    let before = duo.bob.channel.rows().head.clone();
    let other = ShortChannelId::alias(77);
    let again = ChannelReady {
        channel_id: duo.bob.channel.id(),
        second_per_commitment_point: signer(Alice).per_commitment_point(9),
        short_channel_id: Some(other),
    };
    duo.message(Bob, &Message::ChannelReady(again.clone()));
    let mut expected = before;
    expected.remote_scid_alias = Some(other);
    assert_eq!(duo.bob.channel.rows().head, expected);
    duo.message(Bob, &Message::ChannelReady(ChannelReady { short_channel_id: None, ..again }));
    assert_eq!(duo.bob.channel.rows().head, expected, "an alias that is not repeated stays");
    assert!(duo.bob.outbox.is_empty(), "nobody is warned");
}

#[test]
fn without_an_alias_the_real_id_is_told_unless_the_type_hides_it() {
    let mut plain = Duo::normal(&Terms::default());
    assert!(aliases_sent(&mut plain, Alice).is_empty());
    let summary = plain.alice.channel.summary(503);
    assert_eq!((summary.remote_scid_alias, summary.hint_scid), (None, summary.short_channel_id));
    let mut silent = Duo::born(&all());
    silent.confirm();
    for who in [Alice, Bob] {
        for message in &mut silent.side_mut(who).outbox {
            if let Message::ChannelReady(ready) = message {
                ready.short_channel_id = None;
            }
        }
    }
    silent.run();
    assert_eq!(silent.alice.channel.summary(503).hint_scid, None, "the type hides it");
}

#[test]
fn fnd_12_a_script_is_fixed_upfront_on_both_sides() {
    let ours = ScriptBuf::from_bytes(SHUTDOWN_SCRIPT.to_vec());
    let (_, open) = open_channel(&all());
    assert_eq!(open.upfront_shutdown_script, Some(ours.clone()));
    let accept = accept_channel(&open, &all()).expect("good terms");
    assert_eq!(accept.upfront_shutdown_script, Some(ours));
    // Where the peer does not offer it, nothing is promised.
    let (_, open) = open_channel(&Terms::default());
    assert_eq!(open.upfront_shutdown_script, Some(ScriptBuf::new()));
    let accept = accept_channel(&open, &Terms::default()).expect("good terms");
    assert_eq!(accept.upfront_shutdown_script, Some(ScriptBuf::new()));
    // It holds: another script ends the connection, and nothing is kept of it.
    let mut duo = Duo::normal(&all());
    let channel_id = duo.bob.channel.id();
    let other = ScriptBuf::from_bytes([&[0, 20][..], &[7; 20]].concat());
    duo.message(Bob, &Message::Shutdown(Shutdown { channel_id, scriptpubkey: other }));
    let Some(Message::Warning(warning)) = duo.bob.outbox.pop_front() else { panic!("a warning") };
    assert_eq!(warning.data.to_string(), Rule::ShutdownScriptChanged.to_string());
    assert_eq!(*duo.bob.channel.link(), Link::Disconnected);
    assert_eq!(duo.bob.channel.rows().head.remote_shutdown, None);
}

#[test]
fn fnd_12_an_upfront_script_is_checked_and_must_be_there() {
    let script = |bytes: &[u8]| Some(ScriptBuf::from_bytes(bytes.to_vec()));
    let p2pkh = [&[0x76, 0xa9, 20][..], &[1; 20], &[0x88, 0xac]].concat();
    let v17 = [&[0x61, 32][..], &[1; 32]].concat();
    let one_byte = vec![0x51, 1, 7];
    let short_burn = [&[0x6a, 5][..], &[1; 5]].concat();
    for bytes in [p2pkh, v17, one_byte, short_burn, vec![0x51]] {
        let text = Rule::ShutdownScript.to_string();
        assert_eq!(refused(&all(), |open| open.upfront_shutdown_script = script(&bytes)), Rule::ShutdownScript);
        assert_eq!(refused_accept(&all(), |accept| accept.upfront_shutdown_script = script(&bytes)), text);
    }
    // What a feature allows is refused without it.
    let taproot = [&[0x51, 32][..], &[1; 32]].concat();
    let burn = [&[0x6a, 6][..], &[1; 6]].concat();
    let bare = Features::empty().require(Feature::STATIC_REMOTEKEY).offer(Feature::ANCHORS);
    for (bytes, feature) in [(taproot, Feature::SHUTDOWN_ANYSEGWIT), (burn, Feature::SIMPLE_CLOSE)] {
        let without = Terms { features: bare.clone(), ..Terms::default() };
        let with = Terms { features: bare.clone().offer(feature), ..Terms::default() };
        assert_eq!(refused(&without, |open| open.upfront_shutdown_script = script(&bytes)), Rule::ShutdownScript);
        let (_, mut open) = open_channel(&with);
        open.upfront_shutdown_script = script(&bytes);
        accept_channel(&open, &with).expect("an allowed script");
    }
    // BOLT 2: where both offer it, the record is there, if empty.
    assert_eq!(refused(&all(), |open| open.upfront_shutdown_script = None), Rule::UpfrontScriptMissing);
    let missing = refused_accept(&all(), |accept| accept.upfront_shutdown_script = None);
    assert_eq!(missing, Rule::UpfrontScriptMissing.to_string());
    let (_, mut open) = open_channel(&all());
    open.upfront_shutdown_script = Some(ScriptBuf::new());
    accept_channel(&open, &all()).expect("an empty one promises nothing");
}

/// The funding key that the signer of this seed keeps to itself.
fn funding_secret(who: Who) -> SecretKey {
    let seed = match who {
        Alice => [1; 32],
        Bob => [2; 32],
    };
    let tag = sha256::Hash::hash(b"outrigger/channel-keys");
    let mut engine = sha256::Hash::engine();
    for part in [&tag.as_byte_array()[..], tag.as_byte_array(), &seed, &[0], b"funding"] {
        engine.input(part);
    }
    SecretKey::from_slice(sha256::Hash::from_engine(engine).as_byte_array()).expect("a key")
}

/// What Alice signs for a channel with this id, built byte by byte as BOLT 7 lays `channel_announcement` out.
fn signatures(duo: &Duo, scid: ShortChannelId) -> AnnouncementSignatures {
    let mut sides = [Alice, Bob].map(|who| {
        let funding = signer(who).basepoints().funding_pubkey;
        (node_id(who).serialize(), funding.serialize())
    });
    sides.sort();
    let mut announced = vec![0, 0];
    announced.extend_from_slice(ChainHash::REGTEST.as_bytes());
    announced.extend_from_slice(&scid.to_u64().to_be_bytes());
    for (node, _) in sides {
        announced.extend_from_slice(&node);
    }
    for (_, funding) in sides {
        announced.extend_from_slice(&funding);
    }
    let digest = Digest::from_digest(sha256d::Hash::hash(&announced).to_byte_array());
    AnnouncementSignatures {
        channel_id: duo.bob.channel.id(),
        short_channel_id: scid,
        node_signature: sign(&digest, &node_secret(Alice)),
        bitcoin_signature: sign(&digest, &funding_secret(Alice)),
    }
}

fn announced() -> Terms {
    Terms { announce: true, ..all() }
}

fn scid() -> ShortChannelId {
    "501x4x0".parse().expect("a short_channel_id")
}

#[test]
fn bad_input_37_fnd_10_early_announcement_signatures_are_held() {
    let mut duo = Duo::born(&announced());
    let good = signatures(&duo, scid());
    duo.message(Bob, &Message::AnnouncementSignatures(good));
    assert!(duo.bob.outbox.is_empty());
    duo.confirm();
    assert!(!duo.bob.outbox.iter().any(|message| matches!(message, Message::Warning(_))));
    duo.run();
    assert_eq!(*duo.bob.channel.phase(), Phase::Normal);

    // A wrong one is warned of once the place of the funding output is known, and the block is not forgotten for it.
    let mut duo = Duo::born(&announced());
    let wrong = signatures(&duo, "501x5x0".parse().expect("a short_channel_id"));
    duo.message(Bob, &Message::AnnouncementSignatures(wrong));
    assert!(duo.bob.outbox.is_empty());
    duo.confirm();
    let Some(Message::Warning(warning)) = duo.bob.outbox.pop_front() else { panic!("a warning") };
    assert_eq!(warning.data.to_string(), Rule::AnnouncementSignatures.to_string());
    assert_eq!(*duo.bob.channel.link(), Link::Disconnected);
    assert_eq!(duo.bob.channel.rows().head.funding_height, Some(501));
    duo.reconnect();
    duo.run();
    assert_eq!(*duo.bob.channel.phase(), Phase::Normal, "the channel lives on");
}

#[test]
fn bad_input_37_wrong_announcement_signatures_are_warned_of() {
    let good = |duo: &Duo| signatures(duo, scid());
    let mut duo = Duo::normal(&announced());
    let right = good(&duo);
    duo.message(Bob, &Message::AnnouncementSignatures(right.clone()));
    assert!(duo.bob.outbox.is_empty(), "the right ones are taken");
    let changes: [fn(&mut AnnouncementSignatures); 4] = [
        |signed| signed.short_channel_id = ShortChannelId::from_u64(signed.short_channel_id.to_u64() + 1),
        |signed| signed.node_signature = signed.bitcoin_signature,
        |signed| signed.bitcoin_signature = signed.node_signature,
        |signed| std::mem::swap(&mut signed.node_signature, &mut signed.bitcoin_signature),
    ];
    for change in changes {
        let mut duo = Duo::normal(&announced());
        let mut signed = good(&duo);
        change(&mut signed);
        let before = duo.bob.channel.rows().clone();
        duo.message(Bob, &Message::AnnouncementSignatures(signed));
        let Some(Message::Warning(warning)) = duo.bob.outbox.pop_front() else { panic!("a warning") };
        assert_eq!(warning.data.to_string(), Rule::AnnouncementSignatures.to_string());
        assert_eq!(*duo.bob.channel.link(), Link::Disconnected);
        assert_eq!(*duo.bob.channel.rows(), before, "nothing is kept, and the channel lives on");
    }
    // A channel that is not to be announced has nothing to sign.
    let mut duo = Duo::normal(&all());
    let unasked = signatures(&duo, ShortChannelId::from_u64(1));
    duo.message(Bob, &Message::AnnouncementSignatures(unasked));
    assert!(duo.bob.outbox.is_empty());
    duo.input(Bob, Input::Disconnected);
}
