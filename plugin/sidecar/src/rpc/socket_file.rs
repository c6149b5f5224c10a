//! The socket file: whoever can open it is its owner, and may do everything.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_rpc_schema::rendezvous::SOCKET_FILE;
use tokio::net::UnixListener;

/// The longest path that a socket can have, on every system that this runs on.
const MAX_PATH_BYTES: usize = 103;

/// Listens on the socket file of this directory, whose lock the caller holds, in the place of what an earlier run left there.
/// None where its path is too long for a socket.
pub(super) fn listen(directory: &Path) -> io::Result<Option<(Arc<UnixListener>, PathBuf)>> {
    let path = directory.join(SOCKET_FILE);
    let new = directory.join(format!("{SOCKET_FILE}.new"));
    if new.as_os_str().len() > MAX_PATH_BYTES {
        tracing::warn!(path = %path.display(), "there is no socket file: its path would be too long for one");
        return Ok(None);
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    // It has its name only once nobody else can open it.
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, &path)?;
    Ok(Some((Arc::new(listener), path)))
}
