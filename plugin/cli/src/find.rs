//! Where the daemon is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use outrigger_rpc_schema::{Client, rendezvous};

use crate::arguments::{Arguments, Remote};
use crate::fault::Fault;

/// A client of the daemon that the command line means.
pub(crate) fn client(arguments: &Arguments) -> Result<Client, Fault> {
    if let Some(remote) = &arguments.remote {
        return elsewhere(remote);
    }
    let data_dir = match &arguments.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => default_data_dir()?,
    };
    let network = match &arguments.network {
        Some(network) => network.clone(),
        None => running_network(&data_dir)?.to_owned(),
    };
    Ok(Client::in_directory(&rendezvous::network_directory(&data_dir, &network))?)
}

/// A client of a daemon that left no files here.
fn elsewhere(remote: &Remote) -> Result<Client, Fault> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| Fault::Usage(format!("cannot read {}: {error}", path.display())))
    };
    let Some(token_file) = &remote.token_file else {
        return Err(Fault::Usage("--url needs --token-file: a file that holds what token.create gave".to_owned()));
    };
    let token = read(token_file)?;
    if let Some(address) = remote.url.strip_prefix("https://") {
        let certificates = remote.ca.as_deref().map(read).transpose()?;
        return Ok(Client::with_token_over_tls(address.trim_end_matches('/'), &token, certificates.as_deref())?);
    }
    let address = remote.url.strip_prefix("http://").map(|address| address.trim_end_matches('/'));
    match address {
        Some(address) if is_of_this_machine(address) => Ok(Client::with_token(address, &token)?),
        Some(_) => Err(Fault::Usage(
            "a token is not sent over http:// to another machine: use https://, or a tunnel (ssh -L) and http://127.0.0.1:PORT"
                .to_owned(),
        )),
        None => Err(Fault::Usage("--url must be https://HOST:PORT, or http://127.0.0.1:PORT".to_owned())),
    }
}

fn is_of_this_machine(address: &str) -> bool {
    address.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback())
}

fn default_data_dir() -> Result<PathBuf, Fault> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let data_dir = home.map(|home| rendezvous::default_data_directory(&home));
    data_dir.ok_or_else(|| Fault::Usage("there is no home directory: give --data-dir".to_owned()))
}

/// The one network whose daemon has left its address here.
fn running_network(data_dir: &Path) -> Result<&'static str, Fault> {
    let has_address =
        |network: &&str| rendezvous::network_directory(data_dir, network).join(rendezvous::ADDRESS_FILE).exists();
    let running: Vec<&'static str> = rendezvous::NETWORKS.into_iter().filter(has_address).collect();
    match running.as_slice() {
        [network] => Ok(network),
        [] => Err(Fault::NoDaemon(format!(
            "no daemon runs with the data directory {}; start outriggerd, or name its directory with --data-dir",
            data_dir.display()
        ))),
        _ => {
            Err(Fault::Usage(format!("daemons of several networks run here: give --network ({})", running.join(", "))))
        }
    }
}
