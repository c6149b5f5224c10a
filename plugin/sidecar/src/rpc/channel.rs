//! `channel.*`.

use std::sync::Arc;

use outrigger_bolt::amount::{Msat, Sat};
use outrigger_rpc_schema::{
    ChannelClose, ChannelClosing, ChannelForceClose, ChannelForceClosing, ChannelGet, ChannelInfo, ChannelList,
    ChannelOpen, ChannelOpenWait, ChannelOpened, ChannelPage, ChannelSetPolicy, ChannelWait, ForwardingTerms, Scope,
};

use super::desk::Call;
use super::rights::Bearers;
use super::serve::Serve;
use super::{Answer, Backend, ChannelQuery, Doors, Fault, OpenOrder, Whose, page, read, token};
use crate::manager::terms::{TermsChange, TermsRow};

impl<B: Backend> Serve<B> for ChannelOpen {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<ChannelOpened> {
        let order = open_order(self, |key| read::key(key, &call.caller, &*doors))?;
        // What is pushed is given away, and counts for no budget.
        let rights =
            call.caller.payer().map(|token| doors.rights(&token).ok_or_else(Fault::token_ended)).transpose()?;
        if order.push > Msat::ZERO && rights.is_some_and(|rights| !token::allows(rights.scopes, &[Scope::Admin])) {
            return Err(Fault::scope_missing("channel.open with push_msat", &[Scope::Admin]));
        }
        doors.node()?.channel_open(order).await
    }
}

impl<B: Backend> Serve<B> for ChannelOpenWait {
    async fn serve(self, doors: Arc<Doors<B>>, call: Call) -> Answer<ChannelOpened> {
        let op_id = read::op_id(&self.op_id)?;
        let whose = Whose::of(&call.caller, &*doors)?;
        doors.waiting(doors.node()?.channel_open_wait(op_id, whose, read::patience(self.timeout_secs))).await
    }
}

fn open_order(call: ChannelOpen, key: impl FnOnce(String) -> Answer<String>) -> Answer<OpenOrder> {
    let funding = Sat::new(call.funding_sat);
    let capacity = funding.to_msat().ok_or_else(|| Fault::invalid_parameter("funding_sat", "is more than exists"))?;
    let push = Msat::new(call.push_msat.unwrap_or(0));
    // BOLT 2, `open_channel`: `push_msat` is at most 1000 * `funding_satoshis`.
    if push > capacity {
        return Err(Fault::invalid_parameter("push_msat", "is more than funding_sat"));
    }
    Ok(OpenOrder {
        node_id: read::id("node_id", &call.node_id)?,
        funding,
        push,
        announce: call.announce.unwrap_or(false),
        feerate: read::feerate(call.feerate_sat_per_vb)?,
        idempotency_key: key(call.idempotency_key)?,
    })
}

impl<B: Backend> Serve<B> for ChannelList {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChannelPage> {
        let limit = page::limit(self.limit);
        let query = ChannelQuery {
            state: self.state,
            node_id: self.node_id.as_deref().map(|node_id| read::id("node_id", node_id)).transpose()?,
            after: read::cursor(self.after.as_deref())?,
            count: limit.saturating_add(1),
        };
        let channels = doors.node()?.channel_list(query).await?;
        let (items, next) = page::cut(channels, limit, |channel| channel.channel_id.clone());
        Ok(ChannelPage { items, next })
    }
}

impl<B: Backend> Serve<B> for ChannelGet {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChannelInfo> {
        let channel_id = read::id("channel_id", &self.channel_id)?;
        doors.node()?.channel_get(channel_id).await
    }
}

impl<B: Backend> Serve<B> for ChannelWait {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChannelInfo> {
        let channel_id = read::id("channel_id", &self.channel_id)?;
        doors.waiting(doors.node()?.channel_wait(channel_id, self.state, read::patience(self.timeout_secs))).await
    }
}

impl<B: Backend> Serve<B> for ChannelClose {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChannelClosing> {
        let channel_id = read::id("channel_id", &self.channel_id)?;
        let feerate = read::feerate(self.feerate_sat_per_vb)?;
        doors.node()?.channel_close(channel_id, feerate).await
    }
}

impl<B: Backend> Serve<B> for ChannelForceClose {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ChannelForceClosing> {
        let channel_id = read::id("channel_id", &self.channel_id)?;
        doors.node()?.channel_force_close(channel_id).await
    }
}

impl<B: Backend> Serve<B> for ChannelSetPolicy {
    async fn serve(self, doors: Arc<Doors<B>>, _: Call) -> Answer<ForwardingTerms> {
        let channel_id = read::id("channel_id", &self.channel_id)?;
        let change = TermsChange {
            from_config: self.from_config.unwrap_or(false),
            set: TermsRow {
                cltv_expiry_delta: self.cltv_delta_blocks,
                fee_base_msat: self.fee_base_msat,
                fee_proportional_millionths: self.fee_proportional_millionths,
                htlc_minimum: self.htlc_minimum_msat.map(Msat::new),
                htlc_maximum: self.htlc_maximum_msat.map(Msat::new),
            },
        };
        doors.node()?.channel_set_policy(channel_id, change).await
    }
}
