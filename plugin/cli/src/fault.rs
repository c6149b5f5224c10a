//! Why there is no result, and the exit code that says so.

use std::fmt;
use std::io::{self, Write};

use outrigger_rpc_schema::{CallError, ParameterFault, methods, nearest};
use serde_json::json;

use crate::completions::SHELLS;
use crate::visible;

/// Exit code: the daemon refused the call, or its answer could not be written down.
const REFUSED: u8 = 1;
/// Exit code: the call is not one of the interface's.
pub(crate) const USAGE: u8 = 2;
/// Exit code: there is no daemon to ask.
const UNREACHABLE: u8 = 3;

/// The highest code with which JSON-RPC says that a call is malformed; domain codes are positive.
const JSON_RPC_CODES: std::ops::RangeInclusive<i32> = -32768..=-32600;
/// JSON-RPC's code for a fault of the daemon itself.
const INTERNAL_ERROR: i32 = -32603;

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The command line asks for nothing that there is.
    Usage(String),
    /// The daemon cannot be found.
    NoDaemon(String),
    /// The call failed.
    Call(CallError),
    /// What the daemon told cannot be written to the standard output.
    Output(String),
}

impl Fault {
    pub(crate) fn unknown_method(name: &str) -> Self {
        let known = methods().iter().map(|method| method.name);
        let hint = match nearest(name, known) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "outrigger-cli help lists the methods".to_owned(),
        };
        Self::Usage(format!("no method {name:?}; {hint}"))
    }

    pub(crate) fn unknown_shell(name: &str) -> Self {
        Self::Usage(format!("no script for the shell {name:?}; there is one for {}", SHELLS.join(", ")))
    }

    /// The daemon is gone amid events; it is looked for again.
    pub(crate) fn lost(fault: &CallError) -> Self {
        Self::NoDaemon(format!("{fault}; it is looked for again, and nothing will be missed"))
    }

    /// Says it on the standard error. Where that cannot be written nothing is left to do.
    pub(crate) fn tell(&self, is_json: bool) {
        let _ = writeln!(io::stderr(), "{}", self.told(is_json));
    }

    /// What is said.
    pub(crate) fn told(&self, is_json: bool) -> String {
        if is_json { self.json() } else { visible::lines(&self.to_string()) }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::NoDaemon(_) => UNREACHABLE,
            Self::Call(CallError::Refused(refusal)) => {
                let malformed = JSON_RPC_CODES.contains(&refusal.code) && refusal.code != INTERNAL_ERROR;
                if malformed { USAGE } else { REFUSED }
            }
            Self::Call(CallError::Garbled(_)) | Self::Output(_) => REFUSED,
            Self::Call(
                CallError::NotFound { .. }
                | CallError::Unreachable(_)
                | CallError::Untrusted(_)
                | CallError::Rejected(_),
            ) => UNREACHABLE,
        }
    }

    /// The fault as an error object, for scripts.
    pub(crate) fn json(&self) -> String {
        let error = match self {
            Self::Call(CallError::Refused(refusal)) => {
                json!({ "code": refusal.code, "message": refusal.message, "data": refusal.data })
            }
            Self::Usage(message) => json!({ "message": message, "data": { "kind": "usage" } }),
            Self::NoDaemon(message) => json!({ "message": message, "data": { "kind": "unreachable" } }),
            Self::Output(reason) => json!({ "message": unwritten(reason), "data": { "kind": "output" } }),
            Self::Call(error @ CallError::Untrusted(_)) => {
                json!({ "message": error.to_string(), "data": { "kind": "untrusted" } })
            }
            Self::Call(error) => json!({ "message": error.to_string(), "data": { "kind": "unreachable" } }),
        };
        visible::json(&error)
    }
}

fn unwritten(reason: &str) -> String {
    format!("the standard output cannot be written: {reason}")
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<ParameterFault> for Fault {
    fn from(fault: ParameterFault) -> Self {
        Self::Usage(fault.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::NoDaemon(message) => write!(f, "error: {message}"),
            Self::Output(reason) => write!(f, "error: {}", unwritten(reason)),
            Self::Call(CallError::Refused(refusal)) => {
                write!(f, "error: {}", visible::text(&refusal.message))?;
                let Some(data) = &refusal.data else { return write!(f, "\ncode:  {}", refusal.code) };
                let again = if data.retryable { ", may succeed later" } else { "" };
                let (kind, hint) = (visible::text(&data.kind), visible::text(&data.hint));
                write!(f, "\nkind:  {kind} ({}{again})\nhint:  {hint}", refusal.code)
            }
            Self::Call(error @ (CallError::Untrusted(_) | CallError::Rejected(400 | 403))) => {
                write!(f, "error: {error}")
            }
            Self::Call(error @ CallError::Rejected(401)) => {
                let hint = "The cookie is new at each start of the daemon; a token may have been revoked, or be over: token.list tells";
                write!(f, "error: {error}\nhint:  {hint}")
            }
            Self::Call(error) => write!(f, "error: {error}\nhint:  Is outriggerd running, and as this user?"),
        }
    }
}
