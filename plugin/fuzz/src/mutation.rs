//! Inputs that a seed repeats: bytes at random, and seeds of the corpus bent a little.

/// A generator of numbers (splitmix64), each a function of the seed alone.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or_default()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Numbers at which readers err: the ends of each width, and those of BigSize.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0xfc,
    0xfd,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    21_000_000 * 100_000_000,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// The longest input that is made: a message of the transport, and some more.
const MAX_LEN: usize = 66_000;

/// The next input of a target with this corpus.
pub fn input(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    if corpus.is_empty() || random.below(8) == 0 {
        let len = match random.below(16) {
            0 => random.below(MAX_LEN),
            1..4 => random.below(2_000),
            _ => random.below(100),
        };
        return random.bytes(len);
    }
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        mutate(random, &mut input, corpus);
    }
    input.truncate(MAX_LEN);
    input
}

fn mutate(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let some = random.below(40);
    match random.below(10) {
        0 => flip(random, input),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        2 => input.truncate(at),
        3 => {
            let more = random.bytes(some);
            input.splice(at..at, more);
        }
        4 => {
            let end = (at + some).min(input.len());
            input.drain(at..end);
        }
        5 => {
            let end = (at + some).min(input.len());
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        6 => overwrite(random, input, at),
        7 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        8 => {
            // A length or type, as BigSize says it.
            let edge = EDGES[random.below(EDGES.len())];
            let width = [1, 2, 4, 8][random.below(4)];
            let prefix: &[u8] = match width {
                1 => &[],
                2 => &[0xfd],
                4 => &[0xfe],
                _ => &[0xff],
            };
            let number = [prefix, &edge.to_be_bytes()[8 - width..]].concat();
            input.splice(at..at, number);
        }
        _ => (0..some).for_each(|_| flip(random, input)),
    }
}

fn flip(random: &mut Random, input: &mut [u8]) {
    let at = random.below(input.len());
    let bit = random.below(8);
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn overwrite(random: &mut Random, input: &mut [u8], at: usize) {
    let edge = EDGES[random.below(EDGES.len())].to_be_bytes();
    let width = [1, 2, 4, 8][random.below(4)];
    for (byte, value) in input[at..].iter_mut().zip(&edge[8 - width..]) {
        *byte = *value;
    }
}
