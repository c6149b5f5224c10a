//! Messages (BOLT 1, 2 and 7): one enum, files by conversation.

pub mod close;
pub mod codec;
pub mod establishment;
mod field;
pub mod gossip;
mod message;
pub mod operation;
pub mod reestablish;
pub mod setup;
pub mod text;
pub mod tlv;

pub use close::{ClosingComplete, ClosingSig, ClosingSigned, FeeRange, Shutdown};
pub use codec::{Decode, DecodeError, Encode, EncodeError};
pub use establishment::{AcceptChannel, ChannelReady, FundingCreated, FundingSigned, OpenChannel};
pub use gossip::{AnnouncedSide, AnnouncementSignatures, ChannelUpdate};
pub use message::WireMessage;
pub use operation::{
    CommitmentSigned, PerCommitmentSecret, RevokeAndAck, UpdateAddHtlc, UpdateFailHtlc, UpdateFailMalformedHtlc,
    UpdateFee, UpdateFulfillHtlc,
};
pub use reestablish::ChannelReestablish;
pub use setup::{Error, Init, Padding, Ping, Pong, Warning};
pub use text::PeerText;

use codec::{Reader, Writer};

use crate::id::ChannelId;

/// Most bytes of a message, its `type` included (BOLT 1).
pub const MAX_MESSAGE_LEN: usize = 65535;

/// A message between two peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `init`
    Init(Init),
    /// `error`
    Error(Error),
    /// `warning`
    Warning(Warning),
    /// `ping`
    Ping(Ping),
    /// `pong`
    Pong(Pong),
    /// `open_channel`
    OpenChannel(OpenChannel),
    /// `accept_channel`
    AcceptChannel(AcceptChannel),
    /// `funding_created`
    FundingCreated(FundingCreated),
    /// `funding_signed`
    FundingSigned(FundingSigned),
    /// `channel_ready`
    ChannelReady(ChannelReady),
    /// `shutdown`
    Shutdown(Shutdown),
    /// `closing_signed`
    ClosingSigned(ClosingSigned),
    /// `closing_complete`
    ClosingComplete(ClosingComplete),
    /// `closing_sig`
    ClosingSig(ClosingSig),
    /// `update_add_htlc`
    UpdateAddHtlc(UpdateAddHtlc),
    /// `update_fulfill_htlc`
    UpdateFulfillHtlc(UpdateFulfillHtlc),
    /// `update_fail_htlc`
    UpdateFailHtlc(UpdateFailHtlc),
    /// `update_fail_malformed_htlc`
    UpdateFailMalformedHtlc(UpdateFailMalformedHtlc),
    /// `commitment_signed`
    CommitmentSigned(CommitmentSigned),
    /// `revoke_and_ack`
    RevokeAndAck(RevokeAndAck),
    /// `update_fee`
    UpdateFee(UpdateFee),
    /// `channel_reestablish`
    ChannelReestablish(ChannelReestablish),
    /// `announcement_signatures`
    AnnouncementSignatures(AnnouncementSignatures),
    /// The other messages of BOLT 7, unread: `channel_announcement`, `node_announcement`, `channel_update`, queries.
    Gossip(Opaque),
    /// A message of an odd type that is not known here, to be ignored.
    Unknown(Opaque),
}

/// A message that is not looked into. Only this module makes one, so it never stands in for a typed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    type_number: u16,
    payload: Vec<u8>,
}

impl Opaque {
    fn new(type_number: u16, payload: &[u8]) -> Self {
        Self { type_number, payload: payload.to_vec() }
    }

    /// The `type` on the wire.
    pub const fn type_number(&self) -> u16 {
        self.type_number
    }

    /// Everything after the `type`.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

impl WireMessage for Opaque {
    fn type_number(&self) -> u16 {
        self.type_number
    }

    fn name(&self) -> &'static str {
        match self.type_number {
            256 => "channel_announcement",
            257 => "node_announcement",
            258 => "channel_update",
            261 => "query_short_channel_ids",
            262 => "reply_short_channel_ids_end",
            263 => "query_channel_range",
            264 => "reply_channel_range",
            265 => "gossip_timestamp_filter",
            _ => "unknown",
        }
    }

    fn channel_field(&self) -> Option<ChannelId> {
        None
    }

    fn encode_payload(&self, writer: &mut Writer) {
        writer.bytes(&self.payload);
    }
}

impl Message {
    /// Reads a whole message, as the transport decrypted it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (type_number, payload) = bytes.split_first_chunk().ok_or(DecodeError::NoType)?;
        match u16::from_be_bytes(*type_number) {
            Init::TYPE => Init::decode_value(payload).map(Self::Init),
            Error::TYPE => Error::decode_value(payload).map(Self::Error),
            Warning::TYPE => Warning::decode_value(payload).map(Self::Warning),
            Ping::TYPE => Ping::decode_value(payload).map(Self::Ping),
            Pong::TYPE => Pong::decode_value(payload).map(Self::Pong),
            OpenChannel::TYPE => OpenChannel::decode_value(payload).map(Self::OpenChannel),
            AcceptChannel::TYPE => AcceptChannel::decode_value(payload).map(Self::AcceptChannel),
            FundingCreated::TYPE => FundingCreated::decode_value(payload).map(Self::FundingCreated),
            FundingSigned::TYPE => FundingSigned::decode_value(payload).map(Self::FundingSigned),
            ChannelReady::TYPE => ChannelReady::decode_value(payload).map(Self::ChannelReady),
            Shutdown::TYPE => Shutdown::decode_value(payload).map(Self::Shutdown),
            ClosingSigned::TYPE => ClosingSigned::decode_value(payload).map(Self::ClosingSigned),
            ClosingComplete::TYPE => ClosingComplete::decode_value(payload).map(Self::ClosingComplete),
            ClosingSig::TYPE => ClosingSig::decode_value(payload).map(Self::ClosingSig),
            UpdateAddHtlc::TYPE => UpdateAddHtlc::decode_value(payload).map(Self::UpdateAddHtlc),
            UpdateFulfillHtlc::TYPE => UpdateFulfillHtlc::decode_value(payload).map(Self::UpdateFulfillHtlc),
            UpdateFailHtlc::TYPE => UpdateFailHtlc::decode_value(payload).map(Self::UpdateFailHtlc),
            UpdateFailMalformedHtlc::TYPE => {
                UpdateFailMalformedHtlc::decode_value(payload).map(Self::UpdateFailMalformedHtlc)
            }
            CommitmentSigned::TYPE => CommitmentSigned::decode_value(payload).map(Self::CommitmentSigned),
            RevokeAndAck::TYPE => RevokeAndAck::decode_value(payload).map(Self::RevokeAndAck),
            UpdateFee::TYPE => UpdateFee::decode_value(payload).map(Self::UpdateFee),
            ChannelReestablish::TYPE => ChannelReestablish::decode_value(payload).map(Self::ChannelReestablish),
            AnnouncementSignatures::TYPE => {
                AnnouncementSignatures::decode_value(payload).map(Self::AnnouncementSignatures)
            }
            gossip @ (256..=258 | 261..=265) => Ok(Self::Gossip(Opaque::new(gossip, payload))),
            // BOLT 1, "Lightning Message Format": ignore an unknown odd type, close the connection on an even one.
            even if even.is_multiple_of(2) => Err(DecodeError::UnknownEvenType(even)),
            odd => Ok(Self::Unknown(Opaque::new(odd, payload))),
        }
    }

    /// The whole message with its `type`, or [`EncodeError::TooLong`] over 65535 bytes.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let message = self.as_wire();
        let mut writer = Writer::new();
        message.type_number().encode(&mut writer);
        message.encode_payload(&mut writer);
        let bytes = writer.finish()?;
        if bytes.len() > MAX_MESSAGE_LEN { Err(EncodeError::TooLong) } else { Ok(bytes) }
    }

    /// The channel that the message is about, by its temporary id during establishment.
    ///
    /// `None` for messages about the connection, and for an all-zero id, which names no channel but all of them (BOLT 1).
    pub fn channel_id(&self) -> Option<ChannelId> {
        self.as_wire().channel_field().filter(|channel| channel.0 != [0; 32])
    }

    /// The `type` on the wire.
    pub fn type_number(&self) -> u16 {
        self.as_wire().type_number()
    }

    /// The name in the BOLTs.
    pub fn name(&self) -> &'static str {
        self.as_wire().name()
    }

    fn as_wire(&self) -> &dyn WireMessage {
        match self {
            Self::Init(message) => message,
            Self::Error(message) => message,
            Self::Warning(message) => message,
            Self::Ping(message) => message,
            Self::Pong(message) => message,
            Self::OpenChannel(message) => message,
            Self::AcceptChannel(message) => message,
            Self::FundingCreated(message) => message,
            Self::FundingSigned(message) => message,
            Self::ChannelReady(message) => message,
            Self::Shutdown(message) => message,
            Self::ClosingSigned(message) => message,
            Self::ClosingComplete(message) => message,
            Self::ClosingSig(message) => message,
            Self::UpdateAddHtlc(message) => message,
            Self::UpdateFulfillHtlc(message) => message,
            Self::UpdateFailHtlc(message) => message,
            Self::UpdateFailMalformedHtlc(message) => message,
            Self::CommitmentSigned(message) => message,
            Self::RevokeAndAck(message) => message,
            Self::UpdateFee(message) => message,
            Self::ChannelReestablish(message) => message,
            Self::AnnouncementSignatures(message) => message,
            Self::Gossip(message) | Self::Unknown(message) => message,
        }
    }
}

/// The channel that a message names, looked up in its raw bytes: whom to answer when [`Message::decode`] failed.
///
/// `None` where the type names no channel, is not known, or the bytes end before the id.
pub fn channel_id_in(bytes: &[u8]) -> Option<ChannelId> {
    let mut reader = Reader::new(bytes);
    match u16::decode(&mut reader).ok()? {
        OpenChannel::TYPE => {
            reader.take(32).ok()?;
        }
        AcceptChannel::TYPE..=ChannelReady::TYPE
        | Shutdown::TYPE..=ClosingSig::TYPE
        | UpdateAddHtlc::TYPE..=ChannelReestablish::TYPE
        | AnnouncementSignatures::TYPE => {}
        _ => return None,
    }
    ChannelId::decode(&mut reader).ok()
}
