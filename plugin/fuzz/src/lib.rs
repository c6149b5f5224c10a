//! Fuzz targets for everything that reads bytes of peers, of callers, of bitcoind or of the disk.
//!
//! A target is a plain function of bytes, so the same one runs under libFuzzer (`fuzz_targets/all.rs`) and on a stable
//! toolchain with inputs that a seed repeats (`src/main.rs`). Oracles: nothing panics or takes longer than its limit; what
//! can be read is written as bytes that read the same again; a decoder holds at most four times its input and 64 KiB.
//! The stateful targets assert more, each in its place.

pub mod allocation;
pub mod corpus;
pub mod draw;
pub mod mutation;
pub mod targets;

/// The two-channel harness of the channel's own tests, as it is.
#[path = "../../channel/tests/pair/mod.rs"]
pub mod pair;
