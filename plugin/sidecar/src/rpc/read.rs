//! From the texts and numbers of a call to the node's own types. Every fault names the parameter.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::hex::FromHex;
use outrigger_bolt::address::InvalidAddress;
use outrigger_bolt::amount::FeeratePerKw;
use outrigger_rpc_schema::Scope;

use super::rights::Bearers;
use super::{Answer, Caller, Fault, PeerAddress, token};
use crate::token::Rights;

/// The most characters in a text that a caller chooses as a name.
const NAME_CHARS: usize = 128;

/// How long a `*.wait` waits where the caller does not say.
const DEFAULT_WAIT_SECS: u32 = 60;

/// Weight units in a thousand virtual bytes over those in a thousand weight units.
const KW_PER_VB: u32 = 250;

/// An identifier, in lowercase hex as the interface writes it.
pub(super) fn id<T: FromStr>(parameter: &str, text: &str) -> Answer<T> {
    let lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let id = text.parse().ok().filter(|_| lowercase);
    id.ok_or_else(|| Fault::invalid_parameter(parameter, format!("is not a valid {parameter} in lowercase hex")))
}

/// A cursor that a page before has given: the id of its last item.
pub(super) fn cursor<T: FromStr>(text: Option<&str>) -> Answer<Option<T>> {
    let read = |text: &str| text.parse().map_err(|_| Fault::invalid_parameter("after", "is not the next of a page"));
    text.map(read).transpose()
}

/// A text that a caller chooses as a name.
pub(super) fn name(parameter: &str, text: String) -> Answer<String> {
    let problem = if text.is_empty() {
        "must not be empty"
    } else if text.chars().count() > NAME_CHARS {
        "must have at most 128 characters"
    } else if text.chars().any(char::is_control) {
        "must not have control characters"
    } else {
        return Ok(text);
    };
    Err(Fault::invalid_parameter(parameter, problem))
}

/// Stands between the name of a token and a key; no name has it in it.
const OF_TOKEN: char = '\u{1}';

/// Whose calls a caller finds by their ids: those that keys of its own name, as [`key`] has them; all, where it may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// What those keys begin with; all where it is none.
    prefix: Option<String>,
}

impl Whose {
    pub(super) fn of(caller: &Caller, bearers: &impl Bearers) -> Answer<Self> {
        let Some(token) = caller.payer() else { return Ok(Self { prefix: None }) };
        let Rights { name, scopes, .. } = bearers.rights(&token).ok_or_else(Fault::token_ended)?;
        let may_all = token::allows(scopes, &[Scope::Admin]);
        Ok(Self { prefix: (!may_all).then(|| format!("{name}{OF_TOKEN}")) })
    }

    /// Whether a call of this key, as rows know it, is among them.
    pub fn includes(&self, key: &str) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
    }
}

/// The id of a call: 16 bytes in lowercase hex.
pub(super) fn op_id(text: &str) -> Answer<[u8; 16]> {
    let lowercase = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let op_id = <[u8; 16]>::from_hex(text).ok().filter(|_| lowercase);
    op_id.ok_or_else(|| Fault::invalid_parameter("op_id", "is not a valid op_id in lowercase hex"))
}

/// A caller's idempotency key, as rows know it: keys belong to the name of the token that they are shown with, so that no
/// program is answered with what another did. The owner's have no name.
pub(super) fn key(text: String, caller: &Caller, bearers: &impl Bearers) -> Answer<String> {
    let key = name("idempotency_key", text)?;
    match caller.payer() {
        None => Ok(key),
        Some(token) => {
            let Rights { name, .. } = bearers.rights(&token).ok_or_else(Fault::token_ended)?;
            Ok(format!("{name}{OF_TOKEN}{key}"))
        }
    }
}

/// The key, as its caller knows it.
pub(super) fn shown_key(key: &str) -> &str {
    key.rsplit(OF_TOKEN).next().unwrap_or(key)
}

/// How long to wait.
pub(super) fn patience(secs: Option<u32>) -> Duration {
    Duration::from_secs(secs.unwrap_or(DEFAULT_WAIT_SECS).into())
}

/// A feerate that people type, in the unit of BOLT 2.
pub(super) fn feerate(sat_per_vb: Option<u32>) -> Answer<Option<FeeratePerKw>> {
    let read = |sat_per_vb: u32| {
        let sat_per_kw = sat_per_vb.checked_mul(KW_PER_VB).map(FeeratePerKw::new);
        sat_per_kw.ok_or_else(|| Fault::invalid_parameter("feerate_sat_per_vb", "is far above any feerate"))
    };
    sat_per_vb.map(read).transpose()
}

/// `host:port`, an IPv6 address in brackets, an onion service with its checksum.
pub(super) fn peer_address(text: &str) -> Answer<PeerAddress> {
    text.parse().map_err(|fault: InvalidAddress| Fault::invalid_parameter("address", fault))
}

#[cfg(test)]
mod tests {
    use outrigger_bolt::id::NodeId;

    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:9735", "node.example:1", "[::1]:9735"] {
            assert_eq!(peer_address(good).map(|address| address.to_string()), Ok(good.to_owned()));
        }
        let fault = peer_address("127.0.0.1").unwrap_err();
        assert_eq!(fault.to_string(), "parameter address must be host:port, an IPv6 address in brackets");
        let fault = peer_address("pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscrye.onion:9735").unwrap_err();
        assert_eq!(fault.to_string(), "parameter address is an onion service of version 4: only version 3 is known");
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(name("label", "x".repeat(128)).is_ok());
        for bad in [String::new(), "x".repeat(129), "a\nb".to_owned()] {
            assert!(name("label", bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn feerates_change_their_unit() {
        assert_eq!(feerate(Some(4)), Ok(Some(FeeratePerKw::new(1000))));
        assert!(feerate(Some(u32::MAX)).is_err());
    }

    #[test]
    fn an_op_id_is_sixteen_bytes_in_lowercase_hex() {
        assert_eq!(op_id("00ff00000000000000000000000000aa").map(|id| (id[1], id[15])), Ok((255, 170)));
        for bad in ["", "00", "00FF00000000000000000000000000aa", "00ff00000000000000000000000000aa00", "x"] {
            let fault = op_id(bad).unwrap_err();
            assert_eq!(fault.to_string(), "parameter op_id is not a valid op_id in lowercase hex", "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_of_the_token_that_stands_before_it_and_of_no_other() {
        let of = |prefix: Option<&str>| Whose { prefix: prefix.map(str::to_owned) };
        assert!(of(None).includes("mine") && of(None).includes("shop\u{1}1"));
        assert!(of(Some("shop\u{1}")).includes("shop\u{1}1"));
        for other in ["1", "shop", "shop2\u{1}1", "till\u{1}shop\u{1}1"] {
            assert!(!of(Some("shop\u{1}")).includes(other), "{other:?}");
        }
    }

    #[test]
    fn ids_are_lowercase_hex() {
        let key = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";
        assert!(id::<NodeId>("node_id", key).is_ok());
        for bad in [key.to_uppercase(), key[2..].to_owned(), format!("05{}", &key[2..]), String::new()] {
            let fault = id::<NodeId>("node_id", &bad).unwrap_err();
            assert_eq!(fault.to_string(), "parameter node_id is not a valid node_id in lowercase hex");
        }
    }
}
