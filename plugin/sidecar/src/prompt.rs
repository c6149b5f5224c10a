//! Words from the standard input: typed at a terminal, which does not show them, or given by a program.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// More than the longest words and the space between them.
const MAX_BYTES: usize = 4096;

/// Reads one line from a terminal without showing it, or all that a program gives.
pub(crate) fn words() -> io::Result<Zeroizing<String>> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read(input.lock(), false);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(typed())
}

/// Reads one line from the terminal without showing it. A signal that asks the process to end ends the wait, and no more: the terminal
/// shows again what is typed before the process ends.
async fn typed() -> io::Result<Zeroizing<String>> {
    // Before the terminal is changed.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let hidden = Hidden::begin()?;
    eprint!("Type the words with spaces between, then Enter; they are not shown: ");
    io::stderr().flush()?;
    let (given, words) = oneshot::channel();
    // Nobody waits for this thread where a signal comes first: it ends with the process.
    std::thread::Builder::new().name("prompt".to_owned()).spawn(move || {
        let _ = given.send(read(io::stdin().lock(), true));
    })?;
    let ended = tokio::select! {
        words = words => words.unwrap_or_else(|_| Err(io::Error::other("their reader is gone"))),
        _ = interrupt.recv() => Err(io::Error::other("interrupted")),
        _ = quit.recv() => Err(io::Error::other("interrupted")),
        _ = terminate.recv() => Err(io::Error::other("asked to end")),
        _ = hangup.recv() => Err(io::Error::other("the terminal is gone")),
    };
    drop(hidden);
    if ended.is_err() {
        // What follows does not stand behind the question.
        eprintln!();
    }
    ended
}

/// What is read is kept where nothing moves it about.
fn read(mut input: impl Read, one_line: bool) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES));
    let mut byte = Zeroizing::new([0; 1]);
    while input.read(byte.as_mut_slice())? == 1 {
        if one_line && *byte == *b"\n" {
            break;
        }
        if bytes.len() == MAX_BYTES {
            return Err(io::Error::other("there is far more than 24 words"));
        }
        bytes.push(byte[0]);
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::other("they are not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// What a key is that means nothing to a terminal (`_POSIX_VDISABLE` of Linux).
const DISABLED: u8 = 0;

/// For as long as it lives the terminal shows nothing of what is typed.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
        // Nothing suspends the process, which would leave a shell in this terminal.
        quiet.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing either.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
