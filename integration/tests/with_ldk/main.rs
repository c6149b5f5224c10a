//! A daemon and an LDK node on a bitcoind.

mod axe;
mod cell;
mod died;
mod failures;
mod fees;
mod matrix;
mod meeting;
mod node;
mod payments;
mod relay;
mod table;
mod turns;
