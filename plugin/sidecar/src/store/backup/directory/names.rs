//! The names of files, which a person can read, and what stands in a directory by its names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use outrigger_bolt::id::{ChannelId, NodeId};

use super::{MAX_NAMES, Names, SUFFIX};
use crate::store::backup::sealed::{RecordKind, RecordName};

pub(super) fn place_of(dir: &Path, network: &str, node_id: &NodeId) -> PathBuf {
    dir.join(format!("{network}-{node_id}"))
}

pub(super) fn is_place(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, node)| node.parse::<NodeId>().is_ok())
}

pub(super) fn path_of(root: &Path, name: &RecordName) -> PathBuf {
    let word = name.kind.word();
    match name.kind {
        RecordKind::Full => root.join(name.channel.to_string()).join(format!("{word}-{:020}{SUFFIX}", name.id)),
        RecordKind::Update => {
            root.join(name.channel.to_string()).join(format!("{word}-{:020}-{:020}{SUFFIX}", name.from, name.id))
        }
        RecordKind::Tip => root.join(format!("{word}-{:020}{SUFFIX}", name.id)),
    }
}

/// The record of a channel that a file's name names; nothing for any other file.
pub fn parse_name(channel: &ChannelId, file: &str) -> Option<RecordName> {
    let (word, numbers) = file.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |text: &str| (text.len() == 20).then(|| text.parse::<u64>().ok())?.filter(|_| is_digits(text));
    match RecordKind::of_word(word)? {
        RecordKind::Full => Some(RecordName::full(*channel, number(numbers)?)),
        RecordKind::Update => {
            let (from, id) = numbers.split_once('-')?;
            let (from, id) = (number(from)?, number(id)?);
            (from < id).then_some(RecordName::update(*channel, from, id))
        }
        RecordKind::Tip => Some(RecordName::tip(u32::try_from(number(numbers)?).ok()?)),
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The records in a channel's directory; nothing where there are too many to be ours.
pub(super) fn names_in(dir: &Path, channel: &ChannelId) -> io::Result<Option<Names>> {
    let mut names = Names::default();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name();
        if let Some(name) = file.to_str().and_then(|file| parse_name(channel, file)) {
            names.insert(&name);
        }
        if names.fulls.len().saturating_add(names.updates.len()) > MAX_NAMES {
            return Ok(None);
        }
    }
    Ok(Some(names))
}

/// The channels that have a directory in this one.
pub(super) fn channels_in(dir: &Path) -> io::Result<Vec<ChannelId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Some(channel) = entry.file_name().to_str().and_then(|name| name.parse::<ChannelId>().ok()) else {
            continue;
        };
        // One that cannot be looked at is there.
        if fs::metadata(entry.path()).map_or_else(|fault| fault.kind() != io::ErrorKind::NotFound, |file| file.is_dir())
        {
            found.push(channel);
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn tips(root: &Path) -> io::Result<BTreeSet<u32>> {
    let mut heights = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        let file = entry?.file_name();
        let name = file.to_str().and_then(|file| parse_name(&ChannelId([0; 32]), file));
        let height = name.filter(|name| name.kind == RecordKind::Tip).and_then(|name| u32::try_from(name.id).ok());
        heights.extend(height);
    }
    Ok(heights)
}
