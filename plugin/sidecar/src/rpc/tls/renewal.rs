//! A certificate that was renewed on the disk is taken up while the daemon runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;

use super::handshake::TlsDoor;
use super::{DAY_SECS, TlsFiles, load, notice};
use crate::rpc::auth::replace;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often it is told that the certificate is not valid, or not for long.
const TELL_EVERY: Duration = Duration::from_secs(DAY_SECS);

/// What tells a file that was replaced or written from the one that was read; nothing where it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps([Option<[i64; 5]>; 2]);

impl Stamps {
    /// Those of the files as they are.
    pub(super) fn of(files: &TlsFiles) -> Self {
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            Some([found.mtime(), found.mtime_nsec(), found.ctime_nsec(), number(found.size()), number(found.ino())])
        };
        Self([stamp(&files.certificate), stamp(&files.key)])
    }
}

impl TlsDoor {
    /// Looks at the files again and again; never ends.
    pub(in crate::rpc) async fn follow(self: Arc<Self>) {
        let mut seen = self.first_seen;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut tells = tokio::time::interval(TELL_EVERY);
        // Both have just been done.
        looks.tick().await;
        tells.tick().await;
        loop {
            tokio::select! {
                _ = looks.tick() => {
                    let door = self.clone();
                    // A disk may be slow. What panics there ends the process by itself.
                    if let Ok(now) = tokio::task::spawn_blocking(move || door.look(seen)).await {
                        seen = now;
                    }
                }
                _ = tells.tick() => self.tell_dates(),
            }
        }
    }

    /// Takes up what has changed. What cannot be used changes nothing: a renewal may be halfway.
    fn look(&self, seen: Stamps) -> Stamps {
        let now = Stamps::of(&self.files);
        if now != seen {
            self.take_up();
        }
        now
    }

    fn take_up(&self) {
        let loaded = match load(&self.files) {
            Ok(loaded) => loaded,
            Err(fault) => {
                tracing::warn!(
                    "the files of the JSON-RPC port's certificate were changed, and the one before is used on: {fault}"
                );
                return;
            }
        };
        let loaded = Arc::new(loaded);
        let before = self.current.send_replace(loaded.clone());
        if let Err(fault) = replace(&self.published, loaded.pem.as_bytes()) {
            let path = self.published.display();
            tracing::warn!(%fault, "callers on this machine cannot be told of the new certificate: {path}");
        }
        if before.leaf != loaded.leaf {
            tracing::info!("the certificate of the JSON-RPC port was renewed: new connections have the new one");
        }
        self.tell_dates();
    }

    /// Tells the operator of a certificate that is not valid, or not for long.
    pub(super) fn tell_dates(&self) {
        if let Some(words) = notice(&self.current.borrow().leaf, UnixTime::now()) {
            tracing::warn!("the certificate of the JSON-RPC port ({}): {words}", self.files.certificate.display());
        }
    }
}
