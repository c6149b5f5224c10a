//! Connections between two nodes: in order within one, in any order between several, and cut at any point.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use outrigger_bolt::wire::Message;
use outrigger_sidecar::manager::outbox::{Connection, Next, Outbox, OutboxReader};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What one of the two has of the connection.
pub struct End {
    pub connection: Connection,
    pub outbox: Outbox,
    pub reader: OutboxReader,
}

/// The connection between two nodes, one at a time.
pub struct Link {
    pub nodes: [usize; 2],
    pub ends: [Option<End>; 2],
    /// What is on its way to each, with its length.
    pub wires: [VecDeque<(Message, usize)>; 2],
    /// Nothing more is sent; what was on its way may still arrive.
    pub cut: bool,
    /// How readily it carries, beside the others.
    pub pace: u32,
}

/// What a node's queue had.
pub enum Taken {
    Messages(Vec<Vec<u8>>),
    /// The node ends the connection, after these.
    Closed(Vec<Vec<u8>>, String),
}

impl Link {
    pub fn new(nodes: [usize; 2], pace: u32) -> Self {
        Self { nodes, ends: [None, None], wires: Default::default(), cut: false, pace }
    }

    pub fn side_of(&self, node: usize) -> Option<usize> {
        self.nodes.iter().position(|found| *found == node)
    }

    pub fn is_up(&self) -> bool {
        !self.cut && self.ends.iter().all(Option::is_some)
    }

    pub fn is_idle(&self) -> bool {
        self.ends.iter().all(Option::is_none)
    }

    /// Cuts it: of what is on its way to each, a first part still arrives.
    pub fn cut(&mut self, rng: &mut ChaCha8Rng) {
        if !std::mem::replace(&mut self.cut, true) {
            for wire in &mut self.wires {
                let arrives = rng.random_range(0..=wire.len());
                wire.truncate(arrives);
            }
        }
    }

    /// One side is gone without a word.
    pub fn lose(&mut self, side: usize, rng: &mut ChaCha8Rng) {
        self.cut(rng);
        self.wires[side].clear();
        self.ends[side] = None;
    }

    /// What one side's node has queued.
    pub fn take(&mut self, side: usize) -> Option<Taken> {
        let end = self.ends[side].as_mut()?;
        let mut taken = Vec::new();
        loop {
            let next = pin!(end.reader.next()).poll(&mut Context::from_waker(Waker::noop()));
            match next {
                Poll::Pending if taken.is_empty() => return None,
                Poll::Pending => return Some(Taken::Messages(taken)),
                Poll::Ready(Next::Messages(messages)) => {
                    taken.extend(messages.into_iter().map(|message| message.bytes));
                }
                Poll::Ready(Next::Closed(reason)) => return Some(Taken::Closed(taken, reason.to_string())),
            }
        }
    }
}

/// A message that a node has sent, as its peer reads it.
pub fn read(bytes: &[u8]) -> Message {
    Message::decode(bytes).unwrap_or_else(|fault| panic!("a node sends what cannot be read: {fault}"))
}
