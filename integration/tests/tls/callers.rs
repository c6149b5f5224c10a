//! Whoever knows the daemon by its certificate is served; nobody else learns anything, and nothing is sent to anybody else.

use std::process::Stdio;

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Client as Judging, Done, on_regtest};
use outrigger_rpc_schema::rendezvous::{CERTIFICATE_FILE, COOKIE_FILE};
use outrigger_rpc_schema::{CallError, Client, EventKind, EventSubscribe, NodeInfo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::{Node, cli, curl, fixture, put, run, said, text};

#[tokio::test(flavor = "multi_thread")]
async fn rpc_4_the_port_speaks_tls_to_whoever_knows_its_certificate_and_nothing_else() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        let node_id = alice.sidecar.node_id().await?;
        let published = std::fs::read_to_string(alice.directory().join(CERTIFICATE_FILE))?;
        assert_eq!(published, std::fs::read_to_string(fixture("tls_certificate.pem"))?);
        let call = async |address: &str, trusted: &str| {
            let trusted = std::fs::read_to_string(fixture(trusted))?;
            let client = Judging::with_token_over_tls(address, &alice.token, Some(&trusted))?;
            Done::Ok(client.call(NodeInfo {}).await)
        };
        let by_name = alice.by_name();
        let known = [
            (&alice.address, "tls_certificate.pem"),
            (&alice.address, "tls_authority.pem"),
            (&by_name, "tls_authority.pem"),
        ];
        for (address, trusted) in known {
            assert_eq!(call(address, trusted).await??.node_id, node_id, "{address} {trusted}");
        }
        let refused = call(&alice.address, "tls_other_authority.pem").await?;
        assert!(
            matches!(&refused, Err(CallError::Untrusted(words)) if words.contains("nobody that is trusted")),
            "{refused:?}"
        );
        for (trusted, words) in
            [("nothing", "there is none in its file"), ("-----BEGIN CERTIFICATE-----\n", "read as PEM")]
        {
            let unfit = Client::with_token_over_tls(&alice.address, &alice.token, Some(trusted));
            assert!(matches!(&unfit, Err(CallError::Untrusted(said)) if said.contains(words)), "{unfit:?}");
        }
        let plain = Client::with_token(&alice.address, &alice.token)?.call(NodeInfo {}).await;
        assert!(matches!(plain, Err(CallError::Rejected(400))), "{plain:?}");

        let url = format!("https://{by_name}");
        let done = alice.cli(&url, "tls_authority.pem", &["node.info"]).await?;
        assert!(done.status.success() && said(&done.stdout).contains(&node_id), "{done:?}");
        let own = cli(&["--data-dir", text(alice.sidecar.directory())?, "--json", "node.info"]).await?;
        assert!(own.status.success() && said(&own.stdout).contains(&node_id), "{own:?}");
        let refused = alice.cli(&url, "tls_other_authority.pem", &["node.info"]).await?;
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        assert!(
            said(&refused.stderr).contains("\"untrusted\"") && said(&refused.stderr).contains("--ca"),
            "{refused:?}"
        );
        Ok(())
    })
    .await
}

/// An address of IPv6, unless this machine has none.
async fn on_ip_6() -> Done<Option<TcpListener>> {
    const ADDRESS_FAMILY_NOT_SUPPORTED: i32 = 97;
    match TcpListener::bind("[::1]:0").await {
        Ok(listener) => Ok(Some(listener)),
        Err(fault)
            if fault.kind() == std::io::ErrorKind::AddrNotAvailable
                || fault.raw_os_error() == Some(ADDRESS_FAMILY_NOT_SUPPORTED) =>
        {
            eprintln!("this machine has no ::1 ({fault}): IPv6 is not tried");
            Ok(None)
        }
        Err(fault) => Err(fault.into()),
    }
}

/// What comes here goes on to the daemon.
async fn relayed(relay: TcpListener, daemon: String) -> std::io::Result<()> {
    loop {
        let (mut caller, _) = relay.accept().await?;
        let mut daemon = TcpStream::connect(&daemon).await?;
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut caller, &mut daemon).await });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_4_events_are_followed_over_tls_by_name_and_address_and_only_from_whom_is_trusted() -> Done<()> {
    on_regtest(async |regtest| {
        let relay = on_ip_6().await?;
        let by_ip_6 = relay.as_ref().map(|relay| relay.local_addr()).transpose()?.map(|address| address.to_string());
        let hosts: Vec<&str> = by_ip_6.iter().flat_map(|address| ["--rpc-hosts", address]).collect();
        let alice = Node::start(regtest, &hosts).await?;
        if let Some(relay) = relay {
            tokio::spawn(relayed(relay, alice.address.clone()));
        }
        let first = async |address: &str, trusted: &str| {
            let trusted = std::fs::read_to_string(fixture(trusted))?;
            let client = Client::with_token_over_tls(address, &alice.token, Some(&trusted))?;
            let mut events = client.follow(EventSubscribe { after_seq: Some(0), kinds: None });
            Done::Ok(tokio::time::timeout(LIMIT, events.next()).await?)
        };
        let by_ip_6 = |trusted| by_ip_6.as_ref().map(|address| (address, trusted));
        let known = [(&alice.address, "tls_authority.pem"), (&alice.by_name(), "tls_authority.pem")];
        for (address, trusted) in known.into_iter().chain(by_ip_6("tls_certificate.pem")) {
            let event = first(address, trusted).await?.map_err(|fault| format!("{address} {trusted}: {fault}"))?;
            assert_eq!((event.seq, event.kind), (1, EventKind::TokenCreated), "{address} {trusted}");
        }
        // The certificate has no such name.
        let unknown = [(&alice.address, "tls_other_authority.pem")];
        for (address, trusted) in unknown.into_iter().chain(by_ip_6("tls_authority.pem")) {
            let refused = first(address, trusted).await?;
            assert!(matches!(refused, Err(CallError::Untrusted(_))), "{address} {trusted}: {refused:?}");
        }
        let (url, token) = (format!("https://{}", alice.by_name()), text(&alice.token_file)?);
        let words = ["--url", &url, "--token-file", token, "event.subscribe", "after_seq=1000000"];
        for (authorities, code) in [("tls_authority.pem", 2), ("tls_other_authority.pem", 3)] {
            let program = outrigger_integration::sidecar::cli_executable()?;
            let mut machine = Command::new(program);
            let told = run(machine.env_clear().env("SSL_CERT_FILE", fixture(authorities)).args(words)).await?;
            assert_eq!(told.status.code(), Some(code), "{authorities}: {told:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_4_without_an_authority_those_of_the_machine_are_asked_and_wrong_words_are_told() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        let (url, token) = (format!("https://{}", alice.by_name()), text(&alice.token_file)?);
        let remote = ["--url", &url, "--token-file", token, "node.info"];
        let machine = async |authorities: &str| {
            let program = outrigger_integration::sidecar::cli_executable()?;
            run(Command::new(program).env_clear().env("SSL_CERT_FILE", fixture(authorities)).args(remote)).await
        };
        let trusted = machine("tls_authority.pem").await?;
        assert!(trusted.status.success(), "{trusted:?}");
        let refused = machine("tls_other_authority.pem").await?;
        assert!(
            refused.status.code() == Some(3) && said(&refused.stderr).contains("nobody that is trusted"),
            "{refused:?}"
        );
        let of_environment = run(Command::new(outrigger_integration::sidecar::cli_executable()?)
            .env_clear()
            .env("OUTRIGGER_URL", &url)
            .env("OUTRIGGER_TOKEN_FILE", token)
            .env("OUTRIGGER_CA", fixture("tls_authority.pem"))
            .args(["node.info"]))
        .await?;
        assert!(of_environment.status.success(), "{of_environment:?}");

        let revoked = alice.directory().join("revoked");
        put(&revoked, format!("outr_{}", "07".repeat(40)), 0o600)?;
        let authority = fixture("tls_authority.pem");
        let unknown =
            cli(&["--url", &url, "--token-file", text(&revoked)?, "--ca", text(&authority)?, "node.info"]).await?;
        assert!(unknown.status.code() == Some(3) && said(&unknown.stderr).contains("revoked"), "{unknown:?}");

        // The certificate does not name every address of this machine.
        let by_another = alice.address.replace("127.0.0.1", "127.0.0.2");
        for (words, code, problem) in [
            (vec!["--url", &url, "node.info"], 2, "--token-file"),
            (vec!["--url", "http://192.0.2.1:1", "--token-file", token, "node.info"], 2, "another machine"),
            (vec!["--url", &alice.address, "--token-file", token, "node.info"], 2, "must be https://"),
            (vec!["--url", &url, "--token-file", "/nowhere", "node.info"], 2, "cannot read /nowhere"),
            (vec!["--token-file", token, "node.info"], 2, "--url names"),
            (
                vec!["--url", &format!("http://{}", alice.address), "--token-file", token, "node.info"],
                3,
                "must begin with https://",
            ),
            (vec!["--url", &format!("https://{by_another}"), "--token-file", token, "node.info"], 3, "cannot reach"),
        ] {
            let output = cli(&words).await?;
            let told = said(&output.stderr);
            assert!(output.status.code() == Some(code) && told.contains(problem), "{words:?}: {output:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_4_websocket_page_metrics_and_calls_go_over_tls_as_curl_and_python_speak_it() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &["--rpc-page", "true"]).await?;
        let (url, bearer) = (format!("https://{}", alice.by_name()), format!("authorization: Bearer {}", alice.token));
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#;
        let posted = ["-H", &bearer, "-H", "content-type: application/json", "-d", call];
        let origin = format!("origin: {url}");
        for (words, wanted) in [
            (posted.to_vec(), "\"phase\""),
            ([&posted[..], &["-H", &origin]].concat(), "\"phase\""),
            ([&posted[..], &["--tlsv1.2", "--tls-max", "1.2"]].concat(), "\"phase\""),
            ([&posted[..], &["--tlsv1.3"]].concat(), "\"phase\""),
            (vec!["-H", &bearer, "--path-as-is", "--request-target", "/metrics"], "outrigger_synced"),
            (vec!["--request-target", "/"], "<!doctype html>"),
        ] {
            let output = run(curl("tls_authority.pem").args(&words).arg(&url)).await?;
            assert!(output.status.success() && said(&output.stdout).contains(wanted), "{words:?}: {output:?}");
        }
        // The page of an address that is not encrypted is another page.
        let plain = format!("origin: http://{}", alice.by_name());
        let foreign =
            run(curl("tls_authority.pem").args(posted).args(["-H", &plain, "-w", "%{http_code}"]).arg(&url)).await?;
        assert_eq!(said(&foreign.stdout), "403");
        let other = run(curl("tls_other_authority.pem").args(posted).arg(&url)).await?;
        assert_eq!(other.status.code(), Some(60), "{other:?}");

        let (host, port) = alice.address.split_once(':').ok_or("no port")?;
        let authority = fixture("tls_authority.pem");
        let script = fixture("tls_session.py");
        // Something that there is an event of.
        alice.sidecar.fund(&regtest.bitcoind).await?;
        let session =
            run(Command::new("python3").args([&script]).args([host, port, text(&authority)?, &alice.token])).await?;
        let heard = said(&session.stdout);
        assert!(session.status.success(), "{session:?}");
        for words in ["version TLSv1.3\n", "status 101\n", "\"method\": \"event.subscribe\""] {
            assert!(heard.contains(words), "{words}: {heard}");
        }
        let own = run(Command::new("python3")
            .env("PYTHONPATH", fixture("../../../contrib/examples"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .args(["-c", "import outrigger, sys; print(outrigger.Outrigger(sys.argv[1]).call('node.info')['node_id'])"])
            .arg(alice.directory()))
        .await?;
        assert_eq!(said(&own.stdout).trim(), alice.sidecar.node_id().await?, "{own:?}");
        Ok(())
    })
    .await
}

/// With TLS, and by the socket file.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_7_a_head_that_is_far_too_long_is_refused_by_each_door() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        let head = alice.directory().join("head");
        let cookie = std::fs::read_to_string(alice.directory().join(COOKIE_FILE))?;
        let socket = alice.directory().join("rpc.sock");
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"node.status"}"#;
        for (length, is_taken) in [(30_000, true), (300_000, false), (500_000, false)] {
            std::fs::write(&head, format!("X-Long: {}\n", "x".repeat(length)))?;
            let long = format!("@{}", text(&head)?);
            let words =
                ["-u", &cookie, "-H", "content-type: application/json", "-H", &long, "-d", call, "-w", "%{http_code}"];
            let (url, by_file) =
                (format!("https://{}", alice.by_name()), ["--unix-socket", text(&socket)?, "http://localhost"]);
            for place in [&[url.as_str()][..], &by_file] {
                let output = run(curl("tls_authority.pem").args(words).args(place)).await?;
                let heard = said(&output.stdout);
                // What is refused early is not read to its end, and the connection may end under it.
                let is_refused = heard == "431" || (heard == "000" && !output.status.success());
                let is_answered = heard.contains("\"phase\"") && heard.ends_with("200");
                assert!(if is_taken { is_answered } else { is_refused }, "{length} {place:?}: {output:?}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_5_no_token_is_sent_before_the_certificate_is_trusted() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        for (certificate, trusted, words) in [
            ("tls_certificate.pem", "tls_other_authority.pem", "nobody that is trusted"),
            ("tls_elsewhere_certificate.pem", "tls_authority.pem", "for another name"),
            ("tls_expired_certificate.pem", "tls_authority.pem", "has expired"),
        ] {
            let mut rogue = Command::new("python3")
                .args([fixture("tls_rogue.py"), fixture(certificate), fixture("tls_key.pem")])
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let mut told = BufReader::new(rogue.stdout.take().ok_or("no pipe")?);
            let mut port = String::new();
            told.read_line(&mut port).await?;
            let refused = alice.cli(&format!("https://localhost:{}", port.trim()), trusted, &["node.info"]).await?;
            assert!(refused.status.code() == Some(3) && said(&refused.stderr).contains(words), "{refused:?}");
            let mut heard = String::new();
            told.read_to_string(&mut heard).await?;
            assert!(heard.contains("ALERT") && heard.contains("bytes 0\n"), "{certificate}: {heard}");
        }
        Ok(())
    })
    .await
}
