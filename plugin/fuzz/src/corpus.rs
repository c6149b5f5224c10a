//! The checked-in seeds: small files under `corpus/TARGET`, made by `outrigger-fuzz seeds` out of what the targets say is
//! valid, and what once failed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::targets::Target;

/// The folder of this crate.
pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of a target's seeds.
pub fn folder(target: &Target) -> PathBuf {
    home().join("corpus").join(target.name)
}

/// The seeds of a target: what it says is valid, then the files in the order of their names.
pub fn read(target: &Target) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = (target.seeds)();
    let Ok(entries) = fs::read_dir(folder(target)) else { return Ok(seeds) };
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let seed = fs::read(path)?;
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    Ok(seeds)
}

/// Writes what the target says is valid; files that are there already stay.
pub fn write(target: &Target) -> io::Result<usize> {
    let folder = folder(target);
    fs::create_dir_all(&folder)?;
    let seeds = (target.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("valid-{number:02}")), seed)?;
    }
    Ok(seeds.len())
}
