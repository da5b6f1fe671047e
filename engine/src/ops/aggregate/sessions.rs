//! Session windows: a row joins all sessions of its group that are within the gap of it, and they become one.
//!
//! ```text
//! entry of a group: version (1) = 01 | count | per session: start, end (zigzag varints), length, state entry
//! index by end: see `state::key`, value 01
//! ```
//!
//! Each session that a row merges is emitted as a delete under its old bounds, then the merged one. Under EMIT FINAL a
//! session is emitted once, when it closes: when its end is further back than the gap and the grace. No row joins a
//! closed session.
//! Invariant: the index holds the end of every session in an entry.

use arrow::array::ArrayRef;
use datafusion::common::HashMap;
use millpond_types::record::put_varint;
use millpond_types::{Error, PartitionId, Result};

use super::super::times::{NO_TIME, Times};
use super::super::{Context, Emitted, LineKind, OpResult};
use super::program::{Event, Out, Program};
use super::{Aggregate, Batch, Call, Emission, Groups};
use crate::rows::{OldState, Rows};
use crate::state::cells::{put_bytes, put_key_i64, take_bytes, take_int, take_key_i64, take_u8};
use crate::state::points::EntryId;
use crate::state::row::RowsBuilder;

const VERSION: u8 = 1;
/// Dead sessions that one batch clears away.
const CLEARED_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    start: i64,
    end: i64,
    slot: u32,
}

/// Sessions of the groups that were looked at, by the key of their entry; ascending by start.
#[derive(Default)]
struct Loaded {
    groups: HashMap<Vec<u8>, Vec<Session>>,
}

impl Loaded {
    fn get(
        &mut self,
        key: &[u8],
        calls: &[Call],
        program: &mut Program,
        cx: &mut Context<'_, '_>,
    ) -> Result<&mut Vec<Session>> {
        if !self.groups.contains_key(key) {
            let mut sessions = Vec::new();
            if let Some(mut bytes) = cx.view.point_value(key)? {
                let bytes = &mut bytes;
                if take_u8(bytes)? != VERSION {
                    return Err(Error::corrupt("sessions in state have an unknown version"));
                }
                for _ in 0..take_int(bytes)? {
                    let (start, end) = (take_int(bytes)?, take_int(bytes)?);
                    let slot = program.load(Some(take_bytes(bytes)?), calls)?;
                    sessions.push(Session { start, end, slot });
                }
            }
            self.groups.insert(key.to_vec(), sessions);
        }
        self.groups.get_mut(key).ok_or_else(|| Error::bug("sessions were not loaded"))
    }
}

/// A closing that is left for the next step: up to an end, from an index entry on.
fn closing(partition: PartitionId, until: i64, from: &[u8]) -> Vec<u8> {
    let mut closing = partition.to_be_bytes().to_vec();
    put_key_i64(until, &mut closing);
    closing.extend_from_slice(from);
    closing
}

impl Aggregate {
    pub(super) fn sessions(
        &self,
        batch: &Batch,
        gap: i64,
        grace: i64,
        of_row: &[u32],
        ids: &[EntryId],
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Emitted> {
        let mut program = Program::with_calls(&self.calls);
        let mut loaded = Loaded::default();
        let mut times = Times::<2>::new(&self.times);
        let mut emission = Emission::default();
        for row in 0..batch.rows.len() as u32 {
            let i = row as usize;
            if emission.stops_before(batch.rows.pos[i]) {
                break;
            }
            if !batch.usable[i] {
                continue;
            }
            let (time, partition, pos) = (batch.rows.time[i], batch.partition[i], batch.rows.pos[i]);
            let stream_time = times.advance(partition, time, cx.view)?;
            let close = stream_time.saturating_sub(grace).saturating_sub(gap);
            let key = cx.view.points.key(ids[of_row[i] as usize]).to_vec();
            let sessions = loaded.get(&key, &self.calls, &mut program, cx)?;
            // A session that is closed is not opened again, whatever comes near it.
            let near = |s: &Session| {
                s.start <= time.saturating_add(gap) && s.end >= time.saturating_sub(gap) && s.end >= close
            };
            let merged: Vec<Session> = sessions.iter().copied().filter(near).collect();
            let start = merged.iter().map(|s| s.start).fold(time, i64::min);
            let end = merged.iter().map(|s| s.end).fold(time, i64::max);
            if end < close {
                cx.notes.push(pos, LineKind::Late, || {
                    format!("late row at {time}: sessions that end before {close} are closed")
                });
            } else {
                let slot = program.load(None, &self.calls)?;
                for old in &merged {
                    program.events.push(Event::Merge { into: slot, from: old.slot });
                }
                program.events.push(Event::Add { slot, row });
                let state = program.slot(slot);
                state.live = true;
                state.time = end;
                sessions.retain(|s| !near(s));
                let at = sessions.partition_point(|s| s.start < start);
                sessions.insert(at, Session { start, end, slot });
                let cells = self.groups.rest(&key);
                for old in &merged {
                    cx.view.delete(&self.end_key(partition, old.end, cells));
                }
                cx.view.put(&self.end_key(partition, end, cells), vec![1]);
                if !self.emit_final {
                    self.emit_session(&mut program, row, batch, &merged, Session { start, end, slot }, time);
                }
            }
            if self.emit_final {
                let before = times.get(partition, cx.view)?[1];
                if close > before {
                    times.get(partition, cx.view)?[1] = close;
                    if emission.more.is_some() {
                        let mut from = Vec::new();
                        put_key_i64(before, &mut from);
                        emission.leave(pos, &closing(partition, close, &from));
                        continue;
                    }
                    let mut from = self.ends.partition_prefix(partition);
                    put_key_i64(before, &mut from);
                    self.close_from(partition, from, close, pos, Some(&mut loaded), &mut program, &mut emission, cx)?;
                }
            }
        }
        if emission.more.is_none() {
            self.clear(&batch.partition, gap, grace, &mut times, &mut loaded, &mut program, cx)?;
        }
        times.store(cx.view)?;
        let outcome = program.run(&self.calls, &batch.args, self.old, &|row| batch.pos(row), cx)?;
        self.store_sessions(&loaded, &program, cx)?;
        let groups = if self.emit_final { Groups::Decoded(emission.groups) } else { Groups::Rows(&batch.groups) };
        let rows: Rows = self.rows(&program, outcome.results, outcome.old, groups)?;
        Ok(Emitted { rows, more: emission.more })
    }

    fn end_key(&self, partition: PartitionId, end: i64, cells: &[u8]) -> Vec<u8> {
        let mut key = self.ends.partition_prefix(partition);
        put_key_i64(end, &mut key);
        key.extend_from_slice(cells);
        key
    }

    fn emit_session(
        &self,
        program: &mut Program,
        row: u32,
        batch: &Batch,
        merged: &[Session],
        now: Session,
        time: i64,
    ) {
        let point = now.start == time && now.end == time;
        let out = Out {
            row,
            pos: batch.pos(row),
            partition: batch.partition[row as usize],
            time: now.end,
            window: (now.start, now.end),
            null: false,
            old: OldState::Absent,
            old_time: now.end,
        };
        let mut replaced = None;
        for old in merged {
            if point {
                replaced = Some(old.slot);
                continue;
            }
            if self.old {
                program.events.push(Event::Old { slot: old.slot });
            }
            program.events.push(Event::OutNull);
            let window = (old.start, old.end);
            program.outs.push(Out {
                time: old.end,
                old_time: old.end,
                window,
                null: true,
                old: OldState::Known,
                ..out
            });
        }
        if self.old {
            program.events.push(replaced.map_or(Event::OldNull, |slot| Event::Old { slot }));
        }
        program.events.push(Event::Out { slot: now.slot });
        let old = if replaced.is_some() { OldState::Known } else { OldState::Absent };
        program.outs.push(Out { old, ..out });
    }

    /// Goes on emitting closed sessions; `from` is the index key where it left off.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn resume_sessions(
        &self,
        partition: PartitionId,
        from: &[u8],
        until: i64,
        pos: u32,
        program: &mut Program,
        emission: &mut Emission,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let mut start = self.ends.partition_prefix(partition);
        start.extend_from_slice(from);
        self.close_from(partition, start, until, pos, None, program, emission, cx)
    }

    /// Emits the sessions from an index key on that end before `until`.
    #[allow(clippy::too_many_arguments)]
    fn close_from(
        &self,
        partition: PartitionId,
        from: Vec<u8>,
        until: i64,
        pos: u32,
        loaded: Option<&mut Loaded>,
        program: &mut Program,
        emission: &mut Emission,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let mut own = Loaded::default();
        let loaded = loaded.unwrap_or(&mut own);
        let mut to = self.ends.partition_prefix(partition);
        put_key_i64(until, &mut to);
        let max = cx.config.emit_rows_max;
        let found = cx.view.range(&from, &to, max + 1)?;
        emission.groups.get_or_insert_with(|| RowsBuilder::new(&self.group_types));
        let mut bytes = 0;
        for (emitted, (index, _)) in found.iter().enumerate() {
            let mut cells = self.ends.rest(index);
            if emitted == max || bytes >= cx.config.step_write_bytes_max {
                emission.leave(pos, &closing(partition, until, cells));
                return Ok(());
            }
            let end = take_key_i64(&mut cells)?;
            let mut key = self.groups.partition_prefix(partition);
            key.extend_from_slice(cells);
            bytes += cx.view.point_value(&key)?.map_or(0, <[u8]>::len);
            let sessions = loaded.get(&key, &self.calls, program, cx)?;
            let Some(session) = sessions.iter().find(|s| s.end == end).copied() else { continue };
            if let Some(groups) = &mut emission.groups {
                groups.append_key(&mut cells)?;
            }
            if self.old {
                program.events.push(Event::OldNull);
            }
            program.events.push(Event::Out { slot: session.slot });
            program.outs.push(Out {
                row: 0,
                pos,
                partition,
                time: session.end,
                window: (session.start, session.end),
                null: false,
                old: OldState::Absent,
                old_time: 0,
            });
        }
        Ok(())
    }

    /// Forgets the sessions that are closed.
    #[allow(clippy::too_many_arguments)]
    fn clear(
        &self,
        partitions: &[PartitionId],
        gap: i64,
        grace: i64,
        times: &mut Times<'_, 2>,
        loaded: &mut Loaded,
        program: &mut Program,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let mut partitions = partitions.to_vec();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let stream_time = times.get(partition, cx.view)?[0];
            if stream_time == NO_TIME {
                continue;
            }
            let dead = stream_time.saturating_sub(grace).saturating_sub(gap);
            let from = self.ends.partition_prefix(partition);
            let mut to = from.clone();
            put_key_i64(dead, &mut to);
            let mut bytes = 0;
            for (index, _) in cx.view.range(&from, &to, CLEARED_MAX)? {
                // The next batch clears the rest.
                if bytes >= cx.config.step_write_bytes_max {
                    break;
                }
                let mut cells = self.ends.rest(&index);
                let end = take_key_i64(&mut cells)?;
                let mut key = self.groups.partition_prefix(partition);
                key.extend_from_slice(cells);
                bytes += cx.view.point_value(&key)?.map_or(0, <[u8]>::len);
                loaded.get(&key, &self.calls, program, cx)?.retain(|s| s.end != end);
                cx.view.delete(&index);
            }
        }
        Ok(())
    }

    fn store_sessions(&self, loaded: &Loaded, program: &Program, cx: &mut Context<'_, '_>) -> Result<()> {
        let (mut entry, mut scratch) = (Vec::new(), Vec::new());
        for (key, sessions) in &loaded.groups {
            let id = cx.view.point(key)?;
            if sessions.is_empty() {
                if cx.view.points.value(id).is_some() {
                    cx.view.points.delete(id);
                }
                continue;
            }
            let mut value = vec![VERSION];
            put_varint(&mut value, sessions.len() as i64);
            for session in sessions {
                put_varint(&mut value, session.start);
                put_varint(&mut value, session.end);
                entry.clear();
                program.encode(&self.calls, session.slot, &mut entry, &mut scratch);
                put_bytes(&entry, &mut value);
            }
            cx.view.points.put(id, value);
        }
        Ok(())
    }

    /// No rows: for resuming, where only what is in state counts.
    pub(super) fn no_args(&self) -> Vec<Vec<ArrayRef>> {
        self.calls
            .iter()
            .map(|c| c.args.iter().map(|a| arrow::array::new_empty_array(&a.ty().to_arrow())).collect())
            .collect()
    }
}
