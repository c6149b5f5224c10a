//! What bitcoind answers, through the client that the daemon uses: a server that says whatever the bytes say.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};

use bitcoin::{BlockHash, hashes::Hash};
use outrigger_sidecar::chain::ChainSource;
use outrigger_sidecar::chain::rpc::{Access, Auth, Bitcoind};
use outrigger_sidecar::chain::stop::StopFlag;

use super::Target;
use crate::draw::Draw;

pub(super) fn targets() -> Vec<Target> {
    let chain = r#"{"result":{"chain":"regtest","blocks":1,"headers":1,"bestblockhash":
        "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206","initialblockdownload":false},"error":null,"id":1}"#;
    let of = |call: u8, body: &str| [&[call], body.as_bytes()].concat();
    vec![
        Target::new("bitcoind_answer", body, move || {
            vec![
                of(0, chain),
                of(1, r#"{"result":"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206","id":1}"#),
                of(2, r#"{"result":{"height":5,"chainwork":"00ff","time":7,"confirmations":-1},"error":null,"id":1}"#),
                of(3, r#"{"result":"0100000000","error":null,"id":1}"#),
                of(4, r#"{"result":{"feerate":0.00012345,"blocks":2},"error":null,"id":1}"#),
                of(5, r#"{"result":{"mempoolminfee":1e-5},"error":null,"id":1}"#),
                of(1, r#"{"result":null,"error":{"code":-28,"message":"Loading"},"id":1}"#),
            ]
        }),
        Target::new("bitcoind_http", raw, || {
            vec![
                b"\x00HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
                b"\x01HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec(),
                b"\x02HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
            ]
        }),
    ]
}

/// A well formed answer with this body.
fn body(data: &[u8]) {
    let mut draw = Draw::new(data);
    let call = draw.byte();
    let body = draw.rest();
    // The end of the connection ends the body: the number of the call may be longer than its place.
    ask(call, &[b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", body].concat());
}

/// These bytes and then the end of the connection.
fn raw(data: &[u8]) {
    let mut draw = Draw::new(data);
    let call = draw.byte();
    ask(call, draw.rest());
}

/// The server, its port, and what it is to say next.
struct Server {
    address: String,
    answers: Mutex<Sender<Vec<u8>>>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (answers, next) = channel();
    std::thread::spawn(move || serve(&listener, &next));
    Server { address, answers: Mutex::new(answers) }
});

/// Each answer goes to every connection until the next one is given: a refused cookie is read again and asked with.
fn serve(listener: &TcpListener, next: &Receiver<Vec<u8>>) {
    let mut answer = Vec::new();
    for connection in listener.incoming() {
        let Ok(mut connection) = connection else { continue };
        while let Ok(newer) = next.try_recv() {
            answer = newer;
        }
        let mut request = Vec::new();
        let mut part = [0; 4096];
        // The request is one JSON object behind its head.
        while !request.ends_with(b"}") {
            match connection.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(count) => request.extend_from_slice(&part[..count]),
            }
        }
        // A client that hung up has heard enough.
        let _ = connection.write_all(&with_id(&answer, &request));
    }
}

/// The answer under the number of the request, where it says `"id":1`: others are not looked into.
fn with_id(answer: &[u8], request: &[u8]) -> Vec<u8> {
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
    let (Some(at), Some(asked)) = (find(answer, b"\"id\":1"), find(request, b"\"id\":")) else {
        return answer.to_vec();
    };
    let digits: Vec<u8> = request[asked + 5..].iter().copied().take_while(u8::is_ascii_digit).collect();
    [&answer[..at + 5], &digits, &answer[at + 6..]].concat()
}

fn ask(call: u8, answer: &[u8]) {
    let server = &*SERVER;
    server.answers.lock().expect("the server").send(answer.to_vec()).expect("the server");
    let auth = Auth::UserPass { user: "user".into(), password: String::from("password").into() };
    let access = Access { address: server.address.clone(), auth, allow_remote: false, search: String::new() };
    let bitcoind = Bitcoind::new(access, StopFlag::new());
    let fault = match call % 6 {
        0 => bitcoind.chain_info().err(),
        1 => bitcoind.block_hash(5).err(),
        2 => bitcoind.header(BlockHash::all_zeros()).err(),
        3 => bitcoind.block(BlockHash::all_zeros()).err(),
        4 => bitcoind.estimate_fee(2).err(),
        _ => bitcoind.mempool_min_fee().err(),
    };
    if let Some(fault) = fault {
        assert!(!fault.message.chars().any(char::is_control), "{:?}", fault.message);
        assert!(!fault.hint().is_empty());
    }
}
