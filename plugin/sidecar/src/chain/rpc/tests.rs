//! The client against a scripted bitcoind: answers, credentials, limits.

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
    Bitcoind::new(Access { address, auth, allow_remote: false, search: String::new() }, StopFlag::new())
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
    let answers = blocks.iter().map(|block| block_answer(&bitcoin::consensus::encode::serialize_hex(block))).collect();
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
