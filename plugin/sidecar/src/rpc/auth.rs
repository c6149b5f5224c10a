//! Who may call: whoever can read the cookie file, exactly as with bitcoind, and whoever shows a token.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use outrigger_rpc_schema::rendezvous::{ADDRESS_FILE, CERTIFICATE_FILE, COOKIE_FILE, COOKIE_USER, ENCRYPTED};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::token::TokenId;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Whoever may do everything: it can read the cookie file.
    Owner,
    /// Whoever showed this token.
    Token(TokenId),
}

impl Caller {
    /// The token that what it pays is counted for.
    pub(super) fn payer(&self) -> Option<TokenId> {
        match self {
            Self::Owner => None,
            Self::Token(token) => Some(*token),
        }
    }
}

/// The protocol of WebSocket that a browser names beside its token: it cannot set `Authorization`.
pub(super) const PROTOCOL: &str = "outrigger";

/// What a request shows.
pub(super) enum Shown<'a> {
    /// Something that may be the cookie.
    Basic(Zeroizing<Vec<u8>>),
    /// Something that may be a token.
    Bearer(&'a str),
}

impl<'a> Shown<'a> {
    /// The token among the protocols that a WebSocket names; in a header, never in the address, which is logged.
    pub(super) fn in_protocol(headers: &'a HeaderMap) -> Option<Self> {
        let named = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|names| names.to_str().ok());
        let mut tokens = named.flat_map(|names| names.split(',')).map(str::trim).filter(|name| *name != PROTOCOL);
        let only = tokens.next().filter(|_| !headers.contains_key(AUTHORIZATION))?;
        tokens.next().is_none().then_some(Self::Bearer(only))
    }

    /// What the one `Authorization` of the request shows; none where there is none, more than one, or another kind.
    pub(super) fn in_headers(headers: &'a HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(only), None) = (given.next(), given.next()) else { return None };
        let (scheme, credentials) = only.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(credentials.trim()));
        }
        let basic = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(credentials.trim()))?;
        basic.ok().map(|text| Self::Basic(Zeroizing::new(text)))
    }
}

/// What the owner must show. It has no `Debug`.
pub struct Cookie(Zeroizing<String>);

impl Cookie {
    /// The cookie made of these random bytes, new at every start.
    pub fn new(secret: &Zeroizing<[u8; 32]>) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(COOKIE_USER.len() + 65));
        text.push_str(COOKIE_USER);
        text.push(':');
        text.push_str(&Zeroizing::new(hex::encode(secret.as_slice())));
        Self(text)
    }

    /// Whether this is the cookie. The time it takes tells nothing of the cookie but its length, which everybody knows.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        shown.ct_eq(self.0.as_bytes()).into()
    }
}

/// The files by which callers find the server. They are removed when this is dropped.
#[derive(Debug)]
pub(super) struct Rendezvous {
    cookie: PathBuf,
    address: PathBuf,
    certificate: PathBuf,
}

impl Rendezvous {
    /// Writes cookie and address, and where there is TLS its certificate (PEM), into the network's directory, replacing what an
    /// earlier run left there. The caller holds the lock of that directory.
    pub(super) fn publish(
        directory: &Path,
        cookie: &Cookie,
        address: SocketAddr,
        certificate: Option<&str>,
    ) -> io::Result<Self> {
        let [cookie_file, address_file, certificate_file] =
            [COOKIE_FILE, ADDRESS_FILE, CERTIFICATE_FILE].map(|name| directory.join(name));
        let files = Self { cookie: cookie_file, address: address_file, certificate: certificate_file };
        match certificate {
            Some(pem) => replace(&files.certificate, pem.as_bytes())?,
            None => absent(&files.certificate)?,
        }
        replace(&files.cookie, cookie.0.as_bytes())?;
        let scheme = if certificate.is_some() { ENCRYPTED } else { "" };
        replace(&files.address, format!("{scheme}{}\n", reached(address)).as_bytes())?;
        Ok(files)
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        // The address first: a caller that finds no address needs no cookie. A file that is gone already is no harm.
        let _ = fs::remove_file(&self.address);
        let _ = fs::remove_file(&self.cookie);
        let _ = fs::remove_file(&self.certificate);
    }
}

/// The address by which callers on this machine reach a server that is bound to this one.
fn reached(bound: SocketAddr) -> SocketAddr {
    let own = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(own, bound.port())
}

/// Removes a file that may be there.
fn absent(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts a file that only the owner can read in the place of `path`, so that a reader sees the old or the new one whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    absent(&new)?;
    // Only a file that this call creates has the mode asked for, and is no link to another.
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cookie() -> Cookie {
        Cookie::new(&Zeroizing::new([7; 32]))
    }

    fn admits(headers: &HeaderMap) -> bool {
        matches!(Shown::in_headers(headers), Some(Shown::Basic(shown)) if cookie().is(&shown))
    }

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().expect("a header"))).collect()
    }

    #[test]
    fn bad_input_79_only_the_cookie_is_admitted() {
        let right = STANDARD.encode(format!("__cookie__:{}", "07".repeat(32)));
        assert!(admits(&headers(&[&format!("Basic {right}")])));
        let wrong = STANDARD.encode(format!("__cookie__:{}", "08".repeat(32)));
        let short = STANDARD.encode("__cookie__:");
        let basic = |text: &str| format!("Basic {text}");
        let bad: [&[&str]; 8] = [
            &[],
            &[&basic(&wrong)],
            &[&basic(&short)],
            &[&basic("")],
            &[&basic("%%%")],
            &[&format!("Bearer {right}")],
            &[&right],
            &[&basic(&right), &basic(&right)],
        ];
        for values in bad {
            assert!(!admits(&headers(values)), "{values:?}");
        }
    }

    #[test]
    fn rpc_5_cookie_file_is_the_owners_alone_also_over_an_old_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(COOKIE_FILE);
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let address = "127.0.0.1:1".parse().expect("an address");
        let files = Rendezvous::publish(directory.path(), &cookie(), address, None).expect("published");
        assert_eq!(fs::read_to_string(&path).expect("read"), format!("__cookie__:{}", "07".repeat(32)));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(directory.path().join(ADDRESS_FILE)).expect("read"), "127.0.0.1:1\n");
        drop(files);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
        let everywhere = "0.0.0.0:1".parse().expect("an address");
        let files =
            Rendezvous::publish(directory.path(), &cookie(), everywhere, Some("a certificate")).expect("published");
        let text = |name| fs::read_to_string(directory.path().join(name)).expect("read");
        assert_eq!(
            (text(ADDRESS_FILE), text(CERTIFICATE_FILE)),
            ("https://127.0.0.1:1\n".into(), "a certificate".into())
        );
        drop(files);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
    }
}
