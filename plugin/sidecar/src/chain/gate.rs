//! How many calls bitcoind has to serve for us at once (BTC-12): few, and those with a deadline first.

use parking_lot::{Condvar, Mutex};

/// Calls under way at once, the long poll not counted.
const AT_ONCE: usize = 2;

/// Whether a call can wait behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Publishing a transaction: an HTLC's deadline may hang on it.
    Deadline,
    /// Anything else.
    Routine,
}

/// Lets [`AT_ONCE`] callers through; a waiting caller with a deadline passes before routine ones.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    deadline_waiting: usize,
}

impl Gate {
    /// Blocks until there is room; the room is given back when the pass is dropped.
    pub(super) fn enter(&self, urgency: Urgency) -> Pass<'_> {
        let mut state = self.state.lock();
        match urgency {
            Urgency::Deadline => {
                state.deadline_waiting += 1;
                self.freed.wait_while(&mut state, |state| state.inside >= AT_ONCE);
                state.deadline_waiting -= 1;
            }
            Urgency::Routine => {
                let must_wait = |state: &mut State| state.inside >= AT_ONCE || state.deadline_waiting > 0;
                self.freed.wait_while(&mut state, must_wait);
            }
        }
        state.inside += 1;
        Pass { gate: self }
    }
}

/// Room for one call.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.state.lock().inside -= 1;
        self.gate.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn btc_12_deadline_work_passes_before_routine_work() {
        let gate = Gate::default();
        let (said, heard) = mpsc::channel();
        let first = gate.enter(Urgency::Routine);
        let second = gate.enter(Urgency::Routine);
        thread::scope(|scope| {
            let gate = &gate;
            for urgency in [Urgency::Deadline, Urgency::Routine] {
                let said = said.clone();
                scope.spawn(move || {
                    let pass = gate.enter(urgency);
                    said.send(urgency).unwrap();
                    drop(pass);
                });
                // The routine caller is only let loose once the urgent one waits.
                while urgency == Urgency::Deadline && gate.state.lock().deadline_waiting == 0 {
                    thread::yield_now();
                }
            }
            assert!(heard.try_recv().is_err(), "no third call passes while two are inside");
            drop(first);
            assert_eq!(heard.recv().unwrap(), Urgency::Deadline);
            assert_eq!(heard.recv().unwrap(), Urgency::Routine);
        });
        drop(second);
        assert_eq!(gate.state.lock().inside, 0);
    }
}
