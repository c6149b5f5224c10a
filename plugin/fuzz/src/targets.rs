//! The table of targets.

mod channel;
mod dance;
mod invoice;
mod onion;
mod opening;
mod row;
mod transport;
mod wire;

#[cfg(feature = "daemon")]
mod bitcoind;
#[cfg(feature = "daemon")]
mod config;
#[cfg(feature = "daemon")]
mod interface;
#[cfg(feature = "daemon")]
mod record;

use std::sync::LazyLock;
use std::time::Duration;

/// One function of bytes.
pub struct Target {
    pub name: &'static str,
    body: Box<dyn Fn(&[u8]) + Send + Sync>,
    /// Inputs that it takes whole.
    pub seeds: Box<dyn Fn() -> Vec<Vec<u8>> + Send + Sync>,
    /// The longest that one input may take, in a build without optimisation on a busy machine.
    pub limit: Duration,
}

impl Target {
    fn new(
        name: &'static str,
        body: impl Fn(&[u8]) + Send + Sync + 'static,
        seeds: impl Fn() -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, body: Box::new(body), seeds: Box::new(seeds), limit: Duration::from_secs(10) }
    }

    fn within(self, secs: u64) -> Self {
        Self { limit: Duration::from_secs(secs), ..self }
    }

    /// Runs one input. A finding is a panic.
    pub fn run(&self, data: &[u8]) {
        (self.body)(data);
    }
}

/// The targets that a build without the daemon has.
fn without_daemon() -> Vec<Target> {
    let mut targets = wire::targets();
    targets.extend(transport::targets());
    targets.extend(onion::targets());
    targets.extend(invoice::targets());
    targets.extend(row::targets());
    targets.extend(opening::targets());
    targets.extend(channel::targets());
    targets.extend(dance::targets());
    targets
}

/// The names of the targets that a build without the daemon has.
pub fn names_without_daemon() -> Vec<&'static str> {
    without_daemon().iter().map(|target| target.name).collect()
}

/// Every target of this build.
pub fn all() -> &'static [Target] {
    static ALL: LazyLock<Vec<Target>> = LazyLock::new(|| {
        #[cfg_attr(not(feature = "daemon"), expect(unused_mut))]
        let mut all = without_daemon();
        #[cfg(feature = "daemon")]
        {
            all.extend(record::targets());
            all.extend(config::targets());
            all.extend(interface::targets());
            all.extend(bitcoind::targets());
        }
        all
    });
    &ALL
}

/// The target of this name.
pub fn named(name: &str) -> Option<&'static Target> {
    all().iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{corpus, mutation};

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = all().iter().map(|target| target.name).collect();
        assert_eq!(names.len(), all().len());
    }

    /// Each target over its seeds and a few inputs more: the same everywhere, with no engine.
    #[test]
    fn every_target_takes_its_seeds_and_a_hundred_others() {
        for target in all() {
            let seeds = corpus::read(target).unwrap();
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
            let rounds = if target.limit > Duration::from_secs(10) { 3 } else { 100 };
            let mut random = mutation::Random::new(1);
            let inputs: Vec<_> = (0..rounds).map(|_| mutation::input(&mut random, &seeds)).collect();
            for input in seeds.iter().chain(&inputs) {
                target.run(input);
            }
        }
    }
}
