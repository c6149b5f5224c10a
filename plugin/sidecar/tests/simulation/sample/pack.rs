//! A directory's files in one: of each its name, its length, and those pages of it that are not empty. A journal is mostly empty pages.

use std::path::{Path, PathBuf};

/// Bytes of a page.
const PAGE: usize = 4096;

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The files of the directory and of those in it, by name.
pub fn packed(dir: &Path) -> Vec<u8> {
    let mut found = Vec::new();
    files(dir, &mut found);
    found.sort();
    let mut packed = Vec::new();
    for path in found {
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
        packed.extend((name.len() as u32).to_be_bytes());
        packed.extend(name.as_bytes());
        let bytes = std::fs::read(&path).unwrap();
        packed.extend((bytes.len() as u32).to_be_bytes());
        for (number, page) in bytes.chunks(PAGE).enumerate() {
            let used = page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                packed.extend((number as u32).to_be_bytes());
                packed.extend((used as u32).to_be_bytes());
                packed.extend(&page[..used]);
            }
        }
        packed.extend(u32::MAX.to_be_bytes());
    }
    packed
}

/// What is left to be unpacked.
struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }
}

/// Writes the files below a directory.
pub fn unpack(packed: &[u8], dir: &Path) {
    let mut packed = Packed(packed);
    while !packed.0.is_empty() {
        let len = packed.number() as usize;
        let path = dir.join(std::str::from_utf8(packed.bytes(len)).unwrap());
        let mut bytes = vec![0; packed.number() as usize];
        loop {
            let page = packed.number();
            if page == u32::MAX {
                break;
            }
            let (at, used) = (page as usize * PAGE, packed.number() as usize);
            bytes[at..at + used].copy_from_slice(packed.bytes(used));
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
