//! Words from the standard input: typed at a terminal, which does not show them, or given by a program.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// More than the longest words and the space between them.
const MAX_BYTES: usize = 4096;

/// Reads one line from a terminal without showing it, or all that a program gives.
pub(crate) fn words() -> io::Result<Zeroizing<String>> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read(input.lock(), false);
    }
    let hidden = Hidden::begin()?;
    eprint!("Type the words with spaces between, then Enter; they are not shown: ");
    io::stderr().flush()?;
    let words = read(io::stdin().lock(), true);
    drop(hidden);
    words
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

/// For as long as it lives the terminal shows nothing of what is typed.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
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
