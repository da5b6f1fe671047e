//! Two streams joined within a time window.
//!
//! A row is kept, then meets the kept rows of the other side whose times are in its window, in order of time and
//! arrival. Under an outer join a row without a match is emitted with NULLs: at once where the statement has no GRACE
//! (as ksqlDB has it), else when its window and the grace are over.
//!
//! Invariants: one stream time for both sides; a kept row is visible while it is within the retention of its side's
//! newest row.

use arrow::array::ArrayRef;
use bytes::Bytes;
use millpond_sql::plan::JoinKind;
use millpond_types::{PartitionId, Result};

use super::joined::{Joined, NONE, Pair, with_stored};
use super::key::{Strings, key_cells};
use super::times::{NO_TIME, Times};
use super::{Context, Emitted, Evaluation, Failure, LineKind, OpResult, Operator, Prepared, any_null, merge_inputs};
use crate::rows::Rows;
use crate::state::cells::{Cells, put_key_i64, take_key_i64, take_u8};
use crate::state::key::KeySpace;
use crate::state::row::{RowsBuilder, put_row, take_time};
use crate::state::view::Wants;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const SEGMENT_MIN_MS: i64 = 60_000;
/// Most kept rows that one row is joined with.
const MATCHES_MAX: usize = 1_000_000;

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
    joined: Joined,
    rows: KeySpace,
    waiting: KeySpace,
    times: KeySpace,
}

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

    /// Kept rows of a side with this key and a time in the range: time, number, row.
    fn kept(
        &self,
        partition: PartitionId,
        side: usize,
        cells: &[u8],
        [from, to]: [i64; 2],
        cx: &mut Context<'_, '_>,
    ) -> Result<Vec<(i64, i64, Bytes)>> {
        let mut found = Vec::new();
        if from > to {
            return Ok(found);
        }
        for segment in from.div_euclid(self.segment_ms)..=to.div_euclid(self.segment_ms) {
            let start = segment.saturating_mul(self.segment_ms);
            let last = start.saturating_add(self.segment_ms - 1);
            let low = self.row_key(partition, side, cells, from.max(start));
            let high = self.row_key(partition, side, cells, to.min(last));
            // Behind the last row of that time, whatever its number.
            let high = [high.as_slice(), &[0xff; 9]].concat();
            for (key, row) in cx.view.range(&low, &high, MATCHES_MAX)? {
                let mut tail = &key[key.len().saturating_sub(16)..];
                found.push((take_key_i64(&mut tail)?, take_key_i64(&mut tail)?, row));
            }
        }
        Ok(found)
    }
}

/// What a batch has joined so far.
struct Output {
    stored: [RowsBuilder; 2],
    live: [u32; 2],
    emits: Vec<Emit>,
}

impl Output {
    fn stored(&mut self, side: usize, row: &[u8]) -> Result<u32> {
        self.stored[side].append(row)?;
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

    fn prepare<'a>(&'a self, inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let (left, right) = super::both(inputs)?;
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
        Ok(Prepared { wants, work: Box::new(move |cx, _| self.join(&sides, &cells, cx)) })
    }
}

impl StreamStreamJoin {
    fn join(&self, sides: &[Rows; 2], cells: &[Strings; 2], cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        let values = [Cells::of(sides[0].columns())?, Cells::of(sides[1].columns())?];
        let mut out = Output {
            stored: [RowsBuilder::new(&self.joined.left), RowsBuilder::new(&self.joined.right)],
            live: [sides[0].len() as u32, sides[1].len() as u32],
            emits: Vec::new(),
        };
        let mut times = Times::<7>::new(&self.times);
        merge_inputs(&sides[0].pos, &sides[1].pos, |side, row| {
            self.row(side, row, &sides[side], &cells[side], &values[side], &mut times, &mut out, cx)
        })?;
        times.store(cx.view)?;
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
        Ok(rows.into())
    }

    #[allow(clippy::too_many_arguments)]
    fn row(
        &self,
        side: usize,
        row: usize,
        rows: &Rows,
        cells: &Strings,
        values: &[Cells<'_>],
        times: &mut Times<'_, 7>,
        out: &mut Output,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<()> {
        let (pos, partition, time) = (rows.pos[row], rows.partition[row], rows.time[row]);
        let window = rows.window_of(row);
        let stream_time = times.advance(partition, time, cx.view)?;
        if rows.is_null(row) {
            cx.notes.push(pos, LineKind::Skipped, || "a row to join has no value".to_string());
            return Ok(());
        }
        let alone = |own: u32| Emit { pos, partition, time, window, pair: pair(side, own, NONE) };
        if any_null(&rows.columns()[..self.keys], row) {
            if self.outer[side] {
                out.emits.push(alone(row as u32));
            } else {
                cx.notes.push(pos, LineKind::Skipped, || "a row to join has no key".to_string());
            }
            return Ok(());
        }
        let key = cells.get(row);
        let numbers = times.get(partition, cx.view)?;
        numbers[NUMBER] = numbers[NUMBER].max(0) + 1;
        let number = numbers[NUMBER];
        numbers[NEWEST[side]] = numbers[NEWEST[side]].max(time);
        let oldest = numbers[NEWEST[side]].saturating_sub(self.retention_ms);
        let newest_other = numbers[NEWEST[1 - side]];
        let mut value = Vec::new();
        put_row(values, row, time, &mut value);
        if time > oldest {
            let mut whole = self.row_key(partition, side, key, time);
            put_key_i64(number, &mut whole);
            cx.view.put(&whole, value.clone());
        }
        self.expire(partition, side, times, cx)?;
        if let Some(grace) = self.grace_ms
            && time == stream_time
            && (self.outer[0] || self.outer[1])
        {
            self.flush(partition, stream_time, grace, pos, times, out, cx)?;
        }

        let mut matched = false;
        if newest_other != NO_TIME {
            let [back, ahead] = self.bounds[side];
            let visible = newest_other.saturating_sub(self.retention_ms).saturating_add(1);
            let range = [time.saturating_sub(back).max(visible), time.saturating_add(ahead)];
            let range = [range[0], range[1].min(newest_other)];
            for (other_time, other_number, other) in self.kept(partition, 1 - side, key, range, cx)? {
                matched = true;
                if out.emits.len() >= cx.config.emit_rows_max && pos > 0 {
                    return Err(Failure::cut(pos));
                }
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
        }
        if matched || !self.outer[side] {
            return Ok(());
        }
        match self.grace_ms {
            Some(_) if time.saturating_add(self.bounds[side][1]) >= stream_time => {
                cx.view.put(&self.waiting_key(partition, side, key, time, number), value);
            }
            _ => out.emits.push(alone(row as u32)),
        }
        Ok(())
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

    /// Emits the waiting rows whose window and grace are over.
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
    ) -> OpResult<()> {
        // Under quirks the flush is throttled by a wall clock that test cases do not move: it happens once.
        if cx.config.quirks && times.get(partition, cx.view)?[FLUSHED] > 0 {
            return Ok(());
        }
        let due = |side: usize| stream_time.saturating_sub(self.bounds[side][1]).saturating_sub(grace);
        let from = self.waiting.partition_prefix(partition);
        let mut to = from.clone();
        put_key_i64(due(0).max(due(1)), &mut to);
        for (key, row) in cx.view.range(&from, &to, MATCHES_MAX)? {
            let mut rest = self.waiting.rest(&key);
            let time = take_key_i64(&mut rest)?;
            let side = usize::from(take_u8(&mut rest)? != 0);
            if time >= due(side) {
                continue;
            }
            let window = self.window_of_key(rest);
            let index = out.stored(side, &row)?;
            let time = take_time(&mut &row[..])?;
            out.emits.push(Emit { pos, partition, time, window, pair: pair(side, index, NONE) });
            cx.view.delete(&key);
            times.get(partition, cx.view)?[FLUSHED] = 1;
        }
        Ok(())
    }

    /// Bounds at the end of a windowed key's cells, before the number.
    fn window_of_key(&self, rest: &[u8]) -> Option<(i64, i64)> {
        let mut tail = rest.get(rest.len().checked_sub(24)?..)?;
        Some((take_key_i64(&mut tail).ok()?, take_key_i64(&mut tail).ok()?))
    }
}
