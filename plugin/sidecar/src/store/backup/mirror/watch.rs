//! Whether anybody else writes to the files of a mirror while they are open. `cp` over a name keeps the file and its number, and what redb
//! has in memory does not belong to what stands there then.

use redb::StorageBackend;

use super::place::{Looks, MirrorPlace};
use crate::lock::Mutex;
use crate::store::StoreError;
use crate::store::reserve::Reserve;

/// Bytes at the beginning of a file in which redb keeps its roots. They change with each commit that is durable there.
const HEAD_LEN: usize = 320;

/// How both files look, and what the mirror's begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    looks: Option<Looks>,
    head: Option<Vec<u8>>,
}

#[derive(Debug)]
enum State {
    /// Nobody of ours writes: they are to look so.
    AtRest(Seen),
    /// We do: the mirror's own file is to look so before its turn comes.
    Writing(Seen),
    /// Somebody else did.
    Touched,
}

/// Watches the files that are open.
#[derive(Debug)]
pub(super) struct Watch {
    place: MirrorPlace,
    storage: Reserve,
    state: Mutex<State>,
}

impl Watch {
    /// Over files that nobody else has written to since they were opened.
    pub(super) fn over(place: MirrorPlace, storage: Reserve) -> Self {
        let seen = seen(&place, &storage);
        Self { place, storage, state: Mutex::new(State::AtRest(seen)) }
    }

    /// Whether nobody else has written to them, as far as can be told while we do.
    pub(super) fn is_untouched(&self) -> bool {
        let mut state = self.state.lock();
        let is_so = match &*state {
            State::AtRest(seen) => *seen == self::seen(&self.place, &self.storage),
            State::Writing(_) => return true,
            State::Touched => false,
        };
        if !is_so {
            *state = State::Touched;
        }
        is_so
    }

    /// Somebody else has written to them.
    pub(super) fn is_touched(&self) -> StoreError {
        *self.state.lock() = State::Touched;
        StoreError::io_of(&self.place.path, super::GONE)
    }

    /// We write from here on, where nobody else did.
    pub(super) fn begins(&self) -> Result<(), StoreError> {
        if !self.is_untouched() {
            return Err(self.is_touched());
        }
        let mut state = self.state.lock();
        if let State::AtRest(seen) = &*state {
            *state = State::Writing(seen.clone());
        }
        Ok(())
    }

    /// We have written to the journal alone, and are about to write to the mirror's own file: nobody else is to have.
    pub(super) fn goes_on(&self) -> Result<(), StoreError> {
        let now = seen(&self.place, &self.storage);
        let is_so = match &*self.state.lock() {
            State::Writing(before) => before.head == now.head && mirror_of(before) == mirror_of(&now),
            State::AtRest(_) | State::Touched => false,
        };
        if is_so { Ok(()) } else { Err(self.is_touched()) }
    }

    /// We write no more, for now.
    pub(super) fn ends(&self) {
        let now = seen(&self.place, &self.storage);
        let mut state = self.state.lock();
        if let State::Writing(_) = &*state {
            *state = State::AtRest(now);
        }
    }
}

fn seen(place: &MirrorPlace, storage: &Reserve) -> Seen {
    let mut head = vec![0; HEAD_LEN];
    let is_read = storage.read(0, &mut head).is_ok();
    Seen { looks: place.looks(), head: is_read.then_some(head) }
}

fn mirror_of(seen: &Seen) -> Option<impl PartialEq> {
    seen.looks.map(|(mirror, _)| mirror)
}
