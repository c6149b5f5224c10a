//! What the parts of a node take from its config.

use bitcoin::constants::ChainHash;
use outrigger_channel::Policy;

use crate::chain::rpc::{Access, Auth};
use crate::clock::{Clock, NoEntropy};
use crate::config::{BitcoindAuth, Config, EventKeeping, RpcConfig};
use crate::manager::relay::register::{Caps, Load};
use crate::manager::terms::ForwardingPolicy;
use crate::net::Proxy;
use crate::rpc::{Place, TlsFiles};
use crate::store::EventLimits;

/// How bitcoind is reached.
pub(super) fn access(config: &Config) -> Access {
    let auth = match &config.bitcoind.auth {
        BitcoindAuth::Cookie(path) => Auth::Cookie(path.clone()),
        BitcoindAuth::UserPass { user, password } => Auth::UserPass { user: user.clone(), password: password.clone() },
    };
    let bitcoind = &config.bitcoind;
    let search = bitcoind.search.words();
    Access { address: bitcoind.address.clone(), auth, allow_remote: bitcoind.allow_remote, search }
}

/// Where JSON-RPC is served.
pub(super) fn place(config: &RpcConfig) -> Place {
    let tls = tls_files(config);
    let RpcConfig { address, allow_remote, hosts, origins, page, .. } = config.clone();
    Place { address, tls, allow_remote, hosts, origins, page }
}

/// With which files the port speaks TLS; none where it does not.
pub fn tls_files(config: &RpcConfig) -> Option<TlsFiles> {
    let (certificate, key) = config.tls.clone()?;
    Some(TlsFiles { certificate, key })
}

/// What outgoing connections go through.
pub(super) fn proxy(config: &Config) -> Result<Option<Proxy>, NoEntropy> {
    let Some(place) = config.proxy else { return Ok(None) };
    Ok(Some(Proxy::new(place.address, place.always, Clock::random_bytes()?)))
}

/// Where peers reach the node: first what the operator says, then where it listens, unless nobody else reaches that.
pub(super) fn addresses(config: &Config) -> Vec<String> {
    let mut addresses = config.external_addresses.clone();
    let listen = config.listen.ip();
    if addresses.is_empty() || !(listen.is_loopback() || listen.is_unspecified()) {
        addresses.push(config.listen.to_string());
    }
    addresses
}

/// What is kept of events.
pub(super) fn event_limits(config: &Config) -> EventLimits {
    let EventKeeping { bytes, secs } = config.events;
    EventLimits { bytes, secs }
}

/// What is asked for forwarding, where the operator asks nothing else of a channel.
pub(super) fn forwarding_policy(config: &Config) -> ForwardingPolicy {
    let terms = config.forwarding;
    ForwardingPolicy {
        cltv_expiry_delta: terms.cltv_expiry_delta,
        fee_base_msat: terms.fee_base_msat,
        fee_proportional_millionths: terms.fee_proportional_millionths,
        htlc_minimum: terms.htlc_minimum,
        htlc_maximum: terms.htlc_maximum,
    }
}

/// What may be under way through the node and from one peer.
pub(super) fn caps(config: &Config) -> Caps {
    let load = |(htlcs, value)| Load { htlcs, value };
    Caps { node: load(config.forwarding.most), peer: load(config.forwarding.most_of_peer) }
}

/// What is asked of channels.
pub(super) fn policy(config: &Config) -> Policy {
    let limits = config.channel;
    Policy {
        chain_hash: ChainHash::using_genesis_block_const(config.network),
        min_funding: limits.min_funding,
        max_funding: limits.max_funding,
        dust_limit: limits.dust_limit,
        reserve_ppm: limits.reserve_ppm,
        to_self_delay: limits.to_self_delay,
        max_to_self_delay: limits.max_to_self_delay,
        max_accepted_htlcs: limits.max_accepted_htlcs,
        max_in_flight_ppm: limits.max_in_flight_ppm,
        htlc_minimum: limits.htlc_minimum,
        minimum_depth: limits.minimum_depth,
        max_minimum_depth: limits.max_minimum_depth,
        max_commitment_feerate: limits.max_commitment_feerate,
        close_depth: limits.close_depth,
        max_dust_exposure: limits.max_dust_exposure,
    }
}
