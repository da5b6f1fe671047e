//! What happens to the groups of a batch, as a list of events, and how it is carried out, one aggregate at a time.
//!
//! Which rows go where, what is emitted and when does not depend on the aggregates' values; so it is decided first, for
//! all of them, and each aggregate then runs through the events with its own column of states.
//!
//! ```text
//! entry of state: version (1) = 01 | time (zigzag varint) | per aggregate: length (zigzag varint), its bytes
//! ```

use arrow::array::ArrayRef;
use millpond_types::record::put_varint;
use millpond_types::{Error, Result};

use super::super::{Context, Failure, LineKind, OpResult};
use super::Call;
use crate::aggregates::{State, UpdateError};
use crate::rows::OldState;
use crate::state::cells::{put_bytes, take_bytes};
use crate::state::row::{ROW_VERSION, take_time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Add {
        slot: u32,
        row: u32,
    },
    Undo {
        slot: u32,
        row: u32,
    },
    /// `from` holds the later rows.
    Merge {
        into: u32,
        from: u32,
    },
    /// Emits the state as it is.
    Out {
        slot: u32,
    },
    /// Emits a delete.
    OutNull,
    /// Notes the state as it is as the replaced one of the next emission.
    Old {
        slot: u32,
    },
    OldNull,
}

/// A group (in a window) that the batch touches.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Time of its last change.
    pub time: i64,
    /// Whether it is in state or had its first row.
    pub live: bool,
}

/// A row to be emitted; its values come from the events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Out {
    /// Row of the input whose group columns and `pos` it has.
    pub row: u32,
    pub pos: u32,
    pub partition: i32,
    pub time: i64,
    pub window: (i64, i64),
    pub null: bool,
    pub old: OldState,
    /// When the replaced row was written.
    pub old_time: i64,
}

pub struct Program {
    pub slots: Vec<Slot>,
    /// By call, then by slot.
    states: Vec<Vec<State>>,
    pub events: Vec<Event>,
    pub outs: Vec<Out>,
}

impl Program {
    pub fn with_calls(calls: &[Call]) -> Self {
        Self {
            slots: Vec::new(),
            states: calls.iter().map(|_| Vec::new()).collect(),
            events: Vec::new(),
            outs: Vec::new(),
        }
    }

    /// A slot for what is in state under a key.
    pub fn load(&mut self, stored: Option<&[u8]>, calls: &[Call]) -> Result<u32> {
        let mut rest = stored.unwrap_or_default();
        let time = if stored.is_some() { take_time(&mut rest)? } else { i64::MIN };
        for (call, states) in calls.iter().zip(&mut self.states) {
            states.push(match stored {
                Some(_) => call.aggregate.decode(take_bytes(&mut rest)?)?,
                None => call.aggregate.create(),
            });
        }
        self.slots.push(Slot { time, live: stored.is_some() });
        Ok(self.slots.len() as u32 - 1)
    }

    /// The entry of state for a slot.
    pub fn encode(&self, calls: &[Call], slot: u32, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        out.push(ROW_VERSION);
        put_varint(out, self.slots[slot as usize].time);
        for (call, states) in calls.iter().zip(&self.states) {
            scratch.clear();
            call.aggregate.encode(&states[slot as usize], scratch);
            put_bytes(scratch, out);
        }
    }

    pub fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// Runs all events. Gives the columns of results and those of the replaced results (where `old`).
    pub fn run(
        &mut self,
        calls: &[Call],
        args: &[Vec<ArrayRef>],
        old: bool,
        pos_of: &dyn Fn(u32) -> u32,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Outcome> {
        let mut outcome = Outcome { results: Vec::new(), old: Vec::new() };
        let mut failure: Option<Failure> = None;
        // Each change of a group shows its whole state once more.
        let (most, alone) = (cx.emit_bytes_max(), cx.alone);
        let mut shown = 0;
        for ((call, args), states) in calls.iter().zip(args).zip(&mut self.states) {
            let aggregate = call.aggregate.as_ref();
            let mut results = aggregate.results(self.outs.len());
            let mut olds = aggregate.results(if old { self.outs.len() } else { 0 });
            let mut errors: Vec<(u32, String)> = Vec::new();
            {
                let mut updater = aggregate.bind(args, cx.eval)?;
                for event in &self.events {
                    if shown > most && !alone {
                        return Err(Failure::too_much("gives", most));
                    }
                    let (row, done) = match *event {
                        Event::Add { slot, row } => (row, updater.update(&mut states[slot as usize], row as usize)),
                        Event::Undo { slot, row } => (row, updater.undo(&mut states[slot as usize], row as usize)),
                        Event::Merge { into, from } => {
                            let from = states[from as usize].clone();
                            (u32::MAX, aggregate.merge(&mut states[into as usize], &from))
                        }
                        Event::Out { slot } => {
                            shown += states[slot as usize].weight();
                            results.append(&states[slot as usize])?;
                            continue;
                        }
                        Event::OutNull => {
                            results.append_null();
                            continue;
                        }
                        Event::Old { slot } => {
                            shown += states[slot as usize].weight();
                            olds.append(&states[slot as usize])?;
                            continue;
                        }
                        Event::OldNull => {
                            olds.append_null();
                            continue;
                        }
                    };
                    match done {
                        Ok(()) => {}
                        Err(UpdateError::Row(message)) => errors.push((row, message)),
                        Err(UpdateError::Fatal(message)) => {
                            let pos = (row != u32::MAX).then(|| pos_of(row));
                            if failure.as_ref().is_none_or(|f| pos < f.pos) {
                                failure = Some(Failure { pos, error: Error::bad_request(message) });
                            }
                            break;
                        }
                    }
                }
            }
            for (row, message) in errors {
                let pos = if row == u32::MAX { 0 } else { pos_of(row) };
                cx.notes.push(pos, LineKind::Expression, || message);
            }
            if failure.is_none() {
                outcome.results.push(results.finish()?);
                if old {
                    outcome.old.push(olds.finish()?);
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(outcome),
        }
    }
}

pub struct Outcome {
    pub results: Vec<ArrayRef>,
    pub old: Vec<ArrayRef>,
}
