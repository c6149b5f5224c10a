//! What every message struct has, and the macro that turns a message's table of fields into it.

use super::codec::Writer;
use crate::id::ChannelId;

/// A message as the connection sees it: a number, a name, perhaps a channel, and a payload.
pub trait WireMessage {
    /// The `type` on the wire.
    fn type_number(&self) -> u16;

    /// The name in the BOLTs.
    fn name(&self) -> &'static str;

    /// The field that names a channel, as it stands in the message.
    fn channel_field(&self) -> Option<ChannelId>;

    /// Appends everything after the `type`.
    fn encode_payload(&self, writer: &mut Writer);
}

/// Defines a message from its BOLT table: `TYPE "name" Struct [names FIELD] { fields } tlvs { TYPE => record }`.
///
/// Fields are read and written in the order given. Every record is an `Option` field of the struct. A message without
/// records of its own still holds its extension to the rules of a TLV stream.
macro_rules! wire_message {
    (
        $(#[$doc:meta])*
        $number:literal $word:literal $name:ident $(names $channel:ident)?
        { $( $(#[$field_doc:meta])* $field:ident: $kind:ty, )* }
        tlvs { $( $(#[$tlv_doc:meta])* $tlv_number:literal => $tlv:ident: $tlv_kind:ty, )* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $kind, )*
            $( $(#[$tlv_doc])* pub $tlv: Option<$tlv_kind>, )*
        }

        impl $name {
            /// The message's `type` on the wire.
            pub const TYPE: u16 = $number;
        }

        impl $crate::wire::WireMessage for $name {
            fn type_number(&self) -> u16 {
                Self::TYPE
            }

            fn name(&self) -> &'static str {
                $word
            }

            fn channel_field(&self) -> Option<$crate::id::ChannelId> {
                let named: &[$crate::id::ChannelId] = &[$(self.$channel)?];
                named.first().copied()
            }

            fn encode_payload(&self, writer: &mut $crate::wire::codec::Writer) {
                $( $crate::wire::codec::Encode::encode(&self.$field, writer); )*
                #[allow(unused_mut, unused_variables, reason = "not every message has records of its own")]
                let mut tlvs = $crate::wire::tlv::TlvWriter::new(writer);
                $( tlvs.optional($tlv_number, self.$tlv.as_ref()); )*
            }
        }

        impl $crate::wire::codec::Encode for $name {
            fn encode(&self, writer: &mut $crate::wire::codec::Writer) {
                $crate::wire::WireMessage::encode_payload(self, writer);
            }
        }

        impl $crate::wire::codec::Decode for $name {
            /// Takes the whole payload: the extension reaches to its end.
            fn decode(
                reader: &mut $crate::wire::codec::Reader<'_>,
            ) -> Result<Self, $crate::wire::codec::DecodeError> {
                $( let $field = $crate::wire::codec::Decode::decode(reader)?; )*
                $( let mut $tlv = None; )*
                let mut stream = $crate::wire::tlv::TlvStream::new(reader.rest());
                while let Some(record) = stream.next_record()? {
                    match record.number {
                        $( $tlv_number => $tlv = Some(record.decode()?), )*
                        _ => record.ignore()?,
                    }
                }
                Ok(Self { $($field,)* $($tlv,)* })
            }
        }
    };
}

pub(super) use wire_message;
