//! A step's result on its way to where the query writes: as a whole, or in the parts that tasks made.

use arrow::array::BooleanArray;
use millpond_formats::Encoded;
use millpond_sql::plan::Relation;

use super::{Attempt, Sinks};
use crate::ops::{Notes, OpResult};
use crate::rows::Rows;
use crate::sink::{Placed, ResultRows, ResultWrites, coalesce};
use crate::state::view::View;
use crate::step::Pending;
use crate::step::tasks::Flow;

pub(super) struct RowSink<'a> {
    pub(super) sinks: &'a Sinks,
    pub(super) relation: Relation,
    pub(super) keys: usize,
    pub(super) coalesce: bool,
}

impl RowSink<'_> {
    pub(super) fn write<'h>(
        &self,
        rows: Rows,
        headers: &dyn Fn(u32) -> &'h [u8],
        pending: Vec<Pending>,
        mut view: View<'_>,
        mut notes: Notes,
    ) -> OpResult<Attempt> {
        let rows = if self.coalesce && self.keys > 0 && rows.len() > 1 { coalesce(&rows, self.keys)? } else { rows };
        let rows_out = rows.len() as u64;
        let (mut appends, mut client) = (Vec::new(), None);
        if !rows.is_empty() {
            match self.sinks {
                Sinks::Topic { topic, result } => {
                    let placed = topic.place(&rows)?;
                    appends = topic.write(&rows, &placed, headers, &mut notes)?;
                    if let Some(result) = result {
                        result.write(&rows, &placed.partition, &mut view)?;
                    }
                }
                Sinks::State(result, topic) => {
                    let placed = topic.place(&rows)?;
                    result.write(&rows, &placed.partition, &mut view)?;
                }
                Sinks::Client { .. } => {
                    // A stream's record without a value is nothing that a client could be shown.
                    let rows = match (&rows.null, self.relation) {
                        (Some(null), Relation::Stream) => rows.filter(&BooleanArray::new(!null, None))?,
                        _ => rows,
                    };
                    client = Some(ResultRows::of(&rows, self.relation));
                }
            }
        }
        Ok(Attempt::new(view, appends, client, notes, rows_out, pending))
    }

    /// Serialises a part of the result, where the parts need not be looked at together.
    pub(super) fn part(&self, rows: Rows) -> OpResult<SinkPart> {
        if rows.is_empty() || self.coalesce && self.keys > 0 {
            return Ok(SinkPart { rows, made: None });
        }
        let (topic, result, records) = match self.sinks {
            Sinks::Topic { topic, result } => (topic, result.as_ref(), true),
            Sinks::State(result, topic) => (topic, Some(result), false),
            Sinks::Client { .. } => return Ok(SinkPart { rows, made: None }),
        };
        let placed = topic.place(&rows)?;
        let values = if records { Some(topic.values(&rows)?) } else { None };
        let mut writes = ResultWrites::default();
        if let Some(result) = result {
            result.put(&rows, &placed.partition, &mut writes)?;
        }
        Ok(SinkPart { rows, made: Some(Made { placed, values, writes }) })
    }

    /// As `write`, of parts. A table's rows of one key are in one part, or the parts are in order.
    pub(super) fn write_parts<'h>(
        &self,
        flow: Flow<SinkPart>,
        headers: &dyn Fn(u32) -> &'h [u8],
        pending: Vec<Pending>,
        mut view: View<'_>,
        mut notes: Notes,
    ) -> OpResult<Attempt> {
        let Flow { parts, in_order } = flow;
        let (mut rows, mut made) = (Vec::new(), Vec::new());
        for part in parts.into_iter().filter(|part| !part.rows.is_empty()) {
            rows.push(part.rows);
            made.extend(part.made);
        }
        let rows = Flow { parts: rows, in_order };
        if made.len() < rows.parts.len() {
            let all = rows.take(&rows.order())?;
            return self.write(all, headers, pending, view, notes);
        }
        let rows_out = rows.parts.iter().map(Rows::len).sum::<usize>() as u64;
        let mut appends = Vec::new();
        if let Sinks::Topic { topic, .. } = self.sinks {
            let mut records = topic.records();
            for (part, row) in rows.order() {
                if let Made { placed, values: Some(values), .. } = &made[part] {
                    records.push(&rows.parts[part], placed, values, row, headers, &mut notes)?;
                }
            }
            appends = records.finish();
        }
        if let Sinks::Topic { result: Some(result), .. } | Sinks::State(result, _) = self.sinks {
            let writes: Vec<ResultWrites> = made.into_iter().map(|made| made.writes).collect();
            result.keep(&writes, &mut view)?;
        }
        Ok(Attempt::new(view, appends, None, notes, rows_out, pending))
    }
}

/// A part of a result.
pub(super) struct SinkPart {
    rows: Rows,
    made: Option<Made>,
}

/// What is written of a part.
struct Made {
    placed: Placed,
    /// Where there are records.
    values: Option<Encoded>,
    writes: ResultWrites,
}
