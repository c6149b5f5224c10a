//! A byte stream to a peer, whatever carries it.

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;

pub(super) type ReadEnd = BufReader<Box<dyn AsyncRead + Send + Unpin>>;
pub(super) type WriteEnd = Box<dyn AsyncWrite + Send + Unpin>;

/// What is read at once, in bytes: what a peer has to say of one commit mostly comes whole. Memory that no burst has used
/// is never touched.
const READ_BYTES: usize = 64 * 1024;

/// The two ends of a byte stream.
pub struct Socket {
    pub(super) reader: ReadEnd,
    pub(super) writer: WriteEnd,
}

impl Socket {
    /// From the ends of any stream.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: BufReader::with_capacity(READ_BYTES, Box::new(reader)), writer: Box::new(writer) }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        // Messages are small and answered at once. A socket that cannot do without delay still works.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        Self::new(reader, writer)
    }
}
