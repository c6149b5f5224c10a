//! Who comes to the port and does not speak TLS as it is spoken, or does not speak at all.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use outrigger_integration::{Done, on_regtest};
use outrigger_rpc_schema::NodeInfo;

use super::{Node, curl, run, said, text};

/// Longer than any handshake is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// As many as are waited for at once, and some more.
const STRANGERS: usize = 300;

/// The begin of TLS 1.1: a greeting that names nothing newer.
fn old_greeting() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session, two ciphers of that time, no compression.
    hello.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap_or_default();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

fn answer_to(address: &str, words: &[u8]) -> Done<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(words)?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard)?;
    Ok(heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_4_plain_http_is_sent_away_with_words_and_old_tls_with_an_alert() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        let plain = format!("GET / HTTP/1.1\r\nHost: {}\r\nX: {}\r\n\r\n", alice.address, "x".repeat(20_000));
        let heard = tokio::task::block_in_place(|| answer_to(&alice.address, plain.as_bytes()))?;
        let heard = said(&heard);
        assert!(heard.starts_with("HTTP/1.1 400 ") && heard.ends_with("must begin with https://\n"), "{heard}");
        let heard = tokio::task::block_in_place(|| answer_to(&alice.address, &old_greeting()))?;
        // One record: an alert, fatal, and nothing of a handshake.
        assert_eq!((heard.first(), heard.get(3..6), heard.len()), (Some(&21), Some(&[0, 2, 2][..]), 7), "{heard:?}");
        let garbage = tokio::task::block_in_place(|| answer_to(&alice.address, &[22, 9, 9, 255, 255, 0, 1, 2]))?;
        assert!(garbage.first().is_none_or(|first| *first == 21), "{garbage:?}");
        assert!(alice.sidecar.call(NodeInfo {}).await.is_ok());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_7_strangers_who_say_nothing_keep_no_place_and_nobody_from_the_file() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        let mut strangers = Vec::new();
        for number in 0..STRANGERS {
            let mut stream = TcpStream::connect(&alice.address)?;
            stream.set_read_timeout(Some(LIMIT))?;
            if number % 2 == 0 {
                // Some begin. Who was turned away already may be told so here.
                drop(stream.write_all(&[22, 3, 1]));
            }
            strangers.push(stream);
        }
        let call = ["-H", "content-type: application/json", "-d", r#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#];
        let (socket, url) = (alice.directory().join("rpc.sock"), format!("https://{}", alice.by_name()));
        let by_file = ["--unix-socket", text(&socket)?, "http://localhost"];
        let by_file = run(curl("tls_authority.pem").args(call).args(by_file)).await?;
        assert!(said(&by_file.stdout).contains("\"phase\""), "{by_file:?}");
        let turned_away = run(curl("tls_authority.pem").args(call).arg(&url)).await?;
        assert!(!turned_away.status.success(), "more are waited for than should be: {turned_away:?}");
        let ends = tokio::task::block_in_place(|| {
            strangers.iter_mut().map(|stream| stream.read(&mut [0; 64])).collect::<Vec<_>>()
        });
        let is_over = |end: &std::io::Result<usize>| match end {
            Ok(bytes) => *bytes == 0,
            Err(fault) => fault.kind() == std::io::ErrorKind::ConnectionReset,
        };
        assert!(ends.iter().all(is_over), "{ends:?}");
        assert!(alice.sidecar.client().call(NodeInfo {}).await.is_ok());
        Ok(())
    })
    .await
}
