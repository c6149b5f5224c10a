//! How many calls bitcoind has to serve for us at once (BTC-12): few, and those with a deadline first.

use super::calls::AT_ONCE;
use crate::lock::{Condvar, Mutex};

/// Whether a call can wait behind others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Publishing a transaction: an HTLC's deadline may hang on it.
    Deadline,
    /// Anything else.
    Routine,
}

/// Lets [`AT_ONCE`] callers through, one of them routine at most: hanging routine calls cannot keep a deadline waiting.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    routine_inside: bool,
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
                let must_wait =
                    |state: &mut State| state.routine_inside || state.inside >= AT_ONCE || state.deadline_waiting > 0;
                self.freed.wait_while(&mut state, must_wait);
                state.routine_inside = true;
            }
        }
        state.inside += 1;
        Pass { gate: self, urgency }
    }
}

/// Room for one call.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    urgency: Urgency,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.inside -= 1;
        if self.urgency == Urgency::Routine {
            state.routine_inside = false;
        }
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
        let routine = gate.enter(Urgency::Routine);
        let deadline = gate.enter(Urgency::Deadline);
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
            drop(routine);
            assert_eq!(heard.recv().unwrap(), Urgency::Deadline);
            assert_eq!(heard.recv().unwrap(), Urgency::Routine);
        });
        drop(deadline);
        let state = gate.state.lock();
        assert_eq!((state.inside, state.routine_inside, state.deadline_waiting), (0, false, 0));
    }

    #[test]
    fn btc_12_ahanging_routine_call_leaves_room_for_a_deadline() {
        let gate = Gate::default();
        let hanging = gate.enter(Urgency::Routine);
        thread::scope(|scope| {
            let second = scope.spawn(|| drop(gate.enter(Urgency::Routine)));
            drop(gate.enter(Urgency::Deadline));
            assert!(!second.is_finished(), "one routine call at a time");
            drop(hanging);
        });
    }
}
