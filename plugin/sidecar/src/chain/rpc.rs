//! bitcoind's RPC as a [`ChainSource`].
//!
//! The calls and their envelope are `bitcoincore-rpc`'s; the transport below it (`http.rs`) and the result types
//! are ours, so that size, time and unknown fields of an answer are bounded by us.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hex::FromHex;
use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};
use bitcoincore_rpc::jsonrpc::{self, Request, Response, Transport};
use bitcoincore_rpc::{Client, RpcApi};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::calls::Calls;
use super::fault::{FaultKind, RpcFault};
use super::gate::{Gate, Urgency};
use super::http::{self, Limits};
use super::stop::StopFlag;
use super::{ChainInfo, ChainSource, HeaderInfo, PackageAnswer};
use crate::clock::Clock;
use crate::lock::Mutex;

/// Longest wait for an ordinary answer. bitcoind may be silent for long while it flushes (BTC-4).
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// What the long poll may take beyond the time it asked for.
const POLL_GRACE: Duration = Duration::from_secs(10);
/// The pause between polls of a bitcoind without `waitfornewblock`.
const POLL_PAUSE: Duration = Duration::from_secs(1);

/// How bitcoind knows us.
#[derive(Clone)]
pub enum Auth {
    /// The cookie file that bitcoind writes at each start.
    Cookie(PathBuf),
    /// `rpcuser` and `rpcpassword`, or an `rpcauth` pair.
    UserPass {
        /// The user.
        user: String,
        /// The password, wiped when dropped.
        password: Zeroizing<String>,
    },
}

/// Where bitcoind is and how to get in.
#[derive(Clone)]
pub struct Access {
    /// `host:port` of the RPC server.
    pub address: String,
    /// The credentials.
    pub auth: Auth,
    /// Whether an address that is not of this machine may be used; the connection is not encrypted (BTC-11).
    pub allow_remote: bool,
    /// Where these were looked for: told where they are not good. Empty where there is nothing to tell.
    pub search: String,
}

/// bitcoind behind its RPC. Calls block the calling thread.
pub struct Bitcoind {
    calls: Client,
    poll: Client,
    gate: Gate,
    counted: Arc<Calls>,
}

impl Bitcoind {
    /// Makes no connection yet. Every call ends soon after `stop` is raised.
    pub fn new(access: Access, stop: StopFlag) -> Self {
        let access = Arc::new(access);
        let client = |timeout| {
            let wire =
                Wire { access: Arc::clone(&access), stop: stop.clone(), timeout, authorization: Mutex::default() };
            Client::from_jsonrpc(jsonrpc::Client::with_transport(wire))
        };
        Self {
            calls: client(CALL_TIMEOUT),
            poll: client(super::follow::PATIENCE + POLL_GRACE),
            gate: Gate::default(),
            counted: Arc::default(),
        }
    }

    fn call<T: for<'a> Deserialize<'a>>(
        &self,
        urgency: Urgency,
        method: &'static str,
        params: &[Value],
    ) -> Result<T, RpcFault> {
        let asked = Clock::monotonic();
        let _pass = self.gate.enter(urgency);
        let _under_way = self.counted.begun(asked);
        self.made(&self.calls, method, params)
    }

    fn made<T: for<'a> Deserialize<'a>>(
        &self,
        client: &Client,
        method: &'static str,
        params: &[Value],
    ) -> Result<T, RpcFault> {
        let begun = Clock::monotonic();
        let outcome = client.call(method, params).map_err(into_fault);
        self.counted.ended(method, begun, &outcome);
        outcome
    }

    /// What was asked of bitcoind so far.
    pub fn counted(&self) -> Arc<Calls> {
        self.counted.clone()
    }
}

fn into_fault(error: bitcoincore_rpc::Error) -> RpcFault {
    match error {
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Rpc(error)) => RpcFault::from_code(error.code, &error.message),
        bitcoincore_rpc::Error::JsonRpc(jsonrpc::Error::Transport(error)) => match error.downcast::<RpcFault>() {
            Ok(fault) => *fault,
            Err(other) => RpcFault::new(FaultKind::Unreachable, other),
        },
        other => RpcFault::new(FaultKind::Malformed, other),
    }
}

/// `Ok(None)` where bitcoind says that there is no such thing.
fn found<T>(result: Result<T, RpcFault>) -> Result<Option<T>, RpcFault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(fault) if fault.kind == FaultKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

#[derive(Deserialize)]
struct BlockchainInfo {
    blocks: u32,
    headers: u32,
    bestblockhash: BlockHash,
    initialblockdownload: bool,
    pruneheight: Option<u32>,
}

#[derive(Deserialize)]
struct BlockHeader {
    height: u32,
    confirmations: i64,
    previousblockhash: Option<BlockHash>,
    chainwork: String,
    time: u64,
    mediantime: u64,
}

impl BlockHeader {
    fn into_info(self) -> Result<HeaderInfo, RpcFault> {
        let chainwork = <[u8; 32]>::from_hex(&self.chainwork)
            .map_err(|_| RpcFault::new(FaultKind::Malformed, "chainwork is not 32 bytes of hex"))?;
        Ok(HeaderInfo {
            height: self.height,
            previous: self.previousblockhash,
            active: self.confirmations > 0,
            chainwork,
            time: self.time,
            median_time: self.mediantime,
        })
    }
}

#[derive(Deserialize)]
struct FeeEstimate {
    feerate: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct MempoolInfo {
    mempoolminfee: Box<RawValue>,
    minrelaytxfee: Box<RawValue>,
}

#[derive(Deserialize)]
struct PackageResult {
    package_msg: String,
    #[serde(rename = "tx-results", default)]
    results: BTreeMap<String, PackageTx>,
}

#[derive(Deserialize)]
struct PackageTx {
    txid: Option<Txid>,
    error: Option<String>,
}

impl PackageResult {
    fn into_answer(self) -> PackageAnswer {
        if self.package_msg == "success" {
            return PackageAnswer::Accepted;
        }
        let words = |text: String| RpcFault::new(FaultKind::Refused(0), text).message;
        let named = self.results.into_values().filter_map(|tx| Some((tx.txid, words(tx.error?))));
        let mut reasons: Vec<_> = named.collect();
        if reasons.is_empty() {
            reasons.push((None, words(self.package_msg)));
        }
        PackageAnswer::Refused(reasons)
    }
}

#[derive(Deserialize)]
struct SpendingPrevout {
    spendingtxid: Option<Txid>,
}

/// A decimal amount of bitcoin, read without a detour over floating point (BTC-8). bitcoind writes no exponent, but JSON
/// allows one, and what stands between may write it. `None` for what is negative, finer than a satoshi or beyond `u64`.
fn exact_sat(number: &RawValue) -> Option<u64> {
    /// Decimals of a bitcoin.
    const DECIMALS: i32 = 8;
    let (mantissa, exponent) = match number.get().split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number.get(), 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
    let shift = exponent.checked_add(DECIMALS)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scale = 10_u64.checked_pow(shift.unsigned_abs())?;
    if shift >= 0 { digits.checked_mul(scale) } else { digits.is_multiple_of(scale).then(|| digits / scale) }
}

impl ChainSource for Bitcoind {
    fn chain_info(&self) -> Result<ChainInfo, RpcFault> {
        let info: BlockchainInfo = self.call(Urgency::Routine, "getblockchaininfo", &[])?;
        Ok(ChainInfo {
            blocks: info.blocks,
            headers: info.headers,
            best: info.bestblockhash,
            initial_block_download: info.initialblockdownload,
            prune_height: info.pruneheight,
        })
    }

    fn block_hash(&self, height: u32) -> Result<Option<BlockHash>, RpcFault> {
        found(self.call(Urgency::Routine, "getblockhash", &[json!(height)]))
    }

    fn header(&self, hash: BlockHash) -> Result<Option<HeaderInfo>, RpcFault> {
        let header: Option<BlockHeader> = found(self.call(Urgency::Routine, "getblockheader", &[json!(hash)]))?;
        header.map(BlockHeader::into_info).transpose()
    }

    fn block(&self, hash: BlockHash) -> Result<Block, RpcFault> {
        let hex: String = self.call(Urgency::Routine, "getblock", &[json!(hash), json!(0)])?;
        deserialize_hex(&hex)
            .map_err(|error| RpcFault::new(FaultKind::Undecodable, format_args!("block {hash}: {error}")))
    }

    fn wait_for_new_block(&self, known: BlockHash, patience: Duration, stop: &StopFlag) -> Result<(), RpcFault> {
        let millis = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        // With the known tip as a parameter no block can slip in before the wait; bitcoind before 29 has no such parameter.
        for params in [vec![json!(millis), json!(known)], vec![json!(millis)]] {
            match self.made::<Value>(&self.poll, "waitfornewblock", &params) {
                Ok(_) => return Ok(()),
                Err(fault) if matches!(fault.kind, FaultKind::NoSuchCall | FaultKind::Refused(-1)) => {}
                Err(fault) => return Err(fault),
            }
        }
        stop.sleep(POLL_PAUSE.min(patience));
        Ok(())
    }

    fn broadcast(&self, tx: &Transaction) -> Result<Txid, RpcFault> {
        // Zero: no upper feerate. The claim of a large HTLC may cost more than bitcoind's guess of a mistake.
        self.call(Urgency::Deadline, "sendrawtransaction", &[json!(serialize_hex(tx)), json!(0)])
    }

    fn submit_package(&self, package: &[Transaction]) -> Result<PackageAnswer, RpcFault> {
        let package: Vec<String> = package.iter().map(serialize_hex).collect();
        // Zero: no upper feerate, as above.
        let result: PackageResult = self.call(Urgency::Deadline, "submitpackage", &[json!(package), json!(0)])?;
        Ok(result.into_answer())
    }

    fn mempool_spender(&self, outpoint: OutPoint) -> Result<Option<Txid>, RpcFault> {
        let asked = json!([{ "txid": outpoint.txid, "vout": outpoint.vout }]);
        let spends: Vec<SpendingPrevout> = self.call(Urgency::Deadline, "gettxspendingprevout", &[asked])?;
        Ok(spends.into_iter().find_map(|spend| spend.spendingtxid))
    }

    fn mempool_transaction(&self, txid: Txid) -> Result<Option<Transaction>, RpcFault> {
        let Some(hex): Option<String> = found(self.call(Urgency::Deadline, "getrawtransaction", &[json!(txid)]))?
        else {
            return Ok(None);
        };
        let tx = deserialize_hex(&hex).map_err(|error| RpcFault::new(FaultKind::Malformed, error))?;
        Ok(Some(tx))
    }

    fn estimate_fee(&self, target: u16) -> Result<Option<u64>, RpcFault> {
        let estimate: FeeEstimate = self.call(Urgency::Routine, "estimatesmartfee", &[json!(target)])?;
        Ok(estimate.feerate.and_then(|feerate| exact_sat(&feerate)))
    }

    fn mempool_min_fee(&self) -> Result<u64, RpcFault> {
        let info: MempoolInfo = self.call(Urgency::Routine, "getmempoolinfo", &[])?;
        let fees = exact_sat(&info.mempoolminfee).zip(exact_sat(&info.minrelaytxfee));
        let (mempool, relay) = fees.ok_or_else(|| RpcFault::new(FaultKind::Malformed, "a feerate is no amount"))?;
        Ok(mempool.max(relay))
    }
}

/// `bitcoincore-rpc`'s way to the socket.
struct Wire {
    access: Arc<Access>,
    stop: StopFlag,
    timeout: Duration,
    /// The last header value that was read from the cookie file, until bitcoind refuses it.
    authorization: Mutex<Option<Zeroizing<String>>>,
}

impl Wire {
    fn exchange(&self, request: &Request<'_>) -> Result<Response, RpcFault> {
        let body = serde_json::to_vec(request).map_err(|error| RpcFault::new(FaultKind::Malformed, error))?;
        let known = self.authorization.lock().clone();
        let fresh = known.is_none();
        let authorization = known.map_or_else(|| self.read_authorization(), Ok)?;
        let response = match self.post(&authorization, &body) {
            // bitcoind writes a new cookie at each start: a refused one is read again, once.
            Err(fault) if fault.kind == FaultKind::Unauthorized && !fresh => {
                let authorization = self.read_authorization()?;
                self.post(&authorization, &body)?
            }
            other => other?,
        };
        if response.id != request.id {
            return Err(RpcFault::new(FaultKind::Malformed, "the answer is to another request"));
        }
        Ok(response)
    }

    fn post(&self, authorization: &str, body: &[u8]) -> Result<Response, RpcFault> {
        let limits = Limits {
            deadline: Clock::monotonic() + self.timeout,
            stop: &self.stop,
            allow_remote: self.access.allow_remote,
        };
        let answer = http::post(&self.access.address, authorization, body, &limits)?;
        match answer.status {
            401 | 403 => {
                *self.authorization.lock() = None;
                let fault = RpcFault::new(FaultKind::Unauthorized, format_args!("HTTP status {}", answer.status));
                Err(fault.after(&self.access.search))
            }
            503 => Err(RpcFault::new(FaultKind::Busy, "HTTP status 503")),
            // Errors come with status 404 or 500 and an error object, which says more than the status.
            status => serde_json::from_slice(&answer.body).map_err(|error| {
                RpcFault::new(FaultKind::Malformed, format_args!("HTTP status {status} without JSON-RPC: {error}"))
            }),
        }
    }

    fn read_authorization(&self) -> Result<Zeroizing<String>, RpcFault> {
        let pair = match &self.access.auth {
            Auth::UserPass { user, password } => Zeroizing::new(format!("{user}:{}", password.as_str())),
            Auth::Cookie(path) => {
                let cookie = std::fs::read_to_string(path).map_err(|error| {
                    let fault = RpcFault::new(FaultKind::NoCookie, format_args!("{}: {error}", path.display()));
                    fault.after(&self.access.search)
                })?;
                Zeroizing::new(cookie.trim().to_owned())
            }
        };
        let header = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        *self.authorization.lock() = Some(header.clone());
        Ok(header)
    }
}

impl Transport for Wire {
    fn send_request(&self, request: Request<'_>) -> Result<Response, jsonrpc::Error> {
        self.exchange(&request).map_err(|fault| jsonrpc::Error::Transport(Box::new(fault)))
    }

    fn send_batch(&self, requests: &[Request<'_>]) -> Result<Vec<Response>, jsonrpc::Error> {
        requests.iter().cloned().map(|request| self.send_request(request)).collect()
    }

    fn fmt_target(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.access.address)
    }
}

#[cfg(test)]
mod tests;
