//! Where a start finds the journal of its database, or makes it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::StorageBackend;

use super::super::FILE as DATABASE;
use super::super::ground::{Ground, system};
use super::super::still::opened_to_look;
use super::FILE;

/// A place for one journal.
pub trait Shelf {
    /// The journal that stands there.
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Makes one in the place of what stands there, with what `lay` writes. Its name is durable when this returns.
    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)>;

    /// What it is called in words to an operator.
    fn path(&self) -> PathBuf;

    /// What its database is called in words to an operator.
    fn database(&self) -> PathBuf {
        DATABASE.into()
    }

    /// Whether the operator has said that it is lost for good.
    fn is_given_up(&self) -> bool;
}

/// The place beside a database.
#[derive(Clone, Debug)]
pub struct Beside {
    path: PathBuf,
    database: PathBuf,
    is_to_look: bool,
    ground: Arc<dyn Ground>,
}

impl Beside {
    /// Beside the database of a node, which stands in this directory under its own name.
    pub fn node(dir: &Path) -> Self {
        Self { path: dir.join(FILE), database: DATABASE.into(), is_to_look: false, ground: system() }
    }

    /// Beside a file of any name, which it has with `.journal` behind it.
    pub fn file(database: &Path) -> Self {
        Self {
            path: with_ending(database, ".journal"),
            database: database.to_owned(),
            is_to_look: false,
            ground: system(),
        }
    }

    /// The same on another file system.
    #[must_use]
    pub fn on(self, ground: Arc<dyn Ground>) -> Self {
        Self { ground, ..self }
    }

    /// The same to look at, also where nothing may be written.
    #[must_use]
    pub fn to_look(self) -> Self {
        Self { is_to_look: true, ..self }
    }

    fn backend(&self, file: File) -> io::Result<Box<dyn StorageBackend>> {
        self.ground.backend(file).map_err(|fault| io::Error::other(fault.to_string()))
    }

    /// The file by which an operator says that the journal is lost for good.
    pub fn given_up(&self) -> PathBuf {
        with_ending(&self.path, ".lost")
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl Shelf for Beside {
    fn open(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let opened = match self.is_to_look {
            true => opened_to_look(&self.path),
            false => File::options().read(true).write(true).open(&self.path).and_then(|file| self.backend(file)),
        };
        match opened {
            Ok(file) => Ok(Some(file)),
            // Nor is one made in the place of one that another disk holds.
            Err(fault) if fault.kind() == io::ErrorKind::NotFound && self.path.is_symlink() => {
                Err(io::Error::other("a link to a file that is missing: put that back, or its disk"))
            }
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn make(
        &self,
        lay: &dyn Fn(&dyn StorageBackend, usize) -> io::Result<()>,
    ) -> io::Result<(Box<dyn StorageBackend>, usize)> {
        let unfinished = with_ending(&self.path, ".new");
        let file = self.backend(self.ground.create(&unfinished)?)?;
        let half_len = self.ground.half_len();
        if let Err(fault) = lay(&*file, half_len) {
            // A disk without room for it gets back what it took.
            drop(self.ground.remove(&unfinished));
            return Err(fault);
        }
        self.ground.rename(&unfinished, &self.path)?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(fault) = self.ground.sync_names(dir) {
            // Its name may be seen and on no disk: who tries again makes it again.
            drop(self.ground.remove(&self.path));
            return Err(fault);
        }
        Ok((file, half_len))
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn database(&self) -> PathBuf {
        self.database.clone()
    }

    fn is_given_up(&self) -> bool {
        self.given_up().exists()
    }
}
