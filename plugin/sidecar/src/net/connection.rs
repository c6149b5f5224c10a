//! One connection, from the shown key to its end: one task that reads, writes and watches at once.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::features::Features;
use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::wire::{self, ChannelUpdate, DecodeError, Message, Opaque, PeerText, Ping, Warning};
use outrigger_channel::CHANNEL_PONG_BYTES;
use tokio::time::{sleep, timeout};

use super::bucket::Bucket;
use super::frame::{FrameFault, FrameReader, FrameWriter};
use super::handshake::{HandshakeFault, Session};
use super::init::{self, InitFault};
use super::keepalive::{Keepalive, Overdue, Owed};
use super::seat::Seat;
use super::{
    ANSWER_TIMEOUT, FAREWELL_TIMEOUT, GOSSIP_BURST_BYTES, GOSSIP_BYTES_PER_SECOND, IGNORED_BURST, IGNORED_PER_SECOND,
    OUTBOX_BYTES, PONG_TIMEOUT, Shared, Stopped, WRITE_TIMEOUT,
};
use crate::manager::outbox::{Closed, Connection, Heard, Next, Origin, Outbox, OutboxReader, PeerHandler, outbox};

/// All channels, or none in particular (BOLT 1, "The `error` and `warning` Messages").
const NO_CHANNEL: ChannelId = ChannelId([0; 32]);
/// How many pings of a peer are answered at once, and how many a second after that (BOLT 1 allows limits, DOS-9).
const PINGS: (u64, u64) = (32, 1);
/// What the peer is not read for, once the budget is spent.
const IGNORED_PAUSE: Duration = Duration::from_millis(1);
/// How many oddities of one connection are logged; the others pass in silence (DOS-10).
const LOGGED_NOTES: u32 = 16;

/// Why two nodes that opened a socket did not become peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MeetFault {
    #[error(transparent)]
    Handshake(#[from] HandshakeFault),
    #[error(transparent)]
    Init(#[from] InitFault),
    #[error("we do not accept the peer: {0}")]
    NotWanted(String),
    #[error("a newer connection of the same peer took its place")]
    Outrun,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The peer's bytes ended, or were not what it must send.
    Frame(FrameFault),
    /// The peer broke a rule after which nothing is said.
    Broken(String),
    /// The peer broke a rule and was told so.
    Warned(String),
    /// No `pong` in time.
    Silent,
    /// No answer in time on this channel.
    Unanswered(ChannelId, Owed),
    /// The peer takes none of our bytes.
    Stuck,
    /// Our own side closed the queue.
    Ours(Closed),
    /// A newer connection of the same peer.
    Replaced,
    /// The node stops.
    Stopped,
}

impl End {
    /// Whether the peer may still have to read something that says why.
    fn is_told(&self) -> bool {
        match self {
            Self::Warned(_) | Self::Ours(Closed::OnRequest(_)) => true,
            Self::Ours(Closed::OverBudget { .. } | Closed::Disconnected) => false,
            Self::Frame(_)
            | Self::Broken(_)
            | Self::Silent
            | Self::Unanswered(..)
            | Self::Stuck
            | Self::Replaced
            | Self::Stopped => false,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(fault) => write!(f, "{fault}"),
            Self::Broken(rule) => write!(f, "the peer broke a rule: {rule}"),
            Self::Warned(rule) => write!(f, "the peer broke a rule and was warned: {rule}"),
            Self::Silent => write!(f, "no pong within {} s", PONG_TIMEOUT.as_secs()),
            Self::Unanswered(channel, owed) => {
                write!(f, "no {owed} for channel {channel} within {} s", ANSWER_TIMEOUT.as_secs())
            }
            Self::Stuck => write!(f, "the peer took nothing for {} s", WRITE_TIMEOUT.as_secs()),
            Self::Ours(closed) => write!(f, "closed by us: {closed}"),
            Self::Replaced => f.write_str("a newer connection took its place"),
            Self::Stopped => f.write_str("the node stops"),
        }
    }
}

/// A connection that the manager knows of. Dropping it tells the manager that it is over.
struct Joined {
    handler: Arc<dyn PeerHandler>,
    peer: NodeId,
    connection: Connection,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.handler.disconnected(&self.peer, self.connection);
    }
}

/// A connection that is up. The fields are in the order in which they are given up: the manager hears of the end before
/// the peer's seat is free.
pub(super) struct Live {
    joined: Joined,
    seat: Seat,
    features: Features,
    reader: FrameReader,
    writer: FrameWriter,
    outbox: Outbox,
    queue: OutboxReader,
}

/// Exchanges `init`, takes the peer's seat and makes the peer known to the manager.
pub(super) async fn join(net: &Arc<Shared>, mut session: Session, origin: Origin) -> Result<Live, MeetFault> {
    let peer = session.peer;
    let init = match init::exchange(&mut session.reader, &mut session.writer, &net.handler.our_init()).await {
        Ok(init) => init,
        Err(fault) => {
            if let Some(text) = fault.warning() {
                farewell(session, &text).await;
            }
            return Err(fault.into());
        }
    };
    let features = init.combined_features();
    let seat = net.seats.take(peer, features.clone()).await.ok_or(MeetFault::Outrun)?;
    let (outbox, queue) = outbox(OUTBOX_BYTES);
    match net.handler.connected(peer, origin, &init, outbox.clone()) {
        Ok(connection) => {
            tracing::info!("connected to {peer}");
            let joined = Joined { handler: Arc::clone(&net.handler), peer, connection };
            Ok(Live { joined, seat, features, reader: session.reader, writer: session.writer, outbox, queue })
        }
        Err(reason) => {
            drop(seat);
            farewell(session, &reason).await;
            Err(MeetFault::NotWanted(reason))
        }
    }
}

fn warning(channel_id: ChannelId, text: &str) -> Message {
    Message::Warning(Warning { channel_id, data: PeerText::from(text) })
}

/// Tells the peer why it is left, then leaves. What goes wrong here changes nothing.
async fn farewell(mut session: Session, text: &str) {
    let Ok(bytes) = warning(NO_CHANNEL, text).encode() else { return };
    let last = async {
        if session.writer.push(&bytes).is_ok() && session.writer.flush().await.is_ok() {
            linger(&mut session.reader, &mut session.writer).await;
        }
    };
    let _ = timeout(FAREWELL_TIMEOUT, last).await;
}

/// Reads on after the last word until the peer hangs up: closing a socket that holds unread bytes may take the last
/// word back.
async fn linger(reader: &mut FrameReader, writer: &mut FrameWriter) {
    if writer.shutdown().await.is_ok() {
        reader.drain().await;
    }
}

impl Live {
    pub(super) fn features(&self) -> Features {
        self.features.clone()
    }

    /// Runs the connection to its end.
    pub(super) async fn run(self, mut stopped: Stopped) {
        let Self { joined, seat, features: _, reader, writer, outbox, queue } = self;
        let keepalive = Keepalive::new();
        let overflow = queue.overflow();
        let mut outgoing = Outgoing { writer, queue, keepalive: &keepalive };
        let mut incoming = Incoming::new(&joined, reader, &outbox, &keepalive);
        let end = tokio::select! {
            end = incoming.run() => end,
            end = outgoing.run() => end,
            overdue = keepalive.overdue(|ping| { outbox.send(Message::Ping(ping)); }) => match overdue {
                Overdue::Pong => End::Silent,
                Overdue::Answer(channel, owed) => End::Unanswered(channel, owed),
            },
            () = overflow => End::Ours(Closed::OverBudget { max_bytes: OUTBOX_BYTES }),
            () = seat.wanted() => End::Replaced,
            () = stopped.wait() => End::Stopped,
        };
        let mut reader = incoming.reader;
        tracing::info!("disconnected from {}: {end}", joined.peer);
        // The manager must not hear of the end while the queue still takes messages (CST-2).
        outbox.close(end.to_string());
        drop(joined);
        drop(seat);
        if end.is_told() {
            let last = async {
                outgoing.run().await;
                linger(&mut reader, &mut outgoing.writer).await;
            };
            let _ = timeout(FAREWELL_TIMEOUT, last).await;
        }
    }
}

/// The writing half: from the queue to the socket.
struct Outgoing<'a> {
    writer: FrameWriter,
    queue: OutboxReader,
    keepalive: &'a Keepalive,
}

impl Outgoing<'_> {
    /// Writes what is queued until the queue is closed and empty. Cancel safe: a second call goes on where the first
    /// was dropped.
    async fn run(&mut self) -> End {
        loop {
            match timeout(WRITE_TIMEOUT, self.writer.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => return End::Frame(fault),
                Err(_) => return End::Stuck,
            }
            match self.queue.next().await {
                Next::Closed(closed) => return End::Ours(closed),
                Next::Messages(messages) => {
                    for message in messages {
                        if let Err(fault) = self.writer.push(&message.bytes) {
                            return End::Frame(fault);
                        }
                        self.keepalive.sent(message.type_number, &message.bytes);
                    }
                }
            }
        }
    }
}

/// Whether a message that was read was of any use.
enum Worth {
    Something,
    Nothing,
}

/// The reading half: from the socket to the manager.
struct Incoming<'a> {
    joined: &'a Joined,
    reader: FrameReader,
    outbox: &'a Outbox,
    keepalive: &'a Keepalive,
    pings: Bucket,
    gossip: Bucket,
    ignored: Bucket,
    notes: u32,
}

impl<'a> Incoming<'a> {
    fn new(joined: &'a Joined, reader: FrameReader, outbox: &'a Outbox, keepalive: &'a Keepalive) -> Self {
        let pings = Bucket::new(PINGS.0, PINGS.1);
        let gossip = Bucket::new(GOSSIP_BURST_BYTES, GOSSIP_BYTES_PER_SECOND);
        let ignored = Bucket::new(IGNORED_BURST, IGNORED_PER_SECOND);
        Self { joined, reader, outbox, keepalive, pings, gossip, ignored, notes: 0 }
    }

    async fn run(&mut self) -> End {
        loop {
            self.room().await;
            let frame = match self.reader.next().await {
                Ok(frame) => frame,
                Err(fault) => return End::Frame(fault),
            };
            self.keepalive.heard();
            if let Err(end) = self.take_all(frame).await {
                return end;
            }
        }
    }

    /// Deals with a message and with those that have come whole behind it. The manager gets them together: what the peer said
    /// of one commit becomes one visit, and one commit of ours.
    async fn take_all(&mut self, first: Vec<u8>) -> Result<(), End> {
        let (mut heard, mut worthless) = (Vec::new(), 0_u32);
        let mut frame = first;
        let end = loop {
            match self.take(&frame, &mut heard) {
                Ok(Worth::Something) => {}
                Ok(Worth::Nothing) => worthless = worthless.saturating_add(1),
                Err(end) => break Err(end),
            }
            match self.reader.received() {
                Ok(Some(next)) => frame = next,
                Ok(None) => break Ok(()),
                Err(fault) => break Err(End::Frame(fault)),
            }
        };
        // What came before a fault was said before it.
        if !heard.is_empty() {
            self.joined.handler.messages(&self.joined.peer, self.joined.connection, heard);
        }
        end?;
        for _ in 0..worthless {
            self.ignored().await;
        }
        Ok(())
    }

    /// A message of no use was read. Beyond a budget of them the peer is read more slowly: to read costs a processor, and other
    /// peers need it (DOS-9).
    async fn ignored(&mut self) {
        while !self.ignored.spend(1) {
            self.keepalive.pause();
            sleep(IGNORED_PAUSE).await;
            self.keepalive.resume();
        }
    }

    /// Resolves once the manager has room; until then a `pong` cannot be read, so none is overdue.
    async fn room(&mut self) {
        let mut room = self.joined.handler.room(&self.joined.peer);
        tokio::select! {
            biased;
            () = &mut room => return,
            () = ready(()) => {}
        }
        self.keepalive.pause();
        room.await;
        self.keepalive.resume();
    }

    /// Deals with one message, or puts it to those that the manager is to hear; an error ends the connection.
    fn take(&mut self, frame: &[u8], heard: &mut Vec<Heard>) -> Result<Worth, End> {
        let message = Message::decode(frame).map_err(|error| self.unreadable(frame, &error))?;
        match message {
            Message::Init(_) => {
                self.note("a second init, ignored");
                return Ok(Worth::Nothing);
            }
            Message::Ping(ping) => return Ok(self.ping(&ping)),
            Message::Pong(ref pong) => {
                if CHANNEL_PONG_BYTES.contains(&pong.byteslen.0) {
                    heard.push(Heard { message, bytes: frame.len() });
                } else if !self.keepalive.answered(pong) {
                    self.note("a pong that answers no ping, ignored");
                    return Ok(Worth::Nothing);
                }
            }
            // BOLT 1: an unknown odd type is ignored.
            Message::Unknown(_) => return Ok(Worth::Nothing),
            Message::Gossip(ref gossip) => {
                if !self.is_wanted(gossip, frame.len()) {
                    return Ok(Worth::Nothing);
                }
                heard.push(Heard { message, bytes: frame.len() });
            }
            Message::Warning(ref warning) => {
                self.note(&format!("warning: {}", warning.data));
                heard.push(Heard { message, bytes: frame.len() });
            }
            Message::Error(ref error) => {
                self.note(&format!("error: {}", error.data));
                self.keepalive.failed(error.channel_id);
                heard.push(Heard { message, bytes: frame.len() });
            }
            Message::RevokeAndAck(ref revoked) => {
                self.keepalive.paid(revoked.channel_id, Owed::RevokeAndAck);
                heard.push(Heard { message, bytes: frame.len() });
            }
            Message::ClosingSig(ref signed) => {
                self.keepalive.paid(signed.channel_id, Owed::ClosingSig);
                heard.push(Heard { message, bytes: frame.len() });
            }
            Message::OpenChannel(_)
            | Message::AcceptChannel(_)
            | Message::FundingCreated(_)
            | Message::FundingSigned(_)
            | Message::ChannelReady(_)
            | Message::Shutdown(_)
            | Message::ClosingSigned(_)
            | Message::ClosingComplete(_)
            | Message::UpdateAddHtlc(_)
            | Message::UpdateFulfillHtlc(_)
            | Message::UpdateFailHtlc(_)
            | Message::UpdateFailMalformedHtlc(_)
            | Message::CommitmentSigned(_)
            | Message::UpdateFee(_)
            | Message::ChannelReestablish(_)
            | Message::AnnouncementSignatures(_) => heard.push(Heard { message, bytes: frame.len() }),
        }
        Ok(Worth::Something)
    }

    fn ping(&mut self, ping: &Ping) -> Worth {
        let Some(pong) = ping.answer() else { return Worth::Nothing };
        if self.pings.spend(1) {
            self.outbox.send(Message::Pong(pong));
            Worth::Something
        } else {
            self.note("more pings than are answered");
            Worth::Nothing
        }
    }

    /// Whether gossip is handed on. The peer's `channel_update` of a channel with us is what we want (BOLT 7, "The
    /// `channel_update` Message"); without a graph all else is of no use, and we offer no `gossip_queries`, so that no
    /// query asks for an answer. A peer may send any amount: what is beyond the budget costs it nothing but our ear.
    fn is_wanted(&mut self, gossip: &Opaque, bytes: usize) -> bool {
        if gossip.type_number() != ChannelUpdate::TYPE {
            return false;
        }
        let within = self.gossip.spend(u64::try_from(bytes).unwrap_or(u64::MAX));
        if !within {
            self.note("more gossip than is looked at");
        }
        within
    }

    /// The end that a message which cannot be read brings: in silence for an unknown even type, else with a `warning`
    /// that names the message's channel.
    fn unreadable(&self, frame: &[u8], error: &DecodeError) -> End {
        if let DecodeError::UnknownEvenType(_) | DecodeError::NoType = error {
            return End::Broken(error.to_string());
        }
        let text = format!("a message cannot be read: {error}");
        let channel_id = wire::channel_id_in(frame).unwrap_or(NO_CHANNEL);
        self.outbox.send(warning(channel_id, &text));
        End::Warned(text)
    }

    /// Logs an oddity of the peer, the first few of a connection.
    fn note(&mut self, text: &str) {
        self.notes = self.notes.saturating_add(1);
        if self.notes <= LOGGED_NOTES {
            tracing::info!("{}: {text}", self.joined.peer);
        }
    }
}
