//! Where the daemon is.

use std::path::{Path, PathBuf};

use outrigger_rpc_schema::{Client, rendezvous};

use crate::arguments::Arguments;
use crate::fault::Fault;

/// A client of the daemon that the command line means.
pub(crate) fn client(arguments: &Arguments) -> Result<Client, Fault> {
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
