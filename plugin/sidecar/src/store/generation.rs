//! A number that rises, in the database and in a small file beside it. A database that is behind its file is an old copy
//! that was put back (BAK-1, BAK-7). `FORMAT.md` and ADR 12 tell why a crash is never taken for one.

use std::fmt::{Debug, Write as _};
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use outrigger_bolt::id::NodeId;
use redb::{Database, Durability, ReadableDatabase};

use super::commit::apply;
use super::ground::{Ground, System};
use super::journal::rows::SealedRow;
use super::schema::{FORMAT_VERSION, GENERATION_KEY, Table};
use super::seal::{seal, unseal};
use super::{StoreError, sync_directory};

/// The name of the file beside the database.
pub const FILE: &str = "generation";

/// The most that is read of it: what is longer was not written by this program.
const MAX_BYTES: u64 = 4096;

/// Commits after which the number rises.
pub(super) const RAISED_EVERY: u64 = 256;

/// Time after which the next commit raises the number, however few there were.
pub(super) const RAISED_AFTER: Duration = Duration::from_secs(600);

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Companion {
    format: u16,
    network: String,
    node_id: String,
    generation: u64,
}

/// Where the file stands: a directory, or what a test has in its place.
pub trait Place: Debug + Send {
    /// The first `limit` bytes of the file; none where there is no file.
    fn read(&self, limit: u64) -> io::Result<Option<Vec<u8>>>;

    /// Writes a file under another name, and makes what stands in it durable.
    fn write_beside(&self, text: &[u8]) -> io::Result<()>;

    /// Gives that file its name, in the place of the one that has it.
    fn rename(&self) -> io::Result<()>;

    /// Makes the name durable.
    fn sync_name(&self) -> io::Result<()>;

    /// The directory in words to an operator.
    fn path(&self) -> PathBuf;
}

/// The directory of the database.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn unfinished(&self) -> PathBuf {
        self.0.join(format!("{FILE}.new"))
    }
}

impl Place for Directory {
    fn read(&self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        match File::open(self.0.join(FILE)).and_then(|file| file.take(limit).read_to_end(&mut text)) {
            Ok(_) => Ok(Some(text)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn write_beside(&self, text: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.unfinished())?;
        file.write_all(text)?;
        file.sync_all()
    }

    fn rename(&self) -> io::Result<()> {
        fs::rename(self.unfinished(), self.0.join(FILE))
    }

    fn sync_name(&self) -> io::Result<()> {
        sync_directory(&self.0)
    }

    fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

/// The number of a database that is not old, and when it rises next.
#[derive(Debug)]
pub struct Generation {
    place: Box<dyn Place>,
    companion: Companion,
    /// Commits since it rose.
    commits: u64,
    raised_at: Option<Instant>,
}

/// Whether the database is the newest that this directory has seen.
#[derive(Debug)]
pub enum Age {
    Newest(Generation),
    /// The proof that it is not.
    Old(String),
}

/// Refuses what the file beside the database says is newer than this program, or another's, before the database itself is
/// opened: one that a crash left changes when it is opened. Gives the number that it has seen, where there is one.
pub fn check(dir: &Path, network: &str, node_id: &NodeId) -> Result<Option<u64>, StoreError> {
    check_in(&Directory(dir.to_owned()), network, node_id)
}

/// The same of a file that stands elsewhere than in a directory.
pub(super) fn check_in(place: &dyn Place, network: &str, node_id: &NodeId) -> Result<Option<u64>, StoreError> {
    let Some(companion) = Companion::read(place)? else { return Ok(None) };
    let path = place.path().join(FILE);
    let foreign = |found: String, wanted: String| StoreError::Foreign { path: path.clone(), found, wanted };
    if companion.network != network {
        return Err(foreign(format!("network {}", companion.network), format!("network {network}")));
    }
    if companion.node_id != node_id.to_string() {
        return Err(foreign(format!("node {}", companion.node_id), format!("node {node_id}")));
    }
    Ok(Some(companion.generation))
}

impl Generation {
    /// Compares database and file, and raises both where the database is not old. An old one, or one that is known to be old
    /// (`is_restored`), changes neither: who has the newer database can still put it back.
    pub fn at_start(
        dir: &Path,
        owner: (&str, &NodeId),
        db: &Database,
        is_restored: bool,
    ) -> Result<Option<Age>, StoreError> {
        Self::at_start_in(Box::new(Directory(dir.to_owned())), owner, db, is_restored)
    }

    /// The same where the file stands elsewhere than in a directory.
    pub fn at_start_in(
        place: Box<dyn Place>,
        (network, node_id): (&str, &NodeId),
        db: &Database,
        is_restored: bool,
    ) -> Result<Option<Age>, StoreError> {
        let seen = Companion::read(&*place)?.map_or(0, |companion| companion.generation);
        let kept = in_database(db)?;
        if kept < seen {
            return Ok(Some(Age::Old(format!(
                "{} is at generation {kept} and {FILE} in the same directory has seen {seen}: an old copy was put back",
                super::FILE
            ))));
        }
        if is_restored {
            return Ok(None);
        }
        let companion = Companion {
            format: FORMAT_VERSION,
            network: network.to_owned(),
            node_id: node_id.to_string(),
            generation: kept,
        };
        let mut generation = Self { place, companion, commits: 0, raised_at: None };
        generation.raise(db)?;
        Ok(Some(Age::Newest(generation)))
    }

    /// Takes note of a commit, however it is made durable.
    pub(super) fn committed(&mut self, now: Option<Instant>) {
        self.commits = self.commits.saturating_add(1);
        self.raised_at = self.raised_at.or(now);
    }

    /// The number that a transaction of the database is to write, where it is time for another one, or `is_asked` for.
    pub(super) fn due(&self, now: Option<Instant>, is_asked: bool) -> Option<u64> {
        let since = now.zip(self.raised_at).map(|(now, raised_at)| now.saturating_duration_since(raised_at));
        let is_due = is_asked || self.commits >= RAISED_EVERY || since.is_some_and(|since| since >= RAISED_AFTER);
        is_due.then(|| self.companion.generation.saturating_add(1))
    }

    /// The number is durable in the database: the file follows. In this order, so that the file is never ahead of a database
    /// that is not old.
    pub(super) fn is_durable(&mut self, number: u64, now: Option<Instant>) -> Result<(), StoreError> {
        self.companion.generation = number;
        (self.commits, self.raised_at) = (0, now);
        match self.companion.write(&*self.place) {
            // The file stays behind the database, as a crash may leave it, until there is room for its next number (DSK-8).
            Err(fault) if is_full(&fault) => {
                tracing::warn!(%fault, file = FILE, "no room for the number of the database's generation; it is written later");
                Ok(())
            }
            written => written.map_err(StoreError::io),
        }
    }

    fn raise(&mut self, db: &Database) -> Result<(), StoreError> {
        let number = self.companion.generation.saturating_add(1);
        let row = SealedRow { table: Table::Meta, key: GENERATION_KEY.to_vec(), value: Some(sealed(number)) };
        apply(db, [&row], Durability::Immediate, true)?;
        self.is_durable(number, None)
    }
}

/// The row's value for a number.
pub(super) fn sealed(number: u64) -> Vec<u8> {
    seal(Table::Meta, GENERATION_KEY, &number.to_be_bytes())
}

fn is_full(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The number in the database; 0 before the first start raised it.
pub(super) fn in_database(db: &Database) -> Result<u64, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { path: super::FILE.into(), reason };
    let meta = db.begin_read()?.open_table(Table::Meta.definition())?;
    let Some(row) = meta.get(GENERATION_KEY)? else { return Ok(0) };
    let row = unseal(Table::Meta, GENERATION_KEY, row.value()).map_err(|fault| corrupt(fault.to_string()))?;
    row.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("its generation is no number".to_owned()))
}

impl Companion {
    /// The file's text: words that a human reads, and a check over them.
    fn text(&self) -> String {
        let Self { format, network, node_id, generation } = self;
        let mut text = format!("format {format}\nnetwork {network}\nnode {node_id}\ngeneration {generation}\n");
        let check = check_of(&text);
        // A string takes whatever is written.
        let _ = writeln!(text, "check {check}");
        text
    }

    /// Replaces the file: there is never one that is not whole.
    fn write(&self, place: &dyn Place) -> io::Result<()> {
        place.write_beside(self.text().as_bytes())?;
        place.rename()?;
        place.sync_name()
    }

    /// The file, or nothing where there is none. A newer format is refused whatever else it says.
    fn read(place: &dyn Place) -> Result<Option<Self>, StoreError> {
        let Some(bytes) = place.read(MAX_BYTES).map_err(StoreError::io)? else { return Ok(None) };
        let text = String::from_utf8(bytes).unwrap_or_default();
        match Self::parse(&text).filter(|found| found.format > FORMAT_VERSION || found.text() == text) {
            Some(found) if found.format > FORMAT_VERSION => {
                Err(StoreError::Newer { path: place.path().join(FILE), found: found.format, known: FORMAT_VERSION })
            }
            Some(found) => Ok(Some(found)),
            None => {
                Err(StoreError::Companion { path: place.path().join(FILE), database: place.path().join(super::FILE) })
            }
        }
    }

    /// What the lines say that every format has.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut word = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Self {
            format: word("format")?.parse().ok()?,
            network: word("network")?.to_owned(),
            node_id: word("node")?.to_owned(),
            generation: word("generation")?.parse().ok()?,
        })
    }
}

fn check_of(text: &str) -> String {
    let digest = sha256::Hash::hash(text.as_bytes()).to_byte_array();
    digest.iter().take(8).copied().collect::<Vec<_>>().to_lower_hex_string()
}

/// Makes a directory with those above it that are missing, each private to its owner, and makes their names durable: who
/// finds the database finds its directory too (DSK-7).
pub fn make_directory(dir: &Path) -> io::Result<()> {
    make_directory_on(&System, dir)
}

/// The same on this file system.
pub(super) fn make_directory_on(ground: &dyn Ground, dir: &Path) -> io::Result<()> {
    let missing: Vec<_> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    for made in missing.into_iter().rev() {
        match ground.make_directory(made) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => return Err(fault),
            Ok(()) | Err(_) => {}
        }
        match made.parent().filter(|above| !above.as_os_str().is_empty()) {
            Some(above) => ground.sync_names(above)?,
            None => ground.sync_names(Path::new("."))?,
        }
    }
    Ok(())
}

/// The rights of the owner, and those of others.
const OWNER: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// Takes the rights from others that they have to what is at this path (KEY-1). Gives the mode that it had, where that gave any.
pub fn make_private(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode & OWNER))?;
    // Some file systems take the order and keep what they were mounted with.
    match fs::metadata(path)?.mode() & OTHERS {
        0 => Ok(Some(mode)),
        _ => Err(io::Error::other(
            "its file system changes no modes; mount it with umask=077, or file_mode=0600 and dir_mode=0700",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Mutex;

    /// Notes which directories are synced.
    #[derive(Debug, Default)]
    struct Noting(Mutex<Vec<PathBuf>>);

    impl Ground for Noting {
        fn sync_names(&self, dir: &Path) -> io::Result<()> {
            self.0.lock().push(dir.to_owned());
            sync_directory(dir)
        }
    }

    /// Syncs none.
    #[derive(Debug)]
    struct Refusing;

    impl Ground for Refusing {
        fn sync_names(&self, _: &Path) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(5))
        }
    }

    #[test]
    fn dsk_7_the_name_of_each_directory_that_was_made_is_made_durable() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("home").join("regtest");
        let noting = Noting::default();
        make_directory_on(&noting, &wanted).unwrap();
        assert_eq!(*noting.0.lock(), [dir.path().to_owned(), dir.path().join("home")]);
        assert!(wanted.is_dir());
        make_directory_on(&noting, &wanted).unwrap();
        assert_eq!(noting.0.lock().len(), 2, "what was there is not made again");
        let refused = make_directory_on(&Refusing, &dir.path().join("other"));
        assert!(refused.is_err(), "a name that may be lost is no place for a database");
    }

    #[test]
    fn bak_1_the_generation_rises_ten_minutes_after_it_last_did_however_few_commits_there_were() {
        let companion =
            Companion { format: FORMAT_VERSION, network: "regtest".into(), node_id: "02".into(), generation: 7 };
        let mut generation =
            Generation { place: Box::new(Directory("/".into())), companion, commits: 0, raised_at: None };
        let begun = Instant::now();
        let after = |seconds| Some(begun + Duration::from_secs(seconds));
        generation.committed(after(0));
        assert_eq!(generation.due(after(0), false), None);
        assert_eq!(generation.due(after(599), false), None);
        assert_eq!(generation.due(after(600), false), Some(8));
        assert_eq!(generation.due(None, true), Some(8));
    }
}
