//! A table joined with the table whose primary key one of its columns holds.
//!
//! A change on the left gives one change; a change on the right gives one for every left row that points to it, in the
//! order of the left keys. The rows of both sides and the subscriptions (right key to left keys) are kept in one place
//! whatever their partitions, as they meet across them.
//!
//! ```text
//! left and right rows: partition (4) | row (`state::row`)
//! subscription: version (1) = 01
//! half-done rows: time | foreign key cells | subscription to go on from | where known: time, row that was replaced
//! ```

use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use millpond_sql::plan::JoinKind;
use millpond_types::{Error, PartitionId, Result};

use super::joined::{Joined, NONE, Pair, with_stored};
use super::key::{Strings, key_cells};
use super::table_table_join::blank;
use super::{Context, Emitted, Evaluation, Failure, More, OpResult, Operator, Prepared, merge_inputs};
use crate::expr::Expr;
use crate::rows::{OldRows, OldState, Rows};
use crate::state::cells::{Cells, put_bytes, take_array, take_bytes, take_int};
use crate::state::key::{KeySpace, end_of};
use crate::state::points::EntryId;
use crate::state::row::{RowsBuilder, put_row, take_time};
use crate::state::view::Wants;
use millpond_types::ports::ScanLimits;

pub struct ForeignKeyJoin {
    id: String,
    left_outer: bool,
    left_key: Expr,
    /// Key columns of the left, and of the output.
    keys: usize,
    joined: Joined,
    old: bool,
    left: KeySpace,
    right: KeySpace,
    subscriptions: KeySpace,
}

struct Emit {
    pos: u32,
    partition: PartitionId,
    time: i64,
    /// Row among the left columns that has the key.
    key: u32,
    now: Option<Pair>,
    before: Option<Pair>,
    before_time: i64,
}

/// A change on the right that is told to the left rows.
#[derive(Clone, Copy)]
struct Change<'a> {
    foreign: &'a [u8],
    time: i64,
    /// The row as it is now, among the right columns; `None` where it is gone.
    now: Option<u32>,
    /// The row that it replaces, among the right columns, with its time; known where somebody looks at old values.
    before: Option<(u32, i64)>,
    /// That row as it was in state.
    replaced: Option<&'a [u8]>,
}

struct Output {
    stored: [RowsBuilder; 2],
    live: [u32; 2],
    emits: Vec<Emit>,
    bytes: usize,
    more: Option<More>,
}

impl Output {
    /// Whether a step holds no more; one row at least always goes on.
    fn is_full(&self, cx: &Context<'_, '_>) -> bool {
        !self.emits.is_empty()
            && (self.emits.len() >= cx.config.emit_rows_max || self.bytes >= cx.config.step_write_bytes_max)
    }

    fn stored(&mut self, side: usize, row: &[u8]) -> Result<u32> {
        self.bytes += row.len();
        self.stored[side].append(row)?;
        Ok(self.live[side] + self.stored[side].len() as u32 - 1)
    }
}

/// A stored left row: its partition, the cells of its foreign key, the row.
struct LeftRow<'a> {
    partition: PartitionId,
    foreign: Option<&'a [u8]>,
    row: &'a [u8],
}

impl<'a> LeftRow<'a> {
    fn read(mut bytes: &'a [u8]) -> Result<Self> {
        let partition = PartitionId::from_be_bytes(take_array(&mut bytes)?);
        let foreign = take_bytes(&mut bytes)?;
        Ok(Self { partition, foreign: (!foreign.is_empty()).then_some(foreign), row: bytes })
    }
}

impl ForeignKeyJoin {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: String,
        kind: JoinKind,
        left_key: Expr,
        keys: usize,
        joined: Joined,
        old: bool,
        left: KeySpace,
        right: KeySpace,
        subscriptions: KeySpace,
    ) -> Result<Self> {
        if !matches!(kind, JoinKind::Inner | JoinKind::Left) {
            return Err(Error::unsupported("a foreign-key join is an INNER or LEFT JOIN"));
        }
        Ok(Self { id, left_outer: kind == JoinKind::Left, left_key, keys, joined, old, left, right, subscriptions })
    }

    fn entry(space: &KeySpace, cells: &[u8]) -> Vec<u8> {
        let mut key = space.partition_prefix(0);
        key.extend_from_slice(cells);
        key
    }

    fn subscription(&self, foreign: &[u8], left: &[u8]) -> Vec<u8> {
        let mut key = self.subscriptions.partition_prefix(0);
        key.extend_from_slice(foreign);
        key.extend_from_slice(left);
        key
    }

    fn subscription_range(&self, foreign: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let from = self.subscription(foreign, &[]);
        let to = end_of(&from);
        (from, to)
    }
}

impl Operator for ForeignKeyJoin {
    fn id(&self) -> &str {
        &self.id
    }

    fn prepare<'a>(&'a self, inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let (left, right) = super::both(inputs)?;
        let foreign = self.left_key.column_of(&left.input(), cx.eval)?;
        cx.note_errors(&left);
        let left_cells = key_cells(&left, &left.columns()[..self.keys])?;
        let right_cells = key_cells(&right, &right.columns()[..1.min(right.columns().len())])?;
        let mut foreign_cells = Strings::with_capacity(left.len(), left.len() * 16);
        {
            let cells = Cells::new(foreign.as_ref())?;
            for row in 0..left.len() {
                foreign_cells.push(|out| {
                    if !foreign.is_null(row) {
                        cells.put_key(row, out);
                    }
                });
            }
        }
        let mut wants = Wants::default();
        for cells in left_cells.iter() {
            wants.keys.push(|key| key.extend_from_slice(&Self::entry(&self.left, cells)));
        }
        for cells in foreign_cells.iter().filter(|c| !c.is_empty()) {
            wants.keys.push(|key| key.extend_from_slice(&Self::entry(&self.right, cells)));
        }
        let work = move |cx: &mut Context<'_, '_>, _: &[EntryId]| {
            let values = [Cells::of(left.columns())?, Cells::of(right.columns())?];
            let mut out = Output {
                stored: [RowsBuilder::new(&self.joined.left), RowsBuilder::new(&self.joined.right)],
                live: [left.len() as u32, right.len() as u32],
                emits: Vec::new(),
                bytes: 0,
                more: None,
            };
            merge_inputs(&left.pos, &right.pos, |side, row| {
                if out.more.as_ref().is_some_and(|m| m.pos < if side == 0 { left.pos[row] } else { right.pos[row] }) {
                    return Ok(());
                }
                let pos = if side == 0 { left.pos[row] } else { right.pos[row] };
                if pos > 0 && out.is_full(cx) {
                    return Err(Failure::cut(pos));
                }
                if side == 0 {
                    self.left_row(row, &left, left_cells.get(row), foreign_cells.get(row), &values[0], &mut out, cx)
                } else {
                    self.right_row(row, &right, right_cells.get(row), &values[1], &mut out, cx)
                }
            })?;
            self.finish([left.columns(), right.columns()], out)
        };
        Ok(Prepared { wants, work: Box::new(work) })
    }

    fn resume(&self, mut resume: &[u8], pos: u32, cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let time = take_int(&mut resume)?;
        let foreign = take_bytes(&mut resume)?;
        let from = take_bytes(&mut resume)?.to_vec();
        // What the change replaced, where somebody looks at that; entries of older versions have nothing here.
        let replaced = if resume.is_empty() { None } else { Some((take_int(&mut resume)?, take_bytes(&mut resume)?)) };
        let mut out = Output {
            stored: [RowsBuilder::new(&self.joined.left), RowsBuilder::new(&self.joined.right)],
            live: [0, 0],
            emits: Vec::new(),
            bytes: 0,
            more: None,
        };
        let now = match cx.view.point_value(&Self::entry(&self.right, foreign))? {
            Some(bytes) => Some(out.stored(1, bytes)?),
            None => None,
        };
        let before = match replaced {
            Some((time, bytes)) => Some((out.stored(1, bytes)?, time)),
            None => None,
        };
        let told = Change { foreign, time, now, before, replaced: replaced.map(|(_, bytes)| bytes) };
        self.tell(&told, from, pos, &mut out, cx)?;
        let empty = |types: &[millpond_types::SqlType]| {
            types.iter().map(|t| arrow::array::new_empty_array(&t.to_arrow())).collect::<Vec<_>>()
        };
        self.finish([&empty(&self.joined.left), &empty(&self.joined.right)], out)
    }
}

impl ForeignKeyJoin {
    #[allow(clippy::too_many_arguments)]
    fn left_row(
        &self,
        row: usize,
        rows: &Rows,
        cells: &[u8],
        foreign: &[u8],
        values: &[Cells<'_>],
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let key = Self::entry(&self.left, cells);
        let id = cx.view.point(&key)?;
        let before: Option<Vec<u8>> = cx.view.points.value(id).map(<[u8]>::to_vec);
        let before = match &before {
            Some(bytes) => Some(LeftRow::read(bytes)?),
            None => None,
        };
        let now = !rows.is_null(row);
        let foreign = (now && !foreign.is_empty()).then_some(foreign);
        let old_foreign = before.as_ref().and_then(|b| b.foreign);
        if old_foreign != foreign {
            if let Some(old) = old_foreign {
                cx.view.delete(&self.subscription(old, cells));
            }
            if let Some(new) = foreign {
                cx.view.put(&self.subscription(new, cells), vec![1]);
            }
        }
        if now {
            let mut value = rows.partition[row].to_be_bytes().to_vec();
            put_bytes(foreign.unwrap_or_default(), &mut value);
            put_row(values, row, rows.time[row], &mut value);
            cx.view.points.put(id, value);
        } else if before.is_some() {
            cx.view.points.delete(id);
        }
        let mut time = rows.time[row];
        let find = |foreign: Option<&[u8]>, cx: &mut Context<'_, '_>, time: &mut i64| -> OpResult<Option<Vec<u8>>> {
            let Some(foreign) = foreign else { return Ok(None) };
            let found = cx.view.point_value(&Self::entry(&self.right, foreign))?.map(<[u8]>::to_vec);
            if let Some(bytes) = &found {
                *time = (*time).max(take_time(&mut &bytes[..])?);
            }
            Ok(found)
        };
        // A delete takes the time of the row it pointed to into account as well.
        let matched = find(if now { foreign } else { old_foreign }, cx, &mut time)?;
        let mut before_time = match &before {
            Some(before) => take_time(&mut &before.row[..])?,
            None => 0,
        };
        let old_matched = if self.old { find(old_foreign, cx, &mut before_time)? } else { None };
        let speaks = match (now, &before) {
            (false, None) => false,
            (false, Some(_)) => self.left_outer || old_foreign.is_some(),
            (true, _) if self.left_outer || matched.is_some() => true,
            // An inner join without a match takes back what may have been there.
            (true, Some(_)) => old_foreign.is_some(),
            (true, None) => false,
        };
        if !speaks {
            return Ok(());
        }
        let joined_now = match (now, &matched) {
            (true, Some(bytes)) => Some((row as u32, out.stored(1, bytes)?)),
            (true, None) if self.left_outer => Some((row as u32, NONE)),
            _ => None,
        };
        let joined_before = match (&before, self.old) {
            (Some(before), true) => {
                let right = match &old_matched {
                    Some(bytes) => out.stored(1, bytes)?,
                    None => NONE,
                };
                if right == NONE && !self.left_outer { None } else { Some((out.stored(0, before.row)?, right)) }
            }
            _ => None,
        };
        out.emits.push(Emit {
            pos: rows.pos[row],
            partition: rows.partition[row],
            time,
            key: row as u32,
            now: joined_now,
            before: joined_before,
            before_time,
        });
        Ok(())
    }

    fn right_row(
        &self,
        row: usize,
        rows: &Rows,
        cells: &[u8],
        values: &[Cells<'_>],
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let key = Self::entry(&self.right, cells);
        let id = cx.view.point(&key)?;
        let before = cx.view.points.value(id).map(<[u8]>::to_vec);
        let now = !rows.is_null(row);
        if now {
            let mut value = Vec::new();
            put_row(values, row, rows.time[row], &mut value);
            cx.view.points.put(id, value);
        } else if before.is_some() {
            cx.view.points.delete(id);
        }
        let replaced = before.as_deref().filter(|_| self.old);
        let before = match replaced {
            Some(bytes) => Some((out.stored(1, bytes)?, take_time(&mut &bytes[..])?)),
            None => None,
        };
        let (from, _) = self.subscription_range(cells);
        let told = Change { foreign: cells, time: rows.time[row], now: now.then_some(row as u32), before, replaced };
        self.tell(&told, from, rows.pos[row], out, cx)
    }

    /// One change for each left row that points to a right row which changed, from a subscription on.
    fn tell(
        &self,
        change: &Change<'_>,
        mut from: Vec<u8>,
        pos: u32,
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        while let Some(next) = self.tell_some(change, &from, pos, out, cx)? {
            from = next;
        }
        Ok(())
    }

    /// As much of it as one read gives; then where the next one begins, unless that is all or `out` has more.
    fn tell_some(
        &self,
        change: &Change<'_>,
        from: &[u8],
        pos: u32,
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Option<Vec<u8>>> {
        let &Change { foreign, time, now, before, replaced } = change;
        let (prefix, to) = self.subscription_range(foreign);
        let entries_max = cx.config.emit_rows_max.saturating_add(1);
        // Each left row repeats the right one.
        let mut own = replaced.map_or(0, <[u8]>::len);
        own += cx.view.point_value(&Self::entry(&self.right, foreign))?.map_or(0, <[u8]>::len);
        let found = cx.view.scan(from, &to, ScanLimits { entries_max, bytes_max: usize::MAX })?;
        let last = found.entries.last().filter(|_| found.more).map(|(key, _)| [key, &[0][..]].concat());
        for (key, _) in found.entries {
            if out.is_full(cx) {
                if pos > 0 {
                    return Err(Failure::cut(pos));
                }
                let mut resume = Vec::new();
                millpond_types::record::put_varint(&mut resume, time);
                put_bytes(foreign, &mut resume);
                put_bytes(&key, &mut resume);
                if let (Some(replaced), Some((_, time))) = (replaced, before) {
                    millpond_types::record::put_varint(&mut resume, time);
                    put_bytes(replaced, &mut resume);
                }
                out.more = Some(More { pos, resume });
                return Ok(None);
            }
            out.bytes += own;
            let left_cells = key.get(prefix.len()..).unwrap_or_default();
            let Some(bytes) = cx.view.point_value(&Self::entry(&self.left, left_cells))? else { continue };
            let left = LeftRow::read(bytes)?;
            let index = out.stored(0, left.row)?;
            let left_time = take_time(&mut &left.row[..])?;
            let joined = |right: Option<u32>| match right {
                Some(right) => Some((index, right)),
                None if self.left_outer => Some((index, NONE)),
                None => None,
            };
            out.emits.push(Emit {
                pos,
                partition: left.partition,
                time,
                key: index,
                now: joined(now),
                before: if self.old { joined(before.map(|(row, _)| row)) } else { None },
                before_time: before.map_or(left_time, |(_, time)| time.max(left_time)),
            });
        }
        Ok(last)
    }

    fn finish(&self, live: [&[ArrayRef]; 2], out: Output) -> OpResult<Emitted> {
        let Output { stored, emits, more, .. } = out;
        let [left, right] = stored;
        let columns = [with_stored(live[0], &left.finish()?)?, with_stored(live[1], &right.finish()?)?];
        let times: Vec<i64> = emits.iter().map(|e| e.time).collect();
        let build = |pairs: Vec<Option<Pair>>| -> OpResult<(Vec<ArrayRef>, Vec<bool>)> {
            let gone: Vec<bool> = pairs.iter().map(Option::is_none).collect();
            let pairs: Vec<Pair> = pairs.iter().zip(&emits).map(|(p, e)| p.unwrap_or((e.key, NONE))).collect();
            let built = self.joined.build(&columns[0], &columns[1], &pairs, &times)?;
            Ok((blank(built, self.keys, &gone)?, gone))
        };
        let (now, gone) = build(emits.iter().map(|e| e.now).collect())?;
        let mut rows = Rows::new(
            self.joined.schema.clone(),
            now,
            emits.iter().map(|e| e.pos).collect(),
            emits.iter().map(|e| e.partition).collect(),
            times.clone(),
        )?;
        rows.null = Some(BooleanBuffer::from(gone));
        if self.old {
            let old_times: Vec<i64> = emits.iter().map(|e| e.before_time).collect();
            let (columns, absent) = build(emits.iter().map(|e| e.before).collect())?;
            let state = absent.iter().map(|a| if *a { OldState::Absent } else { OldState::Known }).collect();
            rows.old = Some(OldRows { state, time: old_times.into(), columns });
        }
        Ok(Emitted { rows, more })
    }
}
