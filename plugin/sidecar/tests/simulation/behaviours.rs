//! How backups behave. A node of a seed has none, one or two; each has its own way of being late, wrong or away.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// What a backup does with what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// It has each thing at once, and says so in its answer.
    Prompt,
    /// It has each thing later, the oldest of some channel first, and says so in the same moment.
    #[default]
    Late,
    /// It has each thing later, and says so later still: in any order, over channels and within one.
    Slow,
    /// As a slow one, and now and then it is away: nothing becomes durable, and a node that starts is not told what it holds.
    Failing,
    /// As a late one, until it refuses the channel of the next write for good.
    Refusing,
    Lying(Lie),
}

/// What a backup does that no backup may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It completes what it does not keep.
    Drops,
    /// It loses what it had when its node is gone: it is as it was before, or has nothing.
    Forgets,
    /// It completes each write twice.
    Twice,
    /// It tells its node at a start of less than it has.
    Less,
    /// It tells its node at a start of more than it was ever given.
    More,
}

const LIES: [Lie; 5] = [Lie::Drops, Lie::Forgets, Lie::Twice, Lie::Less, Lie::More];

impl Behaviour {
    /// One for a backup of a seed.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..12) {
            0..3 => Self::Prompt,
            3..6 => Self::Slow,
            6..8 => Self::Failing,
            8..10 => Self::Refusing,
            _ => Self::Lying(*LIES.choose(rng).expect("some")),
        }
    }

    /// What is counted for each backup that behaves so.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Prompt => "prompt backups",
            Self::Late => "late backups",
            Self::Slow => "slow backups",
            Self::Failing => "failing backups",
            Self::Refusing => "refusing backups",
            Self::Lying(Lie::Drops) => "backups that complete what they do not keep",
            Self::Lying(Lie::Forgets) => "backups that forget",
            Self::Lying(Lie::Twice) => "backups that complete twice",
            Self::Lying(Lie::Less) => "backups that tell too little",
            Self::Lying(Lie::More) => "backups that tell too much",
        }
    }

    /// Whether it has for good what it has completed.
    pub const fn keeps(self) -> bool {
        !matches!(self, Self::Lying(Lie::Drops | Lie::Forgets))
    }

    /// Whether it says of a thing that it is durable later than it became so.
    pub const fn tells_later(self) -> bool {
        matches!(self, Self::Slow | Self::Failing)
    }

    /// Whether its answer to a write is that it is durable.
    pub const fn answers_at_once(self) -> bool {
        matches!(self, Self::Prompt | Self::Lying(Lie::Drops))
    }
}
