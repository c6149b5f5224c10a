//! LDK pays a sidecar and is paid by it over another sidecar between them: its router takes our hints, its onions are peeled
//! by us and ours by it, and it reads what we fail.

use outrigger_integration::{Done, on_regtest, until};
use outrigger_rpc_schema::{InvoiceCreate, PaymentState};

use crate::meeting::{CAPACITY_SAT, LIMIT, Meeting, Side, Terms};

const PUSH_MSAT: u64 = 400_000_000;
/// What a sidecar asks for forwarding, by the default configuration: a base, and a share in millionths.
const BASE_MSAT: u64 = 1000;
const PPM: u64 = 100;

const fn fee_msat(amount_msat: u64) -> u64 {
    BASE_MSAT + amount_msat * PPM / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn ldk_pays_and_is_paid_over_a_sidecar() -> Done<()> {
    on_regtest(async |regtest| {
        let terms = Terms { opener: Side::Sidecar, dialler: Side::Sidecar, announce: false, push_msat: PUSH_MSAT };
        let meeting = Meeting::of(regtest, terms).await?;
        let relay = &meeting.sidecar;
        let mut carol = regtest.sidecar("carol").await?;
        carol.until_synced_with(&regtest.bitcoind).await?;
        relay.connect(&carol).await?;
        let second = regtest.channel(relay, &carol, CAPACITY_SAT, PUSH_MSAT).await?;
        let invoice = async |amount_msat: u64| -> Done<String> {
            until(LIMIT, "an invoice with a route hint", async || {
                let order = InvoiceCreate { amount_msat: Some(amount_msat), ..Default::default() };
                let created = carol.call(order).await?;
                Ok((created.route_hints > 0).then_some(created.invoice))
            })
            .await
        };
        // Out of LDK, over the relay, to Carol.
        let amount = 30_000_000;
        let to_carol = invoice(amount).await?;
        meeting.ldk.send(&to_carol)?;
        assert!(meeting.ldk.payment_end(&to_carol).await?.is_some(), "LDK could not pay over the relay");
        let mut ldk_msat = PUSH_MSAT - amount - fee_msat(amount);
        meeting.assert_balance(ldk_msat).await?;
        assert_eq!(carol.until_idle(&second.channel_id).await?.local_msat, PUSH_MSAT + amount);
        // And back.
        let to_ldk = meeting.ldk.invoice(20_000_001)?;
        let paid = carol.pay(&to_ldk).await?;
        assert_eq!((paid.state, paid.fee_msat), (PaymentState::Succeeded, Some(fee_msat(20_000_001))), "{paid:?}");
        ldk_msat += 20_000_001;
        meeting.assert_balance(ldk_msat).await?;
        // Carol is away: LDK reads our failure, and its payment ends.
        let lost = invoice(1_000_000).await?;
        carol.kill().await?;
        until(LIMIT, "the relay to miss Carol", async || {
            Ok((!relay.channel(&second.channel_id).await?.connected).then_some(()))
        })
        .await?;
        meeting.ldk.send(&lost)?;
        assert_eq!(meeting.ldk.payment_end(&lost).await?, None, "nobody is there to be paid");
        meeting.assert_balance(ldk_msat).await?;
        Ok(())
    })
    .await
}
