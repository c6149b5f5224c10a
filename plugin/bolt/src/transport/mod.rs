//! The encrypted and authenticated transport (BOLT 8): bytes in, bytes out. Sockets and timeouts are the caller's.

pub mod cipher;
pub mod handshake;

pub use cipher::{BadMac, Decryptor, Encryptor, MessageTooLong};
pub use handshake::{Act, Established, HandshakeError, HandshakeFault, Initiator, Responder};
