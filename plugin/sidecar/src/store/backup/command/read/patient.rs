//! A program that is only asked for what it keeps, as a restore asks it: again where it refuses, and started again where it ends. A store
//! that is away for a moment is no lost one.

use std::sync::Arc;
use std::time::Duration;

use outrigger_bolt::id::ChannelId;
use serde_json::Value;

use super::super::Program;
use super::super::child::{Child, ChildFault, Remains};
use super::{Ask, Oddities, Unanswered, channels, newest_tip, stored};
use crate::store::backup::source::{Source, SourceFault, StoredChannel};

/// How often one question is asked.
const TRIES: u32 = 3;

/// Questions that are asked again in one restore, at most.
const MOST_AGAIN: u32 = 64;

/// Between two times.
const PAUSE: Duration = Duration::from_millis(200);

/// A program that is only asked for what it keeps.
pub struct CommandSource {
    patient: Patient,
    odd: Oddities,
    unread: Vec<String>,
}

/// A program that is asked again where it refuses, and started again where it ends: a store that is away for a moment is no lost one.
struct Patient {
    program: Program,
    child: Option<Child>,
    remains: Remains,
    again: u32,
}

impl Patient {
    /// The program, started where it does not run.
    fn child(&mut self) -> Result<&mut Child, ChildFault> {
        let child = match self.child.take().filter(|child| !child.has_ended()) {
            Some(child) => child,
            None => self.program.start(Arc::new(|_, _| false), Arc::new(|| {}), &self.remains)?,
        };
        Ok(self.child.insert(child))
    }
}

impl Ask for Patient {
    type Fault = ChildFault;

    fn ask(&mut self, method: &'static str, params: Value, line: usize) -> Result<Value, Unanswered<ChildFault>> {
        let mut tries: u32 = 0;
        loop {
            let fault = match self.child().and_then(|child| child.ask(method, params.clone(), line)) {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let is_refused = matches!(fault, ChildFault::Refused { .. });
            if !is_refused {
                self.child = None;
            }
            tries = tries.saturating_add(1);
            // What ends it each time costs what was asked for and no more.
            if is_refused && self.again == 0 || tries >= TRIES {
                return Err(Unanswered::Refused(fault));
            }
            if self.again == 0 {
                return Err(Unanswered::Gone(fault));
            }
            self.again = self.again.saturating_sub(1);
            std::thread::sleep(PAUSE);
        }
    }
}

impl CommandSource {
    /// Starts the program.
    pub fn start(program: Program) -> Result<Self, SourceFault> {
        let mut patient = Patient { program, child: None, remains: Remains::default(), again: MOST_AGAIN };
        match patient.child() {
            Ok(_) => Ok(Self { patient, odd: Oddities::default(), unread: Vec::new() }),
            Err(fault) => Err(SourceFault::unreadable(patient.program.command.join(" "), fault)),
        }
    }

    fn unreadable(&self, fault: ChildFault) -> SourceFault {
        SourceFault::unreadable(self.patient.program.command.join(" "), fault)
    }
}

impl Source for CommandSource {
    fn channels(&mut self) -> Result<Vec<ChannelId>, SourceFault> {
        let listed = channels(&mut self.patient, true).map_err(|none| self.unreadable(none.fault(|fault| fault)))?;
        self.odd.take_in(listed.odd);
        self.unread.extend(listed.unread);
        Ok(listed.items.into_iter().collect())
    }

    fn read(&mut self, channel: &ChannelId) -> Result<StoredChannel, SourceFault> {
        let sealer = self.patient.program.sealer.clone();
        stored(&mut self.patient, &sealer, channel).map_err(|fault| self.unreadable(fault))
    }

    fn tip(&mut self) -> Result<Option<Vec<u8>>, SourceFault> {
        let sealer = self.patient.program.sealer.clone();
        let tip = newest_tip(&mut self.patient, &sealer).map_err(|fault| self.unreadable(fault))?;
        self.odd.take_in(tip.odd);
        self.unread.extend(tip.unread);
        Ok(tip.items)
    }

    fn faults(&mut self) -> Vec<String> {
        self.odd.take()
    }

    fn unread(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unread)
    }
}
