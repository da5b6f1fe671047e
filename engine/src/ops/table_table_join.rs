//! Two tables joined by their primary keys. Both sides' changes give changes of the result.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use millpond_sql::plan::JoinKind;

use super::joined::{Joined, NONE, Pair, with_stored};
use super::key::{key_cells, state_keys};
use super::{Evaluation, Failure, OpResult, Operator, Prepared, merge_inputs};
use crate::rows::{OldRows, OldState, Rows};
use crate::state::cells::Cells;
use crate::state::key::KeySpace;
use crate::state::points::EntryId;
use crate::state::row::{RowsBuilder, put_row, take_time};
use crate::state::view::Wants;

pub struct TableTableJoin {
    pub id: String,
    pub kind: JoinKind,
    pub keys: usize,
    pub joined: Joined,
    /// Whether somebody above looks at old values.
    pub old: bool,
    pub left: KeySpace,
    pub right: KeySpace,
}

/// What becomes of one change.
struct Emit {
    input: usize,
    row: u32,
    time: i64,
    /// `None`: a delete; the pair then names the row that has the key.
    now: Option<Pair>,
    before: Option<Pair>,
    before_time: i64,
}

impl TableTableJoin {
    /// Whether there is a joined row of these sides.
    fn gives(&self, left: bool, right: bool) -> bool {
        match self.kind {
            JoinKind::Inner => left && right,
            JoinKind::Left => left,
            JoinKind::Right => right,
            JoinKind::Full => left || right,
        }
    }

    /// Whether a change says anything: `own` is the side that changes, before and after.
    fn speaks(&self, input: usize, own_before: bool, own_now: bool, other: bool) -> bool {
        // The side whose presence decides.
        let preserved = |input: usize| match self.kind {
            JoinKind::Inner => false,
            JoinKind::Left => input == 0,
            JoinKind::Right => input == 1,
            JoinKind::Full => true,
        };
        other || (preserved(input) && (own_before || own_now))
    }
}

impl Operator for TableTableJoin {
    fn id(&self) -> &str {
        &self.id
    }

    fn is_partitioned(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, inputs: Vec<Rows>, _cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        let (left, right) = super::both(inputs)?;
        let sides = [left, right];
        let cells = [
            key_cells(&sides[0], &sides[0].columns()[..self.keys])?,
            key_cells(&sides[1], &sides[1].columns()[..self.keys])?,
        ];
        let spaces = [&self.left, &self.right];
        let own = [0, 1].map(|i| state_keys(spaces[i], &sides[i], &cells[i]));
        let other = [0, 1].map(|i| state_keys(spaces[1 - i], &sides[i], &cells[i]));
        let mut wants = Wants::default();
        for keys in [&own[0], &own[1], &other[0], &other[1]] {
            wants.keys.append(keys);
        }
        let work = move |cx: &mut super::Context<'_, '_>, ids: &[EntryId]| {
            let (own, other) = ids.split_at(ids.len() / 2);
            let at = |input: usize, row: usize| if input == 0 { row } else { sides[0].len() + row };
            let values = [Cells::of(sides[0].columns())?, Cells::of(sides[1].columns())?];
            let mut stored = [RowsBuilder::new(&self.joined.left), RowsBuilder::new(&self.joined.right)];
            let live = [sides[0].len() as u32, sides[1].len() as u32];
            let mut emits: Vec<Emit> = Vec::new();
            let (mut joined, most) = (0, cx.emit_bytes_max());
            merge_inputs(&sides[0].pos, &sides[1].pos, |input, row| {
                let (mine, theirs) = (input, 1 - input);
                let rows = &sides[input];
                let (id, their_id) = (own[at(input, row)], other[at(input, row)]);
                let before: Option<Vec<u8>> = cx.view.points.value(id).map(<[u8]>::to_vec);
                let there: Option<Vec<u8>> = cx.view.points.value(their_id).map(<[u8]>::to_vec);
                let now = !rows.is_null(row);
                if now {
                    let mut value = Vec::new();
                    put_row(&values[input], row, rows.time[row], &mut value);
                    cx.view.points.put(id, value);
                } else if before.is_some() {
                    cx.view.points.delete(id);
                }
                if !self.speaks(mine, before.is_some(), now, there.is_some()) {
                    return Ok(());
                }
                let mut time = rows.time[row];
                // The same large row may be met again and again.
                if joined > most && rows.pos[row] > 0 {
                    return Err(Failure::cut(rows.pos[row]));
                }
                let mut index = |side: usize, bytes: &[u8]| -> OpResult<u32> {
                    joined += bytes.len();
                    stored[side].append(bytes)?;
                    Ok(live[side] + stored[side].len() as u32 - 1)
                };
                let mut before_time = match &before {
                    Some(bytes) => take_time(&mut &bytes[..])?,
                    None => i64::MIN,
                };
                let their_row = match &there {
                    Some(bytes) => {
                        let their_time = take_time(&mut &bytes[..])?;
                        time = time.max(their_time);
                        before_time = before_time.max(their_time);
                        index(theirs, bytes)?
                    }
                    None => NONE,
                };
                let pair = |own: u32| if mine == 0 { (own, their_row) } else { (their_row, own) };
                let present = |own: bool| if mine == 0 { (own, there.is_some()) } else { (there.is_some(), own) };
                let (l, r) = present(now);
                let joined_now = self.gives(l, r).then(|| pair(if now { row as u32 } else { NONE }));
                let (l, r) = present(before.is_some());
                let joined_before = match (&before, self.old && self.gives(l, r)) {
                    (Some(bytes), true) => Some(pair(index(mine, bytes)?)),
                    (None, true) => Some(pair(NONE)),
                    _ => None,
                };
                emits.push(Emit { input, row: row as u32, time, now: joined_now, before: joined_before, before_time });
                Ok(())
            })?;
            let [stored_left, stored_right] = stored;
            let columns = [
                with_stored(sides[0].columns(), &stored_left.finish()?)?,
                with_stored(sides[1].columns(), &stored_right.finish()?)?,
            ];
            self.emit(&sides, &columns, &emits).map(Into::into)
        };
        Ok(Prepared { wants, work: Box::new(work) })
    }
}

impl TableTableJoin {
    fn emit(&self, sides: &[Rows; 2], columns: &[Vec<ArrayRef>; 2], emits: &[Emit]) -> OpResult<Rows> {
        let of = |e: &Emit| (&sides[e.input], e.row as usize);
        let times: Vec<i64> = emits.iter().map(|e| e.time).collect();
        // A delete has the key of the row that caused it and nothing else.
        let key_pair = |e: &Emit| if e.input == 0 { (e.row, NONE) } else { (NONE, e.row) };
        let build = |pairs: &[Pair], gone: &[bool], times: &[i64]| -> OpResult<Vec<ArrayRef>> {
            let built = self.joined.build(&columns[0], &columns[1], pairs, times)?;
            blank(built, self.keys, gone).map_err(Into::into)
        };
        let gone: Vec<bool> = emits.iter().map(|e| e.now.is_none()).collect();
        let now: Vec<Pair> = emits.iter().map(|e| e.now.unwrap_or_else(|| key_pair(e))).collect();
        let mut out = Rows::new(
            self.joined.schema.clone(),
            build(&now, &gone, &times)?,
            emits.iter().map(|e| of(e).0.pos[of(e).1]).collect(),
            emits.iter().map(|e| of(e).0.partition[of(e).1]).collect(),
            times.clone(),
        )?;
        out.null = Some(BooleanBuffer::from(gone));
        if sides.iter().any(|s| s.window.is_some()) {
            let bounds: Vec<(i64, i64)> = emits.iter().map(|e| of(e).0.window_of(of(e).1).unwrap_or((0, 0))).collect();
            let part = |f: &dyn Fn(&(i64, i64)) -> i64| bounds.iter().map(f).collect::<Vec<i64>>().into();
            out.window = Some((part(&|b| b.0), part(&|b| b.1)));
        }
        if self.old {
            let absent: Vec<bool> = emits.iter().map(|e| e.before.is_none()).collect();
            let before: Vec<Pair> = emits.iter().map(|e| e.before.unwrap_or_else(|| key_pair(e))).collect();
            let state = absent.iter().map(|a| if *a { OldState::Absent } else { OldState::Known }).collect();
            let times: Vec<i64> = emits.iter().map(|e| e.before_time).collect();
            out.old = Some(OldRows { state, columns: build(&before, &absent, &times)?, time: times.into() });
        }
        Ok(out)
    }
}

/// NULL in all columns but the keys where a row is gone.
pub fn blank(columns: Vec<ArrayRef>, keys: usize, gone: &[bool]) -> millpond_types::Result<Vec<ArrayRef>> {
    if !gone.contains(&true) {
        return Ok(columns);
    }
    let at: UInt32Array = gone.iter().enumerate().map(|(i, gone)| (!gone).then_some(i as u32)).collect();
    columns
        .into_iter()
        .enumerate()
        .map(|(i, c)| if i < keys { Ok(c) } else { arrow::compute::take(&c, &at, None).map_err(crate::rows::defect) })
        .collect()
}
