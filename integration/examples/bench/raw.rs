//! A peer that is nobody: it speaks BOLT 8 and BOLT 1 by itself, asks for more than it reads, and has no channel.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use outrigger_integration::{Done, Fault};

/// `ping`, and what it asks for: the longest `pong` that must be answered (BOLT 1).
const PING: u16 = 18;
const PONG_BYTES: u16 = 65_531;

/// How often a key is used (BOLT 8, "Lightning Message Key Rotation").
const KEY_USES: u64 = 1000;

/// How many it asks for at first: more than are answered at once.
const ASKED_FIRST: u64 = 64;

/// How long it waits before the next after that, and before it comes again once it was thrown out. It is to be deaf, not loud.
const PAUSE: Duration = Duration::from_millis(500);

/// A connection to a node which asks for the longest answers there are and reads none of them.
pub(crate) struct Deaf {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), Fault>>>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    asked: AtomicU64,
    socket: Mutex<Option<TcpStream>>,
}

impl Deaf {
    /// Begins to ask the node of this id at this address; `features` are those that the node has, as hex.
    pub(crate) fn start(node_id: &str, address: &str, features: &str) -> Done<Self> {
        let (node, address) = (PublicKey::from_str(node_id)?, address.to_owned());
        let features = Vec::<u8>::from_hex(features)?;
        let shared = Arc::new(Shared::default());
        let asking = shared.clone();
        let thread = std::thread::spawn(move || asking.ask(node, &address, &features));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many answers it has asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Ends the connection.
    pub(crate) fn stop(mut self) -> Done<()> {
        self.shared.hang_up();
        let thread = self.thread.take().ok_or("it was stopped before")?;
        thread.join().map_err(|_| "the deaf peer panicked")?
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.shared.hang_up();
    }
}

impl Shared {
    fn hang_up(&self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(socket) = &*self.socket.lock().unwrap_or_else(PoisonError::into_inner) {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Until it is over; a connection that the node ends is followed by another.
    fn ask(&self, node: PublicKey, address: &str, features: &[u8]) -> Done<()> {
        let mut number = 0_u64;
        while !self.over.load(Ordering::Relaxed) {
            number += 1;
            let socket = TcpStream::connect(address)?;
            *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket.try_clone()?);
            let mut sender = shake_hands(socket, node, number)?;
            sender.send(&init(features)?)?;
            let mut asked = 0_u64;
            while sender.send(&ping()).is_ok() && !self.over.load(Ordering::Relaxed) {
                asked += 1;
                self.asked.store(asked, Ordering::Relaxed);
                if asked >= ASKED_FIRST {
                    std::thread::sleep(PAUSE);
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// `init` with these features.
fn init(features: &[u8]) -> Done<Vec<u8>> {
    let mut message = vec![0, 16, 0, 0];
    message.extend(u16::try_from(features.len())?.to_be_bytes());
    message.extend(features);
    Ok(message)
}

fn ping() -> Vec<u8> {
    let mut message = PING.to_be_bytes().to_vec();
    message.extend(PONG_BYTES.to_be_bytes());
    message.extend([0, 0]);
    message
}

/// The half of a connection that sends.
struct Sending {
    socket: TcpStream,
    key: [u8; 32],
    chaining_key: [u8; 32],
    nonce: u64,
}

impl Sending {
    fn send(&mut self, message: &[u8]) -> Done<()> {
        let mut packet = self.sealed(&u16::try_from(message.len())?.to_be_bytes())?;
        packet.extend(self.sealed(message)?);
        Ok(self.socket.write_all(&packet)?)
    }

    fn sealed(&mut self, text: &[u8]) -> Done<Vec<u8>> {
        let sealed = seal(&self.key, self.nonce, &[], text)?;
        self.nonce += 1;
        if self.nonce == KEY_USES {
            (self.chaining_key, self.key) = derive(&self.chaining_key, &self.key);
            self.nonce = 0;
        }
        Ok(sealed)
    }
}

/// The initiator's side of BOLT 8, "Authenticated Key Exchange Handshake". What the node proves of itself is not looked at.
fn shake_hands(mut socket: TcpStream, node: PublicKey, number: u64) -> Done<Sending> {
    let curve = Secp256k1::new();
    let own = SecretKey::from_slice(&[0x42; 32])?;
    let ephemeral = SecretKey::from_slice(&sha256::Hash::hash(&number.to_be_bytes()).to_byte_array())?;
    let mut hash = sha256::Hash::hash(b"Noise_XK_secp256k1_ChaChaPoly_SHA256").to_byte_array();
    let chaining_key = hash;
    mix(&mut hash, b"lightning");
    mix(&mut hash, &node.serialize());

    let half = ephemeral.public_key(&curve).serialize();
    mix(&mut hash, &half);
    let (chaining_key, key) = derive(&chaining_key, &SharedSecret::new(&node, &ephemeral).secret_bytes());
    let tag = seal(&key, 0, &hash, &[])?;
    mix(&mut hash, &tag);
    socket.write_all(&[&[0][..], &half, &tag].concat())?;

    let mut act_two = [0; 50];
    socket.read_exact(&mut act_two)?;
    let theirs = PublicKey::from_slice(&act_two[1..34])?;
    mix(&mut hash, &act_two[1..34]);
    let (chaining_key, key) = derive(&chaining_key, &SharedSecret::new(&theirs, &ephemeral).secret_bytes());
    mix(&mut hash, &act_two[34..]);

    let name = seal(&key, 1, &hash, &own.public_key(&curve).serialize())?;
    mix(&mut hash, &name);
    let (chaining_key, key) = derive(&chaining_key, &SharedSecret::new(&theirs, &own).secret_bytes());
    let tag = seal(&key, 0, &hash, &[])?;
    socket.write_all(&[&[0][..], &name, &tag].concat())?;
    let (key, _) = derive(&chaining_key, &[]);
    Ok(Sending { socket, key, chaining_key, nonce: 0 })
}

fn mix(hash: &mut [u8; 32], more: &[u8]) {
    *hash = sha256::Hash::hash(&[&hash[..], more].concat()).to_byte_array();
}

/// `HKDF` with two keys of 32 bytes.
fn derive(salt: &[u8; 32], secret: &[u8]) -> ([u8; 32], [u8; 32]) {
    let extracted = code(salt, secret);
    let first = code(&extracted, &[1]);
    let second = code(&extracted, &[&first[..], &[2]].concat());
    (first, second)
}

fn code(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(text);
    Hmac::from_engine(engine).to_byte_array()
}

fn seal(key: &[u8; 32], nonce: u64, beside: &[u8], text: &[u8]) -> Done<Vec<u8>> {
    let mut number = [0; 12];
    number[4..].copy_from_slice(&nonce.to_le_bytes());
    let sealed = ChaCha20Poly1305::new(key.into()).encrypt(&number.into(), Payload { msg: text, aad: beside });
    sealed.map_err(|_| "a text that cannot be sealed".into())
}
