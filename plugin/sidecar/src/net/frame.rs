//! Whole messages in and out of a byte stream (BOLT 8, "Lightning Message Specification").

use std::io;

use outrigger_bolt::transport::cipher::{LENGTH_HEADER_LEN, MAC_LEN};
use outrigger_bolt::transport::{BadMac, Decryptor, Encryptor, MessageTooLong};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::socket::{ReadEnd, WriteEnd};

/// A message has at least its `type` (BOLT 1).
const MIN_MESSAGE_LEN: u16 = 2;
/// Bytes read and thrown away in wait for the peer to hang up.
const DRAINED_BYTES: usize = 1024 * 1024;

/// Why no more messages can pass. Each of these ends the connection without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameFault {
    #[error("the peer hung up")]
    HungUp,
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error(transparent)]
    BadMac(#[from] BadMac),
    #[error("a message of fewer than 2 bytes")]
    TooShort,
    #[error(transparent)]
    TooLong(#[from] MessageTooLong),
}

impl From<io::Error> for FrameFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::HungUp,
            kind => Self::Io(kind),
        }
    }
}

/// The receiving half of a connection. It holds one message at most, and what its socket's buffer holds.
pub(super) struct FrameReader {
    socket: ReadEnd,
    decryptor: Decryptor,
    /// Of the message whose header was taken already.
    length: Option<u16>,
}

impl FrameReader {
    pub(super) fn new(socket: ReadEnd, decryptor: Decryptor) -> Self {
        Self { socket, decryptor, length: None }
    }

    /// The next message, its `type` included. Not cancel safe: after a call that was dropped there is no next.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, FrameFault> {
        let length = match self.length.take() {
            Some(length) => length,
            None => {
                let mut header = [0; LENGTH_HEADER_LEN];
                self.socket.read_exact(&mut header).await?;
                self.length_in(&header)?
            }
        };
        let mut body = vec![0; usize::from(length).saturating_add(MAC_LEN)];
        self.socket.read_exact(&mut body).await?;
        Ok(self.decryptor.decrypt_message(&body)?)
    }

    /// The next message where all of it has come already; none where it must be waited for.
    pub(super) fn received(&mut self) -> Result<Option<Vec<u8>>, FrameFault> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(header) = self.socket.buffer().first_chunk().copied() else { return Ok(None) };
                self.socket.consume(LENGTH_HEADER_LEN);
                self.length_in(&header)?
            }
        };
        self.length = Some(length);
        let whole = usize::from(length).saturating_add(MAC_LEN);
        let Some(body) = self.socket.buffer().get(..whole) else { return Ok(None) };
        let message = self.decryptor.decrypt_message(body)?;
        self.socket.consume(whole);
        self.length = None;
        Ok(Some(message))
    }

    fn length_in(&mut self, header: &[u8; LENGTH_HEADER_LEN]) -> Result<u16, FrameFault> {
        let length = self.decryptor.decrypt_length(header)?;
        if length < MIN_MESSAGE_LEN { Err(FrameFault::TooShort) } else { Ok(length) }
    }

    /// Throws away what comes until the peer hangs up.
    pub(super) async fn drain(&mut self) {
        let mut left = DRAINED_BYTES;
        let mut bytes = [0; 4096];
        while left > 0 {
            match self.socket.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    }
}

/// The sending half of a connection.
pub(super) struct FrameWriter {
    socket: WriteEnd,
    encryptor: Encryptor,
    /// Encrypted messages, of which the socket has taken the first `written` bytes.
    pending: Vec<u8>,
    written: usize,
}

impl FrameWriter {
    pub(super) fn new(socket: WriteEnd, encryptor: Encryptor) -> Self {
        Self { socket, encryptor, pending: Vec::new(), written: 0 }
    }

    /// Encrypts a message, to be sent by the next [`FrameWriter::flush`].
    pub(super) fn push(&mut self, message: &[u8]) -> Result<(), FrameFault> {
        self.pending.extend(self.encryptor.encrypt(message)?);
        Ok(())
    }

    /// Sends what was pushed. Cancel safe: a later call goes on where one was dropped.
    pub(super) async fn flush(&mut self) -> Result<(), FrameFault> {
        while let Some(rest) = self.pending.get(self.written..)
            && !rest.is_empty()
        {
            match self.socket.write(rest).await? {
                0 => return Err(FrameFault::HungUp),
                written => self.written = self.written.saturating_add(written),
            }
        }
        // A new buffer, so that an idle connection holds no memory for its busiest moment.
        self.pending = Vec::new();
        self.written = 0;
        Ok(self.socket.flush().await?)
    }

    /// Tells the peer that nothing follows.
    pub(super) async fn shutdown(&mut self) -> Result<(), FrameFault> {
        Ok(self.socket.shutdown().await?)
    }
}
