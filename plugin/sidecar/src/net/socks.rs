//! A connection through a SOCKS5 proxy such as Tor's (RFC 1928, RFC 1929): the proxy is told whom to connect to, by name where the
//! name is all that is known, so nothing is looked up here. Each peer has a user name of its own, by which Tor keeps their circuits
//! apart.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::DisplayHex;
use outrigger_bolt::address::{Host, PeerAddress};
use outrigger_bolt::id::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

#[cfg(test)]
mod tests;

/// A proxy has this long for its answers to a greeting and to a user name.
pub(super) const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// It has this long to reach the peer: an onion service takes some round trips through the whole world to meet.
pub(super) const REACH_TIMEOUT: Duration = Duration::from_secs(40);

const VERSION: u8 = 5;
/// The version of the exchange of user name and password (RFC 1929).
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// What connections of this node have in common: it says nothing but that this is one.
const USER: &str = "outrigger";

/// The proxy for outgoing connections.
#[derive(Clone)]
pub struct Proxy {
    /// Where it listens.
    address: SocketAddr,
    /// Whether every connection goes through it; else those to onion services.
    always: bool,
    /// What makes user names that say nothing of the peer; new at each start.
    salt: [u8; 16],
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}, always: {})", self.address, self.always)
    }
}

impl Proxy {
    /// The proxy at an address, for every connection or for those to onion services. `salt` is random.
    pub fn new(address: SocketAddr, always: bool, salt: [u8; 16]) -> Self {
        Self { address, always, salt }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a connection to this host goes through it.
    pub(super) fn is_for(&self, host: &Host) -> bool {
        self.always || matches!(host, Host::Onion(_))
    }

    /// What sets the connections to this peer apart from those to others, and tells the proxy nothing of it.
    pub(super) fn password(&self, peer: &NodeId) -> String {
        let mut engine = sha256::Hash::engine();
        engine.input(&self.salt);
        engine.input(&peer.serialize());
        sha256::Hash::from_engine(engine).to_byte_array().to_lower_hex_string()
    }
}

/// What the proxy was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// How we can say who we are.
    Greeting,
    /// User name and password.
    Login,
    /// Whom to connect to.
    Request,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "after our greeting",
            Self::Login => "after the user name",
            Self::Request => "after it was told whom to connect to",
        })
    }
}

/// Why there is no connection through a proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFault {
    /// Nothing listens at the proxy's address.
    #[error("the proxy at {0} refused the connection")]
    Refused(SocketAddr),
    /// There is no way to it.
    #[error("the proxy at {0} cannot be reached: {1}")]
    Unreachable(SocketAddr, String),
    /// It said nothing for too long.
    #[error("the proxy gave no answer in time {0}")]
    Silent(Step),
    /// It closed the connection in place of an answer.
    #[error("the proxy hung up {0}")]
    HungUp(Step),
    /// The connection to it broke.
    #[error("the connection to the proxy broke {0}: {1}")]
    Broken(Step, io::ErrorKind),
    /// It is no SOCKS5 proxy.
    #[error("what listens at the proxy's address does not speak SOCKS5: its answer {0} began with byte {1:#04x}")]
    NotSocks5(Step, u8),
    /// It wants to know in another way who we are.
    #[error("the proxy takes neither a user name nor callers without one")]
    NoMethod,
    /// It chose what was not offered.
    #[error("the proxy chose a way of admission that it was not offered ({0:#04x})")]
    NotOffered(u8),
    /// It refused user name and password.
    #[error("the proxy refused the user name (status {0})")]
    LoginRefused(u8),
    /// It said why it does not connect.
    #[error("{0}")]
    Answered(Reply),
    /// Its answer names an address of an unknown kind.
    #[error("the proxy's answer has an address of an unknown kind ({0:#04x})")]
    AddressKind(u8),
    /// More came than an answer, before the peer was spoken to.
    #[error("the proxy sent more than its answer")]
    TooLong,
}

impl ProxyFault {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Unreachable(..) => {
                "Start Tor, or correct `proxy` in the configuration; Tor's own port is 9050, that of its browser 9150."
            }
            Self::Silent(Step::Request) => "The peer may be away. Try again later.",
            Self::Silent(_) | Self::HungUp(_) | Self::Broken(..) => {
                "Look at the proxy's log, and whether it has a connection itself."
            }
            Self::NotSocks5(..) | Self::NoMethod | Self::NotOffered(_) | Self::AddressKind(_) | Self::TooLong => {
                "Check that `proxy` in the configuration is the SOCKS5 port of Tor, and not another of its ports."
            }
            Self::LoginRefused(_) => "Let the proxy take any user name: Tor does, and keeps circuits apart by it.",
            Self::Answered(reply) => reply.hint(),
        }
    }

    /// Whether the same call may succeed later with nothing changed on our side.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Unreachable(..) | Self::Silent(_) | Self::HungUp(_) | Self::Broken(..) => true,
            Self::NotSocks5(..)
            | Self::NoMethod
            | Self::NotOffered(_)
            | Self::LoginRefused(_)
            | Self::AddressKind(_)
            | Self::TooLong => false,
            Self::Answered(reply) => reply.may_pass(),
        }
    }
}

/// What a proxy answers that does not connect (RFC 1928, section 6; Tor's socks-extensions, proposal 304).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply(pub u8);

impl Reply {
    fn hint(self) -> &'static str {
        match self.0 {
            2 => "The proxy's own configuration forbids it; Tor does so for addresses of a local network.",
            4 | 0xf0..=0xf3 | 0xf7 => "Check the address; the peer may be away. Try again later.",
            5 => "Check that the peer is running and that the port is its Lightning port.",
            7 | 8 => {
                "Check that `proxy` in the configuration is a SOCKS5 proxy that knows this kind of address, as Tor does."
            }
            0xf4 | 0xf5 => "The peer gives its key to callers that it knows; put it into Tor's configuration.",
            0xf6 => "Check the address: a letter of the onion service's name is wrong.",
            _ => "Look at the proxy's log, and whether it has a connection itself. Try again later.",
        }
    }

    /// Whether another try may have another answer.
    fn may_pass(self) -> bool {
        !matches!(self.0, 2 | 7 | 8 | 0xf4..=0xf6)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.0 {
            1 => "the proxy failed and says no more",
            2 => "the proxy's rules forbid this connection",
            3 => "the proxy has no way to the peer's network",
            4 => "the proxy cannot reach the peer's host",
            5 => "the peer's address refused the proxy's connection",
            6 => "the way from the proxy to the peer took too long",
            7 => "the proxy does not connect for others",
            8 => "the proxy does not know this kind of address",
            0xf0 => "the proxy finds no such onion service: it is away, or never was",
            0xf1 => "the proxy cannot read the onion service's descriptor",
            0xf2 => "the proxy could not be introduced to the onion service",
            0xf3 => "the onion service did not come to meet the proxy",
            0xf4 => "the onion service admits only clients that it knows, and the proxy has no key for it",
            0xf5 => "the onion service does not take the key that the proxy has for it",
            0xf6 => "the proxy says that no onion service can have this name",
            0xf7 => "the onion service did not answer the proxy in time",
            _ => "the proxy gave a reason that has no meaning",
        };
        write!(f, "{words} (reply {:#04x})", self.0)
    }
}

/// Has the proxy at the other end of `stream` connect to `target`; what passes from then on is the peer's.
pub(super) async fn ask<S>(stream: &mut S, target: &PeerAddress, password: &str) -> Result<(), ProxyFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    say(stream, Step::Greeting, &[VERSION, 2, LOGIN, NO_LOGIN]).await?;
    let [version, method] = hear(stream, Step::Greeting).await?;
    is_version(Step::Greeting, version, VERSION)?;
    match method {
        NO_LOGIN => {}
        LOGIN => {
            say(stream, Step::Login, &login(USER, password)).await?;
            let [version, status] = hear(stream, Step::Login).await?;
            is_version(Step::Login, version, LOGIN_VERSION)?;
            if status != 0 {
                return Err(ProxyFault::LoginRefused(status));
            }
        }
        NO_METHOD => return Err(ProxyFault::NoMethod),
        other => return Err(ProxyFault::NotOffered(other)),
    }
    say(stream, Step::Request, &request(target)).await?;
    timeout(REACH_TIMEOUT, answer(stream)).await.map_err(|_| ProxyFault::Silent(Step::Request))??;
    // A peer that was connected to says nothing of its own (BOLT 8): what is there already is none of its bytes.
    match timeout(Duration::ZERO, stream.read_u8()).await {
        Err(_) => Ok(()),
        Ok(Ok(_)) => Err(ProxyFault::TooLong),
        Ok(Err(fault)) => Err(broken(Step::Request, &fault)),
    }
}

/// The proxy's answer to a request.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), ProxyFault> {
    // The first bytes say all there is to say where it does not connect; some proxies leave out the rest then.
    let [version, reply] = take(stream, Step::Request).await?;
    is_version(Step::Request, version, VERSION)?;
    if reply != 0 {
        return Err(ProxyFault::Answered(Reply(reply)));
    }
    let [_, kind] = take(stream, Step::Request).await?;
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let [length] = take(stream, Step::Request).await?;
            usize::from(length)
        }
        other => return Err(ProxyFault::AddressKind(other)),
    };
    // Where it connects from, and the port: nobody asks.
    let mut bound = [0; u8::MAX as usize + 2];
    let Some(bound) = bound.get_mut(..length + 2) else { return Err(ProxyFault::TooLong) };
    fill(stream, Step::Request, bound).await
}

/// User name and password (RFC 1929, section 2). Neither is longer than 255 bytes.
fn login(user: &str, password: &str) -> Vec<u8> {
    let mut bytes = vec![LOGIN_VERSION];
    for text in [user, password] {
        bytes.extend(u8::try_from(text.len()));
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// Whom to connect to (RFC 1928, section 4).
fn request(target: &PeerAddress) -> Vec<u8> {
    let mut bytes = vec![VERSION, CONNECT, 0];
    match &target.host {
        Host::Ip(IpAddr::V4(ip)) => {
            bytes.push(IPV4);
            bytes.extend(ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            bytes.push(IPV6);
            bytes.extend(ip.octets());
        }
        Host::Name(name) => push_name(&mut bytes, name),
        Host::Onion(service) => push_name(&mut bytes, &service.to_string()),
    }
    bytes.extend(target.port.to_be_bytes());
    bytes
}

/// A name has 253 bytes at the most.
fn push_name(bytes: &mut Vec<u8>, name: &str) {
    bytes.push(NAME);
    bytes.extend(u8::try_from(name.len()));
    bytes.extend_from_slice(name.as_bytes());
}

fn is_version(step: Step, version: u8, expected: u8) -> Result<(), ProxyFault> {
    if version == expected { Ok(()) } else { Err(ProxyFault::NotSocks5(step, version)) }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, step: Step, bytes: &[u8]) -> Result<(), ProxyFault> {
    let said = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    let said = timeout(PROXY_TIMEOUT, said).await.map_err(|_| ProxyFault::Silent(step))?;
    said.map_err(|fault| broken(step, &fault))
}

/// So many bytes, in the time for a short answer.
async fn hear<const N: usize, S: AsyncRead + Unpin>(stream: &mut S, step: Step) -> Result<[u8; N], ProxyFault> {
    timeout(PROXY_TIMEOUT, take(stream, step)).await.map_err(|_| ProxyFault::Silent(step))?
}

async fn take<const N: usize, S: AsyncRead + Unpin>(stream: &mut S, step: Step) -> Result<[u8; N], ProxyFault> {
    let mut bytes = [0; N];
    fill(stream, step, &mut bytes).await?;
    Ok(bytes)
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, step: Step, bytes: &mut [u8]) -> Result<(), ProxyFault> {
    stream.read_exact(bytes).await.map(drop).map_err(|fault| broken(step, &fault))
}

fn broken(step: Step, fault: &io::Error) -> ProxyFault {
    match fault.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ProxyFault::HungUp(step)
        }
        kind => ProxyFault::Broken(step, kind),
    }
}
