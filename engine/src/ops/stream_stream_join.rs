//! Two streams joined within a time window.
//!
//! A row is kept, then meets the kept rows of the other side whose times are in its window, in order of time and
//! arrival. Under an outer join a row without a match is emitted with NULLs: at once where the statement has no GRACE
//! (as ksqlDB has it), else when its window and the grace are over.
//!
//! A row that meets more than fits into a step, by number or by size, goes on in the next one.
//!
//! ```text
//! half-done rows: version (1) = 01 | begun: number, newest of the other side, flush (1), matched (1), after: flag (1), time, number
//!   | count | per row: side (1), partition, time, null (1), window (1), start, end | length, row
//! ```
//! Numbers are zigzag varints; rows are as in state. The first row is the one that was begun.
//!
//! Invariants: one stream time for both sides; a kept row is visible while it is within the retention of its side's
//! newest row.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use millpond_sql::plan::JoinKind;
use millpond_types::ports::ScanLimits;
use millpond_types::record::put_varint;
use millpond_types::{Error, PartitionId, Result};

use super::joined::{Joined, NONE, Pair, with_stored};
use super::key::{Strings, key_cells};
use super::times::{NO_TIME, Times};
use super::{
    Context, Emitted, Evaluation, Failure, LineKind, More, OpResult, Operator, Prepared, any_null, merge_inputs,
};
use crate::rows::Rows;
use crate::state::cells::{Cells, put_bytes, put_key_i64, take_bytes, take_int, take_key_i64, take_u8};
use crate::state::key::KeySpace;
use crate::state::points::EntryId;
use crate::state::row::{RowsBuilder, put_row, take_time};
use crate::state::view::Wants;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const SEGMENT_MIN_MS: i64 = 60_000;
/// Kept rows that are read at once.
const MATCHES_AT_ONCE: usize = 10_000;
const HALF_DONE_VERSION: u8 = 1;

// Numbers in `Times`, behind the stream time.
const NEWEST: [usize; 2] = [1, 2];
const NUMBER: usize = 3;
const DROPPED: [usize; 2] = [4, 5];
const FLUSHED: usize = 6;

pub struct StreamStreamJoin {
    id: String,
    /// Per side: whether its rows are emitted without a match.
    outer: [bool; 2],
    /// Per side: how far back and how far ahead of a row its matches may be.
    bounds: [[i64; 2]; 2],
    /// `None`: unmatched rows are emitted at once.
    grace_ms: Option<i64>,
    retention_ms: i64,
    segment_ms: i64,
    keys: usize,
    /// Size of the time windows that the keys are part of; `None` for sessions and plain keys.
    window_size_ms: Option<i64>,
    joined: Joined,
    rows: KeySpace,
    waiting: KeySpace,
    times: KeySpace,
}

/// A kept row: its time, its number, the row.
type Kept = (i64, i64, Bytes);

/// One joined row.
struct Emit {
    pos: u32,
    partition: PartitionId,
    time: i64,
    window: Option<(i64, i64)>,
    pair: Pair,
}

impl StreamStreamJoin {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: String,
        kind: JoinKind,
        [before_ms, after_ms]: [i64; 2],
        grace_ms: Option<i64>,
        keys: usize,
        window_size_ms: Option<i64>,
        joined: Joined,
        rows: KeySpace,
        waiting: KeySpace,
        times: KeySpace,
    ) -> Self {
        let outer = match kind {
            JoinKind::Inner => [false, false],
            JoinKind::Left => [true, false],
            JoinKind::Right => [false, true],
            JoinKind::Full => [true, true],
        };
        // A right join is a left join of the exchanged sides, whose window is not exchanged.
        let bounds = if kind == JoinKind::Right {
            [[after_ms, before_ms], [before_ms, after_ms]]
        } else {
            [[before_ms, after_ms], [after_ms, before_ms]]
        };
        let span = before_ms.saturating_add(after_ms);
        let retention_ms = span.saturating_add(grace_ms.unwrap_or_else(|| (DAY_MS - span).max(0)));
        Self {
            id,
            outer,
            bounds,
            grace_ms,
            retention_ms,
            segment_ms: (retention_ms / 2).max(SEGMENT_MIN_MS),
            keys,
            window_size_ms,
            joined,
            rows,
            waiting,
            times,
        }
    }

    fn row_key(&self, partition: PartitionId, side: usize, cells: &[u8], time: i64) -> Vec<u8> {
        let mut key = self.rows.partition_prefix(partition);
        key.push(side as u8);
        put_key_i64(time.div_euclid(self.segment_ms), &mut key);
        key.extend_from_slice(cells);
        put_key_i64(time, &mut key);
        key
    }

    fn waiting_key(&self, partition: PartitionId, side: usize, cells: &[u8], time: i64, number: i64) -> Vec<u8> {
        let mut key = self.waiting.partition_prefix(partition);
        put_key_i64(time, &mut key);
        key.push(side as u8);
        key.extend_from_slice(cells);
        put_key_i64(number, &mut key);
        key
    }

    /// Kept rows of a side with this key and a time in the range, behind `after` where that is given: time, number, row;
    /// and whether a limit ended them.
    #[allow(clippy::too_many_arguments)]
    fn kept(
        &self,
        partition: PartitionId,
        side: usize,
        cells: &[u8],
        [from, to]: [i64; 2],
        after: Option<(i64, i64)>,
        limits: ScanLimits,
        cx: &mut Context<'_, '_>,
    ) -> Result<(Vec<Kept>, bool)> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let from = after.map_or(from, |(time, _)| time.max(from));
        if from > to {
            return Ok((found, false));
        }
        for segment in from.div_euclid(self.segment_ms)..=to.div_euclid(self.segment_ms) {
            let start = segment.saturating_mul(self.segment_ms);
            let last = start.saturating_add(self.segment_ms - 1);
            let mut low = self.row_key(partition, side, cells, from.max(start));
            if let Some((time, number)) = after
                && time >= start
            {
                put_key_i64(number, &mut low);
                low.push(0);
            }
            let high = self.row_key(partition, side, cells, to.min(last));
            // Behind the last row of that time, whatever its number.
            let high = [high.as_slice(), &[0xff; 9]].concat();
            let left = ScanLimits {
                entries_max: limits.entries_max - found.len(),
                bytes_max: limits.bytes_max.saturating_sub(bytes),
            };
            let scan = cx.view.scan(&low, &high, left)?;
            for (key, row) in scan.entries {
                let mut tail = &key[key.len().saturating_sub(16)..];
                bytes += row.len();
                found.push((take_key_i64(&mut tail)?, take_key_i64(&mut tail)?, row));
            }
            if scan.more || limits.reached(found.len(), bytes) {
                return Ok((found, true));
            }
        }
        Ok((found, false))
    }
}

/// A row that is kept, and what it still has to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begun {
    number: i64,
    /// Time of the newest row of the other side when it came.
    newest_other: i64,
    /// Waiting rows are to be emitted first.
    flush: bool,
    matched: bool,
    /// Time and number of the last row that it met.
    after: Option<(i64, i64)>,
}

/// Rows of one input row that are left for the next step; the first of them has begun.
struct LeftOver {
    begun: Begun,
    rows: Vec<(usize, usize)>,
}

/// A row of one of the sides.
#[derive(Clone, Copy)]
struct Row<'a> {
    side: usize,
    row: usize,
    rows: &'a Rows,
    key: &'a [u8],
    values: &'a [Cells<'a>],
}

impl Row<'_> {
    /// What it gives without a match.
    fn alone(&self) -> Emit {
        let Self { side, row, rows, .. } = *self;
        Emit {
            pos: rows.pos[row],
            partition: rows.partition[row],
            time: rows.time[row],
            window: rows.window_of(row),
            pair: pair(side, row as u32, NONE),
        }
    }
}

/// What a batch has joined so far.
struct Output {
    stored: [RowsBuilder; 2],
    live: [u32; 2],
    emits: Vec<Emit>,
    bytes: usize,
}

impl Output {
    fn new(joined: &Joined, sides: &[Rows; 2]) -> Self {
        Self {
            stored: [RowsBuilder::new(&joined.left), RowsBuilder::new(&joined.right)],
            live: [sides[0].len() as u32, sides[1].len() as u32],
            emits: Vec::new(),
            bytes: 0,
        }
    }

    /// How many more rows a step has room for, and how many bytes.
    fn room(&self, cx: &Context<'_, '_>) -> ScanLimits {
        let bytes_max = cx.config.step_write_bytes_max.saturating_sub(self.bytes);
        ScanLimits {
            entries_max: cx.config.emit_rows_max.saturating_sub(self.emits.len()).min(MATCHES_AT_ONCE),
            bytes_max: if self.emits.is_empty() { bytes_max.max(1) } else { bytes_max },
        }
    }

    fn is_full(&self, cx: &Context<'_, '_>) -> bool {
        self.room(cx).reached(0, 0)
    }

    fn stored(&mut self, side: usize, row: &[u8]) -> Result<u32> {
        self.stored[side].append(row)?;
        self.bytes += row.len();
        Ok(self.live[side] + self.stored[side].len() as u32 - 1)
    }
}

fn pair(side: usize, own: u32, other: u32) -> Pair {
    if side == 0 { (own, other) } else { (other, own) }
}

impl Operator for StreamStreamJoin {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_partitioned(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let (left, mut right) = super::both(inputs)?;
        if let (Some(size_ms), Some((starts, ends))) = (self.window_size_ms, &mut right.window) {
            // Of a time window only the start is in the key: the right side's is taken for one of the left's size.
            *ends = starts.iter().map(|start| start.saturating_add(size_ms)).collect();
        }
        let sides = [left, right];
        let cells = [
            key_cells(&sides[0], &sides[0].columns()[..self.keys])?,
            key_cells(&sides[1], &sides[1].columns()[..self.keys])?,
        ];
        let mut wants = Wants::default();
        let mut partitions: Vec<PartitionId> = sides.iter().flat_map(|s| s.partition.iter().copied()).collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            wants.keys.push(|key| key.extend_from_slice(&self.times.partition_prefix(partition)));
        }
        let work = move |cx: &mut Context<'_, '_>, _: &[EntryId]| {
            let mut order = Vec::with_capacity(sides[0].len() + sides[1].len());
            merge_inputs(&sides[0].pos, &sides[1].pos, |side, row| {
                order.push((side, row));
                Ok(())
            })?;
            self.join(&sides, &cells, &order, None, cx)
        };
        Ok(Prepared { wants, work: Box::new(work) })
    }

    fn resume(&self, resume: &[u8], pos: u32, cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let (begun, sides, order) = self.read_left_over(resume, pos)?;
        let cells = [
            key_cells(&sides[0], &sides[0].columns()[..self.keys])?,
            key_cells(&sides[1], &sides[1].columns()[..self.keys])?,
        ];
        self.join(&sides, &cells, &order, Some(begun), cx)
    }
}

impl StreamStreamJoin {
    /// Rows of both sides in their order; the first has begun where `begun` says so.
    fn join(
        &self,
        sides: &[Rows; 2],
        cells: &[Strings; 2],
        order: &[(usize, usize)],
        mut begun: Option<Begun>,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Emitted> {
        let values = [Cells::of(sides[0].columns())?, Cells::of(sides[1].columns())?];
        let mut out = Output::new(&self.joined, sides);
        let mut times = Times::<7>::new(&self.times);
        let mut left_over: Option<LeftOver> = None;
        for &(side, row) in order {
            let place = Row { side, row, rows: &sides[side], key: cells[side].get(row), values: &values[side] };
            if let Some(left) = &mut left_over {
                let (first_side, first) = left.rows[0];
                if place.rows.pos[row] != sides[first_side].pos[first] {
                    break;
                }
                left.rows.push((side, row));
                continue;
            }
            let begun = match begun.take() {
                Some(begun) => Some(begun),
                None => self.begin(&place, &mut times, &mut out, cx)?,
            };
            if let Some(begun) = begun
                && let Some(begun) = self.go_on(&place, begun, &mut times, &mut out, cx)?
            {
                left_over = Some(LeftOver { begun, rows: vec![(side, row)] });
            }
        }
        times.store(cx.view)?;
        let more = left_over.map(|left| More {
            pos: sides[left.rows[0].0].pos[left.rows[0].1],
            resume: left_over_bytes(&left, sides, &values),
        });
        let Output { stored, emits, .. } = out;
        let [left, right] = stored;
        let columns: [Vec<ArrayRef>; 2] =
            [with_stored(sides[0].columns(), &left.finish()?)?, with_stored(sides[1].columns(), &right.finish()?)?];
        let pairs: Vec<Pair> = emits.iter().map(|e| e.pair).collect();
        let time: Vec<i64> = emits.iter().map(|e| e.time).collect();
        let mut rows = Rows::new(
            self.joined.schema.clone(),
            self.joined.build(&columns[0], &columns[1], &pairs, &time)?,
            emits.iter().map(|e| e.pos).collect(),
            emits.iter().map(|e| e.partition).collect(),
            time,
        )?;
        if sides.iter().any(|s| s.window.is_some()) {
            let part = |f: &dyn Fn((i64, i64)) -> i64| {
                emits.iter().map(|e| f(e.window.unwrap_or((0, 0)))).collect::<Vec<i64>>().into()
            };
            rows.window = Some((part(&|w| w.0), part(&|w| w.1)));
        }
        Ok(Emitted { rows, more })
    }

    /// Keeps a row. `None`: it meets nobody.
    fn begin(
        &self,
        place: &Row<'_>,
        times: &mut Times<'_, 7>,
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Option<Begun>> {
        let Row { side, row, rows, key, values } = *place;
        let (pos, partition, time) = (rows.pos[row], rows.partition[row], rows.time[row]);
        let stream_time = times.advance(partition, time, cx.view)?;
        if rows.is_null(row) {
            cx.notes.push(pos, LineKind::Skipped, || "a row to join has no value".to_string());
            return Ok(None);
        }
        if any_null(&rows.columns()[..self.keys], row) {
            if self.outer[side] {
                out.emits.push(place.alone());
            } else {
                cx.notes.push(pos, LineKind::Skipped, || "a row to join has no key".to_string());
            }
            return Ok(None);
        }
        let numbers = times.get(partition, cx.view)?;
        numbers[NUMBER] = numbers[NUMBER].max(0) + 1;
        let number = numbers[NUMBER];
        numbers[NEWEST[side]] = numbers[NEWEST[side]].max(time);
        let oldest = numbers[NEWEST[side]].saturating_sub(self.retention_ms);
        let newest_other = numbers[NEWEST[1 - side]];
        if time > oldest {
            let mut value = Vec::new();
            put_row(values, row, time, &mut value);
            let mut whole = self.row_key(partition, side, key, time);
            put_key_i64(number, &mut whole);
            cx.view.put(&whole, value);
        }
        self.expire(partition, side, times, cx)?;
        let flush = self.grace_ms.is_some() && time == stream_time && (self.outer[0] || self.outer[1]);
        Ok(Some(Begun { number, newest_other, flush, matched: false, after: None }))
    }

    /// What a kept row meets. What is given back did not fit into the step.
    fn go_on(
        &self,
        place: &Row<'_>,
        mut begun: Begun,
        times: &mut Times<'_, 7>,
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Option<Begun>> {
        let Row { side, row, rows, key, values } = *place;
        let (pos, partition, time) = (rows.pos[row], rows.partition[row], rows.time[row]);
        let window = rows.window_of(row);
        let stream_time = times.get(partition, cx.view)?[0];
        let full = |begun: Begun| if pos > 0 { Err(Failure::cut(pos)) } else { Ok(Some(begun)) };
        if begun.flush
            && let Some(grace) = self.grace_ms
        {
            if !self.flush(partition, stream_time, grace, pos, times, out, cx)? {
                return full(begun);
            }
            begun.flush = false;
        }
        if begun.newest_other != NO_TIME {
            let [back, ahead] = self.bounds[side];
            let visible = begun.newest_other.saturating_sub(self.retention_ms).saturating_add(1);
            let range = [time.saturating_sub(back).max(visible), time.saturating_add(ahead).min(begun.newest_other)];
            // Each match repeats the row.
            let mut own = Vec::new();
            loop {
                cx.eval.check_stop()?;
                let room = out.room(cx);
                if room.reached(0, 0) {
                    // Whether this is all is not looked for: it would be read for that alone.
                    return full(begun);
                }
                let (found, more) = self.kept(partition, 1 - side, key, range, begun.after, room, cx)?;
                if own.is_empty() && !found.is_empty() {
                    put_row(values, row, time, &mut own);
                }
                for (other_time, other_number, other) in found {
                    if out.is_full(cx) {
                        return full(begun);
                    }
                    out.bytes += own.len();
                    begun.matched = true;
                    begun.after = Some((other_time, other_number));
                    let index = out.stored(1 - side, &other)?;
                    let time = time.max(other_time);
                    out.emits.push(Emit { pos, partition, time, window, pair: pair(side, row as u32, index) });
                    if self.outer[1 - side] && self.grace_ms.is_some() {
                        let waiting = self.waiting_key(partition, 1 - side, key, other_time, other_number);
                        if cx.view.get(&waiting)?.is_some() {
                            cx.view.delete(&waiting);
                        }
                    }
                }
                if !more {
                    break;
                }
            }
        }
        if begun.matched || !self.outer[side] {
            return Ok(None);
        }
        match self.grace_ms {
            Some(_) if time.saturating_add(self.bounds[side][1]) >= stream_time => {
                let mut value = Vec::new();
                put_row(values, row, time, &mut value);
                cx.view.put(&self.waiting_key(partition, side, key, time, begun.number), value);
            }
            _ => out.emits.push(place.alone()),
        }
        Ok(None)
    }

    /// Drops the segments that nobody sees any more.
    fn expire(
        &self,
        partition: PartitionId,
        side: usize,
        times: &mut Times<'_, 7>,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let numbers = times.get(partition, cx.view)?;
        let segment = numbers[NEWEST[side]].saturating_sub(self.retention_ms).div_euclid(self.segment_ms);
        if numbers[DROPPED[side]] == NO_TIME {
            numbers[DROPPED[side]] = segment;
        }
        if segment > numbers[DROPPED[side]] {
            numbers[DROPPED[side]] = segment;
            let mut from = self.rows.partition_prefix(partition);
            from.push(side as u8);
            let mut to = from.clone();
            put_key_i64(segment, &mut to);
            cx.view.drop_range(from, to);
        }
        Ok(())
    }

    /// Emits the waiting rows whose window and grace are over. False: not all of them fitted.
    #[allow(clippy::too_many_arguments)]
    fn flush(
        &self,
        partition: PartitionId,
        stream_time: i64,
        grace: i64,
        pos: u32,
        times: &mut Times<'_, 7>,
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<bool> {
        // Under quirks the flush is throttled by a wall clock that test cases do not move: it happens once.
        if cx.config.quirks && times.get(partition, cx.view)?[FLUSHED] > 0 {
            return Ok(true);
        }
        let mut flushed = false;
        let due = |side: usize| stream_time.saturating_sub(self.bounds[side][1]).saturating_sub(grace);
        let from = self.waiting.partition_prefix(partition);
        let mut to = from.clone();
        put_key_i64(due(0).max(due(1)), &mut to);
        // Rows of the other side may lie between those that are due: what was looked at is not looked at again.
        let mut from = from;
        loop {
            let room = ScanLimits { entries_max: MATCHES_AT_ONCE, bytes_max: cx.config.step_write_bytes_max };
            let found = cx.view.scan(&from, &to, room)?;
            for (key, row) in found.entries {
                let mut rest = self.waiting.rest(&key);
                let time = take_key_i64(&mut rest)?;
                let side = usize::from(take_u8(&mut rest)? != 0);
                from = [&key[..], &[0]].concat();
                if time >= due(side) {
                    continue;
                }
                if out.is_full(cx) {
                    return Ok(false);
                }
                let window = self.window_of_key(rest);
                let index = out.stored(side, &row)?;
                let time = take_time(&mut &row[..])?;
                out.emits.push(Emit { pos, partition, time, window, pair: pair(side, index, NONE) });
                cx.view.delete(&key);
                flushed = true;
            }
            if !found.more {
                break;
            }
        }
        if flushed {
            times.get(partition, cx.view)?[FLUSHED] = 1;
        }
        Ok(true)
    }

    /// The rows that a step left, begun or not.
    #[allow(clippy::type_complexity)]
    fn read_left_over(&self, mut bytes: &[u8], pos: u32) -> OpResult<(Begun, [Rows; 2], Vec<(usize, usize)>)> {
        let bytes = &mut bytes;
        if take_u8(bytes)? != HALF_DONE_VERSION {
            return Err(Error::corrupt("a half-done join in state has an unknown version").into());
        }
        let (number, newest_other) = (take_int(bytes)?, take_int(bytes)?);
        let (flush, matched) = (take_u8(bytes)? != 0, take_u8(bytes)? != 0);
        let (flag, time, after) = (take_u8(bytes)?, take_int(bytes)?, take_int(bytes)?);
        let begun = Begun { number, newest_other, flush, matched, after: (flag != 0).then_some((time, after)) };
        let types = [&self.joined.left, &self.joined.right];
        let mut builders = types.map(RowsBuilder::new);
        let mut parts: [Vec<(PartitionId, i64, bool, Option<(i64, i64)>)>; 2] = Default::default();
        let mut order = Vec::new();
        for _ in 0..take_int(bytes)? {
            let side = usize::from(take_u8(bytes)? != 0);
            let (partition, time) = (take_int(bytes)? as PartitionId, take_int(bytes)?);
            let (null, windowed) = (take_u8(bytes)? != 0, take_u8(bytes)? != 0);
            let window = (take_int(bytes)?, take_int(bytes)?);
            builders[side].append(take_bytes(bytes)?)?;
            order.push((side, parts[side].len()));
            parts[side].push((partition, time, null, windowed.then_some(window)));
        }
        if order.is_empty() {
            return Err(Error::corrupt("a half-done join in state has no rows").into());
        }
        let mut sides = Vec::with_capacity(2);
        for ((builder, parts), types) in builders.into_iter().zip(parts).zip(types) {
            let fields: Vec<Field> =
                types.iter().enumerate().map(|(i, ty)| Field::new(format!("c{i}"), ty.to_arrow(), true)).collect();
            let mut rows = Rows::new(
                Arc::new(Schema::new(fields)),
                builder.finish()?,
                vec![pos; parts.len()],
                parts.iter().map(|p| p.0).collect(),
                parts.iter().map(|p| p.1).collect(),
            )?;
            if parts.iter().any(|p| p.2) {
                rows.null = Some(BooleanBuffer::collect_bool(parts.len(), |i| parts[i].2));
            }
            if parts.iter().any(|p| p.3.is_some()) {
                let bounds: Vec<(i64, i64)> = parts.iter().map(|p| p.3.unwrap_or((0, 0))).collect();
                let part = |f: &dyn Fn(&(i64, i64)) -> i64| bounds.iter().map(f).collect::<Vec<i64>>().into();
                rows.window = Some((part(&|b| b.0), part(&|b| b.1)));
            }
            sides.push(rows);
        }
        let sides = <[Rows; 2]>::try_from(sides).map_err(|_| Error::bug("a join has two sides"))?;
        Ok((begun, sides, order))
    }

    /// Bounds at the end of a windowed key's cells, before the number.
    fn window_of_key(&self, rest: &[u8]) -> Option<(i64, i64)> {
        let mut tail = rest.get(rest.len().checked_sub(24)?..)?;
        Some((take_key_i64(&mut tail).ok()?, take_key_i64(&mut tail).ok()?))
    }
}

fn left_over_bytes(left: &LeftOver, sides: &[Rows; 2], values: &[Vec<Cells<'_>>; 2]) -> Vec<u8> {
    let Begun { number, newest_other, flush, matched, after } = left.begun;
    let mut out = vec![HALF_DONE_VERSION];
    put_varint(&mut out, number);
    put_varint(&mut out, newest_other);
    out.extend([u8::from(flush), u8::from(matched), u8::from(after.is_some())]);
    let (time, number) = after.unwrap_or((0, 0));
    put_varint(&mut out, time);
    put_varint(&mut out, number);
    put_varint(&mut out, left.rows.len() as i64);
    let mut value = Vec::new();
    for &(side, row) in &left.rows {
        let rows = &sides[side];
        let window = rows.window_of(row);
        let (start, end) = window.unwrap_or((0, 0));
        out.push(side as u8);
        put_varint(&mut out, i64::from(rows.partition[row]));
        put_varint(&mut out, rows.time[row]);
        out.extend([u8::from(rows.is_null(row)), u8::from(window.is_some())]);
        put_varint(&mut out, start);
        put_varint(&mut out, end);
        value.clear();
        put_row(&values[side], row, rows.time[row], &mut value);
        put_bytes(&value, &mut out);
    }
    out
}
