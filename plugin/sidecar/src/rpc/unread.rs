//! A connection whose other end reads: where nothing of what is written to it is taken for too long, it is over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a caller over HTTP may take nothing of its answer. Whoever takes some of it has as long again.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection that ends with [`io::ErrorKind::TimedOut`] when its other end takes nothing for [`UNREAD_TIMEOUT`].
pub(super) struct Unread<S> {
    inner: S,
    /// Runs while something waits to be taken.
    waiting: Option<Pin<Box<Sleep>>>,
    has_patience: Arc<AtomicBool>,
}

/// Lets a connection wait for as long as its other end likes: sessions have a limit of their own, in messages.
#[derive(Clone)]
pub(super) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// From now on.
    pub(super) fn have(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S> Unread<S> {
    /// Watches over a connection.
    pub(super) fn of(inner: S) -> (Self, Patience) {
        let has_patience = Arc::new(AtomicBool::new(false));
        let patience = Patience(has_patience.clone());
        (Self { inner, waiting: None, has_patience }, patience)
    }

    /// What a write came to, unless it has waited for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() || self.has_patience.load(Ordering::Relaxed) {
            self.waiting = None;
            return outcome;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(UNREAD_TIMEOUT)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unread<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unread<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watched(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.watched(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        // A socket has nothing to flush, and is done at once: that says nothing of what was taken.
        if outcome.is_ready() { outcome } else { self.watched(cx, outcome) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watched(cx, outcome)
    }
}
