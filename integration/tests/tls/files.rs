//! Certificates and keys that are not whole, are over, or were made anew.

use std::net::TcpStream;
use std::path::PathBuf;

use outrigger_integration::bitcoind::free_port;
use outrigger_integration::sidecar::{LIMIT, executable};
use outrigger_integration::{Client, Done, on_regtest, until};
use outrigger_rpc_schema::NodeInfo;
use outrigger_rpc_schema::rendezvous::CERTIFICATE_FILE;
use tokio::process::Command;

use super::{Node, fixture, put, run, said, text};

/// What the log of the daemon says has this in it.
fn log_has(node: &Node, words: &str) -> Done<Option<()>> {
    let log = std::fs::read_to_string(node.sidecar.directory().join("outriggerd.log"))?;
    Ok(log.contains(words).then_some(()))
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_4_a_certificate_that_was_renewed_is_taken_up_and_one_that_is_not_whole_changes_nothing() -> Done<()> {
    on_regtest(async |regtest| {
        let alice = Node::start(regtest, &[]).await?;
        let url = format!("https://{}", alice.by_name());
        let file = |name: &str| std::fs::read(fixture(name));
        // A renewal that is halfway: a new certificate, and the key of the old one.
        put(&alice.certificate, file("tls_renewed_certificate.pem")?, 0o644)?;
        until(LIMIT, "the daemon to look", async || log_has(&alice, "is not the key of")).await?;
        let halfway = alice.cli(&url, "tls_certificate.pem", &["node.info"]).await?;
        assert!(halfway.status.success(), "{halfway:?}");
        put(&alice.key, file("tls_renewed_key.pem")?, 0o600)?;
        until(LIMIT, "the new certificate", async || {
            Ok((std::fs::read(alice.directory().join(CERTIFICATE_FILE))? == file("tls_renewed_certificate.pem")?)
                .then_some(()))
        })
        .await?;
        let own = Client::in_directory(&alice.directory())?.call(NodeInfo {}).await;
        assert!(own.is_ok(), "callers on this machine trust no other than the new one: {own:?}");
        let remote = alice.cli(&url, "tls_authority.pem", &["node.info"]).await?;
        assert!(remote.status.success(), "{remote:?}");

        // All of these are of the old key; each is served, and refused by whoever looks.
        put(&alice.key, file("tls_key.pem")?, 0o600)?;
        for (certificate, told) in [
            ("tls_elsewhere_certificate.pem", "for another name"),
            ("tls_expired_certificate.pem", "the daemon's certificate has expired"),
        ] {
            put(&alice.certificate, file(certificate)?, 0o644)?;
            until(LIMIT, certificate, async || {
                let refused = alice.cli(&url, "tls_authority.pem", &["node.info"]).await?;
                let words = said(&refused.stderr);
                Ok((refused.status.code() == Some(3) && words.contains(told)).then_some(()))
            })
            .await?;
        }
        let told = async || log_has(&alice, "days ago, and callers from elsewhere refuse it");
        until(LIMIT, "the operator to be told that it expired", told).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_88_tls_that_is_not_whole_and_a_port_for_all_without_it_are_refused_before_a_port_is_open() -> Done<()>
{
    on_regtest(async |regtest| {
        let place = regtest.directory("files")?;
        let made = |name: &str, content: &[u8], mode: u32| -> Done<PathBuf> {
            let path = place.join(name);
            put(&path, content, mode)?;
            Ok(path)
        };
        let copy = |name: &str, mode: u32| made(&format!("{name} {mode:o}"), &std::fs::read(fixture(name))?, mode);
        let (good, open) = (copy("tls_key.pem", 0o600)?, copy("tls_key.pem", 0o640)?);
        let (certificate, other) = (fixture("tls_certificate.pem"), fixture("tls_other_authority.pem"));
        let (sealed, sealed_before) =
            (copy("tls_encrypted_key.pem", 0o600)?, copy("tls_encrypted_old_key.pem", 0o600)?);
        let (empty, cut) = (made("empty", b" \n", 0o600)?, made("cut", b"-----BEGIN CERTIFICATE-----\nMIIB\n", 0o600)?);
        let wrong = made("wrong", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", 0o600)?;
        let (huge, nowhere) = (made("huge", &[b'x'; 1024 * 1024 + 1], 0o600)?, place.join("nowhere"));
        let directory = regtest.directory("alice")?;
        let bitcoind = regtest.bitcoind.address();
        let start = async |words: &[&str], port: u16| {
            let address = format!("0.0.0.0:{port}");
            run(Command::new(executable()?)
                .args(["--network", "regtest", "--data-dir", text(&directory)?, "--listen", "127.0.0.1:0"])
                .args(["--bitcoind-url", &bitcoind, "--rpc-address", &address])
                .args(words))
            .await
        };
        let pair = |certificate: &PathBuf, key: &PathBuf| -> Done<Vec<String>> {
            Ok(vec!["--rpc-tls-cert".into(), text(certificate)?.into(), "--rpc-tls-key".into(), text(key)?.into()])
        };
        for (more, words) in [
            (vec![], vec!["must be a loopback address", "rpc.tls_cert"]),
            (pair(&certificate, &good)?[..2].to_vec(), vec!["rpc.tls_key"]),
            (pair(&certificate, &good)?[2..].to_vec(), vec!["rpc.tls_cert"]),
            (pair(&certificate, &open)?, vec!["0640", "chmod 600", text(&open)?]),
            (pair(&other, &good)?, vec!["is not the key of", text(&other)?]),
            (pair(&good, &good)?, vec!["there is no certificate in it"]),
            (pair(&certificate, &copy("tls_certificate.pem", 0o600)?)?, vec!["there is no key in it"]),
            (pair(&certificate, &nowhere)?, vec![text(&nowhere)?, "No such file", "rpc.tls_key"]),
            (pair(&nowhere, &good)?, vec![text(&nowhere)?, "No such file", "rpc.tls_cert"]),
            (pair(&empty, &good)?, vec!["it is empty", "rpc.tls_cert"]),
            (pair(&certificate, &empty)?, vec!["it is empty", "rpc.tls_key"]),
            (pair(&place, &good)?, vec!["it is not a file"]),
            (pair(&huge, &good)?, vec!["more than 1048576 bytes"]),
            (pair(&cut, &good)?, vec!["cannot be read as PEM"]),
            (pair(&wrong, &good)?, vec!["its first certificate cannot be used"]),
            (pair(&certificate, &sealed)?, vec!["the key is encrypted", "openssl pkey"]),
            (pair(&certificate, &sealed_before)?, vec!["the key is encrypted"]),
        ] {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let port = free_port()?;
            let ended = start(&more, port).await?;
            let told = said(&ended.stderr);
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{more:?}");
            assert!(matches!(ended.status.code(), Some(1 | 2)), "{more:?}: {ended:?}");
            assert!(words.iter().all(|words| told.contains(words)), "{more:?}: {told}");
            let looked_at = start(&[&more[..], &["--check-config"]].concat(), port).await?;
            assert_eq!(looked_at.status.code(), Some(2), "{more:?}: {looked_at:?}");
            let told = said(&looked_at.stderr);
            assert!(words.iter().all(|words| told.contains(words)), "{more:?}: {told}");
        }
        // What callers will refuse is no fault of the configuration.
        let over = pair(&fixture("tls_expired_certificate.pem"), &good)?;
        let over: Vec<&str> = over.iter().map(String::as_str).chain(["--check-config"]).collect();
        let looked_at = start(&over, 0).await?;
        assert!(looked_at.status.success() && said(&looked_at.stderr).contains("it expired"), "{looked_at:?}");
        Ok(())
    })
    .await
}
