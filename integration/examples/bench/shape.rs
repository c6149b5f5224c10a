//! Who pays whom, and through whom.

/// What a process does in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Hub,
    Sender,
    Receiver,
}

/// The nodes of a scenario and their channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A sender and a receiver with one channel.
    Pair,
    /// So many senders and as many receivers, each with a channel to the hub.
    Hub(usize),
}

impl Shape {
    /// The role of each node; the hub, where there is one, is the first.
    pub(crate) fn roles(self) -> Vec<Role> {
        match self {
            Self::Pair => vec![Role::Sender, Role::Receiver],
            Self::Hub(many) => {
                let mut roles = vec![Role::Hub];
                roles.extend(std::iter::repeat_n([Role::Sender, Role::Receiver], many).flatten());
                roles
            }
        }
    }

    /// The nodes that the payments of each stream pass, from sender to receiver.
    pub(crate) fn routes(self) -> Vec<Vec<usize>> {
        match self {
            Self::Pair => vec![vec![0, 1]],
            Self::Hub(many) => (0..many).map(|stream| vec![1 + 2 * stream, 0, 2 + 2 * stream]).collect(),
        }
    }

    /// Sender and receiver of each stream.
    pub(crate) fn streams(self) -> Vec<(usize, usize)> {
        self.routes().iter().map(|route| (route[0], route[route.len() - 1])).collect()
    }

    /// Every channel: who funds it, and with whom.
    pub(crate) fn channels(self) -> Vec<(usize, usize)> {
        self.routes()
            .iter()
            .flat_map(|route| route.windows(2).map(|hop| (hop[0], hop[1])).collect::<Vec<_>>())
            .collect()
    }
}
