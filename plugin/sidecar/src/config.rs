//! The configuration: one struct, read once from the command line, the environment and one TOML file, checked before anything is opened.
//!
//! Every key is a row of [`keys::KEYS`]: its flag, its place in the file, its default and its line in the example file
//! come from that row. A flag wins over the environment, that over the file, the file over the default.

mod backup;
mod bitcoin_conf;
mod bitcoind;
mod keys;
mod kind;
mod log;
mod manual;
mod origin;
mod reach;
mod shown;
mod task;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use outrigger_bolt::amount::{FeeratePerKw, Msat, Sat};
use outrigger_rpc_schema::{ConfigReport, rendezvous};

pub use backup::{BackupConfig, BackupKind};
pub use bitcoind::{BitcoindAuth, BitcoindConfig, BitcoindSearch};
pub use keys::{example_file, options};
pub use log::{LOG_TARGETS, LogConfig, LogFile};
pub use manual::page as manual_page;
pub use origin::Origin;
pub use reach::ProxyConfig;
pub use shown::text as shown;
pub use task::{InitOrder, RestoreOrder, SinkCheckOrder, Task, place_text};
use values::Values;

/// Weight units in a virtual byte, in thousandths of a kiloweight.
const KW_PER_VB: u32 = 250;

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where all networks' nodes are kept.
    pub data_dir: PathBuf,
    /// The network: regtest or signet.
    pub network: Network,
    /// The node's name for people, at most 32 bytes (BOLT 7).
    pub alias: String,
    /// What is logged, how and where.
    pub log: LogConfig,
    /// Where peers are awaited.
    pub listen: SocketAddr,
    /// What outgoing connections go through.
    pub proxy: Option<ProxyConfig>,
    /// Where peers reach the node from elsewhere, each as `host:port`.
    pub external_addresses: Vec<String>,
    /// Where the JSON-RPC interface is served.
    pub rpc: RpcConfig,
    /// How to reach bitcoind.
    pub bitcoind: BitcoindConfig,
    /// What we ask of channels.
    pub channel: ChannelLimits,
    /// What we ask of HTLCs that are to be forwarded.
    pub forwarding: ForwardingTerms,
    /// The most that funding and closing transactions of ours pay, whatever bitcoind estimates.
    pub max_feerate: FeeratePerKw,
    /// Blocks that the last HTLC of a payment to us must leave before it expires (BOLT 11, field `c`).
    pub final_cltv_blocks: u16,
    /// Whether payments are taken that nobody asked for.
    pub accept_keysend: bool,
    /// How long events are kept.
    pub events: EventKeeping,
    /// Bytes of the data directory's disk that a ballast keeps back, and that are to be free besides; 0 for neither.
    pub disk_reserve: u64,
    /// Where the rows of channels are kept beyond the database.
    pub backups: Vec<BackupConfig>,
    /// Whether a parent speaks to this process over its standard input and output.
    pub stdio: bool,
    /// Where there is no database yet: the block from which on the wallet looks for its coins; bitcoind's newest without it.
    pub start_height: Option<u32>,
    /// Every key as text as it is in force, without secrets, and where it comes from.
    pub report: ConfigReport,
}

/// How long events are kept; of each limit, 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventKeeping {
    /// Bytes of their rows.
    pub bytes: u64,
    /// Seconds, counted back from the newest.
    pub secs: u64,
}

/// Where the JSON-RPC interface is served, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcConfig {
    /// The port; a loopback address unless there is TLS, or `allow_remote`.
    pub address: SocketAddr,
    /// Certificate and key of the port, where TLS is spoken there.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether it may be reached from elsewhere, without encryption.
    pub allow_remote: bool,
    /// Names of the server beside its address, as `host:port`.
    pub hosts: Vec<String>,
    /// Pages whose scripts may call.
    pub origins: Vec<String>,
    /// Whether the operator's page is served.
    pub page: bool,
}

/// What we ask of channels, our own and those that peers open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelLimits {
    /// Smallest channel.
    pub min_funding: Sat,
    /// Largest channel.
    pub max_funding: Sat,
    /// Our dust limit.
    pub dust_limit: Sat,
    /// The share of the capacity, in parts per million, that each side keeps as its reserve.
    pub reserve_ppm: u32,
    /// Blocks that a peer's own output waits after it publishes its commitment.
    pub to_self_delay: u16,
    /// The most blocks that a peer may make us wait so.
    pub max_to_self_delay: u16,
    /// HTLCs accepted in flight from the peer, at most 483.
    pub max_accepted_htlcs: u16,
    /// The share of the capacity, in parts per million, that may be in flight towards us.
    pub max_in_flight_ppm: u32,
    /// The most that HTLCs without an output may be worth in one commitment.
    pub max_dust_exposure: Sat,
    /// Smallest HTLC that is accepted.
    pub htlc_minimum: Msat,
    /// Confirmations before a channel that a peer funds is usable.
    pub minimum_depth: u32,
    /// The most confirmations that a peer may ask of a channel that we fund.
    pub max_minimum_depth: u32,
    /// The highest commitment feerate that we sign for.
    pub max_commitment_feerate: FeeratePerKw,
    /// Blocks that bury a closing transaction before the channel counts as closed.
    pub close_depth: u32,
    /// Channels that a peer may have in the making, from its wish to the block with the funding transaction.
    pub max_pending_per_peer: usize,
    /// Whether a peer's channel is refused while the wallet lacks its reserve.
    pub accept_needs_reserve: bool,
}

/// What we ask of HTLCs that are to be forwarded over our channels (BOLT 7, `channel_update`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingTerms {
    /// Blocks between the expiry of the incoming and of the outgoing HTLC.
    pub cltv_expiry_delta: u16,
    /// Fee of each HTLC, in millisatoshi.
    pub fee_base_msat: u32,
    /// Fee for each million that is forwarded.
    pub fee_proportional_millionths: u32,
    /// Smallest HTLC that is forwarded.
    pub htlc_minimum: Msat,
    /// Largest HTLC that is forwarded; none: as much as the channel carries.
    pub htlc_maximum: Option<Msat>,
    /// The most HTLCs, and the most that they may be worth, that are forwarded at one time.
    pub most: (u32, Msat),
    /// The same for those of one peer.
    pub most_of_peer: (u32, Msat),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// The command line cannot be read, or asks for help or the version: the error prints what there is to say and
    /// knows its exit code.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where it is known.
        reason: String,
    },
    /// The file has a key that does not exist.
    #[error("{}: unknown key {key}{}", path.display(), nearest.as_ref().map(|key| format!("; did you mean {key}?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// The key that is spelled most alike.
        nearest: Option<String>,
    },
    /// The environment has a variable that says nothing to the daemon, and begins like those that do.
    #[error("unknown variable {variable} in the environment{}", nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    UnknownVariable {
        /// The variable.
        variable: String,
        /// The one that is spelled most alike.
        nearest: Option<String>,
    },
    /// A value does not fit.
    #[error("{key} (from {origin}): {problem}")]
    Unfit {
        /// The key, with its section.
        key: String,
        /// Where the value comes from.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Config {
    /// Reads the command line, the first argument being the program, and the configuration file it names or finds, as if there
    /// were no environment. `home` is the operator's home directory.
    pub fn read(arguments: impl IntoIterator<Item = OsString>, home: &Path) -> Result<Self, ConfigFault> {
        Self::from_values(&Values::read(arguments, &Vec::new(), home)?, home)
    }

    /// The directory of this network's node: its store, its seed, its cookie.
    pub fn network_dir(&self) -> PathBuf {
        rendezvous::network_directory(&self.data_dir, network_name(self.network))
    }

    fn from_values(values: &Values, home: &Path) -> Result<Self, ConfigFault> {
        let network = network(values);
        let ports = Ports::of(network);
        let mut config = Self {
            data_dir: data_dir(values, home),
            network,
            alias: values.text("alias").to_owned(),
            log: log::log(values, home)?,
            listen: address(values, "listen", ports.listen)?,
            proxy: reach::proxy(values)?,
            external_addresses: reach::external_addresses(values)?,
            rpc: rpc(values, ports.rpc, home)?,
            bitcoind: bitcoind::bitcoind(values, home, network)?,
            channel: channel_limits(values)?,
            forwarding: forwarding_terms(values)?,
            max_feerate: feerate(values, "feerate.max_sat_per_vb"),
            disk_reserve: values.number("disk_reserve_bytes"),
            final_cltv_blocks: values.number("invoice.final_cltv_blocks"),
            accept_keysend: values.flag("invoice.accept_keysend"),
            events: EventKeeping {
                bytes: values.number::<u64>("event.keep_kib").saturating_mul(1024),
                secs: values.number::<u64>("event.keep_days").saturating_mul(24 * 3600),
            },
            backups: values.backups(),
            stdio: values.stdio(),
            start_height: Some(values.number("wallet.start_height")).filter(|height| *height > 0),
            report: ConfigReport::default(),
        };
        config.report = shown::report(values, &config, home);
        Ok(config)
    }
}

/// Where JSON-RPC is served, and to whom.
fn rpc(values: &Values, port: u16, home: &Path) -> Result<RpcConfig, ConfigFault> {
    let address = address(values, "rpc.address", port)?;
    let allow_remote = values.flag("rpc.allow_remote");
    let tls = match (values.path("rpc.tls_cert", home), values.path("rpc.tls_key", home)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => return Err(values.unfit("rpc.tls_cert", "is of no use without rpc.tls_key")),
        (None, Some(_)) => return Err(values.unfit("rpc.tls_key", "is of no use without rpc.tls_cert")),
    };
    // Whoever reaches the port could try to spend (RPC-4).
    if !address.ip().is_loopback() && tls.is_none() && !allow_remote {
        let problem = "must be a loopback address: whoever reaches the port could try to spend; use a tunnel (ssh -L) from \
                       elsewhere, or give rpc.tls_cert and rpc.tls_key, or set rpc.allow_remote where a proxy with TLS stands before it";
        return Err(values.unfit("rpc.address", problem));
    }
    let list = |key| -> Vec<String> {
        let names = values.text(key).split(',').map(|name| name.trim().to_owned());
        names.filter(|name| !name.is_empty()).collect()
    };
    let (hosts, origins) = (list("rpc.hosts"), list("rpc.origins"));
    if origins.iter().any(|origin| !(origin.starts_with("http://") || origin.starts_with("https://"))) {
        return Err(values.unfit("rpc.origins", "must name pages as http://host:port or https://host"));
    }
    Ok(RpcConfig { address, tls, allow_remote, hosts, origins, page: values.flag("rpc.page") })
}

/// The name of a network in files, flags and answers.
pub fn network_name(network: Network) -> &'static str {
    match network {
        Network::Regtest => "regtest",
        Network::Signet => "signet",
        Network::Bitcoin => "mainnet",
        Network::Testnet => "testnet",
        // `bitcoin::Network` may grow; none but the first two is ever run.
        _ => "testnet4",
    }
}

/// Its row admits no other than these two.
fn network(values: &Values) -> Network {
    if values.text("network") == "regtest" { Network::Regtest } else { Network::Signet }
}

/// The ports of a network where none are configured.
struct Ports {
    listen: u16,
    rpc: u16,
    bitcoind: u16,
}

impl Ports {
    fn of(network: Network) -> Self {
        if network == Network::Regtest {
            Self { listen: 19735, rpc: 19737, bitcoind: 18443 }
        } else {
            Self { listen: 39735, rpc: 39737, bitcoind: 38332 }
        }
    }
}

fn address(values: &Values, key: &'static str, port: u16) -> Result<SocketAddr, ConfigFault> {
    match values.text(key) {
        "" => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        text => text.parse().map_err(|_| values.unfit(key, "must be ip:port")),
    }
}

fn data_dir(values: &Values, home: &Path) -> PathBuf {
    values.path("data_dir", home).unwrap_or_else(|| rendezvous::default_data_directory(home))
}

fn channel_limits(values: &Values) -> Result<ChannelLimits, ConfigFault> {
    let limits = ChannelLimits {
        min_funding: Sat::new(values.number("channel.min_funding_sat")),
        max_funding: Sat::new(values.number("channel.max_funding_sat")),
        dust_limit: Sat::new(values.number("channel.dust_limit_sat")),
        reserve_ppm: values.number("channel.reserve_ppm"),
        to_self_delay: values.number("channel.to_self_delay_blocks"),
        max_to_self_delay: values.number("channel.max_to_self_delay_blocks"),
        max_accepted_htlcs: values.number("channel.max_accepted_htlcs"),
        max_in_flight_ppm: values.number("channel.max_in_flight_ppm"),
        max_dust_exposure: Sat::new(values.number("channel.max_dust_exposure_sat")),
        htlc_minimum: Msat::new(values.number("channel.htlc_minimum_msat")),
        minimum_depth: values.number("channel.minimum_depth_blocks"),
        max_minimum_depth: values.number("channel.max_minimum_depth_blocks"),
        max_commitment_feerate: feerate(values, "feerate.max_commitment_sat_per_vb"),
        close_depth: values.number("channel.close_depth_blocks"),
        max_pending_per_peer: values.number("channel.max_pending_per_peer"),
        accept_needs_reserve: values.flag("channel.accept_needs_reserve"),
    };
    if limits.min_funding > limits.max_funding {
        return Err(values.unfit("channel.min_funding_sat", "is above channel.max_funding_sat: no channel would fit"));
    }
    Ok(limits)
}

fn forwarding_terms(values: &Values) -> Result<ForwardingTerms, ConfigFault> {
    let htlc_maximum = Some(values.number("forwarding.htlc_maximum_msat")).filter(|maximum| *maximum > 0);
    let terms = ForwardingTerms {
        cltv_expiry_delta: values.number("forwarding.cltv_expiry_delta"),
        fee_base_msat: values.number("forwarding.fee_base_msat"),
        fee_proportional_millionths: values.number("forwarding.fee_proportional_millionths"),
        htlc_minimum: Msat::new(values.number("forwarding.htlc_minimum_msat")),
        htlc_maximum: htlc_maximum.map(Msat::new),
        most: (values.number("forwarding.max_htlcs"), limit(values, "forwarding.max_value_msat")),
        most_of_peer: (values.number("forwarding.peer_max_htlcs"), limit(values, "forwarding.peer_max_value_msat")),
    };
    if terms.htlc_maximum.is_some_and(|maximum| maximum < terms.htlc_minimum) {
        let problem = "is below forwarding.htlc_minimum_msat: nothing would be forwarded";
        return Err(values.unfit("forwarding.htlc_maximum_msat", problem));
    }
    Ok(terms)
}

/// An amount, of which 0 says that there is no limit.
fn limit(values: &Values, key: &'static str) -> Msat {
    match values.number(key) {
        0 => Msat::new(u64::MAX),
        limit => Msat::new(limit),
    }
}

fn feerate(values: &Values, key: &'static str) -> FeeratePerKw {
    FeeratePerKw::new(values.number::<u32>(key).saturating_mul(KW_PER_VB))
}

#[cfg(test)]
mod tests;
