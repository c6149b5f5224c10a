use tokio::io::{DuplexStream, duplex};

use super::*;

const SERVICE: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
/// An answer to a request that was fulfilled: from 127.0.0.1, port 0.
const DONE: [u8; 10] = [5, 0, 0, 1, 127, 0, 0, 1, 0, 0];

fn target(text: &str) -> PeerAddress {
    text.parse().unwrap()
}

/// Asks a proxy that says these things one after the other, each once it was told what is expected, and then hangs up or not.
async fn asked(address: &str, turns: &[(&[u8], &[u8])], hangs_up: bool) -> Result<(), ProxyFault> {
    let (mut ours, mut theirs) = duplex(1024);
    let address = target(address);
    let proxy = async move {
        for (told, says) in turns {
            let mut heard = vec![0; told.len()];
            theirs.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, told);
            theirs.write_all(says).await.unwrap();
        }
        if hangs_up {
            drop(theirs);
            None
        } else {
            Some(theirs)
        }
    };
    let (outcome, _held): (_, Option<DuplexStream>) = tokio::join!(ask(&mut ours, &address, "secret"), proxy);
    outcome
}

const HELLO: &[u8] = &[5, 2, 2, 0];
const LOGGED: &[u8] = b"\x01\x09outrigger\x06secret";

/// What the proxy is told last.
fn wish(kind: u8, host: &[u8], port: u16) -> Vec<u8> {
    [&[5, 1, 0, kind][..], host, &port.to_be_bytes()].concat()
}

fn wish_ip() -> Vec<u8> {
    wish(1, &[203, 0, 113, 7], 9735)
}

#[tokio::test(start_paused = true)]
async fn each_byte_of_each_kind_of_address_is_as_the_rfc_has_it() {
    let onion = [&[62][..], SERVICE.as_bytes()].concat();
    let name = [&[12][..], b"node.example"].concat();
    let ipv6: [u8; 16] = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    for (address, told) in [
        ("203.0.113.7:9735".to_owned(), wish_ip()),
        ("[2001:db8::7]:1".to_owned(), wish(4, &ipv6, 1)),
        ("node.example:65535".to_owned(), wish(3, &name, 65535)),
        (format!("{}:9735", SERVICE.to_uppercase()), wish(3, &onion, 9735)),
    ] {
        let turns = [(HELLO, &[5, 2][..]), (LOGGED, &[1, 0]), (&told, &DONE)];
        assert_eq!(asked(&address, &turns, false).await, Ok(()), "{address}");
        // One that takes everybody is not told a name.
        assert_eq!(asked(&address, &[(HELLO, &[5, 0]), (&told, &DONE)], false).await, Ok(()), "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_name_an_address_of_any_length_and_come_in_pieces() {
    let told = wish_ip();
    let name: Vec<u8> = [&[5, 0, 0, 3, 255][..], &[b'x'; 255], &[0, 1]].concat();
    let empty = [5, 0, 0, 3, 0, 0, 0];
    let ipv6: Vec<u8> = [&[5, 0, 0, 4][..], &[0; 18]].concat();
    for answer in [&name[..], &empty, &ipv6] {
        assert_eq!(asked("203.0.113.7:9735", &[(HELLO, &[5, 0]), (&told, answer)], false).await, Ok(()));
    }
    let pieces = [(HELLO, &[5][..]), (&[], &[0]), (&told, &DONE[..1]), (&[], &DONE[1..5]), (&[], &DONE[5..])];
    assert_eq!(asked("203.0.113.7:9735", &pieces, false).await, Ok(()));
}

/// The fault that comes of an answer, and what an operator reads of it.
async fn refused(turns: &[(&[u8], &[u8])], hangs_up: bool) -> (ProxyFault, String) {
    let fault = asked("203.0.113.7:9735", turns, hangs_up).await.unwrap_err();
    assert!(!fault.hint().is_empty());
    (fault.clone(), fault.to_string())
}

#[tokio::test(start_paused = true)]
async fn what_is_no_socks5_proxy_is_called_so() {
    let told = wish_ip();
    for (turns, fault, words) in [
        (
            &[(HELLO, &b"HT"[..])][..],
            ProxyFault::NotSocks5(Step::Greeting, b'H'),
            "after our greeting began with byte 0x48",
        ),
        (&[(HELLO, &[4, 0])], ProxyFault::NotSocks5(Step::Greeting, 4), "after our greeting began with byte 0x04"),
        (
            &[(HELLO, &[5, 2]), (LOGGED, &[5, 0])],
            ProxyFault::NotSocks5(Step::Login, 5),
            "after the user name began with byte 0x05",
        ),
        // An answer that is too long runs into the next.
        (
            &[(HELLO, &[5, 0, 9]), (&told, &DONE)],
            ProxyFault::NotSocks5(Step::Request, 9),
            "whom to connect to began with byte 0x09",
        ),
    ] {
        let (found, said) = refused(turns, false).await;
        assert_eq!(found, fault);
        assert!(said.contains("does not speak SOCKS5") && said.ends_with(words), "{said}");
        assert!(!found.retryable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_admit_us_says_how() {
    for (turns, fault, words) in [
        (
            &[(HELLO, &[5, 0xff][..])][..],
            ProxyFault::NoMethod,
            "the proxy takes neither a user name nor callers without one",
        ),
        (
            &[(HELLO, &[5, 1])],
            ProxyFault::NotOffered(1),
            "the proxy chose a way of admission that it was not offered (0x01)",
        ),
        (
            &[(HELLO, &[5, 2]), (LOGGED, &[1, 1])],
            ProxyFault::LoginRefused(1),
            "the proxy refused the user name (status 1)",
        ),
    ] {
        assert_eq!(refused(turns, false).await, (fault.clone(), words.to_owned()));
        assert!(!fault.retryable());
    }
}

#[tokio::test(start_paused = true)]
async fn every_reply_code_has_words_of_its_own_and_says_whether_to_try_again() {
    let told = wish_ip();
    let known: Vec<u8> = (1..=8).chain(0xf0..=0xf7).collect();
    let mut words = std::collections::BTreeSet::new();
    for code in 1..=u8::MAX {
        let answer = [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        let (fault, said) = refused(&[(HELLO, &[5, 0]), (&told, &answer)], false).await;
        assert_eq!(fault, ProxyFault::Answered(Reply(code)));
        assert!(said.ends_with(&format!("(reply {code:#04x})")), "{said}");
        assert_eq!(said.contains("has no meaning"), !known.contains(&code), "{said}");
        assert_eq!(fault.retryable(), ![2, 7, 8, 0xf4, 0xf5, 0xf6].contains(&code), "{said}");
        words.insert(said.split(" (reply").next().map(str::to_owned));
    }
    assert_eq!(words.len(), known.len() + 1, "no two codes share their words");
    // Some hang up behind the code.
    let (fault, _) = refused(&[(HELLO, &[5, 0]), (&told, &[5, 5])], true).await;
    assert_eq!(fault, ProxyFault::Answered(Reply(5)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_odd_or_too_long_is_refused() {
    let told = wish_ip();
    let odd = [5, 0, 0, 2, 0, 0];
    let (fault, said) = refused(&[(HELLO, &[5, 0]), (&told, &odd)], false).await;
    assert_eq!(
        (fault, &*said),
        (ProxyFault::AddressKind(2), "the proxy's answer has an address of an unknown kind (0x02)")
    );
    let long = [&DONE[..], &[0]].concat();
    let (fault, said) = refused(&[(HELLO, &[5, 0]), (&told, &long)], false).await;
    assert_eq!((fault, &*said), (ProxyFault::TooLong, "the proxy sent more than its answer"));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_hangs_up_is_told_at_which_step() {
    let told = wish_ip();
    for (turns, step, words) in [
        (&[(HELLO, &[][..])][..], Step::Greeting, "the proxy hung up after our greeting"),
        (&[(HELLO, &[5])], Step::Greeting, "the proxy hung up after our greeting"),
        (&[(HELLO, &[5, 2]), (LOGGED, &[1])], Step::Login, "the proxy hung up after the user name"),
        (&[(HELLO, &[5, 0]), (&told, &[])], Step::Request, "the proxy hung up after it was told whom to connect to"),
        (
            &[(HELLO, &[5, 0]), (&told, &DONE[..9])],
            Step::Request,
            "the proxy hung up after it was told whom to connect to",
        ),
        // It connects, and closes at once.
        (&[(HELLO, &[5, 0]), (&told, &DONE)], Step::Request, "the proxy hung up after it was told whom to connect to"),
    ] {
        let (fault, said) = refused(turns, true).await;
        assert_eq!((&fault, &*said), (&ProxyFault::HungUp(step), words));
        assert!(fault.retryable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_stalls_is_waited_for_within_limits() {
    let told = wish_ip();
    for (turns, step, limit, words) in [
        (&[][..], Step::Greeting, PROXY_TIMEOUT, "the proxy gave no answer in time after our greeting"),
        (&[(HELLO, &[5][..])], Step::Greeting, PROXY_TIMEOUT, "the proxy gave no answer in time after our greeting"),
        (
            &[(HELLO, &[5, 2]), (LOGGED, &[1])],
            Step::Login,
            PROXY_TIMEOUT,
            "the proxy gave no answer in time after the user name",
        ),
        (
            &[(HELLO, &[5, 0]), (&told, &DONE[..9])],
            Step::Request,
            REACH_TIMEOUT,
            "the proxy gave no answer in time after it was told whom to connect to",
        ),
    ] {
        let begun = tokio::time::Instant::now();
        let (fault, said) = refused(turns, false).await;
        assert_eq!((&fault, &*said), (&ProxyFault::Silent(step), words));
        // On the clock of this test, which moves only while everybody waits.
        assert_eq!(begun.elapsed().as_secs(), limit.as_secs());
        assert!(fault.retryable());
    }
}

#[test]
fn peers_are_told_apart_and_say_nothing_of_themselves() {
    let peer = |byte: u8| {
        let key = bitcoin::secp256k1::SecretKey::from_slice(&[byte; 32]).unwrap();
        NodeId::new(key.public_key(&bitcoin::secp256k1::Secp256k1::signing_only()))
    };
    let at = "127.0.0.1:9050".parse().unwrap();
    let (proxy, restarted) = (Proxy::new(at, false, [1; 16]), Proxy::new(at, false, [2; 16]));
    let password = proxy.password(&peer(1));
    assert_eq!((password.len(), password == proxy.password(&peer(1))), (64, true));
    assert_ne!(password, proxy.password(&peer(2)));
    assert_ne!(password, restarted.password(&peer(1)));
    assert!(!format!("{proxy:?}").contains("salt"));
}

#[test]
fn a_proxy_is_for_onion_services_or_for_everybody() {
    let at = "127.0.0.1:9050".parse().unwrap();
    let onion = target(&format!("{SERVICE}:1")).host;
    for (always, others) in [(false, false), (true, true)] {
        let proxy = Proxy::new(at, always, [0; 16]);
        assert!(proxy.is_for(&onion));
        for host in ["203.0.113.7:1", "[::1]:1", "node.example:1"] {
            assert_eq!(proxy.is_for(&target(host).host), others);
        }
    }
}
