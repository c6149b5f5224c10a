//! TLS on the port: the operator's certificate and key, what is wrong with them, and what is spoken with them.

mod handshake;
mod renewal;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

pub(super) use handshake::TlsDoor;

/// More than any chain of certificates or key has.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is spoken inside.
const HTTP_1_1: &[u8] = b"http/1.1";

/// How long before its end a certificate is warned of.
const NEARLY_OVER: Duration = Duration::from_secs(14 * DAY_SECS);

const DAY_SECS: u64 = 24 * 3600;

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, PEM, and behind it those that vouch for it.
    pub certificate: PathBuf,
    /// Its key, PEM, for nobody else to read.
    pub key: PathBuf,
}

/// Why the port cannot be served with TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("cannot read {}: {error}. {hint}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
        /// Which key of the configuration names it, and what to do.
        hint: &'static str,
    },
    /// Others than the owner may read the key.
    #[error(
        "{} may be read or written by others (mode {mode:04o}): chmod 600 it; where others may have read it, have a new one made",
        path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file does not have what it should.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl TlsFiles {
    /// Reads both files as a start does, and opens nothing. Gives what the operator should know though it is no fault: the
    /// certificate is not valid now, or soon.
    pub fn checked(&self) -> Result<Option<String>, TlsFault> {
        Ok(notice(&load(self)?.leaf, UnixTime::now()))
    }
}

/// A certificate with its key, read and found to belong together.
struct Loaded {
    config: Arc<ServerConfig>,
    /// The daemon's own certificate.
    leaf: CertificateDer<'static>,
    /// All that the file of the certificate has, PEM: callers on this machine know the port by it.
    pem: String,
}

/// Reads certificate and key, and sees that they belong together.
fn load(files: &TlsFiles) -> Result<Loaded, TlsFault> {
    let (certificate, _) = read(&files.certificate, CERTIFICATE_HINT)?;
    let (key, mode) = read(&files.key, KEY_HINT)?;
    if mode & 0o077 != 0 {
        return Err(TlsFault::OpenToOthers { path: files.key.clone(), mode: mode & 0o7777 });
    }
    let chain = chain(&files.certificate, &certificate)?;
    let Some(leaf) = chain.first().cloned() else {
        let problem = "there is no certificate in it: rpc.tls_cert names a file with -----BEGIN CERTIFICATE----- (PEM)";
        return Err(unfit(&files.certificate, problem));
    };
    let key = secret(&files.key, &key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        // TLS 1.2 and 1.3: there is nothing older in it.
        .with_safe_default_protocol_versions()
        .map_err(|fault| unfit(&files.certificate, &fault.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|fault| unusable(files, &fault))?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    let pem = String::from_utf8_lossy(&certificate).into_owned();
    Ok(Loaded { config: Arc::new(config), leaf, pem })
}

const CERTIFICATE_HINT: &str = "rpc.tls_cert names it: correct the name, or let the daemon's user read it";
const KEY_HINT: &str = "rpc.tls_key names it: correct the name, or give the file to the daemon's user, with mode 0600";

fn unfit(path: &Path, problem: &str) -> TlsFault {
    TlsFault::Unfit { path: path.to_owned(), problem: problem.to_owned() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a file holds, and its mode.
fn read(path: &Path, hint: &'static str) -> Result<(Zeroizing<Vec<u8>>, u32), TlsFault> {
    let unreadable = |error| TlsFault::Unreadable { path: path.to_owned(), error, hint };
    // Before it is opened: a pipe would keep whoever opens it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unfit(path, &format!("it is not a file. {hint}")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.iter().all(u8::is_ascii_whitespace) {
        return Err(unfit(path, &format!("it is empty. {hint}")));
    }
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(unfit(path, &format!("it has more than {MAX_BYTES} bytes. {hint}")));
    }
    Ok((content, mode))
}

fn chain(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    chain.map_err(|fault| unfit(path, &format!("it cannot be read as PEM: {fault}. Copy the certificate again, whole")))
}

fn secret(path: &Path, content: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    // Both kinds say so, that of PKCS #8 in its first line, the older one in a header.
    if content.windows(9).any(|piece| piece == b"ENCRYPTED") {
        let problem = "the key is encrypted, and nobody is there at a start to give its password: write it without one \
                       (openssl pkey -in FILE -out NEW), with mode 0600";
        return Err(unfit(path, problem));
    }
    PrivateKeyDer::from_pem_slice(content).map_err(|_| {
        unfit(
            path,
            "there is no key in it: rpc.tls_key names a file with -----BEGIN PRIVATE KEY----- (PEM, not encrypted)",
        )
    })
}

/// Why a chain and a key that can be read cannot be used together.
fn unusable(files: &TlsFiles, fault: &Error) -> TlsFault {
    let (certificate, key) = (files.certificate.display(), files.key.display());
    match fault {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let problem = format!(
                "it is not the key of the first certificate in {certificate}. Name the two that were made together, the daemon's own \
                 certificate before those that vouch for it"
            );
            unfit(&files.key, &problem)
        }
        Error::InvalidCertificate(fault) => {
            let words =
                format!("its first certificate cannot be used: {fault}. Have another one made (X.509, version 3)");
            unfit(&files.certificate, &words)
        }
        fault => unfit(&files.key, &format!("{key} and {certificate} cannot be used: {fault}")),
    }
}

/// What the operator should know of a certificate that is used all the same: callers will refuse it, or soon.
fn notice(leaf: &CertificateDer<'static>, now: UnixTime) -> Option<String> {
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + NEARLY_OVER);
    let days = |from: UnixTime, to: UnixTime| to.as_secs().saturating_sub(from.as_secs()) / DAY_SECS;
    match (invalid(leaf, now), invalid(leaf, soon)) {
        (Some(CertificateError::ExpiredContext { not_after, .. }), _) => Some(format!(
            "it expired {} days ago, and callers from elsewhere refuse it: put a new one into its file",
            days(not_after, now)
        )),
        (Some(CertificateError::NotValidYetContext { not_before, .. }), _) => Some(format!(
            "it is valid only in {} days, and callers from elsewhere refuse it until then: look at the clock of this machine",
            days(now, not_before)
        )),
        (None, Some(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(format!("it expires in {} days: put a new one into its file", days(now, not_after)))
        }
        (_, _) => None,
    }
}

/// Why a caller would say at this time that the certificate is not valid, were it only for its dates.
fn invalid(leaf: &CertificateDer<'static>, at: UnixTime) -> Option<CertificateError> {
    let mut roots = RootCertStore::empty();
    roots.add(leaf.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
    // Dates are looked at before all else; what else would be wrong with it here is not asked.
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    match verifier.verify_server_cert(leaf, &[], &name, &[], at) {
        Err(Error::InvalidCertificate(
            fault @ (CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. }),
        )) => Some(fault),
        Ok(_) | Err(_) => None,
    }
}
