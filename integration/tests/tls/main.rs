//! TLS on the port of the interface, before daemons, command lines, curl and Python as operators start them.

mod callers;
mod files;
mod strangers;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use outrigger_integration::sidecar::{LIMIT, cli_executable};
use outrigger_integration::{Done, Regtest, Sidecar};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, ENCRYPTED};
use outrigger_rpc_schema::{Scope, TokenCreate};
use tokio::process::Command;

/// What stands in `tests/fixtures`, all of it until 2120: a certificate with its key, good for localhost and 127.0.0.1, with the issuer
/// behind it whom the authority vouches for; others for the same names, for the same key; and an authority of somebody else.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn text(path: &Path) -> Done<&str> {
    path.to_str().ok_or_else(|| "no text".into())
}

/// A file with this content in the place of what stands there, with this mode: a checkout keeps no modes.
fn put(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Done<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, content)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
    Ok(std::fs::rename(new, path)?)
}

/// A daemon whose port speaks TLS, with a token that may read.
struct Node {
    sidecar: Sidecar,
    /// `127.0.0.1:port`.
    address: String,
    token: String,
    token_file: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Node {
    async fn start(regtest: &Regtest, more: &[&str]) -> Done<Self> {
        let files = regtest.directory("tls")?;
        let (certificate, key, token_file) = (files.join("certificate"), files.join("key"), files.join("token"));
        put(&certificate, std::fs::read(fixture("tls_certificate.pem"))?, 0o644)?;
        put(&key, std::fs::read(fixture("tls_key.pem"))?, 0o600)?;
        let own = ["--rpc-tls-cert", text(&certificate)?, "--rpc-tls-key", text(&key)?];
        let sidecar = regtest.sidecar_with("alice", &[&own[..], more].concat()).await?;
        let found = std::fs::read_to_string(sidecar.directory().join("regtest").join(ADDRESS_FILE))?;
        let address = found.trim().strip_prefix(ENCRYPTED).ok_or("the address does not say that it is encrypted")?;
        let order = TokenCreate { name: "screen".into(), scopes: vec![Scope::Read], ..TokenCreate::default() };
        let token = sidecar.call(order).await?.token;
        put(&token_file, &token, 0o600)?;
        Ok(Self { address: address.to_owned(), sidecar, token, token_file, certificate, key })
    }

    /// The port by a name that its certificate has too.
    fn by_name(&self) -> String {
        self.address.replace("127.0.0.1", "localhost")
    }

    fn directory(&self) -> PathBuf {
        self.sidecar.directory().join("regtest")
    }

    /// The command line, which means this daemon by its address, and trusts whom this fixture names.
    async fn cli(&self, url: &str, trusted: &str, words: &[&str]) -> Done<Output> {
        let trusted = fixture(trusted);
        let own = ["--json", "--url", url, "--token-file", text(&self.token_file)?, "--ca", text(&trusted)?];
        cli(&[&own[..], words].concat()).await
    }
}

/// The words of the command line, and how it ended.
async fn cli(words: &[&str]) -> Done<Output> {
    run(Command::new(cli_executable()?).env_clear().args(words)).await
}

async fn run(command: &mut Command) -> Done<Output> {
    Ok(tokio::time::timeout(LIMIT, command.stdin(Stdio::null()).kill_on_drop(true).output()).await??)
}

/// curl, which trusts whom this fixture names.
fn curl(trusted: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--cacert"]).arg(fixture(trusted));
    command
}

fn said(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}
