//! GROUP BY: groups, windows, and the aggregates in them.
//!
//! A row is handed to the partition of its group's key, and goes there to its group or to the windows that hold its
//! time. Rows of a table's changes first take back what the old row did. Every change of a group is emitted, or, under
//! EMIT FINAL, each window once when it closes.
//!
//! Not here: sessions (`sessions`), how states move (`program`).
//! Invariants: stream time is the greatest time of the rows with a group in a partition, late ones included; a closed
//! window is never touched again, and its state is dropped.

mod program;
mod sessions;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, take};
use arrow::datatypes::SchemaRef;
use millpond_sql::plan::Relation;
use millpond_types::ports::ScanLimits;
use millpond_types::{Error, PartitionId, Result, SqlType};

use self::program::{Event, Out, Program};
use super::key::KeyWriter;
use super::key::Strings;
use super::times::{NO_TIME, Times};
use super::window::TimeWindows;
use super::{Context, Emitted, Evaluation, LineKind, More, OpResult, Operator, Prepared};
use crate::aggregates;
use crate::expr::{EvalInput, Expr};
use crate::rows::{OldRows, OldState, Rows, defect, int64_column};
use crate::state::cells::{Cells, put_bytes, put_key_i64, take_array, take_bytes, take_key_i64};
use crate::state::key::KeySpace;
use crate::state::points::EntryId;
use crate::state::row::RowsBuilder;
use crate::state::view::Wants;

/// One aggregate function with its arguments.
pub struct Call {
    pub aggregate: Arc<dyn aggregates::Aggregate>,
    pub args: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windowing {
    None,
    Time(TimeWindows),
    Session { gap_ms: i64, grace_ms: i64 },
}

/// Where a column of the output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutColumn {
    Group(usize),
    Call(usize),
    WindowStart,
    WindowEnd,
    RowTime,
}

pub struct Aggregate {
    pub id: String,
    pub group_by: Vec<Expr>,
    pub group_types: Vec<SqlType>,
    pub calls: Vec<Call>,
    pub input: Relation,
    pub windowing: Windowing,
    pub emit_final: bool,
    pub writer: KeyWriter,
    pub exchange: bool,
    pub partitions: i32,
    pub schema: SchemaRef,
    /// What `exchange` gives: groups, then arguments.
    pub exchanged: SchemaRef,
    pub columns: Vec<OutColumn>,
    /// Whether somebody above looks at old values.
    pub old: bool,
    /// Of several changes of a group in a step only the last is needed.
    pub last_only: bool,
    pub groups: KeySpace,
    /// Sessions by their end.
    pub ends: KeySpace,
    pub times: KeySpace,
}

/// What `prepare` finds out of a batch. Rows of the replaced side of table changes come after those of the new side.
struct Batch {
    rows: Rows,
    groups: Vec<ArrayRef>,
    args: Vec<Vec<ArrayRef>>,
    partition: Vec<PartitionId>,
    cells: Strings,
    usable: Vec<bool>,
}

impl Batch {
    fn pos(&self, row: u32) -> u32 {
        self.rows.pos[self.input_row(row)]
    }

    fn input_row(&self, row: u32) -> usize {
        let row = row as usize;
        if row < self.rows.len() { row } else { row - self.rows.len() }
    }
}

/// A row in many windows looks once in so many whether it should go on.
const STOP_CHECKS: usize = 1_024;

/// No key: the row has no group.
const NO_KEY: u32 = u32::MAX;

impl Operator for Aggregate {
    fn id(&self) -> &str {
        &self.id
    }

    /// A table's change may take back what it did in another partition.
    fn is_partitioned(&self) -> bool {
        self.input == Relation::Stream
    }

    /// Of a stream: groups, then arguments, of the rows that have a group, in its partition.
    fn exchange(&self, rows: Rows, cx: &mut Evaluation<'_>) -> OpResult<Rows> {
        if self.input == Relation::Table {
            return Ok(rows);
        }
        let (groups, args) = self.side(&rows.input(), cx)?;
        cx.note_errors(&rows);
        let usable: Vec<bool> =
            (0..rows.len()).map(|row| !rows.is_null(row) && !super::any_null(&groups, row)).collect();
        let partition = self.partitions_of(&groups, &rows)?;
        let columns = groups.into_iter().chain(args.into_iter().flatten()).collect();
        let mut out = rows.with_columns(self.exchanged.clone(), columns, None)?;
        (out.partition, out.null, out.window) = (partition.into(), None, None);
        Ok(out.filter(&usable.into())?)
    }

    fn prepare_exchanged<'a>(&'a self, mut inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        if self.input == Relation::Table {
            return self.prepare(inputs, cx);
        }
        let rows = super::only(&mut inputs)?;
        let (groups, mut rest) = rows.columns().split_at(self.group_by.len());
        let mut args = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let (own, others) = rest.split_at(call.args.len());
            args.push(own.to_vec());
            rest = others;
        }
        let (groups, usable, partition) = (groups.to_vec(), vec![true; rows.len()], rows.partition.to_vec());
        let cells = group_cells(&groups, rows.len())?;
        self.prepare_batch(Batch { rows, groups, args, partition, cells, usable }, cx)
    }

    fn prepare<'a>(&'a self, mut inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let batch = self.batch(super::only(&mut inputs)?, cx)?;
        self.prepare_batch(batch, cx)
    }

    fn resume(&self, resume: &[u8], pos: u32, cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let mut closings = resume;
        let mut program = Program::with_calls(&self.calls);
        let mut emission = Emission::default();
        while !closings.is_empty() {
            let closing = take_bytes(&mut closings)?;
            if emission.more.is_some() {
                emission.leave(pos, closing);
                continue;
            }
            let mut bytes = closing;
            let partition = PartitionId::from_be_bytes(take_array(&mut bytes)?);
            let until = take_key_i64(&mut bytes)?;
            match self.windowing {
                Windowing::Time(windows) => {
                    let none = &mut BTreeMap::new();
                    self.close_windows(partition, until, pos, windows, none, &mut program, &mut emission, cx)?;
                }
                Windowing::Session { .. } => {
                    self.resume_sessions(partition, bytes, until, pos, &mut program, &mut emission, cx)?;
                }
                Windowing::None => {}
            }
        }
        let args: Vec<Vec<ArrayRef>> = self.no_args();
        let outcome = program.run(&self.calls, &args, self.old, &|_| pos, cx)?;
        let rows = self.rows(&program, outcome.results, outcome.old, Groups::Decoded(emission.groups))?;
        Ok(Emitted { rows, more: emission.more })
    }
}

/// Group columns of the output.
enum Groups<'a> {
    /// By `Out::row` from these columns.
    Rows(&'a [ArrayRef]),
    /// One entry per output.
    Decoded(Option<RowsBuilder>),
}

/// What closing windows gave.
#[derive(Default)]
struct Emission {
    groups: Option<RowsBuilder>,
    more: Option<More>,
}

impl Emission {
    /// Whether a row belongs to a later input row than the one that is half done.
    fn stops_before(&self, pos: u32) -> bool {
        self.more.as_ref().is_some_and(|m| m.pos != pos)
    }

    /// Leaves a closing for the next step.
    fn leave(&mut self, pos: u32, closing: &[u8]) {
        let more = self.more.get_or_insert_with(|| More { pos, resume: Vec::new() });
        put_bytes(closing, &mut more.resume);
    }
}

impl Aggregate {
    fn prepare_batch<'a>(&'a self, batch: Batch, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let mut wants = Wants::default();
        match self.windowing {
            Windowing::None => {
                let of_row = self.row_keys(&batch, &mut wants.keys);
                Ok(Prepared { wants, work: Box::new(move |cx, ids| self.plain(&batch, &of_row, ids, cx)) })
            }
            Windowing::Time(windows) => {
                self.window_keys(&batch, windows, &mut wants.keys, cx)?;
                Ok(Prepared { wants, work: Box::new(move |cx, ids| self.windowed(&batch, windows, ids, cx)) })
            }
            Windowing::Session { gap_ms, grace_ms } => {
                let of_row = self.row_keys(&batch, &mut wants.keys);
                let work = move |cx: &mut Context<'_, '_>, ids: &[EntryId]| {
                    self.sessions(&batch, gap_ms, grace_ms, &of_row, ids, cx)
                };
                Ok(Prepared { wants, work: Box::new(work) })
            }
        }
    }

    fn side(&self, input: &EvalInput<'_>, cx: &mut Evaluation<'_>) -> OpResult<(Vec<ArrayRef>, Vec<Vec<ArrayRef>>)> {
        let eval = |exprs: &[Expr], cx: &mut Evaluation<'_>| {
            exprs.iter().map(|e| e.column_of(input, cx.eval)).collect::<Result<Vec<_>>>()
        };
        let groups = eval(&self.group_by, cx)?;
        let args = self.calls.iter().map(|c| eval(&c.args, cx)).collect::<Result<Vec<_>>>()?;
        Ok((groups, args))
    }

    fn batch(&self, rows: Rows, cx: &mut Evaluation<'_>) -> OpResult<Batch> {
        let n = rows.len();
        let (mut groups, mut args) = self.side(&rows.input(), cx)?;
        cx.note_errors(&rows);
        let mut usable: Vec<bool> = (0..n).map(|row| !rows.is_null(row) && !super::any_null(&groups, row)).collect();
        let mut partition = self.partitions_of(&groups, &rows)?;
        if self.input == Relation::Table
            && let (Some(old), Some(input)) = (&rows.old, rows.old_input())
        {
            let (old_groups, old_args) = self.side(&input, cx)?;
            // The old row was reported when it was new.
            cx.eval.take_errors();
            usable.extend((0..n).map(|row| old.state[row] == OldState::Known && !super::any_null(&old_groups, row)));
            partition.extend(self.partitions_of(&old_groups, &rows)?);
            let join = |a: &mut Vec<ArrayRef>, b: Vec<ArrayRef>| -> Result<()> {
                for (a, b) in a.iter_mut().zip(b) {
                    *a = concat(&[a.as_ref(), b.as_ref()]).map_err(defect)?;
                }
                Ok(())
            };
            join(&mut groups, old_groups)?;
            for (args, old_args) in args.iter_mut().zip(old_args) {
                join(args, old_args)?;
            }
        }
        let cells = group_cells(&groups, usable.len())?;
        Ok(Batch { rows, groups, args, partition, cells, usable })
    }

    fn partitions_of(&self, groups: &[ArrayRef], rows: &Rows) -> OpResult<Vec<PartitionId>> {
        if self.exchange { Ok(self.writer.place(groups, rows, self.partitions)?) } else { Ok(rows.partition.to_vec()) }
    }

    /// The keys of the rows by their groups alone; gives the index of each row's key, [`NO_KEY`] where it has none.
    fn row_keys(&self, batch: &Batch, keys: &mut Strings) -> Vec<u32> {
        let mut prefix = Prefix::new(&self.groups);
        (0..batch.usable.len())
            .map(|row| {
                if !batch.usable[row] {
                    return NO_KEY;
                }
                keys.push(|key| {
                    key.extend_from_slice(prefix.of(batch.partition[row]));
                    key.extend_from_slice(batch.cells.get(row));
                });
                keys.len() as u32 - 1
            })
            .collect()
    }

    /// The keys of the rows by window and group: one for each window of each row that has a group, in order.
    fn window_keys(&self, batch: &Batch, windows: TimeWindows, keys: &mut Strings, cx: &Evaluation<'_>) -> Result<()> {
        let mut prefix = Prefix::new(&self.groups);
        for row in (0..batch.rows.len()).filter(|row| batch.usable[*row]) {
            cx.eval.check_stop()?;
            for start in windows.starts(batch.rows.time[row]) {
                keys.push(|key| {
                    key.extend_from_slice(prefix.of(batch.partition[row]));
                    put_key_i64(start, key);
                    key.extend_from_slice(batch.cells.get(row));
                });
            }
        }
        Ok(())
    }

    /// Without windows.
    fn plain(&self, batch: &Batch, of_row: &[u32], ids: &[EntryId], cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let n = batch.rows.len();
        let mut changes = Changes::new(self, cx);
        let id_of = |row: usize| match of_row.get(row) {
            Some(&key) if key != NO_KEY => Some(ids[key as usize]),
            _ => None,
        };
        for row in 0..n as u32 {
            let i = row as usize;
            let (new, old) = (id_of(i), id_of(n + i));
            let time = batch.rows.time[i];
            let mut changed = None;
            if let Some(old) = old {
                let old_row = row + n as u32;
                let slot = changes.touch(old, time, cx)?;
                changes.program.events.push(Event::Undo { slot, row: old_row });
                if new == Some(old) {
                    changed = Some(slot);
                } else {
                    changes.emit(slot, old_row, batch, (0, 0));
                }
            }
            if let Some(new) = new {
                let slot = match changed {
                    Some(slot) => slot,
                    None => changes.touch(new, time, cx)?,
                };
                changes.program.events.push(Event::Add { slot, row });
                changes.emit(slot, row, batch, (0, 0));
            }
        }
        Ok(self.finish(changes, batch, cx)?.into())
    }

    /// Tumbling and hopping windows.
    fn windowed(
        &self,
        batch: &Batch,
        windows: TimeWindows,
        ids: &[EntryId],
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Emitted> {
        let mut changes = Changes::new(self, cx);
        let mut times = Times::<3>::new(&self.times);
        let mut open: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        let mut emission = Emission::default();
        let mut ids = ids.iter();
        for row in 0..batch.rows.len() as u32 {
            let i = row as usize;
            if emission.stops_before(batch.rows.pos[i]) {
                break;
            }
            if !batch.usable[i] {
                continue;
            }
            let (time, partition) = (batch.rows.time[i], batch.partition[i]);
            let stream_time = times.advance(partition, time, cx.view)?;
            for (n, start) in windows.starts(time).enumerate() {
                if n % STOP_CHECKS == 0 {
                    cx.eval.check_stop()?;
                }
                let id = *ids.next().ok_or_else(|| Error::bug("a window of a row has no key"))?;
                if !windows.accepts(start, stream_time) {
                    let end = windows.end(start);
                    let limit = windows.close(stream_time);
                    cx.notes.push(batch.rows.pos[i], LineKind::Late, || {
                        format!("late row at {time} for window [{start}, {end}), closed at {limit}")
                    });
                    continue;
                }
                let numbers = times.get(partition, cx.view)?;
                numbers[2] = numbers[2].max(start);
                let touched = changes.touched.len();
                let slot = changes.touch(id, time, cx)?;
                changes.program.events.push(Event::Add { slot, row });
                if !self.emit_final {
                    changes.emit(slot, row, batch, (start, windows.end(start)));
                } else if changes.touched.len() > touched {
                    open.insert(cx.view.points.key(id).to_vec(), slot);
                }
            }
            let closed = windows.closed_start(stream_time);
            let numbers = times.get(partition, cx.view)?;
            if self.emit_final && closed >= 0 && closed > numbers[1] {
                numbers[1] = closed;
                if cx.config.quirks {
                    let kept = numbers[2].saturating_sub(windows.size_ms.saturating_add(windows.grace_ms));
                    self.forget_windows(partition, kept, &mut open, cx);
                }
                let pos = batch.rows.pos[i];
                if emission.more.is_some() {
                    let mut closing = partition.to_be_bytes().to_vec();
                    put_key_i64(closed, &mut closing);
                    emission.leave(pos, &closing);
                    continue;
                }
                let program = &mut changes.program;
                self.close_windows(partition, closed, pos, windows, &mut open, program, &mut emission, cx)?;
            }
        }
        if self.emit_final {
            times.store(cx.view)?;
            let Changes { program, touched, .. } = changes;
            let rows = self.write(program, &touched, batch, Groups::Decoded(emission.groups), cx)?;
            return Ok(Emitted { rows, more: emission.more });
        }
        // What is closed now is in nobody's way any more.
        let mut partitions: Vec<PartitionId> = batch.partition.clone();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            let numbers = times.get(partition, cx.view)?;
            let closed = windows.closed_start(numbers[0]);
            if numbers[0] != NO_TIME && closed >= 0 && closed > numbers[1] {
                numbers[1] = closed;
                let (from, to) = self.until(partition, closed);
                cx.view.drop_range(from, to);
            }
        }
        times.store(cx.view)?;
        Ok(self.finish(changes, batch, cx)?.into())
    }

    /// The range of all windows of a partition with a start up to and including `last`.
    fn until(&self, partition: PartitionId, last: i64) -> (Vec<u8>, Vec<u8>) {
        let from = self.groups.partition_prefix(partition);
        let mut to = from.clone();
        put_key_i64(last.saturating_add(1), &mut to);
        (from, to)
    }

    /// Loses windows that start before `kept`, as Kafka Streams' stores do, emitted or not.
    fn forget_windows(
        &self,
        partition: PartitionId,
        kept: i64,
        open: &mut BTreeMap<Vec<u8>, u32>,
        cx: &mut Context<'_, '_>,
    ) {
        let (from, to) = self.until(partition, kept.saturating_sub(1));
        open.retain(|key, _| !(from <= *key && *key < to));
        cx.view.drop_range(from, to);
    }

    /// Emits all windows of a partition that start at or before `closed`, in order of start and key, and drops them.
    #[allow(clippy::too_many_arguments)]
    fn close_windows(
        &self,
        partition: PartitionId,
        closed: i64,
        pos: u32,
        windows: TimeWindows,
        open: &mut BTreeMap<Vec<u8>, u32>,
        program: &mut Program,
        emission: &mut Emission,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let (from, to) = self.until(partition, closed);
        let max = cx.config.emit_rows_max;
        let mut found: BTreeMap<Vec<u8>, Option<u32>> = BTreeMap::new();
        let limits = ScanLimits { entries_max: max + 1, bytes_max: cx.config.step_write_bytes_max };
        let scan = cx.view.scan(&from, &to, limits)?;
        // Behind the last one that was read there may be others: what is open there waits as well.
        let read_to = match scan.entries.last() {
            Some((key, _)) if scan.more => [key, &[0][..]].concat(),
            _ => to.clone(),
        };
        for (key, value) in scan.entries {
            if !open.contains_key(&key[..]) {
                let slot = program.load(Some(&value), &self.calls)?;
                found.insert(key.to_vec(), Some(slot));
            }
        }
        let touched = open.range(from.clone()..read_to.clone()).take(max + 1);
        found.extend(touched.map(|(key, slot)| (key.clone(), Some(*slot))));
        // An entry that is there only to mark where to go on.
        if read_to < to {
            found.insert(read_to, None);
        }
        let groups = emission.groups.get_or_insert_with(|| RowsBuilder::new(&self.group_types));
        let mut end = to;
        for (emitted, (key, slot)) in found.into_iter().enumerate() {
            let Some(slot) = slot.filter(|_| emitted < max) else {
                let mut closing = partition.to_be_bytes().to_vec();
                put_key_i64(closed, &mut closing);
                emission.leave(pos, &closing);
                end = key;
                break;
            };
            let mut rest = self.groups.rest(&key);
            let start = take_key_i64(&mut rest)?;
            groups.append_key(&mut rest)?;
            let time = program.slot(slot).time;
            if self.old {
                program.events.push(Event::OldNull);
            }
            program.events.push(Event::Out { slot });
            program.outs.push(Out {
                row: 0,
                pos,
                partition,
                time,
                window: (start, windows.end(start)),
                null: false,
                old: OldState::Absent,
                old_time: 0,
            });
        }
        open.retain(|key, _| !(from <= *key && *key < end));
        cx.view.drop_range(from, end);
        Ok(())
    }

    /// Runs the events, writes the touched groups, builds the rows.
    fn finish(&self, changes: Changes<'_>, batch: &Batch, cx: &mut Context<'_, '_>) -> OpResult<Rows> {
        let (program, touched) = changes.settle();
        let rows = self.write(program, &touched, batch, Groups::Rows(&batch.groups), cx)?;
        if !self.last_only {
            return Ok(rows);
        }
        // Groups are in the order of their first change; what is emitted is their last one.
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        order.sort_by_key(|i| rows.pos[*i as usize]);
        Ok(rows.take(&UInt32Array::from(order))?)
    }

    fn write(
        &self,
        mut program: Program,
        touched: &[(EntryId, u32)],
        batch: &Batch,
        groups: Groups<'_>,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Rows> {
        let pos_of = |row: u32| batch.pos(row);
        let outcome = program.run(&self.calls, &batch.args, self.old, &pos_of, cx)?;
        let (mut value, mut scratch) = (Vec::new(), Vec::new());
        for (n, &(id, slot)) in touched.iter().enumerate() {
            if n % STOP_CHECKS == 0 {
                cx.eval.check_stop()?;
            }
            value.clear();
            program.encode(&self.calls, slot, &mut value, &mut scratch);
            cx.view.points.put(id, &value);
        }
        self.rows(&program, outcome.results, outcome.old, groups)
    }

    fn rows(
        &self,
        program: &Program,
        results: Vec<ArrayRef>,
        old: Vec<ArrayRef>,
        groups: Groups<'_>,
    ) -> OpResult<Rows> {
        let outs = &program.outs;
        let groups: Vec<ArrayRef> = match groups {
            Groups::Rows(columns) => {
                let at = UInt32Array::from_iter_values(outs.iter().map(|o| o.row));
                columns.iter().map(|c| take(c, &at, None).map_err(defect)).collect::<Result<_>>()?
            }
            Groups::Decoded(builder) => builder.unwrap_or_else(|| RowsBuilder::new(&self.group_types)).finish()?,
        };
        let numbers = |f: &dyn Fn(&Out) -> i64| int64_column(outs.iter().map(f).collect::<Vec<i64>>().into());
        let columns = |calls: &[ArrayRef], time: &dyn Fn(&Out) -> i64| -> Vec<ArrayRef> {
            self.columns
                .iter()
                .map(|c| match c {
                    OutColumn::Group(i) => groups[*i].clone(),
                    OutColumn::Call(i) => calls[*i].clone(),
                    OutColumn::WindowStart => numbers(&|o| o.window.0),
                    OutColumn::WindowEnd => numbers(&|o| o.window.1),
                    OutColumn::RowTime => numbers(time),
                })
                .collect()
        };
        let mut rows = Rows::new(
            self.schema.clone(),
            columns(&results, &|o| o.time),
            outs.iter().map(|o| o.pos).collect(),
            outs.iter().map(|o| o.partition).collect(),
            outs.iter().map(|o| o.time).collect(),
        )?;
        if outs.iter().any(|o| o.null) {
            rows.null = Some(BooleanBuffer::collect_bool(outs.len(), |i| outs[i].null));
        }
        if self.old {
            rows.old = Some(OldRows {
                state: outs.iter().map(|o| o.old).collect(),
                time: outs.iter().map(|o| o.old_time).collect::<Vec<i64>>().into(),
                columns: columns(&old, &|o| o.old_time),
            });
        }
        if self.windowing != Windowing::None {
            let bounds = |f: &dyn Fn(&Out) -> i64| outs.iter().map(f).collect::<Vec<i64>>().into();
            rows.window = Some((bounds(&|o| o.window.0), bounds(&|o| o.window.1)));
        }
        Ok(rows)
    }
}

/// The keys of groups, in key form.
fn group_cells(groups: &[ArrayRef], rows: usize) -> Result<Strings> {
    let columns = Cells::of(groups)?;
    let mut cells = Strings::with_capacity(rows, rows * 16);
    for row in 0..rows {
        cells.push(|out| columns.iter().for_each(|c| c.put_key(row, out)));
    }
    Ok(cells)
}

/// The changes of groups in a batch, each one emitted or only the last of each group.
struct Changes<'a> {
    op: &'a Aggregate,
    program: Program,
    /// All that was touched.
    touched: Vec<(EntryId, u32)>,
    /// By slot, where only the last change counts: what it emits.
    last: Vec<Out>,
    /// Whether the group that was touched last was there before the change.
    before: OldState,
    before_time: i64,
}

impl<'a> Changes<'a> {
    fn new(op: &'a Aggregate, cx: &mut Context<'_, '_>) -> Self {
        cx.view.points.clear_notes();
        let program = Program::with_calls(&op.calls);
        Self { op, program, touched: Vec::new(), last: Vec::new(), before: OldState::Absent, before_time: 0 }
    }

    /// The slot of a group, about to change at `time`.
    fn touch(&mut self, id: EntryId, time: i64, cx: &mut Context<'_, '_>) -> OpResult<u32> {
        let (slot, first) = match cx.view.points.note(id) {
            Some(slot) => (slot, false),
            None => {
                let slot = self.program.load(cx.view.points.value(id), &self.op.calls)?;
                cx.view.points.set_note(id, slot);
                self.touched.push((id, slot));
                (slot, true)
            }
        };
        let state = self.program.slot(slot);
        let live = state.live;
        state.live = true;
        self.before_time = if live { state.time } else { 0 };
        state.time = state.time.max(time);
        self.before = if live { OldState::Known } else { OldState::Absent };
        if self.op.emit_final {
            return Ok(slot);
        }
        if first && self.op.last_only {
            self.last.push(Out { old: self.before, old_time: self.before_time, ..Out::default() });
        }
        if self.op.old && (first || !self.op.last_only) {
            self.program.events.push(if live { Event::Old { slot } } else { Event::OldNull });
        }
        Ok(slot)
    }

    /// Emits a group after a change.
    fn emit(&mut self, slot: u32, row: u32, batch: &Batch, window: (i64, i64)) {
        let out = Out {
            row,
            pos: batch.pos(row),
            partition: batch.partition[row as usize],
            time: self.program.slot(slot).time,
            window,
            null: false,
            old: self.before,
            old_time: self.before_time,
        };
        if !self.op.last_only {
            self.program.events.push(Event::Out { slot });
            self.program.outs.push(out);
        } else if let Some(last) = self.last.get_mut(slot as usize) {
            *last = Out { old: last.old, old_time: last.old_time, ..out };
        }
    }

    /// The finished program.
    fn settle(mut self) -> (Program, Vec<(EntryId, u32)>) {
        for (slot, out) in self.last.into_iter().enumerate() {
            self.program.events.push(Event::Out { slot: slot as u32 });
            self.program.outs.push(out);
        }
        (self.program, self.touched)
    }
}

/// The start of keys, made once per run of rows of one partition.
struct Prefix<'a> {
    space: &'a KeySpace,
    partition: Option<PartitionId>,
    bytes: Vec<u8>,
}

impl<'a> Prefix<'a> {
    fn new(space: &'a KeySpace) -> Self {
        Self { space, partition: None, bytes: Vec::new() }
    }

    fn of(&mut self, partition: PartitionId) -> &[u8] {
        if self.partition != Some(partition) {
            self.space.start(partition, &mut self.bytes);
            self.partition = Some(partition);
        }
        &self.bytes
    }
}
