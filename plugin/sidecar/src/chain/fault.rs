//! What may go wrong between us and bitcoind, and what to do about it.

use std::fmt;
use std::sync::Arc;

/// The kinds of trouble with bitcoind. Their names are stable: callers of the interface see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No connection, or it broke.
    Unreachable,
    /// No whole answer within the time limit.
    Timeout,
    /// The cookie file is not there or not readable.
    NoCookie,
    /// Wrong user, password or cookie (HTTP 401 or 403).
    Unauthorized,
    /// The address is not on this machine and this was not allowed (BTC-11).
    Remote,
    /// bitcoind starts and does not answer yet (code -28).
    WarmingUp,
    /// bitcoind's queue of calls is full (HTTP 503).
    Busy,
    /// The answer is larger than any we ask for.
    TooLarge,
    /// The answer is not what the call returns.
    Malformed,
    /// The block cannot be read: no later answer may be taken in its place (PRS-7).
    Undecodable,
    /// The asked thing does not exist (codes -5 and -8).
    NotFound,
    /// The block was deleted by pruning.
    Pruned,
    /// bitcoind does not know this call, or not with these parameters.
    NoSuchCall,
    /// bitcoind's own refusal, with its code.
    Refused(i32),
    /// We are shutting down.
    Stopped,
}

/// A call to bitcoind that gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcFault {
    /// What is wrong.
    pub kind: FaultKind,
    /// bitcoind's words or the system's, cut to a line.
    pub message: String,
    /// What led there, where that helps to mend it.
    search: Option<Arc<str>>,
}

impl FaultKind {
    /// The code of bitcoind's own refusal: it was asked, and this is its answer. `None` where it could not be asked, or
    /// what came is no answer to the call.
    pub const fn refusal(self) -> Option<i32> {
        match self {
            Self::Refused(code) => Some(code),
            Self::Unreachable
            | Self::Timeout
            | Self::NoCookie
            | Self::Unauthorized
            | Self::Remote
            | Self::WarmingUp
            | Self::Busy
            | Self::TooLarge
            | Self::Malformed
            | Self::Undecodable
            | Self::NotFound
            | Self::Pruned
            | Self::NoSuchCall
            | Self::Stopped => None,
        }
    }
}

/// Codes of bitcoind's `rpc/protocol.h`.
const RPC_MISC_ERROR: i32 = -1;
const RPC_INVALID_ADDRESS_OR_KEY: i32 = -5;
const RPC_INVALID_PARAMETER: i32 = -8;
const RPC_IN_WARMUP: i32 = -28;
const RPC_METHOD_NOT_FOUND: i32 = -32601;
const RPC_INVALID_PARAMS: i32 = -32602;

/// As much of a foreign text as is kept.
const MESSAGE_CHARS: usize = 300;

impl RpcFault {
    /// A fault with the world's own words, without control characters and cut to a line.
    pub fn new(kind: FaultKind, message: impl fmt::Display) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let message = message.to_string().chars().take(MESSAGE_CHARS).map(printable).collect();
        Self { kind, message, search: None }
    }

    /// The same, with what led there; nothing where that is empty.
    pub(super) fn after(self, search: &str) -> Self {
        Self { search: Some(search.into()).filter(|search: &Arc<str>| !search.is_empty()), ..self }
    }

    /// What happened, what is safe meanwhile, and what to do.
    pub fn advice(&self) -> String {
        let search = self.search.as_ref().map(|search| format!(" ({search})")).unwrap_or_default();
        format!(
            "{self}; {}{search}. Nothing is opened, accepted or paid until then; where channels are open do not leave it so for \
             hours",
            self.hint()
        )
    }

    /// What bitcoind means by an error object.
    pub(super) fn from_code(code: i32, message: &str) -> Self {
        let kind = match code {
            RPC_IN_WARMUP => FaultKind::WarmingUp,
            RPC_INVALID_ADDRESS_OR_KEY | RPC_INVALID_PARAMETER => FaultKind::NotFound,
            RPC_METHOD_NOT_FOUND | RPC_INVALID_PARAMS => FaultKind::NoSuchCall,
            RPC_MISC_ERROR if message.contains("pruned") => FaultKind::Pruned,
            other => FaultKind::Refused(other),
        };
        Self::new(kind, message)
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self.kind {
            FaultKind::Unreachable => "start bitcoind, or correct its RPC address",
            FaultKind::Timeout => "bitcoind is overloaded or hangs: look at its log",
            FaultKind::NoCookie => "start bitcoind with server=1, or correct the path of its cookie file",
            FaultKind::Unauthorized => "correct the RPC user and password, or the path of the cookie file",
            FaultKind::Remote => "use bitcoind on this machine or through a tunnel, or allow a remote one explicitly",
            FaultKind::WarmingUp => "wait: bitcoind is starting",
            FaultKind::Busy => "wait, or raise rpcworkqueue in bitcoin.conf",
            FaultKind::TooLarge | FaultKind::Malformed => "check that the RPC address is that of a bitcoind",
            FaultKind::Undecodable => "start a newer outriggerd, or look for damage at bitcoind",
            FaultKind::NotFound => "wait until bitcoind has synchronised",
            FaultKind::Pruned => {
                "fetch the block with getblockfrompeer, or run bitcoind with -reindex and less pruning"
            }
            FaultKind::NoSuchCall => "use a newer bitcoind",
            FaultKind::Refused(_) => "look at bitcoind's log",
            FaultKind::Stopped => "start the daemon again",
        }
    }

    /// Whether the same call may succeed later without anybody doing anything to this node.
    pub fn retryable(&self) -> bool {
        match self.kind {
            FaultKind::Unreachable
            | FaultKind::Timeout
            | FaultKind::NoCookie
            | FaultKind::Unauthorized
            | FaultKind::WarmingUp
            | FaultKind::Busy
            | FaultKind::TooLarge
            | FaultKind::Malformed
            | FaultKind::Undecodable
            | FaultKind::NotFound
            | FaultKind::Pruned => true,
            FaultKind::Remote | FaultKind::NoSuchCall | FaultKind::Refused(_) | FaultKind::Stopped => false,
        }
    }
}

impl fmt::Display for RpcFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bitcoind: {:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for RpcFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn btc_8_codes_are_read_as_bitcoind_means_them() {
        let kinds = [
            (-28, "Loading block index…", FaultKind::WarmingUp),
            (-5, "Block not found", FaultKind::NotFound),
            (-8, "Block height out of range", FaultKind::NotFound),
            (-1, "Block not available (pruned data)", FaultKind::Pruned),
            (-1, "Block not found on disk", FaultKind::Refused(-1)),
            (-25, "bad-txns-inputs-missingorspent", FaultKind::Refused(-25)),
            (-32601, "Method not found", FaultKind::NoSuchCall),
        ];
        for (code, message, kind) in kinds {
            assert_eq!(RpcFault::from_code(code, message).kind, kind, "{code} {message}");
        }
    }

    #[test]
    fn foreign_text_is_cut_and_has_no_control_characters() {
        let fault = RpcFault::new(FaultKind::Malformed, format!("\x1b[31m\n{}", "ä".repeat(1000)));
        assert_eq!(fault.message.chars().count(), MESSAGE_CHARS);
        assert!(!fault.message.chars().any(char::is_control));
    }
}
