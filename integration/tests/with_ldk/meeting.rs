//! The two nodes, the wire between them and a channel: what all tests of this program begin with.

use std::time::Duration;

use outrigger_integration::proxy::Proxy;
use outrigger_integration::regtest::{Opened, REWARD_SAT};
use outrigger_integration::{Done, FeeOracle, Regtest, Sidecar, until};
use outrigger_rpc_schema::{
    ChannelInfo, ChannelList, ChannelOpen, ChannelState, PaymentInfo, PaymentSend, PaymentState, PaymentWait,
};
use tokio::task::JoinSet;

use crate::node::LdkNode;

/// What a channel of these tests holds.
pub(crate) const CAPACITY_SAT: u64 = 1_000_000;
/// Time for one step, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What fees are to begin with, in satoshi per 1000 weight units.
pub(crate) const LOW_FEERATE: u32 = 1000;
/// What they may rise to.
pub(crate) const HIGH_FEERATE: u32 = 2500;

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Sidecar,
    Ldk,
}

/// How the two meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) opener: Side,
    pub(crate) dialler: Side,
    pub(crate) announce: bool,
    /// What the opener gives to the other to begin with.
    pub(crate) push_msat: u64,
}

/// A daemon, an LDK node, a wire from the one to the other, and a channel that works.
pub(crate) struct Meeting {
    pub(crate) sidecar: Sidecar,
    pub(crate) ldk: LdkNode,
    pub(crate) wire: Proxy,
    /// What both are told of fees.
    pub(crate) fees: FeeOracle,
    pub(crate) opened: Opened,
    pub(crate) terms: Terms,
}

impl Meeting {
    pub(crate) async fn of(regtest: &Regtest, terms: Terms) -> Done<Self> {
        let fees = FeeOracle::start(&regtest.bitcoind.address()).await?;
        fees.say(LOW_FEERATE);
        let (data, door) = (regtest.directory("sidecar")?, fees.address());
        let sidecar = Sidecar::start_behind(&data, "sidecar", &door, &regtest.bitcoind, &[]).await?;
        let ldk = LdkNode::start(&regtest.directory("ldk")?, &regtest.bitcoind, fees.port())?;
        match terms.opener {
            Side::Sidecar => sidecar.fund(&regtest.bitcoind).await?,
            Side::Ldk => ldk.fund(&regtest.bitcoind).await?,
        }
        sidecar.until_synced_with(&regtest.bitcoind).await?;
        ldk.until_synced_with(&regtest.bitcoind).await?;
        let wire = Proxy::start(&ldk.address()).await?;
        if terms.dialler == Side::Sidecar {
            sidecar.connect_to(&ldk.node_id(), wire.address()).await?;
        }
        let opened = open(regtest, &sidecar, &ldk, terms, "the first").await?;
        Ok(Self { sidecar, ldk, wire, fees, opened, terms })
    }

    /// Opens another channel, on the same terms, once the one before is closed. `name` tells it from all others.
    pub(crate) async fn open_another(self, regtest: &Regtest, name: &str) -> Done<Self> {
        let ldk_id = self.ldk.node_id();
        until(LIMIT, "the sidecar to reach LDK", async || {
            Ok(self.sidecar.connect_to(&ldk_id, self.wire.address()).await.ok())
        })
        .await?;
        let opened = open(regtest, &self.sidecar, &self.ldk, self.terms, name).await?;
        Ok(Self { opened, ..self })
    }

    /// Tells both of another feerate than the channel has, and gives it.
    pub(crate) async fn move_fees(&self, regtest: &Regtest) -> Done<u32> {
        let is_high = self.ldk.feerate(&self.opened.channel_id) == Some(HIGH_FEERATE);
        let feerate = if is_high { LOW_FEERATE } else { HIGH_FEERATE };
        self.say_fees(regtest, feerate).await?;
        Ok(feerate)
    }

    /// Tells both of this feerate. LDK hears of it first: it fails a channel whose opener asks for less than what it takes for
    /// the least that is relayed.
    pub(crate) async fn say_fees(&self, regtest: &Regtest, feerate: u32) -> Done<()> {
        self.fees.say(feerate);
        self.ldk.ask_for_fees()?;
        regtest.bitcoind.mine_to_nobody(1).await?;
        Ok(())
    }

    /// Kills one of the two, or none, cuts the wire, and starts it again.
    pub(crate) async fn struck(self, regtest: &Regtest, kill: Option<Side>) -> Done<Self> {
        let Self { mut sidecar, mut ldk, wire, fees, opened, terms } = self;
        if kill == Some(Side::Sidecar) {
            sidecar.kill().await?;
        }
        wire.cut();
        match kill {
            None => {}
            Some(Side::Sidecar) => sidecar.start_again().await?,
            Some(Side::Ldk) => ldk = ldk.restart(&regtest.bitcoind)?,
        }
        Ok(Self { sidecar, ldk, wire, fees, opened, terms })
    }

    /// Cuts the wire, and puts an LDK node with the same keys and no memory in the place of the other.
    pub(crate) async fn forgotten(self, regtest: &Regtest) -> Done<Self> {
        let Self { sidecar, ldk, wire, fees, opened, terms } = self;
        wire.cut();
        let ldk = ldk.forgetful(&regtest.bitcoind, &regtest.directory("forgetful ldk")?)?;
        Ok(Self { sidecar, ldk, wire, fees, opened, terms })
    }

    /// Waits for `done` and asks for the connection all the while.
    pub(crate) async fn reconnecting<T>(&self, done: impl Future<Output = Done<T>>) -> Done<T> {
        self.sidecar.reconnecting(&self.ldk.node_id(), self.wire.address(), done).await
    }

    /// One payment each way from the opener on, then five at a time each way; gives what LDK has then.
    pub(crate) async fn pay_around(&self, ldk_msat: u64) -> Done<u64> {
        let mut ldk_msat = ldk_msat;
        if self.terms.opener == Side::Sidecar {
            ldk_msat = self.pay_ldk(&[90_000_000], ldk_msat).await?;
            ldk_msat = self.ldk_pays(&[15_000_001], ldk_msat).await?;
        } else {
            ldk_msat = self.ldk_pays(&[90_000_000], ldk_msat).await?;
            ldk_msat = self.pay_ldk(&[15_000_001], ldk_msat).await?;
        }
        ldk_msat = self.pay_ldk(&[9_000_001, 9_000_002, 9_000_003, 9_000_004, 9_000_005], ldk_msat).await?;
        self.ldk_pays(&[8_000_001, 8_000_002, 8_000_003, 8_000_004, 8_000_005], ldk_msat).await
    }

    /// The daemon pays LDK, all at the same time.
    pub(crate) async fn pay_ldk(&self, amounts_msat: &[u64], ldk_msat: u64) -> Done<u64> {
        let mut payments = JoinSet::new();
        for amount_msat in amounts_msat {
            let invoice = self.ldk.invoice(*amount_msat)?;
            let client = self.sidecar.client();
            payments.spawn(async move {
                let order = PaymentSend { invoice: Some(invoice.clone()), ..Default::default() };
                let payment_id = client.call(order).await?.payment_id;
                let payment = client.call(PaymentWait { payment_id, timeout_secs: Some(60) }).await?;
                Done::Ok((invoice, payment))
            });
        }
        for paid in payments.join_all().await {
            let (invoice, payment): (String, PaymentInfo) = paid?;
            assert_eq!(payment.state, PaymentState::Succeeded, "{payment:?}");
            assert_eq!(self.ldk.payment_end(&invoice).await?, payment.preimage);
        }
        let ldk_msat = ldk_msat + amounts_msat.iter().sum::<u64>();
        self.assert_balance(ldk_msat).await?;
        Ok(ldk_msat)
    }

    /// LDK pays the daemon, all at the same time.
    pub(crate) async fn ldk_pays(&self, amounts_msat: &[u64], ldk_msat: u64) -> Done<u64> {
        let mut invoices = Vec::new();
        for amount_msat in amounts_msat {
            invoices.push(self.sidecar.invoice(*amount_msat, "from ldk").await?);
        }
        for invoice in &invoices {
            self.ldk.send(invoice)?;
        }
        for invoice in &invoices {
            assert!(self.ldk.payment_end(invoice).await?.is_some(), "LDK could not pay {invoice}");
        }
        let ldk_msat = ldk_msat - amounts_msat.iter().sum::<u64>();
        self.assert_balance(ldk_msat).await?;
        Ok(ldk_msat)
    }

    /// Waits until nothing is pending in the channel, it works on both sides, and both say the same of who owns what, to
    /// the millisatoshi; gives what LDK has.
    pub(crate) async fn agreed(&self) -> Done<u64> {
        let id = &self.opened.channel_id;
        let mut last = String::new();
        let agreed = until(LIMIT, "both sides to agree on who owns what", async || {
            let channel = self.sidecar.channel(id).await?;
            let ldk = self.ldk.shares(id);
            let usable = self.ldk.channel(id).is_some_and(|channel| channel.is_usable);
            last = format!("the sidecar: {channel:?}; LDK: usable {usable}, its own and the peer's msat {ldk:?}");
            if matches!(channel.state, ChannelState::Failed | ChannelState::Closed) || ldk.is_none() {
                return Err("the channel is gone".into());
            }
            let (own, peers) = ldk.unwrap_or_default();
            let works = channel.connected && channel.htlcs == 0 && channel.state == ChannelState::Normal && usable;
            let same = own.unwrap_or(channel.remote_msat) == channel.remote_msat
                && peers.unwrap_or(channel.local_msat) == channel.local_msat;
            let conserved = channel.local_msat + channel.remote_msat == CAPACITY_SAT * 1000;
            Ok((works && same && conserved).then_some(channel.remote_msat))
        })
        .await;
        Ok(agreed.map_err(|fault| format!("{fault}; {last}"))?)
    }

    /// Whether the daemon has no HTLC pending.
    pub(crate) async fn is_idle(&self) -> Done<bool> {
        Ok(self.sidecar.channel(&self.opened.channel_id).await?.htlcs == 0)
    }

    /// Waits until the channel is idle on both sides and checks who owns what.
    pub(crate) async fn assert_balance(&self, ldk_msat: u64) -> Done<ChannelInfo> {
        assert_eq!(self.agreed().await?, ldk_msat);
        self.sidecar.channel(&self.opened.channel_id).await
    }

    /// Confirms the closing transaction and accounts for every satoshi on both sides.
    pub(crate) async fn assert_closed(&self, regtest: &Regtest, closing_txid: &str, ldk_msat: u64) -> Done<()> {
        let closing_fee_sat = regtest.confirm(closing_txid).await?;
        let all_sat = REWARD_SAT - self.opened.funding_fee_sat - closing_fee_sat;
        let (sidecar_sat, ldk_sat) = match self.terms.opener {
            Side::Sidecar => (all_sat - ldk_msat / 1000, ldk_msat / 1000),
            Side::Ldk => {
                let sidecar_sat = (CAPACITY_SAT * 1000 - ldk_msat) / 1000;
                (sidecar_sat, all_sat - sidecar_sat)
            }
        };
        self.sidecar.until_channel_is(&self.opened.channel_id, ChannelState::Closed).await?;
        let balance = self.sidecar.balance().await?;
        assert_eq!((balance.confirmed_sat, balance.unconfirmed_sat, balance.locked_sat), (sidecar_sat, 0, 0));
        self.ldk.until_synced_with(&regtest.bitcoind).await?;
        assert_eq!(self.ldk.total_sat(), ldk_sat);
        assert!(self.sidecar.call(ChannelList::default()).await?.items.iter().all(|channel| channel.htlcs == 0));
        Ok(())
    }
}
/// Opens a channel and waits until it works on both sides.
async fn open(regtest: &Regtest, sidecar: &Sidecar, ldk: &LdkNode, terms: Terms, name: &str) -> Done<Opened> {
    let opened = match terms.opener {
        Side::Sidecar => sidecar_opens(regtest, sidecar, ldk, terms, name).await?,
        Side::Ldk => ldk_opens(regtest, sidecar, ldk, terms).await?,
    };
    ldk.until_usable(&opened.channel_id).await?;
    // The defaults of outrigger.example.toml: announced or not, LDK knows them from our `channel_update`.
    assert_eq!(ldk.until_forwarding_known(&opened.channel_id).await?, (1000, 100, 80));
    let channel = sidecar.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
    assert_eq!((channel.announce, channel.is_opener), (terms.announce, terms.opener == Side::Sidecar));
    assert_eq!(channel.funding_outpoint.split(':').next(), Some(opened.funding_txid.as_str()));
    Ok(opened)
}

async fn sidecar_opens(regtest: &Regtest, sidecar: &Sidecar, ldk: &LdkNode, terms: Terms, name: &str) -> Done<Opened> {
    let order = ChannelOpen {
        node_id: ldk.node_id(),
        funding_sat: CAPACITY_SAT,
        push_msat: Some(terms.push_msat),
        announce: Some(terms.announce),
        idempotency_key: name.to_owned(),
        ..Default::default()
    };
    regtest.open(sidecar, order).await
}

/// LDK dials if it is not connected by then.
async fn ldk_opens(regtest: &Regtest, sidecar: &Sidecar, ldk: &LdkNode, terms: Terms) -> Done<Opened> {
    let sidecar_id = sidecar.node_id().await?;
    let address = match terms.dialler {
        Side::Ldk => sidecar.address(),
        // LDK keeps the address, and would come by another way than the wire.
        Side::Sidecar => {
            until(LIMIT, "LDK to see the connection", async || Ok(ldk.is_connected_to(&sidecar_id).then_some(())))
                .await?;
            NOWHERE.to_owned()
        }
    };
    ldk.open(&sidecar_id, &address, terms)?;
    let (channel_id, funding_txid) = ldk.until_channel_pending().await?;
    let funding_fee_sat = regtest.confirm(&funding_txid).await?;
    Ok(Opened { channel_id, funding_txid, funding_fee_sat })
}

/// An address at which nobody listens.
const NOWHERE: &str = "127.0.0.1:1";
