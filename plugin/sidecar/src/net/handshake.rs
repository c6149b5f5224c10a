//! The three acts over a socket, each within its time (BOLT 8, "Handshake Exchange").
//!
//! Whatever is wrong with an act, the socket is dropped without an answer.

use bitcoin::secp256k1::SecretKey;
use outrigger_bolt::id::NodeId;
use outrigger_bolt::transport::handshake::{ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN};
use outrigger_bolt::transport::{Act, Established, HandshakeError, Initiator, Responder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::ACT_TIMEOUT;
use super::frame::{FrameFault, FrameReader, FrameWriter};
use super::socket::{ReadEnd, Socket, WriteEnd};
use crate::clock::{Clock, NoEntropy};

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeFault {
    #[error("no act {0} within {secs} s", secs = ACT_TIMEOUT.as_secs())]
    Timeout(Act),
    #[error("instead of act {0}: {1}")]
    Socket(Act, FrameFault),
    #[error(transparent)]
    Act(#[from] HandshakeError),
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// A connection to a peer that has proved its key.
pub(super) struct Session {
    pub(super) peer: NodeId,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
}

impl Session {
    fn new(reader: ReadEnd, writer: WriteEnd, established: Established) -> Self {
        let Established { encryptor, decryptor, remote } = established;
        Self { peer: remote, reader: FrameReader::new(reader, decryptor), writer: FrameWriter::new(writer, encryptor) }
    }
}

/// The handshake of the side that connected to `peer`.
pub(super) async fn initiate(secret: &SecretKey, peer: NodeId, socket: Socket) -> Result<Session, HandshakeFault> {
    let Socket { mut reader, mut writer } = socket;
    let (act_one, initiator) = Initiator::begin(*secret, &peer, ephemeral_key()?);
    send(&mut writer, Act::One, &act_one).await?;
    let act_two = receive::<ACT_TWO_LEN>(&mut reader, Act::Two).await?;
    let (act_three, established) = initiator.act_two(&act_two)?;
    send(&mut writer, Act::Three, &act_three).await?;
    Ok(Session::new(reader, writer, established))
}

/// The handshake of the side that was connected to.
pub(super) async fn respond(secret: &SecretKey, socket: Socket) -> Result<Session, HandshakeFault> {
    let Socket { mut reader, mut writer } = socket;
    let act_one = receive::<ACT_ONE_LEN>(&mut reader, Act::One).await?;
    let (act_two, responder) = Responder::new(*secret, ephemeral_key()?).act_one(&act_one)?;
    send(&mut writer, Act::Two, &act_two).await?;
    let act_three = receive::<ACT_THREE_LEN>(&mut reader, Act::Three).await?;
    let established = responder.act_three(&act_three)?;
    Ok(Session::new(reader, writer, established))
}

/// A key for one handshake only (BOLT 8: fresh, with strong randomness).
fn ephemeral_key() -> Result<SecretKey, NoEntropy> {
    loop {
        // All but some 2^-128 of all draws are keys.
        if let Ok(key) = SecretKey::from_slice(&Clock::random_bytes::<32>()?) {
            return Ok(key);
        }
    }
}

async fn send(writer: &mut WriteEnd, act: Act, bytes: &[u8]) -> Result<(), HandshakeFault> {
    let sent = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    match timeout(ACT_TIMEOUT, sent).await {
        Ok(sent) => sent.map_err(|error| HandshakeFault::Socket(act, error.into())),
        Err(_) => Err(HandshakeFault::Timeout(act)),
    }
}

async fn receive<const LEN: usize>(reader: &mut ReadEnd, act: Act) -> Result<[u8; LEN], HandshakeFault> {
    let mut bytes = [0; LEN];
    match timeout(ACT_TIMEOUT, reader.read_exact(&mut bytes)).await {
        Ok(Ok(_)) => Ok(bytes),
        Ok(Err(error)) => Err(HandshakeFault::Socket(act, error.into())),
        Err(_) => Err(HandshakeFault::Timeout(act)),
    }
}
