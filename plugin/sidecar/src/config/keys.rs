//! Every key of the configuration, with its default and its meaning.

use std::fmt::Write;

use outrigger_rpc_schema::PluginOption;

use super::backup::BACKUP_KEYS;
use super::kind::Kind;

/// A key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// `name`, or `section.name`.
    pub(super) name: &'static str,
    /// What it takes.
    pub(super) kind: Kind,
    /// Its default as it stands in the file; `""` for what depends on the network or the machine.
    pub(super) default: &'static str,
    /// Whether it may stand on the command line, which every user of the machine can read.
    pub(super) on_command_line: bool,
    /// What it means.
    pub(super) meaning: &'static str,
}

pub(super) const fn key(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default, on_command_line: true, meaning }
}

/// Every key, in the order of the example file: first those without a section, then section by section.
pub(super) const KEYS: &[Key] = &[
    key("data_dir", Kind::Text, "", "Where everything is kept, a directory per network in it. Default: ~/.outrigger"),
    key("network", Kind::Choice(&["regtest", "signet"]), "signet", "The Bitcoin network: regtest or signet."),
    key("alias", Kind::Line(32), "outrigger", "The node's name for people, at most 32 bytes."),
    key(
        "log_level",
        Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        "info",
        "How much is logged: error, warn, info, debug or trace.",
    ),
    key(
        "log_targets",
        Kind::Text,
        "",
        "Another level for parts of the daemon, as PART=LEVEL with commas between: chain=debug,net=warn. `node.log_level` changes \
         levels while the node runs.",
    ),
    key(
        "log_format",
        Kind::Choice(&["text", "json"]),
        "text",
        "How a line of the log is written: text for people, json for programs.",
    ),
    key(
        "log_file",
        Kind::Text,
        "",
        "Where the log goes: a file, readable by its owner only. Default: the standard error",
    ),
    key(
        "log_max_bytes",
        Kind::Number(10_000, 1_000_000_000),
        "10000000",
        "The size at which the log's file is put aside and a new one begun.",
    ),
    key(
        "log_kept_files",
        Kind::Number(0, 1000),
        "5",
        "How many files that were put aside are kept: FILE.1 is the newest.",
    ),
    key(
        "disk_reserve_bytes",
        Kind::Number(0, 1 << 40),
        "134217728",
        "Below so many free bytes on the disk of data_dir nothing is opened, relayed, invoiced or paid. A file of that size, ballast, \
         keeps as much back, to settle what stands once the disk is full; before it is made, two and a half times as many are to be free. 0 \
         for neither.",
    ),
    key(
        "listen",
        Kind::Text,
        "",
        "Where peers are awaited, as ip:port; 0.0.0.0:PORT lets them come from elsewhere. \
         Default: 127.0.0.1, port 39735 on signet and 19735 on regtest",
    ),
    key(
        "proxy",
        Kind::Text,
        "",
        "A SOCKS5 proxy such as Tor's, as ip:port (127.0.0.1:9050). Connections to onion services go through it.",
    ),
    key(
        "always_use_proxy",
        Kind::Flag,
        "false",
        "Whether connections to all peers go through the proxy. Then no name of a peer is looked up on this machine.",
    ),
    key(
        "external_addresses",
        Kind::Text,
        "",
        "Where peers reach this node from elsewhere, as host:port with commas between: an onion service of its own, or what a router \
         passes on. node.info tells them.",
    ),
    key(
        "bitcoind.data_dir",
        Kind::Text,
        "",
        "bitcoind's data directory: its bitcoin.conf and its cookie are looked for there. Default: ~/.bitcoin",
    ),
    key(
        "bitcoind.url",
        Kind::Text,
        "",
        "bitcoind's RPC server, as host:port. Default: 127.0.0.1, and rpcport of bitcoin.conf, else 38332 on signet and 18443 on \
         regtest",
    ),
    key(
        "bitcoind.cookie",
        Kind::Text,
        "",
        "bitcoind's cookie file. Default: where bitcoin.conf has no rpcpassword, its rpccookiefile, else .cookie in the network's \
         directory of bitcoind",
    ),
    key(
        "bitcoind.user",
        Kind::Text,
        "",
        "bitcoind's RPC user, instead of the cookie: that of rpcuser, or of an rpcauth line. Default: rpcuser of bitcoin.conf",
    ),
    Key {
        on_command_line: false,
        ..key(
            "bitcoind.password",
            Kind::Text,
            "",
            "bitcoind's RPC password. A file that has it must be readable by its owner only. Default: rpcpassword of bitcoin.conf",
        )
    },
    key(
        "bitcoind.allow_remote",
        Kind::Flag,
        "false",
        "Whether bitcoind may be on another machine. The connection is not encrypted.",
    ),
    key(
        "bitcoind.poll_secs",
        Kind::Number(0, 600),
        "0",
        "How often it is looked for a new block, in seconds. 0 asks bitcoind to say when there is one, which keeps one of its RPC \
         threads busy. Above 0 let blocknotify of bitcoind call chain.notify_block (contrib/bitcoind-notify.md).",
    ),
    key(
        "rpc.address",
        Kind::Text,
        "",
        "Where the JSON-RPC interface is served, as ip:port; a loopback address, or any with TLS. Port 0 takes any free one. \
         Default: 127.0.0.1, port 39737 on signet and 19737 on regtest",
    ),
    key(
        "rpc.tls_cert",
        Kind::Text,
        "",
        "Certificate of the port, PEM, with those behind it that vouch for it: TLS is spoken then, and rpc.address may be any. A file \
         that is renewed is taken up within seconds (contrib/tls.md).",
    ),
    key("rpc.tls_key", Kind::Text, "", "Key of rpc.tls_cert, PEM, in a file for nobody else to read (chmod 600)."),
    key(
        "rpc.allow_remote",
        Kind::Flag,
        "false",
        "Whether rpc.address may be any without TLS. Nothing is encrypted: a proxy with TLS must stand before it.",
    ),
    key(
        "rpc.hosts",
        Kind::Text,
        "",
        "Names by which callers may mean this server, as host:port, with commas between. Its own address and localhost always are.",
    ),
    key(
        "rpc.origins",
        Kind::Text,
        "",
        "Pages whose scripts may call, as their browser names them: http://host:port, with commas between. None without it.",
    ),
    key(
        "rpc.page",
        Kind::Flag,
        "false",
        "Whether a page that shows the node to its operator is served at / of rpc.address. It asks for a token with scope read.",
    ),
    key(
        "wallet.start_height",
        Kind::Number(0, 100_000_000),
        "0",
        "The block from which on coins of the seed are looked for, which words that were used before need; 0 for bitcoind's newest at the \
         first start. Where it is given or lowered later, older blocks are looked at while the node runs.",
    ),
    key("channel.min_funding_sat", Kind::Number(1_000, MAX_SAT), "20000", "The smallest channel, in satoshi."),
    key("channel.max_funding_sat", Kind::Number(1_000, MAX_SAT), "16777215", "The largest channel, in satoshi."),
    key("channel.dust_limit_sat", Kind::Number(354, 10_000), "354", "Our outputs below it are left out, in satoshi."),
    key(
        "channel.reserve_ppm",
        Kind::Number(0, 200_000),
        "10000",
        "The share of the capacity that each side keeps as its reserve, in parts per million.",
    ),
    key(
        "channel.to_self_delay_blocks",
        Kind::Number(36, 2016),
        "144",
        "Blocks that a peer's money waits after it closes the channel alone: our time to punish a revoked state.",
    ),
    key(
        "channel.max_to_self_delay_blocks",
        Kind::Number(144, 2016),
        "2016",
        "The most blocks that a peer may make our money wait so.",
    ),
    key(
        "channel.max_accepted_htlcs",
        Kind::Number(1, 483),
        "100",
        "HTLCs accepted in flight from the peer. Who opened the channel keeps what all of them may cost: 5,339 sat at 100, \
         22,006 sat at 483.",
    ),
    key(
        "channel.max_in_flight_ppm",
        Kind::Number(10_000, 1_000_000),
        "1000000",
        "The share of the capacity that may be in flight towards us, in parts per million.",
    ),
    key(
        "channel.max_dust_exposure_sat",
        Kind::Number(0, 10_000_000),
        "50000",
        "The most that HTLCs too small for an output may be worth at once, in satoshi: miners get it if a channel closes.",
    ),
    key("channel.htlc_minimum_msat", Kind::Number(1, 1_000_000), "1", "The smallest HTLC accepted, in millisatoshi."),
    key(
        "channel.minimum_depth_blocks",
        Kind::Number(1, 144),
        "3",
        "Confirmations before a channel that a peer funds is usable.",
    ),
    key(
        "channel.max_minimum_depth_blocks",
        Kind::Number(1, 2016),
        "144",
        "The most confirmations that a peer may ask of a channel that we fund.",
    ),
    key(
        "channel.close_depth_blocks",
        Kind::Number(1, 144),
        "6",
        "Blocks that bury a closing transaction before the channel counts as closed.",
    ),
    key(
        "channel.max_pending_per_peer",
        Kind::Number(1, 1000),
        "4",
        "Channels that one peer may open to us before a block holds their funding transactions.",
    ),
    key(
        "channel.accept_needs_reserve",
        Kind::Flag,
        "false",
        "Whether peers' channels are refused while the wallet lacks the coins to pay for closing them alone.",
    ),
    key(
        "forwarding.cltv_expiry_delta",
        Kind::Number(34, 2016),
        "80",
        "Blocks that we want between the expiry of an HTLC that comes in and of the one that goes out for it.",
    ),
    key(
        "forwarding.fee_base_msat",
        Kind::Number(0, u32::MAX as u64),
        "1000",
        "Our fee for each HTLC that is forwarded, in millisatoshi.",
    ),
    key(
        "forwarding.fee_proportional_millionths",
        Kind::Number(0, 1_000_000),
        "100",
        "Our fee for each million that is forwarded.",
    ),
    key(
        "forwarding.htlc_minimum_msat",
        Kind::Number(1, 1_000_000_000),
        "1",
        "The smallest HTLC that is forwarded, in millisatoshi.",
    ),
    key(
        "forwarding.htlc_maximum_msat",
        Kind::Number(0, MAX_SAT * 1000),
        "0",
        "The largest HTLC that is forwarded, in millisatoshi; 0 for as much as a channel carries.",
    ),
    key(
        "forwarding.max_htlcs",
        Kind::Number(0, 1_000_000),
        "10000",
        "The most HTLCs that are being forwarded at one time.",
    ),
    key(
        "forwarding.max_value_msat",
        Kind::Number(0, MAX_SAT * 1000),
        "0",
        "The most that HTLCs being forwarded at one time may be worth, in millisatoshi; 0 for no limit.",
    ),
    key(
        "forwarding.peer_max_htlcs",
        Kind::Number(0, 1_000_000),
        "483",
        "The same count for the HTLCs of one peer: what is jammed by it is not the whole node.",
    ),
    key(
        "forwarding.peer_max_value_msat",
        Kind::Number(0, MAX_SAT * 1000),
        "0",
        "The same worth for the HTLCs of one peer, in millisatoshi; 0 for no limit.",
    ),
    key(
        "feerate.max_sat_per_vb",
        Kind::Number(5, 10_000),
        "500",
        "The most that our funding and closing transactions pay, in satoshi per virtual byte.",
    ),
    key(
        "feerate.max_commitment_sat_per_vb",
        Kind::Number(5, 10_000),
        "250",
        "The highest commitment feerate that we sign for, in satoshi per virtual byte.",
    ),
    key(
        "invoice.final_cltv_blocks",
        Kind::Number(34, 2016),
        "80",
        "Blocks that the last HTLC of a payment to us must leave before it expires.",
    ),
    key(
        "invoice.accept_keysend",
        Kind::Flag,
        "false",
        "Whether payments are taken that nobody asked for (keysend). Each is kept for ever, and anybody may send a millisatoshi.",
    ),
    key(
        "event.keep_kib",
        Kind::Number(0, 1 << 40),
        "1048576",
        "How much of the oldest events is kept, in KiB of their rows, some two events each; 0 for all.",
    ),
    key(
        "event.keep_days",
        Kind::Number(0, 36_500),
        "1000",
        "Days that an event is kept, counted back from the newest; 0 for ever. Whoever reads on below gets event_gap.",
    ),
];

/// What the variables of the environment that are read begin with.
pub(super) const VARIABLES: &str = "OUTRIGGERD_";

/// All bitcoin that will ever exist.
const MAX_SAT: u64 = 2_100_000_000_000_000;

impl Key {
    /// The section, empty for the keys that stand before any.
    pub(super) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Whether its value is shown to nobody.
    pub(super) const fn is_secret(&self) -> bool {
        !self.on_command_line
    }

    /// The variable of the environment.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLES}{}", self.flag().replace('-', "_").to_uppercase())
    }

    /// The flag on the command line, without its dashes.
    pub(super) fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The default as TOML.
    fn default_in_toml(&self) -> String {
        match self.kind {
            Kind::Text | Kind::Line(_) | Kind::Choice(_) => format!("{:?}", self.default),
            Kind::Number(..) | Kind::Flag | Kind::Program => self.default.to_owned(),
        }
    }
}

/// Every key as a host is told of it: those that stand once, in the order of the example file, and those of each `[[backup]]`.
pub fn options() -> impl Iterator<Item = PluginOption> {
    let once = KEYS
        .iter()
        .map(|key| PluginOption { flag: key.on_command_line.then(|| format!("--{}", key.flag())), ..option(key) });
    let of_each = BACKUP_KEYS.iter().map(|row| PluginOption {
        repeats: true,
        required: row.is_required,
        only_of_kinds: row.kinds.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect()),
        ..option(&row.key)
    });
    once.chain(of_each)
}

fn option(key: &Key) -> PluginOption {
    PluginOption {
        name: key.name.to_owned(),
        takes: key.kind.told(),
        default: key.default.to_owned(),
        description: key.meaning.to_owned(),
        flag: None,
        repeats: false,
        required: false,
        only_of_kinds: None,
    }
}

/// The example file: every key with its meaning and its default, commented out.
pub fn example_file() -> String {
    let mut text = String::from(
        "# Outrigger's configuration: every key with its default. Save it as outrigger.toml in the data directory, or\n\
         # name it with --config, and uncomment what shall differ. Each key is a flag too: min_funding_sat in section\n\
         # [channel] is --channel-min-funding-sat, and a variable of the environment: OUTRIGGERD_CHANNEL_MIN_FUNDING_SAT. Only\n\
         # the password is neither. A flag wins over the environment, that over this file. `outriggerd --check-config` shows what is\n\
         # in force and where it comes from.\n",
    );
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[{section}]\n");
        }
        let name = key.name.rsplit('.').next().unwrap_or(key.name);
        let _ = write!(text, "\n# {}\n#{name} = {}\n", key.meaning, key.default_in_toml());
    }
    text.push_str(&super::backup::example());
    text
}
