//! A connection: two queues of bytes, lost together.

use std::collections::VecDeque;

use outrigger_bolt::wire::Message;

use super::{Alice, Bob, Name};

/// Ordered and reliable as long as it lasts.
pub struct Connection {
    pub generation: u64,
    to_alice: VecDeque<Vec<u8>>,
    to_bob: VecDeque<Vec<u8>>,
}

impl Connection {
    pub fn new(generation: u64) -> Self {
        Self { generation, to_alice: VecDeque::new(), to_bob: VecDeque::new() }
    }

    fn queue(&mut self, to: Name) -> &mut VecDeque<Vec<u8>> {
        match to {
            Alice => &mut self.to_alice,
            Bob => &mut self.to_bob,
        }
    }

    pub fn send(&mut self, from: Name, message: &Message) {
        let bytes = message.encode().expect("what a channel sends has an encoding");
        self.queue(from.other()).push_back(bytes);
    }

    pub fn receive(&mut self, to: Name) -> Option<Message> {
        let bytes = self.queue(to).pop_front()?;
        Some(Message::decode(&bytes).expect("what a channel sends can be read"))
    }

    pub fn in_flight(&self, to: Name) -> usize {
        match to {
            Alice => self.to_alice.len(),
            Bob => self.to_bob.len(),
        }
    }
}
