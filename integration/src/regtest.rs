//! The stage of one test: a regtest chain of its own and a directory that is kept when the test fails.

use std::ops::Range;
use std::path::PathBuf;

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, ScriptBuf, WPubkeyHash};
use outrigger_rpc_schema::{ChannelOpen, ChannelState};
use serde_json::json;
use tempfile::TempDir;

use crate::{Bitcoind, Done, Sidecar};

/// What mining the first blocks of regtest pays, in satoshi.
pub const REWARD_SAT: u64 = 5_000_000_000;

/// A chain and a directory, both of one test alone.
pub struct Regtest {
    /// The chain, with one block beyond the first.
    pub bitcoind: Bitcoind,
    directory: TempDir,
    passed: bool,
}

impl Regtest {
    /// The directory of this name, for a node's data; made where it is missing.
    pub fn directory(&self, name: &str) -> Done<PathBuf> {
        let directory = self.directory.path().join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Starts a daemon of this name.
    pub async fn sidecar(&self, name: &str) -> Done<Sidecar> {
        self.sidecar_with(name, &[]).await
    }

    /// Starts a daemon of this name with more on its command line.
    pub async fn sidecar_with(&self, name: &str, arguments: &[&str]) -> Done<Sidecar> {
        Sidecar::start(&self.directory(name)?, name, &self.bitcoind, arguments).await
    }

    /// Starts two daemons at once; the first has coins and is connected to the second.
    pub async fn pair(&self) -> Done<(Sidecar, Sidecar)> {
        let (alice, bob) = tokio::try_join!(self.sidecar("alice"), self.sidecar("bob"))?;
        alice.fund(&self.bitcoind).await?;
        tokio::try_join!(alice.until_synced_with(&self.bitcoind), bob.until_synced_with(&self.bitcoind))?;
        alice.connect(&bob).await?;
        Ok((alice, bob))
    }

    /// Opens a channel and mines until it is deep enough for anybody.
    pub async fn open(&self, from: &Sidecar, order: ChannelOpen) -> Done<Opened> {
        let (channel_id, funding_txid) = from.open(order).await?;
        let funding_fee_sat = self.confirm(&funding_txid).await?;
        Ok(Opened { channel_id, funding_txid, funding_fee_sat })
    }

    /// Opens a channel between two daemons and waits until both can pay through it.
    pub async fn channel(&self, from: &Sidecar, to: &Sidecar, funding_sat: u64, push_msat: u64) -> Done<Opened> {
        let order = ChannelOpen {
            node_id: to.node_id().await?,
            funding_sat,
            push_msat: Some(push_msat),
            idempotency_key: "channel".to_owned(),
            ..Default::default()
        };
        let opened = self.open(from, order).await?;
        for node in [from, to] {
            node.until_channel_is(&opened.channel_id, ChannelState::Normal).await?;
        }
        Ok(opened)
    }

    /// Another bitcoind has found other and more blocks from this height on, without any transaction. What the old ones held
    /// waits to be mined again.
    pub async fn reorganise(&self, first_gone: u32) -> Done<()> {
        let directory = self.directory(&format!("rival of {}", self.bitcoind.height().await?))?;
        let mut rival = Bitcoind::start(&directory).await?;
        copy_blocks(&self.bitcoind, &rival, 1..first_gone).await?;
        let more = self.bitcoind.height().await? + 2 - first_gone;
        // Paid to the same address, the new blocks could be the old ones.
        let payee = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([1; 20]));
        rival.mine(more, &Address::from_script(&payee, Network::Regtest)?.to_string()).await?;
        copy_blocks(&rival, &self.bitcoind, first_gone..first_gone + more).await?;
        rival.stop().await
    }

    /// Waits for a transaction, mines it six blocks deep, and tells its fee in satoshi.
    pub async fn confirm(&self, txid: &str) -> Done<u64> {
        self.bitcoind.until_mempool_holds(txid).await?;
        let fee_sat = self.bitcoind.fee_sat(txid).await?;
        self.bitcoind.mine_to_nobody(6).await?;
        Ok(fee_sat)
    }
}

/// A channel whose funding transaction is confirmed.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The channel's name.
    pub channel_id: String,
    /// The id of its funding transaction.
    pub funding_txid: String,
    /// What that transaction paid in fees, in satoshi.
    pub funding_fee_sat: u64,
}

/// Runs a test on a chain of its own. Where it fails, its directory with all logs stays, and is named.
pub async fn on_regtest(test: impl AsyncFnOnce(&mut Regtest) -> Done<()>) -> Done<()> {
    let directory = tempfile::Builder::new().prefix("outrigger-test-").tempdir()?;
    let chain = directory.path().join("bitcoind");
    std::fs::create_dir(&chain)?;
    let bitcoind = Bitcoind::start(&chain).await?;
    // A chain whose tip is old counts as not synced, and a new one has only the genesis block of 2011.
    bitcoind.mine_to_nobody(1).await?;
    let mut regtest = Regtest { bitcoind, directory, passed: false };
    test(&mut regtest).await?;
    regtest.passed = true;
    Ok(())
}

async fn copy_blocks(from: &Bitcoind, to: &Bitcoind, heights: Range<u32>) -> Done<()> {
    for height in heights {
        let hash = from.call("getblockhash", json!([height])).await?;
        let block = from.call("getblock", json!([hash, 0])).await?;
        to.call("submitblock", json!([block])).await?;
    }
    Ok(())
}

impl Drop for Regtest {
    /// Reached also by the unwinding of an assertion that failed.
    fn drop(&mut self) {
        if !self.passed {
            self.directory.disable_cleanup(true);
            eprintln!("the logs are in {}", self.directory.path().display());
        }
    }
}
