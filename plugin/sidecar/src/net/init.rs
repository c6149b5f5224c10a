//! The first message each way (BOLT 1, "The `init` Message").

use outrigger_bolt::wire::setup::Init;
use outrigger_bolt::wire::{DecodeError, Message};
use tokio::time::timeout;

use super::INIT_TIMEOUT;
use super::frame::{FrameFault, FrameReader, FrameWriter};
use super::peer_text::PeerText;

/// Why the `init` of a peer does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InitFault {
    #[error("no init within {} s", INIT_TIMEOUT.as_secs())]
    Timeout,
    #[error("instead of sending init the peer's connection ended: {0}")]
    Frame(#[from] FrameFault),
    #[error("the peer says: {0}")]
    PeerRefuses(String),
    #[error("the first message is not init but {0}")]
    NotInit(String),
    #[error("init cannot be read: {0}")]
    Malformed(DecodeError),
    #[error("{0}")]
    Features(String),
    #[error("the peer is on none of our chains")]
    NoCommonChain,
}

impl InitFault {
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }

    /// What the peer is told before the connection is dropped, where it is told anything.
    pub(super) fn warning(&self) -> Option<String> {
        match self {
            Self::Timeout | Self::Frame(_) | Self::PeerRefuses(_) | Self::Features(_) => None,
            Self::NotInit(_) => Some("init must be the first message".to_owned()),
            Self::Malformed(error) => Some(format!("init cannot be read: {error}")),
            Self::NoCommonChain => Some("we are on none of your chains".to_owned()),
        }
    }
}

/// Sends our `init` and gives the peer's, which we accept.
pub(super) async fn exchange(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    ours: &Init,
) -> Result<Init, InitFault> {
    let theirs = async {
        send(writer, ours).await?;
        read(reader).await
    };
    let theirs = timeout(INIT_TIMEOUT, theirs).await.map_err(|_| InitFault::Timeout)??;
    check(ours, &theirs)?;
    Ok(theirs)
}

async fn send(writer: &mut FrameWriter, ours: &Init) -> Result<(), InitFault> {
    let message = Message::Init(ours.clone());
    let bytes = message.encode().map_err(|error| InitFault::Features(format!("our init cannot be sent: {error}")))?;
    writer.push(&bytes)?;
    Ok(writer.flush().await?)
}

async fn read(reader: &mut FrameReader) -> Result<Init, InitFault> {
    let frame = reader.next().await?;
    match Message::decode(&frame) {
        Ok(Message::Init(init)) => Ok(init),
        Ok(Message::Error(error)) => Err(InitFault::PeerRefuses(PeerText(&error.data).to_string())),
        Ok(Message::Warning(warning)) => Err(InitFault::PeerRefuses(PeerText(&warning.data).to_string())),
        Ok(other) => Err(InitFault::NotInit(other.name().to_owned())),
        Err(error) => Err(InitFault::Malformed(error)),
    }
}
