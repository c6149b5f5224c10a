//! Where a peer listens: an IP address, a host name or an onion service (BOLT 7, "The `node_announcement` Message"), and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use sha3::{Digest, Sha3_256};

/// Bytes of a host name at the most (RFC 1035).
const HOST_BYTES: usize = 253;

/// What the name of every onion service ends with.
const ONION: &str = ".onion";

/// Letters before it.
const ONION_LETTERS: usize = 56;

/// The digits of base 32 (RFC 4648), as Tor writes them.
const BASE_32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It has not the form of one.
    #[error("must be host:port, an IPv6 address in brackets")]
    Form,
    /// It names an onion service, and none can have that name.
    #[error("{0}")]
    OnionService(#[from] InvalidOnionService),
}

/// Why a name is not that of an onion service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOnionService {
    /// Another count of letters, or others.
    #[error("must be 56 letters of a-z and 2-7 before .onion (version 3); shorter ones of version 2 are no more")]
    Letters,
    /// The version in it is not 3.
    #[error("is an onion service of version {0}: only version 3 is known")]
    Version(u8),
    /// The checksum in it is another: a letter is wrong.
    #[error("has a wrong checksum: a letter of the onion service's name is wrong")]
    Checksum,
}

/// An onion service of version 3 (BOLT 7, address type 4; Tor's rend-spec-v3, section 6). Its checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnionService([u8; Self::LEN]);

impl OnionService {
    /// Bytes of an address of type 4, the port apart.
    pub const LEN: usize = 35;

    /// From the bytes that stand in BOLT 7: an ed25519 key, a checksum of two bytes and the version.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Result<Self, InvalidOnionService> {
        let [key @ .., first, second, version] = &bytes;
        if *version != 3 {
            return Err(InvalidOnionService::Version(*version));
        }
        let digest =
            Sha3_256::new().chain_update(b".onion checksum").chain_update(key).chain_update([*version]).finalize();
        if digest.get(..2) != Some(&[*first, *second]) {
            return Err(InvalidOnionService::Checksum);
        }
        Ok(Self(bytes))
    }

    /// The bytes that stand in BOLT 7.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        self.0
    }
}

impl fmt::Display for OnionService {
    /// As Tor writes it, with `.onion` behind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for five in self.0.chunks(5) {
            let bits = five.iter().fold(0_u64, |bits, byte| bits.wrapping_shl(8) | u64::from(*byte));
            for place in (0..8_u32).rev() {
                let digit = bits.wrapping_shr(place.wrapping_mul(5)) & 31;
                let letter = usize::try_from(digit).ok().and_then(|digit| BASE_32.get(digit)).ok_or(fmt::Error)?;
                write!(f, "{}", char::from(*letter))?;
            }
        }
        f.write_str(ONION)
    }
}

impl fmt::Debug for OnionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OnionService {
    type Err = InvalidOnionService;

    /// Reads a name in letters of either case.
    fn from_str(text: &str) -> Result<Self, InvalidOnionService> {
        let lower = text.to_ascii_lowercase();
        let letters = lower.strip_suffix(ONION).filter(|letters| letters.len() == ONION_LETTERS);
        let letters = letters.ok_or(InvalidOnionService::Letters)?;
        let mut bytes = [0; Self::LEN];
        for (eight, five) in letters.as_bytes().chunks(8).zip(bytes.chunks_mut(5)) {
            let bits = eight.iter().try_fold(0_u64, |bits, letter| {
                let digit = BASE_32.iter().position(|known| known == letter)?;
                Some(bits.wrapping_shl(5) | u64::try_from(digit).ok()?)
            });
            let bits = bits.ok_or(InvalidOnionService::Letters)?;
            five.iter_mut().zip(bits.to_be_bytes().iter().skip(3)).for_each(|(place, byte)| *place = *byte);
        }
        Self::from_bytes(bytes)
    }
}

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A machine by its number.
    Ip(IpAddr),
    /// A machine by a name that somebody has to look up; never one that ends with `.onion`.
    Name(String),
    /// An onion service, which Tor alone finds.
    Onion(OnionService),
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Whom it names.
    pub host: Host,
    /// The port, not 0.
    pub port: u16,
}

impl fmt::Display for PeerAddress {
    /// As `host:port`, an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{port}"),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{port}"),
            Host::Name(name) => write!(f, "{name}:{port}"),
            Host::Onion(service) => write!(f, "{service}:{port}"),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress::Form)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(InvalidAddress::Form)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => Host::Ip(ip.parse::<Ipv6Addr>().map_err(|_| InvalidAddress::Form)?.into()),
            None => named(host)?,
        };
        Ok(Self { host, port })
    }
}

/// Whom a text without brackets names.
fn named(text: &str) -> Result<Host, InvalidAddress> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > HOST_BYTES || !text.bytes().all(is_letter) {
        return Err(InvalidAddress::Form);
    }
    // A name with a dot behind is the same name, and no resolver may hear of it (RFC 7686).
    let name = text.trim_end_matches('.');
    if name.to_ascii_lowercase().ends_with(ONION) {
        return Ok(Host::Onion(name.parse()?));
    }
    Ok(text.parse().map_or_else(|_| Host::Name(text.to_owned()), |ip| Host::Ip(IpAddr::V4(ip))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of Tor's rend-spec-v3, section 6.
    const SERVICES: [&str; 3] = [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
        "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd.onion",
    ];

    #[test]
    fn onion_services_are_read_and_written() {
        for name in SERVICES {
            let service: OnionService = name.parse().unwrap();
            assert_eq!(service.to_string(), name);
            assert_eq!(name.to_uppercase().parse(), Ok(service));
            assert_eq!(OnionService::from_bytes(service.to_bytes()), Ok(service));
            assert_eq!(service.to_bytes()[34], 3);
        }
    }

    #[test]
    fn bad_input_13_names_that_no_onion_service_has_are_refused() {
        let name = SERVICES[0];
        // Each letter is covered by the checksum; the last holds the version too.
        for place in 0..ONION_LETTERS - 1 {
            let mut letters = name.to_owned();
            let other = if &name[place..=place] == "a" { "b" } else { "a" };
            letters.replace_range(place..=place, other);
            let fault = letters.parse::<OnionService>().unwrap_err();
            assert!(matches!(fault, InvalidOnionService::Checksum | InvalidOnionService::Version(_)), "{letters}");
        }
        let version_2 = format!("{}e.onion", &name[..55]);
        assert_eq!(version_2.parse::<OnionService>(), Err(InvalidOnionService::Version(4)));
        for bad in ["", ".onion", "expyuzz4wqqyqhjn.onion", &name[1..], &format!("a{name}"), &name.replace('7', "1")] {
            assert_eq!(bad.parse::<OnionService>(), Err(InvalidOnionService::Letters), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_read_and_written_alike() {
        let service = format!("{}:9735", SERVICES[1]);
        for good in ["127.0.0.1:9735", "node.example:1", "[::1]:9735", "a_b-c:65535", &service] {
            assert_eq!(good.parse::<PeerAddress>().map(|address| address.to_string()), Ok(good.to_owned()));
        }
        assert!(matches!("1.2.3.4:1".parse(), Ok(PeerAddress { host: Host::Ip(IpAddr::V4(_)), port: 1 })));
        assert!(matches!("1.2.3:1".parse(), Ok(PeerAddress { host: Host::Name(_), port: 1 })));
        assert!(matches!(service.parse(), Ok(PeerAddress { host: Host::Onion(_), port: 9735 })));
        let long = format!("{}:1", "x".repeat(HOST_BYTES + 1));
        for bad in
            ["", "127.0.0.1", ":1", "host:", "host:0", "host:65536", "::1:9735", "[::1]", "a b:1", "[x]:1", &long]
        {
            assert_eq!(bad.parse::<PeerAddress>(), Err(InvalidAddress::Form), "{bad:?}");
        }
    }

    #[test]
    fn no_name_of_an_onion_service_passes_for_one_to_be_looked_up() {
        let no_key = format!("{}d.onion", "a".repeat(55));
        for (name, fault) in [
            ("short.onion", InvalidOnionService::Letters),
            ("SHORT.ONION.", InvalidOnionService::Letters),
            ("www.pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion", InvalidOnionService::Letters),
            (&no_key, InvalidOnionService::Checksum),
        ] {
            assert_eq!(format!("{name}:1").parse::<PeerAddress>(), Err(fault.into()), "{name}");
        }
        let dotted = format!("{}.:1", SERVICES[2].to_uppercase());
        assert_eq!(dotted.parse::<PeerAddress>().map(|address| address.to_string()), Ok(format!("{}:1", SERVICES[2])));
    }
}
