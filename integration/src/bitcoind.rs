//! A bitcoind on a regtest chain of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bitcoincore_rpc::bitcoin::address::NetworkUnchecked;
use bitcoincore_rpc::bitcoin::consensus::encode::deserialize_hex;
use bitcoincore_rpc::bitcoin::{Address, Amount, BlockHash, Network, Transaction, Txid};
use bitcoincore_rpc::{Auth, Client, RpcApi};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{Done, until};

/// Time for a start, and for a call that mines many blocks, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A process, its data directory and its RPC port.
pub struct Bitcoind {
    child: Child,
    directory: PathBuf,
    rpc_port: u16,
    /// What its command line has besides what it always has.
    more: Vec<String>,
    /// What its environment has besides that of the test.
    environment: Vec<(String, String)>,
}

impl Bitcoind {
    /// Starts the bitcoind at `BITCOIND_EXE`, or the one that `contrib/bitcoind` finds, in `directory`, which must exist.
    pub async fn start(directory: &Path) -> Done<Self> {
        Self::start_in(&[], directory, free_port()?).await
    }

    /// The same, with more in the environment of the process, which its commands inherit, and with its RPC at this port.
    pub async fn start_in(environment: &[(String, String)], directory: &Path, rpc_port: u16) -> Done<Self> {
        let child = spawn(directory, rpc_port, &[], environment).await?;
        let (directory, environment) = (directory.to_owned(), environment.to_vec());
        let mut bitcoind = Self { child, directory, rpc_port, more: Vec::new(), environment };
        bitcoind.answers().await?;
        Ok(bitcoind)
    }

    /// Stops it cleanly and starts it again on the same port; its cookie is then another.
    pub async fn restart(&mut self) -> Done<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops it cleanly and starts it again with these arguments more.
    pub async fn restart_with(&mut self, more: &[&str]) -> Done<()> {
        self.more = more.iter().map(|argument| (*argument).to_owned()).collect();
        self.restart().await
    }

    /// Starts it again on the same port, with the same chain.
    pub async fn start_again(&mut self) -> Done<()> {
        self.child = spawn(&self.directory, self.rpc_port, &self.more, &self.environment).await?;
        self.answers().await
    }

    /// Stops it cleanly.
    pub async fn stop(&mut self) -> Done<()> {
        self.call("stop", json!([])).await?;
        tokio::time::timeout(LIMIT, self.child.wait()).await??;
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where its RPC listens, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }

    /// The port of its RPC.
    pub fn rpc_port(&self) -> u16 {
        self.rpc_port
    }

    /// The file that admits callers.
    pub fn cookie(&self) -> PathBuf {
        self.directory.join("regtest").join(".cookie")
    }

    /// User and password of the cookie; another pair after each start.
    pub fn credentials(&self) -> Done<(String, String)> {
        let cookie = std::fs::read_to_string(self.cookie())?;
        let (user, password) = cookie.trim().split_once(':').ok_or("bitcoind's cookie has no colon")?;
        Ok((user.to_owned(), password.to_owned()))
    }

    /// The text of its version, as `getnetworkinfo` has it.
    pub async fn version(&self) -> Done<String> {
        let info = self.call("getnetworkinfo", json!([])).await?;
        Ok(info["subversion"].as_str().unwrap_or_default().trim_matches('/').to_owned())
    }

    /// Mines blocks whose reward goes to `address`.
    pub async fn mine(&self, blocks: u32, address: &str) -> Done<Vec<BlockHash>> {
        Ok(serde_json::from_value(self.call("generatetoaddress", json!([blocks, address])).await?)?)
    }

    /// Mines blocks whose reward goes to nobody.
    pub async fn mine_to_nobody(&self, blocks: u32) -> Done<Vec<BlockHash>> {
        self.mine(blocks, NOBODY).await
    }

    /// The height of the best block.
    pub async fn height(&self) -> Done<u32> {
        Ok(serde_json::from_value(self.call("getblockcount", json!([])).await?)?)
    }

    /// Transactions that wait to be mined.
    pub async fn mempool(&self) -> Done<Vec<Txid>> {
        Ok(serde_json::from_value(self.call("getrawmempool", json!([])).await?)?)
    }

    /// Confirmations of a transaction's first unspent output; none if all are spent or it is unknown.
    pub async fn confirmations(&self, txid: &str) -> Done<Option<u64>> {
        for output in 0..4 {
            let out = self.call("gettxout", json!([txid, output])).await?;
            if let Some(confirmations) = out["confirmations"].as_u64() {
                return Ok(Some(confirmations));
            }
        }
        Ok(None)
    }

    /// Waits until the mempool holds a transaction.
    pub async fn until_mempool_holds(&self, txid: &str) -> Done<()> {
        until(LIMIT, &format!("transaction {txid} to reach bitcoind"), async || {
            Ok(self.mempool().await?.iter().any(|held| held.to_string() == txid).then_some(()))
        })
        .await
    }

    /// Waits for the unconfirmed transaction that spends an output of this one, and gives its id.
    pub async fn until_spent(&self, txid: &str) -> Done<String> {
        until(LIMIT, &format!("a transaction that spends {txid} to reach bitcoind"), async || {
            for candidate in self.mempool().await? {
                // It may have left the mempool by now.
                let tx = self.call("getrawtransaction", json!([candidate, true])).await.unwrap_or_default();
                if tx["vin"].as_array().is_some_and(|inputs| inputs.iter().any(|input| input["txid"] == txid)) {
                    return Ok(Some(candidate.to_string()));
                }
            }
            Ok(None)
        })
        .await
    }

    /// What the outputs of an unconfirmed transaction hold, in satoshi.
    pub async fn outputs_sat(&self, txid: &str) -> Done<Vec<u64>> {
        let hex = self.call("getrawtransaction", json!([txid])).await?;
        let tx: Transaction = deserialize_hex(hex.as_str().ok_or("no transaction")?)?;
        Ok(tx.output.iter().map(|output| output.value.to_sat()).collect())
    }

    /// The fee in satoshi of a transaction that waits to be mined.
    pub async fn fee_sat(&self, txid: &str) -> Done<u64> {
        let entry = self.call("getmempoolentry", json!([txid])).await?;
        let fee = entry["fees"]["base"].as_f64().ok_or("getmempoolentry gives no fee")?;
        Ok(Amount::from_btc(fee)?.to_sat())
    }

    /// Calls a method; the cookie is read anew each time, since a restart changes it.
    pub async fn call(&self, method: &str, parameters: Value) -> Done<Value> {
        let (url, cookie, method) = (format!("http://{}", self.address()), self.cookie(), method.to_owned());
        tokio::task::spawn_blocking(move || {
            let client = Client::new(&url, Auth::CookieFile(cookie))?;
            let parameters = match parameters {
                Value::Array(parameters) => parameters,
                other => vec![other],
            };
            Ok(client.call(&method, &parameters)?)
        })
        .await?
    }

    async fn answers(&mut self) -> Done<()> {
        until(LIMIT, "bitcoind to answer", async || {
            if let Some(status) = self.child.try_wait()? {
                let log = self.directory.join("regtest").join("debug.log");
                return Err(format!("bitcoind ended with {status}; its log is {}", log.display()).into());
            }
            Ok(self.call("getblockchaininfo", json!([])).await.ok().map(drop))
        })
        .await
    }
}

/// An address of regtest whose key nobody has: the hash is all zeros.
const NOBODY: &str = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202";

async fn spawn(directory: &Path, rpc_port: u16, more: &[String], environment: &[(String, String)]) -> Done<Child> {
    let executable = executable().await?;
    // Not our standard error: a pipe that reads it would stay open for as long as bitcoind runs.
    let errors = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("stderr.log"))?;
    // A daemon that is killed leaves its long poll behind, which holds a thread of bitcoind's until it ends.
    let child = Command::new(&executable)
        .arg("-regtest")
        .arg(format!("-datadir={}", directory.display()))
        .arg(format!("-rpcport={rpc_port}"))
        .args(["-server", "-listen=0", "-fallbackfee=0.0001", "-printtoconsole=0", "-rpcthreads=64"])
        .args(more)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors))
        .kill_on_drop(true)
        .spawn()
        .map_err(|fault| format!("{}: {fault}", executable.display()))?;
    Ok(child)
}

/// The path of a usable bitcoind, found as `contrib/check` and `contrib/quickstart` find it.
pub async fn executable() -> Done<PathBuf> {
    if let Some(path) = std::env::var_os("BITCOIND_EXE") {
        return Ok(path.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/bitcoind");
    let output = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    if !output.status.success() {
        return Err("contrib/bitcoind found no bitcoind".into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().into())
}

/// A port that nothing listens on at this moment. It is below those that Linux gives to outgoing connections, and no other
/// process of these tests is given it, so that it can be relied on also before it is bound and after a restart.
pub fn free_port() -> Done<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static BLOCK: OnceLock<Option<(u16, TcpListener)>> = OnceLock::new();
    let (first, _held) = BLOCK.get_or_init(own_block).as_ref().ok_or("no block of ports is free")?;
    for _ in 1..PORTS_OF_BLOCK {
        let port = first + 1 + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS_OF_BLOCK - 1);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("all ports of this process are taken".into())
}

/// A block of ports that this process alone has for as long as it lives: it holds the first of them.
fn own_block() -> Option<(u16, TcpListener)> {
    let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or(0);
    (0..BLOCKS).map(|step| FIRST_PORT + (start + step) % BLOCKS * PORTS_OF_BLOCK).find_map(|first| {
        let held = TcpListener::bind(("127.0.0.1", first)).ok()?;
        Some((first, held))
    })
}

/// The first of the ports that are given out.
const FIRST_PORT: u16 = 10_000;
/// How many ports a process has, with the one that it holds.
const PORTS_OF_BLOCK: u16 = 256;
/// How many processes have ports at one time.
const BLOCKS: u16 = 87;

/// Checks that a text is an address of regtest.
pub fn regtest_address(text: &str) -> Done<Address> {
    Ok(text.parse::<Address<NetworkUnchecked>>()?.require_network(Network::Regtest)?)
}
