//! The file that everything is restored from: BIP 39 words, readable by the daemon's user alone. ADR 19 tells how keys come of them.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bip39::{Language, Mnemonic};
use bitcoin::Network;
use bitcoin::bip32::Xpriv;
use zeroize::Zeroizing;

use super::words::{WordsFault, mnemonic_of};
use crate::clock::NoEntropy;

/// The file's name in the data directory.
const FILE: &str = "seed";
/// Where a new seed is written before it gets its name.
const DRAFT: &str = "seed.draft";
/// Owner may read and write, nobody else anything.
const MODE: u32 = 0o600;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// Longer than any twenty-four words.
const MAX_BYTES: u64 = 1024;

/// The secret of which all keys are made. Wiped when dropped; never printed.
pub struct Seed {
    mnemonic: Mnemonic,
    is_new: bool,
}

/// Why there is no seed to work with. Never holds a byte of the file.
#[derive(Debug, thiserror::Error)]
pub enum SeedFault {
    /// The file can be read by others.
    #[error("{} has mode {mode:o}; run: chmod 600 {}", path.display(), path.display())]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error("{} belongs to user {owner}, not to user {us} who runs the daemon", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
        /// The daemon's effective user id.
        us: u32,
    },
    /// Not a plain file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Not 12 to 24 words with the right checksum.
    #[error("{} does not hold 12 to 24 BIP 39 words with a right checksum: restore it from your backup", .0.display())]
    NotASeed(PathBuf),
    /// A seed is there already and is never overwritten.
    #[error("{} exists and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// No randomness to make a seed of.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The disk.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
}

fn io_fault(path: &Path) -> impl FnOnce(io::Error) -> SeedFault {
    move |error| SeedFault::Io { path: path.to_owned(), error }
}

impl Seed {
    /// Reads the seed of the data directory; `None` where there is no file.
    ///
    /// A data directory with a database but no seed must not be given a new one: its coins would be lost to sight.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, SeedFault> {
        let path = data_dir.join(FILE);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(io_fault(&path))?,
        };
        check_privacy(&file, &path)?;
        let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
        match file.take(MAX_BYTES).read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(SeedFault::NotASeed(path)),
            other => other.map_err(io_fault(&path))?,
        };
        match Mnemonic::parse_in_normalized(Language::English, text.trim()) {
            Ok(mnemonic) => Ok(Some(Self { mnemonic, is_new: false })),
            Err(_) => Err(SeedFault::NotASeed(path)),
        }
    }

    /// Whether this process has made it: nobody can have been paid with it before.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether the data directory has a file in the seed's place, whatever is in it.
    pub fn is_there(data_dir: &Path) -> Result<bool, SeedFault> {
        let path = data_dir.join(FILE);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_fault(&path)(error)),
        }
    }

    /// The seed that these words are, as somebody typed them. Nothing is written.
    pub fn of_words(text: &str) -> Result<Self, WordsFault> {
        Ok(Self { mnemonic: mnemonic_of(text)?, is_new: false })
    }

    /// Makes a new seed of 256 bits from `entropy` and returns it once its file is durable.
    pub fn create(data_dir: &Path, entropy: impl FnOnce() -> Result<[u8; 32], NoEntropy>) -> Result<Self, SeedFault> {
        let entropy = Zeroizing::new(entropy()?);
        let mnemonic = Mnemonic::from_entropy(entropy.as_slice()).map_err(|error| NoEntropy(error.to_string()))?;
        let seed = Self { mnemonic, is_new: true };
        seed.keep(data_dir)?;
        Ok(seed)
    }

    /// Writes the seed where there is none, and comes back once its file is durable. At no moment is there a `seed` file that is
    /// incomplete or open to others, and one that is there is never replaced. Gives the path.
    pub fn keep(&self, data_dir: &Path) -> Result<PathBuf, SeedFault> {
        let (path, draft) = (data_dir.join(FILE), data_dir.join(DRAFT));
        // A draft is what a crash left of a seed that was never used.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_fault(&draft)(error)),
            Ok(()) | Err(_) => {}
        }
        write_draft(&draft, &self.mnemonic).map_err(io_fault(&draft))?;
        // A link fails where the name is taken, which a rename does not.
        match fs::hard_link(&draft, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // It holds a secret that belongs to no node.
                fs::remove_file(&draft).map_err(io_fault(&draft))?;
                return Err(SeedFault::Exists(path));
            }
            other => other.map_err(io_fault(&path))?,
        }
        fs::remove_file(&draft).map_err(io_fault(&draft))?;
        File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(io_fault(data_dir))?;
        Ok(path)
    }

    /// The words, to be written down: they are told to nobody but whoever asked for a new seed.
    pub fn words(&self) -> Vec<&'static str> {
        self.mnemonic.words().collect()
    }

    /// The root of the key tree (BIP 32), with an empty BIP 39 passphrase.
    pub(crate) fn master(&self, network: Network) -> Xpriv {
        let bytes = Zeroizing::new(self.mnemonic.to_seed_normalized(""));
        #[expect(clippy::expect_used, reason = "BIP 32: one seed in 2^127 has no master key")]
        Xpriv::new_master(network, bytes.as_slice()).expect("a seed has a master key")
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// KEY-1: looked at on the open file, so that it cannot be exchanged in between.
fn check_privacy(file: &File, path: &Path) -> Result<(), SeedFault> {
    let metadata = file.metadata().map_err(io_fault(path))?;
    let us = rustix::process::geteuid().as_raw();
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(SeedFault::NotAFile(path));
    }
    if metadata.uid() != us {
        return Err(SeedFault::NotOurs { path, owner: metadata.uid(), us });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SeedFault::TooOpen { path, mode });
    }
    Ok(())
}

fn write_draft(draft: &Path, mnemonic: &Mnemonic) -> io::Result<()> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_BYTES as usize));
    for word in mnemonic.words() {
        text.push_str(word);
        text.push(' ');
    }
    text.pop();
    text.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::Clock;

    fn entropy() -> Result<[u8; 32], NoEntropy> {
        Clock::random_bytes()
    }

    fn words(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn key_1_a_new_seed_is_private_complete_and_loads_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Seed::load(dir.path()).unwrap().is_none());
        let made = Seed::create(dir.path(), entropy).unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(words(&path).split_whitespace().count(), 24);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the draft is gone");
        let loaded = Seed::load(dir.path()).unwrap().unwrap();
        assert!(loaded.mnemonic == made.mnemonic);
    }

    #[test]
    fn bad_input_89_a_seed_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Seed::create(dir.path(), entropy).unwrap();
        let path = dir.path().join(FILE);
        for mode in [0o644, 0o640, 0o604, 0o620, 0o601, 0o660, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let fault = Seed::load(dir.path()).unwrap_err();
            assert!(matches!(fault, SeedFault::TooOpen { mode: found, .. } if found == mode), "{mode:o}: {fault}");
            assert!(fault.to_string().contains("chmod 600"));
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(Seed::load(dir.path()).unwrap().is_some());
        }
    }

    #[test]
    fn bad_input_89_a_seed_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Seed::create(dir.path(), entropy).unwrap();
        let path = dir.path().join(FILE);
        // Only root may give a file away; for any other user a file of root's proves the rule.
        let given_away = std::os::unix::fs::chown(&path, Some(65_534), None).is_ok();
        let foreign = if given_away { path } else { PathBuf::from("/etc/passwd") };
        let file = File::open(&foreign).unwrap();
        assert!(matches!(check_privacy(&file, &foreign), Err(SeedFault::NotOurs { .. })));
    }

    #[test]
    fn bad_input_89_a_seed_that_is_not_whole_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Seed::create(dir.path(), || Ok([7; 32])).unwrap();
        let path = dir.path().join(FILE);
        let right = words(&path);
        let first = right.split_whitespace().next().unwrap().to_owned();
        let all_first = vec![first.as_str(); 24].join(" ");
        let missing_last = right.trim().rsplit_once(' ').unwrap().0.to_owned();
        let too_long = format!("{right}{}", " zoo".repeat(1000));
        for wrong in ["", "\u{fffd}", &all_first, &missing_last, &too_long] {
            fs::write(&path, wrong).unwrap();
            let fault = Seed::load(dir.path()).unwrap_err();
            assert!(matches!(fault, SeedFault::NotASeed(_)), "{fault}");
            assert!(!fault.to_string().contains(&first), "no word of a seed in an error");
        }
        fs::write(&path, [0xff; 40]).unwrap();
        assert!(matches!(Seed::load(dir.path()), Err(SeedFault::NotASeed(_))));
    }

    #[test]
    fn key_1_a_seed_is_never_overwritten_and_a_crashed_draft_is_no_seed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(DRAFT), "abandon aban").unwrap();
        assert!(Seed::load(dir.path()).unwrap().is_none());
        Seed::create(dir.path(), entropy).unwrap();
        let before = words(&dir.path().join(FILE));
        assert!(matches!(Seed::create(dir.path(), entropy), Err(SeedFault::Exists(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nor is a draft of it left");
        assert_eq!(words(&dir.path().join(FILE)), before);
    }

    #[test]
    fn key_2_no_seed_without_randomness() {
        let dir = tempfile::tempdir().unwrap();
        let fault = Seed::create(dir.path(), || Err(NoEntropy("scripted".to_owned()))).unwrap_err();
        assert!(matches!(fault, SeedFault::Entropy(_)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn key_5_a_seed_has_nothing_to_print() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(format!("{:?}", Seed::create(dir.path(), entropy).unwrap()), "Seed(..)");
    }

    #[test]
    fn the_master_key_is_that_of_bip_39() {
        // BIP 39's own vector for 32 zero bytes has the passphrase TREZOR; without one, the words alone decide.
        let mnemonic = Mnemonic::from_entropy(&[0; 32]).unwrap();
        let seed = Seed { mnemonic: mnemonic.clone(), is_new: false };
        let expected = Xpriv::new_master(Network::Regtest, &mnemonic.to_seed("")).unwrap();
        assert!(seed.master(Network::Regtest) == expected);
    }
}
