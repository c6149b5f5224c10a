//! What the configuration takes, and what it says of what it does not take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

struct Bench {
    home: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a directory") }
    }

    /// A home whose data directory has this configuration file.
    fn with_file(text: &str) -> Self {
        let bench = Self::new();
        let directory = bench.home.path().join(".outrigger");
        fs::create_dir(&directory).expect("created");
        fs::write(directory.join("outrigger.toml"), text).expect("written");
        bench
    }

    fn read(&self, flags: &[&str]) -> Result<Config, ConfigFault> {
        let arguments = ["outriggerd"].iter().chain(flags).map(OsString::from);
        Config::read(arguments, self.home.path())
    }

    fn refused(&self, flags: &[&str]) -> String {
        self.read(flags).expect_err("is refused").to_string()
    }
}

#[test]
fn defaults_depend_on_the_network() {
    let bench = Bench::new();
    let home = bench.home.path();
    let config = bench.read(&[]).expect("defaults fit");
    assert_eq!(config.network, Network::Signet);
    assert_eq!(config.network_dir(), home.join(".outrigger/signet"));
    assert_eq!(config.rpc.address.to_string(), "127.0.0.1:39737");
    assert_eq!(config.listen.to_string(), "127.0.0.1:39735");
    assert_eq!(config.bitcoind.address, "127.0.0.1:38332");
    let config = bench.read(&["--network", "regtest"]).expect("fits");
    assert_eq!(config.rpc.address.to_string(), "127.0.0.1:19737");
    assert_eq!(config.bitcoind.address, "127.0.0.1:18443");
    let cookie = home.join(".bitcoin/regtest/.cookie");
    assert!(matches!(config.bitcoind.auth, BitcoindAuth::Cookie(path) if path == cookie));
    assert_eq!(config.channel.reserve_ppm, 10_000);
    assert_eq!(config.max_feerate, FeeratePerKw::new(125_000));
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let bench = Bench::with_file("network = \"regtest\"\nalias = \"file\"\n[channel]\nmin_funding_sat = 50000\n");
    let config = bench.read(&["--alias", "flag"]).expect("fits");
    assert_eq!(config.network, Network::Regtest);
    assert_eq!(config.alias, "flag");
    assert_eq!(config.channel.min_funding, Sat::new(50_000));
    assert_eq!(config.channel.max_funding, Sat::new(16_777_215));
    let other = bench.home.path().join("other.toml");
    fs::write(&other, "alias = \"other\"").expect("written");
    let config = bench.read(&["--config", other.to_str().expect("text")]).expect("fits");
    assert_eq!((config.alias.as_str(), config.network), ("other", Network::Signet));
}

#[test]
fn bad_input_88_faults_of_the_file_are_named() {
    for (file, expected) in [
        ("netwrok = \"regtest\"", "unknown key netwrok; did you mean network?"),
        ("[channel]\nmin_funding = 1", "unknown key channel.min_funding; did you mean channel.min_funding_sat?"),
        ("[chanel]\nreserve_ppm = 1", "unknown key chanel.reserve_ppm; did you mean channel.reserve_ppm?"),
        ("colour = 1", "unknown key colour"),
        ("[channel]\nreserve_ppm = \"1\"", "must be a whole number from 0 to 200000"),
        ("[channel]\nreserve_ppm = -1", "must be a whole number from 0 to 200000"),
        ("[channel]\nreserve_ppm = 1.5", "must be a whole number from 0 to 200000"),
        ("alias = 5", "must be a text"),
        ("log_level = \"loud\"", "must be error, warn, info, debug or trace"),
        ("alias = \"a\"\nalias = \"b\"", "line 2: duplicate key"),
        ("alias = ", "line 1: "),
        ("[invoice]\nfinal_cltv_blocks = 33", "must be a whole number from 34 to 2016"),
        ("[feerate]\nmax_sat_per_vb = 0", "must be a whole number from 5 to 10000"),
        ("[channel]\nmin_funding_sat = 20000000", "is above channel.max_funding_sat"),
        ("alias = \"123456789012345678901234567890123\"", "at most 32 bytes"),
    ] {
        let message = Bench::with_file(file).refused(&[]);
        assert!(message.contains(expected), "{file}: {message}");
    }
}

#[test]
fn backups_stand_in_the_file() {
    let file = "[[backup]]\nname = \"a\"\nkind = \"mirror\"\nrequirement = \"required\"\npath = \"~/m.redb\"\n\
                [[backup]]\nname = \"b\"\nkind = \"directory\"\nrequirement = \"follow\"\npath = \"/mnt/b\"\n\
                [[backup]]\nname = \"c\"\nkind = \"command\"\nrequirement = \"follow\"\ncommand = [\"keep\", \"-v\"]\n";
    let bench = Bench::with_file(file);
    let backups = bench.read(&[]).expect("fits").backups;
    let is_required: Vec<_> = backups.iter().map(|backup| (backup.name.as_str(), backup.is_required)).collect();
    assert_eq!(is_required, [("a", true), ("b", false), ("c", false)]);
    let kinds: Vec<_> = backups.into_iter().map(|backup| backup.kind).collect();
    let expected = [
        BackupKind::Mirror { path: bench.home.path().join("m.redb") },
        BackupKind::Directory { path: "/mnt/b".into(), consolidate_every: 100 },
        BackupKind::Command { command: vec!["keep".into(), "-v".into()] },
    ];
    assert_eq!(kinds, expected);
    assert!(Bench::new().read(&[]).expect("fits").backups.is_empty());
}

#[test]
fn bad_input_88_faults_of_a_backup_are_named() {
    let whole = "name = \"a\"\nkind = \"mirror\"\nrequirement = \"follow\"\npath = \"/m\"\n";
    let one = |lines: &str| format!("[[backup]]\n{lines}");
    for (file, expected) in [
        ("backup = 5".to_owned(), "backup (from "),
        ("[backup]\nname = \"a\"".to_owned(), "is written as [[backup]], once for each"),
        (one(&whole.replace("name = \"a\"\n", "")), "backup.name (from "),
        (one(&whole.replace("\"a\"", "\"A b\"")), "must have 1 to 32 letters from a to z, digits, - and _"),
        (one(&whole.replace("\"a\"", "\"\"")), "must have 1 to 32 letters"),
        (one(&whole.replace("\"a\"", "5")), "backup.name (from"),
        (one(&whole.replace("mirror", "tape")), "must be mirror, directory or command"),
        (one(&whole.replace("follow", "maybe")), "must be required or follow"),
        (one(&whole.replace("requirement = \"follow\"\n", "")), "is missing"),
        (one(&whole.replace("/m", "m")), "must begin with / or ~/"),
        (one(&whole.replace("path", "paht")), "unknown key backup.paht; did you mean backup.path?"),
        (one(&format!("{whole}consolidate_every = 5\n")), "has no meaning for a mirror"),
        (one(&format!("{}consolidate_every = 0\n", whole.replace("mirror", "directory"))), "from 1 to 10000"),
        (one(&whole.replace("mirror", "command")), "backup.command (from "),
        (one(&whole.replace("mirror", "command").replace("path = \"/m\"", "command = []")), "must be a list of texts"),
        (one(&whole.replace("mirror", "command").replace("path = \"/m\"", "command = [1]")), "must be a list of texts"),
        (one(whole) + &one(whole), "two are called a"),
        (one(whole) + &one(&whole.replace("\"a\"", "\"b\"")), "b is the same place as another"),
    ] {
        let message = Bench::with_file(&file).refused(&[]);
        assert!(message.contains(expected), "{file}: {message}");
    }
    let many: String =
        (0..9).map(|n| one(&whole.replace("\"a\"", &format!("\"a{n}\"")).replace("/m", &format!("/{n}")))).collect();
    assert!(Bench::with_file(&many).refused(&[]).contains("a node has at most 8"));
}

/// What a pod has in its environment beside the services `outriggerd` and `outriggerd-rpc` (Kubernetes, "Accessing the Service").
const SERVICE_LINKS: [(&str, &str); 13] = [
    ("OUTRIGGERD_SERVICE_HOST", "10.0.171.239"),
    ("OUTRIGGERD_SERVICE_PORT", "9735"),
    ("OUTRIGGERD_SERVICE_PORT_PEERS", "9735"),
    ("OUTRIGGERD_PORT", "tcp://10.0.171.239:9735"),
    ("OUTRIGGERD_PORT_9735_TCP", "tcp://10.0.171.239:9735"),
    ("OUTRIGGERD_PORT_9735_TCP_PROTO", "tcp"),
    ("OUTRIGGERD_PORT_9735_TCP_PORT", "9735"),
    ("OUTRIGGERD_PORT_9735_TCP_ADDR", "10.0.171.239"),
    ("OUTRIGGERD_RPC_SERVICE_HOST", "10.0.171.240"),
    ("OUTRIGGERD_RPC_SERVICE_PORT_HTTP", "9737"),
    ("OUTRIGGERD_RPC_PORT", "udp://10.0.171.240:9737"),
    ("OUTRIGGERD_RPC_PORT_9737_UDP", "udp://10.0.171.240:9737"),
    ("OUTRIGGERD_RPC_PORT_9737_SCTP_ADDR", "10.0.171.240"),
];

#[test]
fn what_kubernetes_says_of_services_is_passed_over_and_nothing_else() {
    let bench = Bench::new();
    let read = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
        Values::read(["outriggerd".into()], &variables, bench.home.path()).map(drop)
    };
    read(&SERVICE_LINKS).expect("fits");
    for (name, value) in [
        ("OUTRIGGERD_PORT", "9735"),
        ("OUTRIGGERD_PORTS", "tcp://10.0.171.239:9735"),
        ("OUTRIGGERD_SERVICE", "x"),
        ("OUTRIGGERD_SERVICE_HOSTS", "x"),
        ("OUTRIGGERD_XSERVICE_HOST", "x"),
        ("OUTRIGGERD_PORT_TCP", "tcp://10.0.171.239:9735"),
        ("OUTRIGGERD_PORT_99999_TCP", "tcp://10.0.171.239:9735"),
        ("OUTRIGGERD_9735_TCP_ADDR", "10.0.171.239"),
    ] {
        match read(&[(name, value)]) {
            Err(ConfigFault::UnknownVariable { variable, .. }) => assert_eq!(variable, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn bad_input_88_a_file_that_is_named_must_be_there() {
    assert!(Bench::new().refused(&["--config", "/nonexistent/x.toml"]).contains("/nonexistent/x.toml"));
}

#[test]
fn bad_input_88_rpc_on_the_network_is_refused() {
    for address in ["0.0.0.0:19737", "192.168.0.1:19737", "[::]:19737"] {
        let message = Bench::new().refused(&["--rpc-address", address]);
        assert!(message.contains("rpc.address (from --rpc-address): must be a loopback address"), "{message}");
    }
    for address in ["127.0.0.1:0", "[::1]:19737", "127.8.0.1:5"] {
        assert!(Bench::new().read(&["--rpc-address", address]).is_ok(), "{address}");
    }
    let open = ["--rpc-address", "0.0.0.0:1", "--rpc-allow-remote", "true", "--rpc-hosts", "a.example:1, b.example:2"];
    let rpc = Bench::new().read(&open).expect("the operator has said so").rpc;
    assert_eq!((rpc.allow_remote, rpc.hosts), (true, vec!["a.example:1".to_owned(), "b.example:2".to_owned()]));
    for (origins, fits) in [("", true), ("https://a.example,http://b:1", true), ("a.example", false), ("*", false)] {
        let given = ["--rpc-origins", origins];
        assert_eq!(Bench::new().read(&given).is_ok(), fits, "{origins:?}");
    }
}

#[test]
fn mainnet_is_refused_with_the_reason() {
    for name in ["mainnet", "bitcoin", "main"] {
        let message = Bench::new().refused(&["--network", name]);
        assert!(message.contains("mainnet is refused") && message.contains("signet"), "{message}");
    }
    assert!(Bench::new().refused(&["--network", "testnet"]).contains("must be regtest or signet"));
}

#[test]
fn rpc_5_the_password_stands_in_a_private_file_alone_and_is_never_shown() {
    let text = "[bitcoind]\nuser = \"alice\"\npassword = \"canary\"\n";
    let bench = Bench::with_file(text);
    let file = bench.home.path().join(".outrigger/outrigger.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    let message = bench.refused(&[]);
    assert!(message.contains("others can read the file") && !message.contains("canary"), "{message}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    let config = bench.read(&[]).expect("fits");
    assert!(!format!("{config:?}").contains("canary"));
    assert!(matches!(&config.bitcoind.auth, BitcoindAuth::UserPass { user, .. } if user == "alice"));
    assert!(bench.refused(&["--bitcoind-password", "canary"]).contains("unexpected argument"));
    fs::write(&file, "[bitcoind]\npassword = \"canary\n").expect("written");
    assert!(!bench.refused(&[]).contains("canary"));
}

#[test]
fn bitcoind_is_named_by_host_and_port() {
    for (url, address) in [("http://node:8332/", "node:8332"), ("127.0.0.1:18443", "127.0.0.1:18443")] {
        let config = Bench::new().read(&["--bitcoind-url", url]).expect("fits");
        assert_eq!(config.bitcoind.address, address);
    }
    for url in ["node", "https://node:1", "http://u:p@node:1", "node:0", ":1", "node:1/wallet"] {
        assert!(Bench::new().refused(&["--bitcoind-url", url]).contains("bitcoind.url"), "{url}");
    }
    let both = ["--bitcoind-user", "alice", "--bitcoind-cookie", "x"];
    assert!(Bench::new().refused(&both).contains("excludes"));
    assert!(Bench::new().refused(&["--bitcoind-user", "alice"]).contains("needs bitcoind.password"));
}

#[test]
fn the_example_file_is_current_and_its_values_are_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/outrigger.example.toml");
    let current = example_file();
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        fs::write(&path, &current).expect("the example can be written");
    }
    let kept = fs::read_to_string(&path).expect("the example can be read");
    assert!(
        kept == current,
        "contrib/outrigger.example.toml is stale: UPDATE_EXAMPLE=1 cargo test -p outriggerd config"
    );
    let uncommented: Vec<&str> = current
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    let config = Bench::with_file(&uncommented.join("\n")).read(&[]).expect("the defaults fit");
    let defaults = Bench::new().read(&[]).expect("the defaults fit");
    assert_eq!(config.channel, defaults.channel);
    assert_eq!(config.rpc, defaults.rpc);
}

#[test]
fn the_command_line_is_sound() {
    values::command().debug_assert();
}

/// What an opener keeps for all that its peer may add is told where the number of those is chosen.
#[test]
fn the_example_tells_what_an_opener_keeps_for_a_burst_of_its_peer() {
    use outrigger_bolt::amount::FeeratePerKw;
    use outrigger_bolt::tx::fee::commitment_cost;
    // Beside those of the peer there is the payment's own HTLC.
    let told = [100, 483].map(|htlcs| (htlcs, commitment_cost(FeeratePerKw::FLOOR, htlcs + 1).get()));
    assert_eq!(told, [(100, 5_339), (483, 22_006)]);
    let text = example_file().replace("\n# ", " ");
    assert!(text.contains("5,339 sat at 100, 22,006 sat at 483"), "{text}");
}

#[test]
fn a_proxy_is_a_number_and_a_port_and_all_peers_need_one() {
    let bench = Bench::with_file("proxy = \"127.0.0.1:9050\"\n");
    let proxy = |always| Some(ProxyConfig { address: "127.0.0.1:9050".parse().expect("an address"), always });
    assert_eq!(bench.read(&[]).expect("fits").proxy, proxy(false));
    assert_eq!(bench.read(&["--always-use-proxy", "true"]).expect("fits").proxy, proxy(true));
    for (flags, words) in [
        (&["--proxy", "localhost:9050"][..], "proxy (from --proxy): must be ip:port, such as 127.0.0.1:9050"),
        (&["--proxy", "127.0.0.1"], "proxy (from --proxy): must be ip:port, such as 127.0.0.1:9050"),
        (&["--proxy", "0.0.0.0:9050"], "proxy (from --proxy): must be an address that can be connected to"),
        (&["--proxy", "127.0.0.1:0"], "proxy (from --proxy): must be an address that can be connected to"),
        (&["--always-use-proxy", "true"], "always_use_proxy (from --always-use-proxy): needs proxy"),
    ] {
        let refused = Bench::new().refused(flags);
        assert!(refused.starts_with(words), "{refused}");
    }
}

#[test]
fn addresses_from_elsewhere_are_read_each() {
    let service = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:9735";
    let flags = ["--external-addresses", &format!(" {service} ,, 203.0.113.7:9735,node.example:1")];
    let config = Bench::new().read(&flags).expect("fits");
    assert_eq!(config.external_addresses, [service, "203.0.113.7:9735", "node.example:1"]);
    assert_eq!(Bench::new().read(&[]).expect("fits").external_addresses, Vec::<String>::new());
    let refused = Bench::new().refused(&["--external-addresses", "abcd.onion:9735"]);
    assert!(
        refused.starts_with("external_addresses (from --external-addresses): \"abcd.onion:9735\" must be 56 letters"),
        "{refused}"
    );
}

#[test]
fn bitcoind_is_asked_to_tell_of_blocks_unless_it_is_looked_at_now_and_then() {
    assert_eq!(Bench::new().read(&[]).expect("fits").bitcoind.poll, None);
    let config = Bench::new().read(&["--bitcoind-poll-secs", "60"]).expect("fits");
    assert_eq!(config.bitcoind.poll, Some(Duration::from_secs(60)));
    let refused = Bench::new().refused(&["--bitcoind-poll-secs", "601"]);
    assert_eq!(refused, "bitcoind.poll_secs (from --bitcoind-poll-secs): must be a whole number from 0 to 600");
}
