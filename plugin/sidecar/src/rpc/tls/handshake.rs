//! How a connection to the port comes to speak TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::renewal::Stamps;
use super::{Loaded, TlsFault, TlsFiles, load};

/// How long a caller may take from its connection to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at once: strangers who say nothing take no more of the port's places than these.
const MAX_HANDSHAKES: usize = 256;

/// The first byte of everything that begins TLS: a record of its handshake.
const RECORD_OF_HANDSHAKE: u8 = 22;

/// What is read of a caller that does not speak TLS, so that it can read why it is sent away.
const MAX_PLAIN_BYTES: u64 = 64 * 1024;

/// The port's TLS, as its files have it now.
pub(in crate::rpc) struct TlsDoor {
    pub(super) files: TlsFiles,
    /// Where callers on this machine find the certificate.
    pub(super) published: PathBuf,
    pub(super) current: watch::Sender<Arc<Loaded>>,
    /// The files as they were before they were first read.
    pub(super) first_seen: Stamps,
    handshakes: Semaphore,
}

impl TlsDoor {
    /// Reads the files. `published` is where callers on this machine are to find the certificate; the second value is what stands
    /// there first.
    pub(in crate::rpc) fn open(files: &TlsFiles, published: &Path) -> Result<(Self, String), TlsFault> {
        let first_seen = Stamps::of(files);
        let loaded = load(files)?;
        let pem = loaded.pem.clone();
        let door = Self {
            files: files.clone(),
            published: published.to_owned(),
            current: watch::Sender::new(Arc::new(loaded)),
            first_seen,
            handshakes: Semaphore::new(MAX_HANDSHAKES),
        };
        door.tell_dates();
        Ok((door, pem))
    }

    /// The connection once it is encrypted; none where it does not come to that, which its caller sees.
    pub(in crate::rpc) async fn enter(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let Ok(_place) = self.handshakes.try_acquire() else {
            tracing::warn!("a caller was turned away: there are as many TLS handshakes as are waited for at once");
            return None;
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.handshake(stream)).await {
            Ok(Ok(encrypted)) => encrypted,
            Ok(Err(fault)) => {
                tracing::debug!(%fault, "the TLS handshake of a caller failed");
                None
            }
            Err(_) => {
                tracing::debug!("the TLS handshake of a caller took too long");
                None
            }
        }
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<Option<TlsStream<TcpStream>>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        if first != [RECORD_OF_HANDSHAKE] {
            send_away(stream).await?;
            return Ok(None);
        }
        let config = self.current.borrow().config.clone();
        TlsAcceptor::from(config).accept(stream).await.map(Some)
    }
}

/// Says to whoever does not speak TLS that it must. What it sent is never looked at.
async fn send_away(mut stream: TcpStream) -> io::Result<()> {
    const WORDS: &str = "This port speaks TLS: the address must begin with https://\n";
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        WORDS.len()
    );
    stream.write_all(format!("{head}{WORDS}").as_bytes()).await?;
    stream.shutdown().await?;
    // What came and was not read would end the connection before the words are read.
    tokio::io::copy(&mut stream.take(MAX_PLAIN_BYTES), &mut tokio::io::sink()).await.map(drop)
}
