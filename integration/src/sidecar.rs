//! The daemon, started and stopped as an operator does it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, network_directory};
use outrigger_rpc_schema::{
    CallError, ChannelClose, ChannelGet, ChannelInfo, ChannelOpen, ChannelOpenWait, ChannelOpened, ChannelState,
    InvoiceCreate, Method, NodeInfo, NodeInfoReport, NodeStatus, NodeStatusReport, NodeStop, OpenState, PaymentInfo,
    PaymentSend, PaymentWait, PeerConnect, Phase, WalletBalance, WalletBalanceReport, WalletNewAddress,
};
use tokio::process::{Child, Command};

use crate::bitcoind::free_port;
use crate::{Bitcoind, Client, Done, until};

/// Time for anything that takes a start or a few round trips, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A daemon's process, its data directory, and a client of it.
pub struct Sidecar {
    child: Option<Child>,
    directory: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    listen_port: u16,
    client: Client,
}

impl Sidecar {
    /// Starts a daemon beside `bitcoind` with its data in `directory`, and waits until it is ready.
    pub async fn start(directory: &Path, alias: &str, bitcoind: &Bitcoind, more: &[&str]) -> Done<Self> {
        Self::start_behind(directory, alias, &bitcoind.address(), bitcoind, more).await
    }

    /// The same, with the calls to `bitcoind` going to `address`.
    pub async fn start_behind(
        directory: &Path,
        alias: &str,
        address: &str,
        bitcoind: &Bitcoind,
        more: &[&str],
    ) -> Done<Self> {
        Self::start_in(&[], directory, alias, address, bitcoind, more).await
    }

    /// The same, with more in the environment of the process.
    pub async fn start_in(
        environment: &[(String, String)],
        directory: &Path,
        alias: &str,
        address: &str,
        bitcoind: &Bitcoind,
        more: &[&str],
    ) -> Done<Self> {
        let listen_port = free_port()?;
        let mut arguments: Vec<String> = [
            "--network",
            "regtest",
            "--data-dir",
            &directory.display().to_string(),
            "--bitcoind-url",
            address,
            "--bitcoind-cookie",
            &bitcoind.cookie().display().to_string(),
            "--listen",
            &format!("127.0.0.1:{listen_port}"),
            "--rpc-address",
            "127.0.0.1:0",
            "--alias",
            alias,
        ]
        .map(str::to_owned)
        .into();
        // Tests share a disk that is not theirs, with many nodes at once.
        if !more.contains(&"--disk-reserve-bytes") {
            arguments.extend(["--disk-reserve-bytes", "0"].map(str::to_owned));
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let environment = environment.to_vec();
        let (child, client) = launch(directory, &arguments, &environment).await?;
        let directory = directory.to_owned();
        let sidecar = Self { child: Some(child), directory, arguments, environment, listen_port, client };
        sidecar.until_ready().await?;
        Ok(sidecar)
    }

    /// Kills the process as a power failure would.
    pub async fn kill(&mut self) -> Done<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Stops the process through the interface.
    pub async fn stop(&mut self) -> Done<()> {
        self.call(NodeStop {}).await?;
        if let Some(mut child) = self.child.take() {
            let status = tokio::time::timeout(LIMIT, child.wait()).await??;
            if !status.success() {
                return Err(format!("outriggerd ended with {status}").into());
            }
        }
        Ok(())
    }

    /// Waits until the process ends by itself; gives its exit code.
    pub async fn until_ended(&mut self) -> Done<Option<i32>> {
        let mut child = self.child.take().ok_or("the process does not run")?;
        Ok(tokio::time::timeout(LIMIT, child.wait()).await??.code())
    }

    /// The disk dies: the process is killed and everything in its place is gone, but for the seed, which the operator has on
    /// paper.
    pub async fn lose_disk(&mut self) -> Done<()> {
        self.kill().await?;
        let place = network_directory(&self.directory, "regtest");
        let seed = std::fs::read(place.join("seed"))?;
        std::fs::remove_dir_all(&place)?;
        std::fs::DirBuilder::new().mode(0o700).create(&place)?;
        std::fs::write(place.join("seed"), seed)?;
        Ok(std::fs::set_permissions(place.join("seed"), std::fs::Permissions::from_mode(0o600))?)
    }

    /// Runs `outriggerd restore --json --from SINK` over the data of a process that does not run; gives its exit code and what it
    /// tells.
    pub async fn restore(&self, from: &str, more: &[&str]) -> Done<(Option<i32>, serde_json::Value)> {
        let mut command = Command::new(executable()?);
        command.args(["restore", "--json", "--network", "regtest", "--from", from, "--data-dir"]).arg(&self.directory);
        let output = tokio::time::timeout(LIMIT, command.args(more).stdin(Stdio::null()).output()).await??;
        let told = serde_json::from_slice(&output.stdout)
            .map_err(|_| format!("the restore said: {}", String::from_utf8_lossy(&output.stderr)))?;
        Ok((output.status.code(), told))
    }

    /// Starts the process again with the same data and waits until it is ready.
    pub async fn start_again(&mut self) -> Done<()> {
        self.launch_again().await?;
        self.until_ready().await
    }

    /// Starts the process again with the same data and waits until its interface answers.
    pub async fn launch_again(&mut self) -> Done<()> {
        let (child, client) = launch(&self.directory, &self.arguments, &self.environment).await?;
        self.child = Some(child);
        self.client = client;
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// What the process says, over all its starts.
    fn log(&self) -> PathBuf {
        self.directory.join("outriggerd.log")
    }

    /// The directory that was given with `--data-dir`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where peers reach it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.listen_port)
    }

    /// Calls a method.
    pub async fn call<M: Method>(&self, method: M) -> Result<M::Result, CallError> {
        self.client.call(method).await
    }

    /// The kind of the error with which a call is refused; all that the interface promises of it is there.
    pub async fn refusal<M: Method>(&self, call: M) -> Done<String> {
        match self.call(call).await {
            Ok(_) => Err(format!("{} was not refused", M::NAME).into()),
            Err(CallError::Refused(refusal)) => {
                let data = refusal.data.ok_or("a refusal without data")?;
                if refusal.message.is_empty() || data.hint.is_empty() {
                    return Err(format!("a refusal that says nothing: {}", data.kind).into());
                }
                Ok(data.kind)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// What the node is.
    pub async fn info(&self) -> Done<NodeInfoReport> {
        Ok(self.call(NodeInfo {}).await?)
    }

    /// The node's public key.
    pub async fn node_id(&self) -> Done<String> {
        Ok(self.info().await?.node_id)
    }

    /// An address of the node's wallet.
    pub async fn new_address(&self) -> Done<String> {
        Ok(self.call(WalletNewAddress::default()).await?.address)
    }

    /// What the wallet holds.
    pub async fn balance(&self) -> Done<WalletBalanceReport> {
        Ok(self.call(WalletBalance {}).await?)
    }

    /// A client of the running process, for calls at the same time.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Connects to another daemon.
    pub async fn connect(&self, other: &Self) -> Done<()> {
        self.connect_to(&other.node_id().await?, &other.address()).await
    }

    /// Connects to a node at an address, which need not be the node's own.
    pub async fn connect_to(&self, node_id: &str, address: &str) -> Done<()> {
        self.call(PeerConnect { node_id: node_id.to_owned(), address: address.to_owned() }).await?;
        Ok(())
    }

    /// Waits for `done` and asks for the connection all the while: left alone, the daemon waits longer after each
    /// disconnect.
    pub async fn reconnecting<T>(&self, node_id: &str, address: &str, done: impl Future<Output = Done<T>>) -> Done<T> {
        let connecting = until(LIMIT, "a connection to help", async || {
            // The other side may be down at this moment.
            drop(self.connect_to(node_id, address).await);
            Ok(None)
        });
        tokio::select! {
            outcome = done => outcome,
            outcome = connecting => outcome,
        }
    }

    /// Opens a channel and waits until it is signed; gives its name and the id of its funding transaction.
    pub async fn open(&self, order: ChannelOpen) -> Done<(String, String)> {
        let op_id = self.call(order).await?.op_id;
        let ChannelOpened { channel_id, funding_txid, failure, .. } = self.end_of_opening(&op_id).await?;
        match failure {
            Some(failure) => Err(format!("the channel was not opened: {failure}").into()),
            None => channel_id.zip(funding_txid).ok_or_else(|| "the channel is not signed yet".into()),
        }
    }

    /// Waits until an opening is over: what became of it.
    pub async fn end_of_opening(&self, op_id: &str) -> Done<ChannelOpened> {
        let wait = || ChannelOpenWait { op_id: op_id.to_owned(), timeout_secs: u32::try_from(LIMIT.as_secs()).ok() };
        let ended = self.call(wait()).await?;
        match ended.state {
            OpenState::Opening => Err("the opening did not end in time".into()),
            OpenState::Pending | OpenState::Failed | OpenState::Unknown => Ok(ended),
        }
    }

    /// Mines to the node's wallet until it has mature coins, and waits until it sees them and may spend them.
    pub async fn fund(&self, bitcoind: &Bitcoind) -> Done<()> {
        bitcoind.mine(1, &self.new_address().await?).await?;
        bitcoind.mine_to_nobody(100).await?;
        until(LIMIT, "the wallet to see its coins", async || {
            Ok((self.balance().await?.confirmed_sat > 0).then_some(()))
        })
        .await?;
        self.until_synced_with(bitcoind).await
    }

    /// One channel.
    pub async fn channel(&self, channel_id: &str) -> Done<ChannelInfo> {
        Ok(self.call(ChannelGet { channel_id: channel_id.to_owned() }).await?)
    }

    /// Waits until the channel is in this state, and connected if the state is one in which it works.
    pub async fn until_channel_is(&self, channel_id: &str, state: ChannelState) -> Done<ChannelInfo> {
        until(LIMIT, &format!("channel {channel_id} to be {state:?}"), async || {
            let channel = self.channel(channel_id).await?;
            let works = channel.connected || state != ChannelState::Normal;
            Ok((channel.state == state && works).then_some(channel))
        })
        .await
    }

    /// Waits until no HTLC is pending in the channel and its peer agrees on it.
    pub async fn until_idle(&self, channel_id: &str) -> Done<ChannelInfo> {
        until(LIMIT, &format!("channel {channel_id} to be idle"), async || {
            let channel = self.channel(channel_id).await?;
            Ok((channel.htlcs == 0 && channel.connected).then_some(channel))
        })
        .await
    }

    /// Closes a channel together with its peer; gives the id of the closing transaction.
    pub async fn close(&self, channel_id: &str) -> Done<String> {
        self.call(ChannelClose { channel_id: channel_id.to_owned(), ..Default::default() }).await?;
        self.closing_txid(channel_id).await
    }

    /// Waits until a closing transaction is agreed on and gives its id.
    pub async fn closing_txid(&self, channel_id: &str) -> Done<String> {
        until(LIMIT, "the closing transaction to be agreed on", async || {
            Ok(self.channel(channel_id).await?.closing_txid)
        })
        .await
    }

    /// Makes an invoice.
    pub async fn invoice(&self, amount_msat: u64, description: &str) -> Done<String> {
        let order =
            InvoiceCreate { amount_msat: Some(amount_msat), description: description.into(), ..Default::default() };
        Ok(self.call(order).await?.invoice)
    }

    /// Pays an invoice and waits for the end of the payment.
    pub async fn pay(&self, invoice: &str) -> Done<PaymentInfo> {
        let payment_id = self.send(invoice).await?;
        self.payment_end(&payment_id).await
    }

    /// Begins to pay an invoice; gives the payment's name.
    pub async fn send(&self, invoice: &str) -> Done<String> {
        let order = PaymentSend { invoice: Some(invoice.to_owned()), ..Default::default() };
        Ok(self.call(order).await?.payment_id)
    }

    /// Waits for the end of a payment.
    pub async fn payment_end(&self, payment_id: &str) -> Done<PaymentInfo> {
        let wait = PaymentWait { payment_id: payment_id.to_owned(), timeout_secs: Some(60) };
        Ok(self.call(wait).await?)
    }

    /// Waits until the node has seen bitcoind's best block.
    pub async fn until_synced_with(&self, bitcoind: &Bitcoind) -> Done<()> {
        let height = bitcoind.height().await?;
        until(LIMIT, &format!("the node to reach block {height}"), async || {
            let info = self.info().await?;
            // The hash is told once the node knows that this is bitcoind's tip; nothing is opened or paid before.
            Ok((info.block_height >= Some(height) && info.block_hash.is_some()).then_some(()))
        })
        .await
    }

    /// Waits until the daemon has reached the chain's tip.
    pub async fn until_ready(&self) -> Done<()> {
        self.until_phase(&[Phase::Ready, Phase::Restored]).await.map(drop)
    }

    /// Waits until the daemon says that it is in one of these phases, and gives all that it says.
    pub async fn until_phase(&self, phases: &[Phase]) -> Done<NodeStatusReport> {
        until(LIMIT, &format!("the daemon to be in phase {phases:?}"), async || {
            let status = self.call(NodeStatus {}).await?;
            Ok(phases.contains(&status.phase).then_some(status))
        })
        .await
    }
}

impl Drop for Sidecar {
    /// A panic of the daemon fails the test, whatever else the test saw of it.
    #[expect(clippy::panic, reason = "a test fails by panicking")]
    fn drop(&mut self) {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let panics: Vec<&str> = log.lines().skip_while(|line| !line.contains("panicked at")).take(3).collect();
        if !panics.is_empty() {
            let said = format!("a daemon panicked, see {}: {}", self.log().display(), panics.join(" | "));
            // While a test fails already, a second panic would only hide why.
            if std::thread::panicking() { eprintln!("{said}") } else { panic!("{said}") }
        }
    }
}

/// Starts a process and waits until it has written where its interface listens.
async fn launch(directory: &Path, arguments: &[String], environment: &[(String, String)]) -> Done<(Child, Client)> {
    let network = network_directory(directory, "regtest");
    let address = network.join(ADDRESS_FILE);
    if address.exists() {
        // Left by a killed process: what is waited for is the new one.
        std::fs::remove_file(&address)?;
    }
    std::fs::create_dir_all(directory)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("outriggerd.log"))?;
    let mut child = Command::new(executable()?)
        .args(arguments)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()?;
    let client = until(LIMIT, "the daemon's interface", async || {
        if let Some(status) = child.try_wait()? {
            let log = std::fs::read_to_string(directory.join("outriggerd.log")).unwrap_or_default();
            let last = log.lines().rev().take(5).collect::<Vec<_>>();
            return Err(format!("outriggerd ended with {status}: {}", last.join(" | ")).into());
        }
        if !address.exists() {
            return Ok(None);
        }
        let Ok(client) = Client::in_directory(&network) else { return Ok(None) };
        Ok(client.call(NodeStatus {}).await.ok().map(|_| client))
    })
    .await?;
    Ok((child, client))
}

/// The built daemon: `OUTRIGGERD_EXE`, or beside the program that runs.
pub fn executable() -> Done<PathBuf> {
    built("OUTRIGGERD_EXE", "outriggerd")
}

/// The built command line: `OUTRIGGER_CLI_EXE`, or beside the program that runs.
pub fn cli_executable() -> Done<PathBuf> {
    built("OUTRIGGER_CLI_EXE", "outrigger-cli")
}

fn built(variable: &str, name: &str) -> Done<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let current = std::env::current_exe()?;
    let found = current.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not built: cargo build --bins, or set {variable}").into())
}
