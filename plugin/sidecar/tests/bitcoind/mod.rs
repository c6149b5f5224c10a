//! A bitcoind on a regtest chain of its own, ended with the test.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::{Address, BlockHash};
use bitcoincore_rpc::{Auth, Client, RpcApi};
use outrigger_sidecar::chain::rpc;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Long enough for a busy machine; a condition that holds ends the wait at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Regtest {
    data_dir: TempDir,
    port: u16,
    process: Option<Child>,
}

impl Regtest {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut regtest = Self { data_dir: tempfile::tempdir().unwrap(), port, process: None };
        regtest.start_again();
        regtest
    }

    /// Starts the process on the data directory and port that it had before.
    pub(crate) fn start_again(&mut self) {
        let process = Command::new(executable())
            .arg(format!("-datadir={}", self.data_dir.path().display()))
            .arg(format!("-rpcport={}", self.port))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-dnsseed=0", "-txindex=0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let deadline = Instant::now() + PATIENCE;
        while self.try_call("getblockchaininfo", &[]).is_err() {
            assert!(Instant::now() < deadline, "bitcoind does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the process in order, as an operator would.
    pub(crate) fn stop(&mut self) {
        self.call("stop", &[]);
        assert!(self.process.take().unwrap().wait().unwrap().success());
    }

    pub(crate) fn access(&self) -> rpc::Access {
        rpc::Access {
            address: format!("127.0.0.1:{}", self.port),
            auth: rpc::Auth::Cookie(self.cookie_file()),
            allow_remote: false,
            search: String::new(),
        }
    }

    pub(crate) fn cookie(&self) -> String {
        std::fs::read_to_string(self.cookie_file()).unwrap()
    }

    fn cookie_file(&self) -> PathBuf {
        self.data_dir.path().join("regtest/.cookie")
    }

    fn try_call(&self, method: &str, params: &[Value]) -> Result<Value, bitcoincore_rpc::Error> {
        let url = format!("http://127.0.0.1:{}", self.port);
        Client::new(&url, Auth::CookieFile(self.cookie_file()))?.call(method, params)
    }

    pub(crate) fn call(&self, method: &str, params: &[Value]) -> Value {
        self.try_call(method, params).unwrap()
    }

    pub(crate) fn mine(&self, count: u32, to: &Address) -> Vec<BlockHash> {
        serde_json::from_value(self.call("generatetoaddress", &[json!(count), json!(to)])).unwrap()
    }

    /// Mines blocks that leave the mempool alone.
    pub(crate) fn mine_empty(&self, count: u32, to: &Address) {
        for _ in 0..count {
            self.call("generateblock", &[json!(to), json!([])]);
        }
    }
}

impl Drop for Regtest {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// `BITCOIND_EXE`, or what `contrib/bitcoind` finds or builds.
fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("BITCOIND_EXE") {
        return path.into();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/bitcoind");
    let found = Command::new(&script).stderr(Stdio::inherit()).output().unwrap();
    assert!(found.status.success(), "{} found no bitcoind", script.display());
    PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
}
