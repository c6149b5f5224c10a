//! Payments made with a token, against what it may spend.

use outrigger_channel::HtlcOutcome;

use super::*;
use crate::store::token::TokenId;
use crate::token::{NotCharged, TokenOrder};

/// A token that may spend this much, and its name in rows.
async fn token(payer: &Payer, budget: u64) -> TokenId {
    let order = TokenOrder { name: "shop".into(), scopes: 4, expiry_secs: None, budget: Some(Msat::new(budget)) };
    let made = payer.payments.tokens.create(order, |batch| payer.bench.manager.env().writer.submit(batch));
    let (text, row, durable) = made.unwrap();
    within("the token is durable", durable).await.unwrap();
    assert_eq!(payer.payments.tokens.admit(&text), Some(row.id));
    row.id
}

/// What was spent, in memory and in the file.
async fn spent_of(payer: &Payer) -> (u64, u64) {
    all_durable(&payer.bench).await;
    let on_disk = payer.bench.load().tokens[0].1.get();
    (payer.payments.tokens.list(None, 1)[0].spent.get(), on_disk)
}

const MAX_FEE: u64 = 5000;

fn paid_by(payer: TokenId, order: PayOrder) -> PayOrder {
    PayOrder { payer: Some(payer), max_fee: Some(Msat::new(MAX_FEE)), ..order }
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_10_a_thousand_payments_at_once_on_a_budget_for_one_make_one() {
    let payer = Payer::new(1).await;
    let amount = 10_000;
    let shop = token(&payer, amount + MAX_FEE).await;
    let whom = Whom::Node { node_id: payer.peers[0].0.id(), amount: Msat::new(amount) };
    let order = paid_by(shop, PayOrder { whom, ..payer.order(1, true) });
    let mut sends = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let (payments, order) = (payer.payments.clone(), order.clone());
        sends.spawn(async move { payments.send(order).await });
    }
    let (mut begun, mut refused) = (0, 0);
    for sent in sends.join_all().await {
        match sent {
            Ok(_) => begun += 1,
            Err(SendFault::NotCharged(NotCharged::OverBudget { name, asked, left })) => {
                assert_eq!((name.as_str(), asked.get(), left.get()), ("shop", amount + MAX_FEE, 0));
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((begun, refused), (1, 999));
    assert_eq!(spent_of(&payer).await, (amount + MAX_FEE, amount + MAX_FEE));
    assert_eq!(payer.bench.load().pending_payments.len(), 1, "what was refused left no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_9_a_payment_counts_with_its_fee_limit_and_then_with_what_it_cost() {
    let mut payer = Payer::new(2).await;
    let shop = token(&payer, TWO_CHANNELS + MAX_FEE).await;
    let order = paid_by(shop, payer.order(TWO_CHANNELS, true));
    let id = payer.send(order.clone()).await;
    let most = TWO_CHANNELS + MAX_FEE;
    assert_eq!(spent_of(&payer).await, (most, most));
    assert_eq!(payer.send(order).await, id, "the same payment is not counted again");
    assert_eq!(spent_of(&payer).await, (most, most));
    let parts = [payer.offered(0).await, payer.offered(1).await];
    payer.fulfil(&parts[0]).await;
    payer.end(&id).await;
    // The other part is counted as paid until it proves not to be.
    let both = TWO_CHANNELS + 2 * u64::from(BASE);
    assert_eq!(spent_of(&payer).await, (both, both));
    payer.fail(&parts[1], false, &TOO_MUCH).await;
    payer.assert_done().await;
    let one = TWO_CHANNELS + u64::from(BASE);
    assert_eq!(spent_of(&payer).await, (one, one));
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_10_what_a_failed_payment_was_counted_for_comes_back_also_after_a_start() {
    let mut payer = Payer::new(1).await;
    let shop = token(&payer, ONE_CHANNEL + MAX_FEE).await;
    let id = payer.send(paid_by(shop, payer.order(ONE_CHANNEL, false))).await;
    let heard = payer.offered(0).await;
    payer.restart().await;
    let most = ONE_CHANNEL + MAX_FEE;
    assert_eq!(spent_of(&payer).await, (most, most), "it is counted as long as it is pending");
    payer
        .fail(
            &heard,
            true,
            &Failure::IncorrectOrUnknownPaymentDetails { htlc_msat: Msat::new(ONE_CHANNEL), height: HEIGHT },
        )
        .await;
    assert!(matches!(payer.end(&id).await, PaymentState::Failed { .. }));
    payer.assert_done().await;
    assert_eq!(spent_of(&payer).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_6_a_token_that_is_taken_back_pays_nothing_more_and_what_it_began_goes_on() {
    let mut payer = Payer::new(1).await;
    let shop = token(&payer, u64::MAX).await;
    let id = payer.send(paid_by(shop, payer.order(ONE_CHANNEL, false))).await;
    let heard = payer.offered(0).await;
    let taken_back = payer.payments.tokens.revoke("shop", |batch| payer.bench.manager.env().writer.submit(batch));
    within("that is durable", taken_back.unwrap()).await.unwrap();
    let whom = Whom::Node { node_id: payer.peers[0].0.id(), amount: Msat::new(1000) };
    let refused = payer.payments.send(paid_by(shop, PayOrder { whom, ..payer.order(1, true) })).await;
    assert!(matches!(refused, Err(SendFault::NotCharged(NotCharged::Gone))), "{refused:?}");
    payer.fulfil(&heard).await;
    assert!(matches!(payer.end(&id).await, PaymentState::Succeeded { .. }));
    payer.assert_done().await;
    // Its sum is not made anew by what ended after it.
    assert!(payer.bench.load().tokens.is_empty());
    assert_eq!(payer.bench.reader.count(Table::TokenSpent).unwrap(), 0);
}

/// Where a way is left that would have been tried.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_6_no_new_attempt_is_made_with_a_token_that_was_taken_back() {
    let mut payer = Payer::new(2).await;
    let shop = token(&payer, u64::MAX).await;
    let id = payer.send(paid_by(shop, payer.order(ONE_CHANNEL, false))).await;
    let heard = payer.offered(0).await;
    let taken_back = payer.payments.tokens.revoke("shop", |batch| payer.bench.manager.env().writer.submit(batch));
    within("that is durable", taken_back.unwrap()).await.unwrap();
    payer.fail(&heard, false, &TOO_MUCH).await;
    let PaymentState::Failed { message, .. } = payer.end(&id).await else { panic!("it is over") };
    assert!(message.ends_with("no other way was tried: the token that it was made with was revoked"), "{message}");
    payer.assert_done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_10_what_went_to_the_miners_stays_spent_also_after_a_start() {
    let mut payer = Payer::new(2).await;
    let shop = token(&payer, TWO_CHANNELS + MAX_FEE).await;
    let id = payer.send(paid_by(shop, payer.order(TWO_CHANNELS, true))).await;
    let parts = [payer.offered(0).await, payer.offered(1).await];
    let channel = payer.peers[0].1.id();
    let rows: Vec<_> = payer.bench.load().parts;
    let (name, lost) = rows.into_iter().find(|(_, row)| row.channel == channel).unwrap();
    let outcome = HtlcOutcome::NoOutput;
    let htlc_id = parts[0].add.id;
    payer.payments.take(PaymentNotice::Settled { payment_id: id, part: name.1, channel, htlc_id, outcome });
    all_durable(&payer.bench).await;
    payer.restart().await;
    let incomplete = Failure::MppTimeout;
    payer.fail(&parts[1], true, &incomplete).await;
    assert!(matches!(payer.end(&id).await, PaymentState::Failed { .. }));
    assert_eq!(spent_of(&payer).await, (lost.sends.get(), lost.sends.get()));
}
