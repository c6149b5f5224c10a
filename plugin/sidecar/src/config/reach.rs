//! How peers are reached and reach this node, as the configuration says it.

use std::net::SocketAddr;

use outrigger_bolt::address::PeerAddress;

use super::ConfigFault;
use super::values::Values;

/// The proxy of outgoing connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Where it listens. A number, since to look a name up would tell of it.
    pub address: SocketAddr,
    /// Whether all connections to peers go through it; else those to onion services.
    pub always: bool,
}

/// The proxy, where there is one.
pub(super) fn proxy(values: &Values) -> Result<Option<ProxyConfig>, ConfigFault> {
    let always = values.flag("always_use_proxy");
    match values.text("proxy") {
        "" if always => Err(values.unfit("always_use_proxy", "needs proxy, or no peer could be reached")),
        "" => Ok(None),
        text => {
            let address: SocketAddr =
                text.parse().map_err(|_| values.unfit("proxy", "must be ip:port, such as 127.0.0.1:9050"))?;
            if address.port() == 0 || address.ip().is_unspecified() {
                return Err(
                    values.unfit("proxy", "must be an address that can be connected to, such as 127.0.0.1:9050")
                );
            }
            Ok(Some(ProxyConfig { address, always }))
        }
    }
}

/// Where peers reach the node from elsewhere.
pub(super) fn external_addresses(values: &Values) -> Result<Vec<String>, ConfigFault> {
    let listed = values.text("external_addresses").split(',').map(str::trim).filter(|address| !address.is_empty());
    let read = |address: &str| match address.parse::<PeerAddress>() {
        Ok(address) => Ok(address.to_string()),
        Err(fault) => Err(values.unfit("external_addresses", &format!("{address:?} {fault}"))),
    };
    listed.map(read).collect()
}
