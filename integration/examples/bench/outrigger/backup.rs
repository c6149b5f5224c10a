//! The first node with one backup after another: each start has its own, in a place that was empty.

use std::path::{Path, PathBuf};
use std::time::Instant;

use outrigger_integration::sidecar::LIMIT;
use outrigger_integration::{Done, until};
use outrigger_rpc_schema::{BackupState, BackupStatus};

use super::{LONG, Outrigger, channels, until_usable, usable};

/// What the first node's backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backup {
    None,
    Mirror {
        is_required: bool,
    },
    Directory {
        consolidate_every: usize,
    },
    /// A program, and how it is started.
    Command(Vec<String>),
}

impl Backup {
    /// The configuration of a node that has it, with this name and in this place.
    fn config(&self, name: &str, place: &Path) -> String {
        let (kind, is_required, rest) = match self {
            Self::None => return String::new(),
            Self::Mirror { is_required } => {
                ("mirror", *is_required, format!("path = \"{}\"", place.join("mirror.redb").display()))
            }
            Self::Directory { consolidate_every } => {
                let path = place.display();
                ("directory", true, format!("path = \"{path}\"\nconsolidate_every = {consolidate_every}"))
            }
            Self::Command(command) => ("command", true, format!("command = {command:?}")),
        };
        let requirement = if is_required { "required" } else { "follow" };
        format!("[[backup]]\nname = \"{name}\"\nkind = \"{kind}\"\nrequirement = \"{requirement}\"\n{rest}\n")
    }
}

impl Outrigger<'_> {
    /// A place for a backup that was never used before, beside the first node's data: on the same disk.
    pub(crate) fn new_place(&mut self) -> Done<PathBuf> {
        self.places += 1;
        let place = self.nodes[0].sidecar.directory().join(format!("backup-{}", self.places));
        std::fs::create_dir_all(&place)?;
        Ok(place)
    }

    /// Starts the first node again with this backup alone, in this place, and waits until that has everything and all channels
    /// can be used.
    pub(crate) async fn keep(&mut self, backup: &Backup, place: &Path) -> Done<()> {
        let config = backup.config(&format!("place-{}", self.places), place);
        let file = self.nodes[0].sidecar.directory().join("outrigger.toml");
        self.restarted_after(async || Ok(std::fs::write(&file, &config)?)).await?;
        let sidecar = &self.nodes[0].sidecar;
        until(LIMIT, "the backup to be complete", async || {
            let backups = sidecar.call(BackupStatus {}).await?.items;
            Ok(backups.iter().all(|backup| backup.state == BackupState::Complete).then_some(()))
        })
        .await
    }

    /// Stops the first node, does this, and starts it again; how long the start took until it was ready, in seconds.
    pub(crate) async fn restarted_after(&mut self, between: impl AsyncFnOnce() -> Done<()>) -> Done<f64> {
        let counts = self.usable().await?;
        self.nodes[0].sidecar.stop().await?;
        between().await?;
        let begun = Instant::now();
        self.nodes[0].sidecar.start_again().await?;
        let took = begun.elapsed().as_secs_f64();
        self.meet_again(&counts).await?;
        Ok(took)
    }

    /// Kills the first node, whatever it has under way, and starts it again; how long it took until it was ready, in seconds.
    pub(crate) async fn killed(&mut self) -> Done<f64> {
        let counts = self.usable().await?;
        self.nodes[0].sidecar.kill().await?;
        for stream in &mut self.streams {
            stream.end();
            // It fails with its node.
            drop(stream.stop(self.amount_msat).await);
        }
        let begun = Instant::now();
        self.nodes[0].sidecar.start_again().await?;
        let took = begun.elapsed().as_secs_f64();
        self.meet_again(&counts).await?;
        until(LIMIT, "what was under way to end", async || {
            let channels = channels(&self.nodes[0].sidecar.client()).await?;
            Ok(channels.iter().all(|channel| channel.htlcs == 0).then_some(()))
        })
        .await?;
        for stream in &mut self.streams {
            stream.skip_events().await?;
        }
        Ok(took)
    }

    /// How many channels of each node can be used now.
    pub(super) async fn usable(&self) -> Done<Vec<usize>> {
        let mut counts = Vec::new();
        for node in &self.nodes {
            counts.push(usable(&node.sidecar.client()).await?);
        }
        Ok(counts)
    }

    /// Everything that knew the first node's last process knows this one, and each node can use so many channels again.
    pub(super) async fn meet_again(&mut self, counts: &[usize]) -> Done<()> {
        let node = &mut self.nodes[0];
        node.watched.pid = node.sidecar.pid().ok_or("a daemon without a process")?;
        for (stream, (from, to)) in self.streams.iter_mut().zip(self.shape.streams()) {
            let client = |node: usize| self.nodes[node].sidecar.client();
            stream.are_at(client(from), client(to));
        }
        let (first, others) = self.nodes.split_first().ok_or("a stack without nodes")?;
        let (id, address) = (first.sidecar.node_id().await?, first.sidecar.address());
        let wanted = counts.first().copied().unwrap_or_default();
        until(LONG, "the first node's peers", async || {
            for other in others {
                // Left alone it waits longer after each disconnect. It may be at it already.
                drop(other.sidecar.connect_to(&id, &address).await);
            }
            Ok((usable(&first.sidecar.client()).await? >= wanted).then_some(()))
        })
        .await?;
        for (node, count) in self.nodes.iter().zip(counts) {
            until_usable(node, *count).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_what_the_backup_is_and_who_waits_for_it() {
        let place = Path::new("/place");
        assert_eq!(Backup::None.config("place-1", place), "");
        let follow = Backup::Mirror { is_required: false }.config("place-2", place);
        assert!(follow.contains("\"follow\"") && follow.contains("path = \"/place/mirror.redb\""), "{follow}");
        let directory = Backup::Directory { consolidate_every: 10 }.config("place-3", place);
        assert!(directory.contains("\"required\"") && directory.contains("consolidate_every = 10"), "{directory}");
        let command = Backup::Command(vec!["a".to_owned(), "b c".to_owned()]).config("place-4", place);
        assert!(command.contains("command = [\"a\", \"b c\"]"), "{command}");
    }
}
