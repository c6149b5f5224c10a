//! Whoever supervises the process, as systemd does: it is told over a datagram socket when the node is ready, what it does, that
//! it still goes on, and that it stops (sd_notify(3)). Where nobody supervises, nothing is sent.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// What names the socket: a path, or `@` and a name in the abstract namespace.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How long the supervisor waits for a sign of life, in microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// The process of which signs of life are expected; any that reads this where it is not there.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// A supervisor that takes nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a status line at the most: people read it in one line.
const LINE_BYTES: usize = 400;

/// Why the supervisor cannot be told anything. The node runs all the same; a supervisor that waits for word ends it in time.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorFault {
    /// The socket is of a kind that is not known.
    #[error("NOTIFY_SOCKET is {0:?}: it must be an absolute path, or @ and a name")]
    Address(OsString),
    /// There is no such socket, or none can be made.
    #[error("NOTIFY_SOCKET {0:?} cannot be used: {1}")]
    Io(OsString, io::Error),
}

/// The supervisor of this process.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    /// A fault is logged once.
    has_failed: AtomicBool,
}

impl Supervisor {
    /// The supervisor that the environment names; none where it names none.
    pub fn of_environment() -> Result<Option<Self>, SupervisorFault> {
        let Some(address) = std::env::var_os(SOCKET).filter(|address| !address.is_empty()) else { return Ok(None) };
        let text = |name| std::env::var(name).ok();
        let watchdog = watchdog(text(WATCHDOG).as_deref(), text(WATCHDOG_PID).as_deref(), std::process::id());
        Self::at(&address, watchdog).map(Some)
    }

    /// The supervisor at an address as `NOTIFY_SOCKET` has it, which expects a sign of life so often.
    pub fn at(address: &OsStr, watchdog: Option<Duration>) -> Result<Self, SupervisorFault> {
        let fault = |fault| SupervisorFault::Io(address.to_owned(), fault);
        let place = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name).map_err(fault)?,
            [b'/', ..] => SocketAddr::from_pathname(address).map_err(fault)?,
            _ => return Err(SupervisorFault::Address(address.to_owned())),
        };
        let socket = UnixDatagram::unbound().map_err(fault)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(fault)?;
        Ok(Self { socket, address: place, watchdog, has_failed: AtomicBool::new(false) })
    }

    /// How long the supervisor waits for a sign of life; none where it expects none.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The node answers its callers.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// What the node does, in a line.
    pub fn status(&self, line: &str) {
        self.say(&format!("STATUS={}", one_line(line)));
    }

    /// The node goes on.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// The node stops, since somebody asked it to or for a fault of its own.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping");
    }

    fn say(&self, message: &str) {
        if let Err(fault) = self.socket.send_to_addr(message.as_bytes(), &self.address)
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%fault, "the supervisor (NOTIFY_SOCKET) cannot be told how the node does");
        }
    }
}

/// How long the supervisor of the process `own` waits, from what its environment says. What cannot be read is none.
fn watchdog(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros = micros?.parse().ok().filter(|micros| *micros > 0)?;
    is_for_us.then(|| Duration::from_micros(micros))
}

/// A text as one line without control characters: a second line would be a message of its own.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
        if line.len().saturating_add(letter.len_utf8()) > LINE_BYTES {
            break;
        }
        line.push(letter);
    }
    line
}
