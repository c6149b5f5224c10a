//! A peer that says whatever a test wants it to say.

use std::net::SocketAddr;

use outrigger_bolt::id::{ChannelId, NodeId};
use outrigger_bolt::transport::cipher::{LENGTH_HEADER_LEN, MAC_LEN};
use outrigger_bolt::transport::handshake::{ACT_ONE_LEN, ACT_THREE_LEN, ACT_TWO_LEN};
use outrigger_bolt::transport::{Decryptor, Encryptor, Established, Initiator, Responder};
use outrigger_bolt::wire::{Init, Message, Padding, PeerText, Ping, Pong, Warning};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, init, secret};

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

pub(super) struct RawPeer {
    stream: Box<dyn Stream>,
    encryptor: Encryptor,
    decryptor: Decryptor,
}

/// The ephemeral key of every connection of this peer: what the vectors of BOLT 8 use is good enough here.
pub(super) const EPHEMERAL: u8 = 0x12;

impl RawPeer {
    fn new(stream: impl Stream, established: Established) -> Self {
        let Established { encryptor, decryptor, remote: _ } = established;
        Self { stream: Box::new(stream), encryptor, decryptor }
    }

    pub(super) async fn connect(address: SocketAddr, key: u8, node: &NodeId) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::initiate(stream, key, node).await
    }

    pub(super) async fn initiate(mut stream: impl Stream, key: u8, node: &NodeId) -> Self {
        let (act_one, initiator) = Initiator::begin(secret(key), node, secret(EPHEMERAL));
        stream.write_all(&act_one).await.unwrap();
        let mut act_two = [0; ACT_TWO_LEN];
        stream.read_exact(&mut act_two).await.unwrap();
        let (act_three, established) = initiator.act_two(&act_two).unwrap();
        stream.write_all(&act_three).await.unwrap();
        Self::new(stream, established)
    }

    pub(super) async fn respond(mut stream: impl Stream, key: u8) -> Self {
        let mut act_one = [0; ACT_ONE_LEN];
        stream.read_exact(&mut act_one).await.unwrap();
        let (act_two, responder) = Responder::new(secret(key), secret(EPHEMERAL)).act_one(&act_one).unwrap();
        stream.write_all(&act_two).await.unwrap();
        let mut act_three = [0; ACT_THREE_LEN];
        stream.read_exact(&mut act_three).await.unwrap();
        Self::new(stream, responder.act_three(&act_three).unwrap())
    }

    pub(super) fn encrypt(&mut self, message: &[u8]) -> Vec<u8> {
        self.encryptor.encrypt(message).unwrap()
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends these bytes as a message.
    pub(super) async fn say(&mut self, message: &[u8]) {
        let packet = self.encrypt(message);
        self.write(&packet).await;
    }

    pub(super) async fn send(&mut self, message: Message) {
        self.say(&message.encode().unwrap()).await;
    }

    pub(super) async fn ping(&mut self, num_pong_bytes: u16) {
        self.send(Message::Ping(Ping { num_pong_bytes, byteslen: Padding(0) })).await;
    }

    pub(super) async fn pong(&mut self, bytes: u16) {
        self.send(Message::Pong(Pong { byteslen: Padding(bytes) })).await;
    }

    /// The next message, or `None` where the node hung up.
    pub(super) async fn hear(&mut self) -> Option<Message> {
        let mut header = [0; LENGTH_HEADER_LEN];
        timeout(PATIENCE, self.stream.read_exact(&mut header)).await.expect("nothing was heard").ok()?;
        let length = self.decryptor.decrypt_length(&header).unwrap();
        let mut body = vec![0; usize::from(length) + MAC_LEN];
        self.stream.read_exact(&mut body).await.unwrap();
        let message = self.decryptor.decrypt_message(&body).unwrap();
        Some(Message::decode(&message).unwrap())
    }

    pub(super) async fn hear_init(&mut self) -> Init {
        match self.hear().await {
            Some(Message::Init(init)) => init,
            other => panic!("{other:?} instead of init"),
        }
    }

    /// The answer to a `ping`, by which a test knows that the node has dealt with all that was said before.
    pub(super) async fn hear_pong(&mut self) -> u16 {
        match self.hear().await {
            Some(Message::Pong(pong)) => pong.byteslen.0,
            other => panic!("{other:?} instead of pong"),
        }
    }

    pub(super) async fn hear_ping(&mut self) -> u16 {
        match self.hear().await {
            Some(Message::Ping(ping)) => ping.num_pong_bytes,
            other => panic!("{other:?} instead of ping"),
        }
    }

    /// The node's last word is a `warning` about no channel with this text, and then it hangs up.
    pub(super) async fn is_warned(&mut self, text: &str) {
        let warning = Warning { channel_id: ChannelId([0; 32]), data: PeerText::from(text) };
        assert_eq!(self.hear().await, Some(Message::Warning(warning)));
        assert_eq!(self.hear().await, None);
    }

    pub(super) async fn exchange_init(&mut self) {
        self.send(Message::Init(init())).await;
        self.hear_init().await;
    }
}
