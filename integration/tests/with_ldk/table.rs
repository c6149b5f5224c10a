//! The generated table of cells, and the share of it that a run takes.

use std::collections::BTreeSet;

use outrigger_integration::Done;

use crate::cell::{Act, Blow, Cell, ClosingPoint, Ending, Fees, Payment, Point};
use crate::meeting::Side;

/// The cells of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pay,
    PayAndClose,
    Close,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Pay, Self::PayAndClose, Self::Close];

    fn acts(self) -> Vec<Act> {
        match self {
            Self::Pay => payments().into_iter().map(Act::Pay).collect(),
            Self::PayAndClose => {
                let closers = |payment| Side::BOTH.map(|closer| Act::PayAndClose { payment, closer });
                payments().into_iter().flat_map(closers).collect()
            }
            Self::Close => Side::BOTH
                .into_iter()
                .flat_map(|closer| ClosingPoint::ALL.map(|point| Act::Close { closer, point }))
                .collect(),
        }
    }

    fn cells(self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for opener in Side::BOTH {
            for act in self.acts() {
                let cells_of_act = Blow::ALL.map(|blow| Cell { opener, act, blow });
                cells.extend(cells_of_act.into_iter().filter(|cell| !cell.is_beyond_ldk()));
            }
        }
        cells
    }
}

fn payments() -> Vec<Payment> {
    let mut payments = Vec::new();
    for payer in Side::BOTH {
        for ending in Ending::BOTH {
            for point in Point::ALL {
                payments.extend(Fees::BOTH.map(|fees| Payment { payer, ending, point, fees }));
            }
        }
    }
    payments
}

/// What a run takes of the table.
#[derive(Debug)]
pub(crate) struct Share {
    /// How many cells there are.
    pub(crate) all: usize,
    /// The cells that are run.
    pub(crate) cells: Vec<Cell>,
}

/// The cells to run: all with `MATRIX=all`, one with `MATRIX_CELL=NAME`, those that a part of their names have in common
/// with `MATRIX_CELL=PART`, and else a share in which each two values of
/// different dimensions meet.
pub(crate) fn share() -> Done<Share> {
    let all: Vec<Cell> = Kind::ALL.into_iter().flat_map(Kind::cells).collect();
    let total = all.len();
    if let Ok(name) = std::env::var("MATRIX_CELL") {
        let cells: Vec<Cell> = all.into_iter().filter(|cell| cell.to_string().contains(&name)).collect();
        if cells.is_empty() {
            return Err(format!("MATRIX_CELL={name}: no cell is named so").into());
        }
        return Ok(Share { all: total, cells });
    }
    let cells = match std::env::var("MATRIX").as_deref() {
        Ok("all") => all,
        Ok(other) => return Err(format!("MATRIX={other}: only `all` is known").into()),
        Err(_) => Kind::ALL.into_iter().flat_map(|kind| every_pair(&kind.cells())).collect(),
    };
    Ok(Share { all: total, cells })
}

/// Some of the cells, among which each two values that meet in any cell meet too. Slow cells are for what only they have.
fn every_pair(cells: &[Cell]) -> Vec<Cell> {
    let mut open: BTreeSet<(String, String)> = cells.iter().copied().flat_map(pairs).collect();
    let mut taken = Vec::new();
    while !open.is_empty() {
        let count = |cell: &&Cell| pairs(**cell).iter().filter(|pair| open.contains(*pair)).count();
        let worth = |cell: &&Cell| {
            let count = count(cell);
            (count > 0 && !cell.is_slow(), count)
        };
        let Some(best) = cells.iter().rev().max_by_key(worth) else { break };
        for pair in pairs(*best) {
            open.remove(&pair);
        }
        taken.push(*best);
    }
    taken
}

fn pairs(cell: Cell) -> Vec<(String, String)> {
    let values = cell.dimensions();
    let mut pairs = Vec::new();
    for (at, first) in values.iter().enumerate() {
        pairs.extend(values.iter().skip(at + 1).map(|second| (first.clone(), second.clone())));
    }
    pairs
}

#[test]
fn the_table_names_each_cell_once_and_a_share_meets_every_pair() {
    for kind in Kind::ALL {
        let cells = kind.cells();
        let names: BTreeSet<String> = cells.iter().map(Cell::to_string).collect();
        assert_eq!(names.len(), cells.len(), "{kind:?}");
        let share = every_pair(&cells);
        let met = |cells: &[Cell]| cells.iter().copied().flat_map(pairs).collect::<BTreeSet<_>>();
        assert_eq!(met(&share), met(&cells), "{kind:?}");
        println!("{kind:?}: {} cells, of which a share of {}", cells.len(), share.len());
    }
}
