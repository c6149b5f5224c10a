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
}

/// bitcoind behind its RPC. Calls block the calling thread.
pub struct Bitcoind {
    calls: Client,
    poll: Client,
    gate: Gate,
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
        Self { calls: client(CALL_TIMEOUT), poll: client(super::follow::PATIENCE + POLL_GRACE), gate: Gate::default() }
    }

    fn call<T: for<'a> Deserialize<'a>>(
        &self,
        urgency: Urgency,
        method: &str,
        params: &[Value],
    ) -> Result<T, RpcFault> {
        let _pass = self.gate.enter(urgency);
        self.calls.call(method, params).map_err(into_fault)
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
            match self.poll.call::<Value>("waitfornewblock", &params).map_err(into_fault) {
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
                Err(RpcFault::new(FaultKind::Unauthorized, format_args!("HTTP status {}", answer.status)))
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
                let cookie = std::fs::read_to_string(path)
                    .map_err(|error| RpcFault::new(FaultKind::NoCookie, format_args!("{}: {error}", path.display())))?;
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
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn btc_8_amounts_are_exact_decimals() {
        assert_eq!(exact_sat(&raw("0.00001000")), Some(1000));
        assert_eq!(exact_sat(&raw("0.29000001")), Some(29_000_001));
        let same = ["0.00001", "1e-5", "1E-5", "10.0e-6", "0.01e-3", "0.000000001e+4", "0.000010000000000000000000"];
        for text in same {
            assert_eq!(exact_sat(&raw(text)), Some(1000), "{text}");
        }
        assert_eq!(exact_sat(&raw("184467440737.09551615")), Some(u64::MAX));
        assert_eq!((exact_sat(&raw("0")), exact_sat(&raw("21e6"))), (Some(0), Some(2_100_000_000_000_000)));
        let none = ["-1", "-0.00001", "1e400", "1e-400", "1e-9", "1e99999999999", "null", "\"x\"", "0.000000001"];
        for text in none.into_iter().chain(["true", "[]", "{}", "184467440737.09551616"]) {
            assert_eq!(exact_sat(&raw(text)), None, "{text}");
        }
    }

    #[test]
    fn answers_may_have_more_fields_and_fewer_optional_ones() {
        let hash = "00".repeat(32);
        let info: BlockchainInfo = serde_json::from_str(&format!(
            r#"{{"blocks":1,"headers":2,"bestblockhash":"{hash}","initialblockdownload":false,"new":[{{}}]}}"#
        ))
        .unwrap();
        assert_eq!((info.blocks, info.headers, info.pruneheight), (1, 2, None));
        let header: BlockHeader = serde_json::from_str(&format!(
            r#"{{"height":0,"confirmations":-1,"chainwork":"{}02","time":5,"mediantime":4}}"#,
            "00".repeat(31)
        ))
        .unwrap();
        let header = header.into_info().unwrap();
        assert!(!header.active && header.previous.is_none());
        assert_eq!(header.chainwork[31], 2);
        assert_eq!((header.time, header.median_time), (5, 4));
    }

    /// A server that gives these answers, one for each connection, and returns the credentials that it was shown.
    fn serve(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let run = move || {
            let mut shown = Vec::new();
            for answer in answers {
                let mut stream = listener.accept().unwrap().0;
                let mut request = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                for line in request.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()) {
                    match line.split_once(": ") {
                        Some(("Authorization", value)) => shown.push(value.to_owned()),
                        Some(("Content-Length", value)) => length = value.parse().unwrap(),
                        _ => {}
                    }
                }
                let mut body = vec![0; length];
                request.read_exact(&mut body).unwrap();
                let id = serde_json::from_slice::<Value>(&body).unwrap()["id"].to_string();
                stream.write_all(answer.replace("$ID", &id).as_bytes()).unwrap();
            }
            shown
        };
        (address, std::thread::spawn(run))
    }

    fn http(status: &str, body: &str) -> String {
        // The id may be longer than its place, so the end of the connection ends the body.
        format!("HTTP/1.1 {status}\r\n\r\n{body}")
    }

    fn client(address: String, auth: Auth) -> Bitcoind {
        Bitcoind::new(Access { address, auth, allow_remote: false }, StopFlag::new())
    }

    #[test]
    fn btc_4_a_refused_cookie_is_read_again_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".cookie");
        std::fs::write(&path, "__cookie__:old").unwrap();
        let good = http("200 OK", r#"{"result":null,"error":{"code":-8,"message":"no"},"id":$ID}"#);
        let bad = http("401 Unauthorized", "");
        let (address, server) = serve(vec![good.clone(), bad.clone(), good, bad.clone(), bad]);
        let bitcoind = client(address, Auth::Cookie(path.clone()));
        assert_eq!(bitcoind.block_hash(0), Ok(None));
        std::fs::write(&path, "__cookie__:new\n").unwrap();
        assert_eq!(bitcoind.block_hash(0), Ok(None));
        assert_eq!(bitcoind.block_hash(0).unwrap_err().kind, FaultKind::Unauthorized);
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        let (old, new) = (basic("__cookie__:old"), basic("__cookie__:new"));
        assert_eq!(server.join().unwrap(), [old.clone(), old, new.clone(), new.clone(), new]);
    }

    #[test]
    fn bad_input_99_answers_that_are_not_bitcoinds_are_faults() {
        let cases = [
            // First: known credentials would be tried again.
            (http("403 Forbidden", ""), FaultKind::Unauthorized),
            (http("503 Service Unavailable", "Work queue depth exceeded"), FaultKind::Busy),
            (http("200 OK", "<html>it works</html>"), FaultKind::Malformed),
            (http("200 OK", r#"{"result":{"blocks":1"#), FaultKind::Malformed),
            (http("200 OK", r#"{"result":{"blocks":-1},"error":null,"id":$ID}"#), FaultKind::Malformed),
            (http("200 OK", r#"{"result":{},"error":null,"id":"another"}"#), FaultKind::Malformed),
            (
                http("404 Not Found", r#"{"result":null,"error":{"code":-32601,"message":"x"},"id":$ID}"#),
                FaultKind::NoSuchCall,
            ),
            (
                http("500 Oops", r#"{"result":null,"error":{"code":-28,"message":"Verifying"},"id":$ID}"#),
                FaultKind::WarmingUp,
            ),
            (String::new(), FaultKind::Unreachable),
        ];
        let (answers, kinds): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
        let (address, server) = serve(answers);
        let auth = Auth::UserPass { user: "user".to_owned(), password: Zeroizing::new("password".to_owned()) };
        let bitcoind = client(address, auth);
        for kind in kinds {
            let fault = bitcoind.chain_info().unwrap_err();
            assert_eq!(fault.kind, kind, "{fault}");
            assert!(!fault.to_string().contains("password"));
        }
        server.join().unwrap();
        assert_eq!(bitcoind.chain_info().unwrap_err().kind, FaultKind::Unreachable, "nobody listens any more");
    }

    /// A block whose second transaction has this witness.
    fn block_with(witness: bitcoin::Witness) -> Block {
        let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let mut tx = block.txdata[0].clone();
        tx.input[0].witness = witness;
        block.txdata.push(tx);
        block
    }

    fn block_answer(hex: &str) -> String {
        http("200 OK", &format!(r#"{{"result":"{hex}","error":null,"id":$ID}}"#))
    }

    /// Each as large as a block can hold: 500,000 empty pushes, 998 signatures, one push of almost the whole weight.
    #[test]
    fn prs_7_blocks_with_the_largest_witnesses_are_read() {
        let empty = bitcoin::Witness::from_slice(&[[0_u8; 0]; 500_000]);
        let signatures = bitcoin::Witness::from_slice(&vec![[1_u8; 64]; 998]);
        let one = bitcoin::Witness::from_slice(&[vec![2_u8; 3_990_000]]);
        let blocks = [empty, signatures, one].map(block_with);
        let answers =
            blocks.iter().map(|block| block_answer(&bitcoin::consensus::encode::serialize_hex(block))).collect();
        let (address, server) = serve(answers);
        let auth = Auth::UserPass { user: "user".to_owned(), password: Zeroizing::new("password".to_owned()) };
        let bitcoind = client(address, auth);
        for block in blocks {
            let read = bitcoind.block(block.block_hash()).unwrap();
            assert_eq!(read.compute_merkle_root(), block.compute_merkle_root());
            assert_eq!(read.txdata[1].input[0].witness.len(), block.txdata[1].input[0].witness.len());
        }
        server.join().unwrap();
    }

    #[test]
    fn prs_7_a_block_that_cannot_be_read_is_a_fault_of_its_own() {
        let whole = bitcoin::consensus::encode::serialize_hex(&block_with(bitcoin::Witness::new()));
        let cut = &whole[..whole.len() - 2];
        // 2^32 transactions; a byte too many; no bytes at all; not hex.
        let endless = format!("{}feffffffff", &whole[..160]);
        let bad = [cut, &format!("{whole}00"), &endless, "", "zz"];
        let (address, server) = serve(bad.iter().map(|hex| block_answer(hex)).collect());
        let auth = Auth::UserPass { user: "user".to_owned(), password: Zeroizing::new("password".to_owned()) };
        let bitcoind = client(address, auth);
        let hash = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
        for hex in bad {
            let fault = bitcoind.block(hash).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Undecodable, "{hex}: {fault}");
            assert!(fault.message.contains(&hash.to_string()), "{fault}");
        }
        server.join().unwrap();
    }

    #[test]
    fn an_old_bitcoind_without_the_long_poll_is_polled() {
        let unknown = http("200 OK", r#"{"result":null,"error":{"code":-1,"message":"help"},"id":$ID}"#);
        let missing = http("404 No", r#"{"result":null,"error":{"code":-32601,"message":"x"},"id":$ID}"#);
        let (address, server) = serve(vec![unknown, missing]);
        let auth = Auth::UserPass { user: "user".to_owned(), password: Zeroizing::new("password".to_owned()) };
        let known = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
        let stop = StopFlag::new();
        stop.raise();
        let bitcoind = client(address, auth);
        assert_eq!(bitcoind.wait_for_new_block(known, Duration::from_secs(9), &stop), Ok(()));
        assert_eq!(server.join().unwrap().len(), 2);
    }
}
