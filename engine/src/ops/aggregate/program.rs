//! What happens to the groups of a batch, as a list of events, and how it is carried out, one aggregate at a time.
//!
//! Which rows go where, what is emitted and when does not depend on the aggregates' values; so it is decided first, for
//! all of them, and each aggregate then runs through the events with its own column of states.
//!
//! ```text
//! entry of state: version (1) = 01 | time (zigzag varint) | per aggregate: length (zigzag varint), its bytes
//! ```

use arrow::array::ArrayRef;
use bytes::Bytes;
use datafusion::common::HashMap;
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
    /// What is in state.
    stored: Option<Bytes>,
}

/// A row to be emitted; its values come from the events.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Row of the input whose group columns and `pos` it has.
    pub row: u32,
    pub pos: u32,
    pub partition: i32,
    pub time: i64,
    pub window: (i64, i64),
    pub null: bool,
    pub old: OldState,
}

#[derive(Default)]
pub struct Program {
    pub slots: Vec<Slot>,
    pub events: Vec<Event>,
    pub outs: Vec<Out>,
}

impl Program {
    /// A slot for what is in state under a key.
    pub fn load(&mut self, stored: Option<Bytes>) -> Result<u32> {
        let time = match &stored {
            Some(bytes) => take_time(&mut &bytes[..])?,
            None => i64::MIN,
        };
        self.slots.push(Slot { time, live: stored.is_some(), stored });
        Ok(self.slots.len() as u32 - 1)
    }

    pub fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// Runs all events. Gives the columns of results, those of the replaced results (where `old`), and the states.
    pub fn run(
        &self,
        calls: &[Call],
        args: &[Vec<ArrayRef>],
        old: bool,
        pos_of: &dyn Fn(u32) -> u32,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Outcome> {
        let mut outcome = Outcome { results: Vec::new(), old: Vec::new(), states: Vec::new() };
        let mut failure: Option<Failure> = None;
        let mut stored: Vec<&[u8]> = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let mut bytes = slot.stored.as_ref().map_or(&[][..], |b| &b[..]);
            if !bytes.is_empty() {
                take_time(&mut bytes)?;
            }
            stored.push(bytes);
        }
        for (call, args) in calls.iter().zip(args) {
            let aggregate = call.aggregate.as_ref();
            let mut states = Vec::with_capacity(self.slots.len());
            for bytes in &mut stored {
                states.push(if bytes.is_empty() {
                    aggregate.create()
                } else {
                    aggregate.decode(take_bytes(bytes)?)?
                });
            }
            let mut results = aggregate.results(self.outs.len());
            let mut olds = aggregate.results(if old { self.outs.len() } else { 0 });
            let mut errors: Vec<(u32, String)> = Vec::new();
            {
                let mut updater = aggregate.bind(args, cx.eval)?;
                for event in &self.events {
                    let (row, done) = match *event {
                        Event::Add { slot, row } => (row, updater.update(&mut states[slot as usize], row as usize)),
                        Event::Undo { slot, row } => (row, updater.undo(&mut states[slot as usize], row as usize)),
                        Event::Merge { into, from } => {
                            let from = states[from as usize].clone();
                            (u32::MAX, aggregate.merge(&mut states[into as usize], &from))
                        }
                        Event::Out { slot } => {
                            results.append(&states[slot as usize])?;
                            continue;
                        }
                        Event::OutNull => {
                            results.append_null();
                            continue;
                        }
                        Event::Old { slot } => {
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
                outcome.states.push(states);
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
    /// By call, then by slot.
    pub states: Vec<Vec<State>>,
}

impl Outcome {
    /// The entry of state for a slot.
    pub fn encode(&self, calls: &[Call], slot: usize, time: i64, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        out.push(ROW_VERSION);
        put_varint(out, time);
        for (call, states) in calls.iter().zip(&self.states) {
            scratch.clear();
            call.aggregate.encode(&states[slot], scratch);
            put_bytes(scratch, out);
        }
    }
}

/// Byte keys to slots.
pub type SlotMap = HashMap<Vec<u8>, u32>;
