//! Where the daemon leaves what its callers need: its address and the cookie that admits them.

use std::path::{Path, PathBuf};

/// The file that holds `__cookie__:` and 64 hex digits, readable by its owner only, new at every start.
pub const COOKIE_FILE: &str = ".cookie";

/// The file that holds the address of the JSON-RPC port as `ip:port` and a newline, with [`ENCRYPTED`] before it where the port speaks
/// TLS, new at every start.
pub const ADDRESS_FILE: &str = "rpc_address";

/// What stands before the address of a port that speaks TLS.
pub const ENCRYPTED: &str = "https://";

/// The certificates, PEM, the daemon's own first, by which callers know the JSON-RPC port where it speaks TLS, new at every start and with each
/// renewal; absent where it does not.
pub const CERTIFICATE_FILE: &str = "rpc_certificate.pem";

/// The unix socket on which the same interface is served without a cookie, for its owner only, new at every start.
pub const SOCKET_FILE: &str = "rpc.sock";

/// The user part of the cookie, as bitcoind has it.
pub const COOKIE_USER: &str = "__cookie__";

/// The networks that the daemon runs on.
pub const NETWORKS: [&str; 2] = ["regtest", "signet"];

/// The data directory where none is given: `.outrigger` in the home directory.
pub fn default_data_directory(home: &Path) -> PathBuf {
    home.join(".outrigger")
}

/// The directory of one network's node, inside the data directory. Cookie and address are in it.
pub fn network_directory(data_directory: &Path, network: &str) -> PathBuf {
    data_directory.join(network)
}
