//! One pass over a large step on several threads.
//!
//! Runs of rows that nothing is kept for (decode, filters, projections, the evaluation of groups, the encoding of
//! results) are cut by rows; what keeps state is cut by partition, each part with its own shard of the state.
//!
//! Not here: how many threads there are (`crew`), whether a step is large enough (`query`).
//! Invariants: results are those of a pass on one thread, in the same order; all rows of one `pos` are in one part, so
//! that parts merged by `pos` are in order; where that cannot be, an operator works on all rows at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use millpond_types::{Error, ErrorKind, Result};

use super::{Pending, Pipeline, Stage};
use crate::crew::Share;
use crate::expr::EvalContext;
use crate::ops::{Context, Evaluation, Failure, Notes, OpResult, Operator};
use crate::query::{QuerySettings, caught};
use crate::rows::Rows;
use crate::source::{Greatest, Input, LogReader};
use crate::state::shards::shard_of;
use crate::state::view::View;

/// Parts for each thread, so that none waits long for another.
const PARTS_PER_THREAD: usize = 4;

/// The input of a pass.
pub struct Feed<'a> {
    pub reader: &'a LogReader,
    pub input: &'a Input,
    /// So many of its first rows.
    pub rows: usize,
    /// Set where a part of it cannot be worked on without what is before it: the pass is to be made on one thread.
    pub in_order: AtomicBool,
}

/// What became of rows, in parts.
pub struct Flow<T> {
    pub parts: Vec<T>,
    /// The parts follow each other by `pos`; else they are to be merged by it.
    pub in_order: bool,
}

pub struct Pass<'p, 'c, 'v> {
    pub pipeline: &'p Pipeline,
    pub feed: &'p Feed<'p>,
    pub share: &'p Share<'p>,
    pub cx: &'p mut Context<'c, 'v>,
    pub pending: Vec<Pending>,
}

/// What a job may use.
struct Task<'a, 'v> {
    eval: &'a mut EvalContext,
    notes: Notes,
    pending: Vec<Pending>,
    view: View<'v>,
    config: &'a QuerySettings,
}

impl Task<'_, '_> {
    /// Passes rows through operators that keep nothing.
    fn through(&mut self, chain: &[&Stage], mut rows: Rows) -> OpResult<Rows> {
        for stage in chain {
            if let Stage::Op { op, schema, .. } = stage {
                rows = self.work(op.as_ref(), vec![rows], schema)?;
            }
        }
        Ok(rows)
    }

    fn work(&mut self, op: &dyn Operator, rows: Vec<Rows>, schema: &arrow::datatypes::SchemaRef) -> OpResult<Rows> {
        let mut cx = Context {
            view: &mut self.view,
            eval: &mut *self.eval,
            notes: &mut self.notes,
            config: self.config,
            alone: false,
        };
        super::work(op, rows, schema, true, &mut self.pending, &mut cx)
    }

    fn evaluation(&mut self) -> Evaluation<'_> {
        Evaluation { eval: &mut *self.eval, notes: &mut self.notes, config: self.config }
    }
}

/// What is made of the rows at the end of a run.
type After<'a, T> = &'a (dyn Fn(Rows, &mut Evaluation<'_>) -> OpResult<T> + Sync);

impl<'p> Pass<'p, '_, '_> {
    /// Passes the input through the plan.
    pub fn run<T: Send>(&mut self, after: After<'_, T>) -> OpResult<Flow<T>> {
        let pipeline = self.pipeline;
        self.stage(&pipeline.root, after)
    }

    fn stage<T: Send>(&mut self, stage: &'p Stage, after: After<'_, T>) -> OpResult<Flow<T>> {
        let mut chain = Vec::new();
        let mut below = stage;
        while let Stage::Op { op, inputs, .. } = below
            && op.is_stateless()
            && let [input] = &inputs[..]
        {
            chain.push(below);
            below = input;
        }
        chain.reverse();
        match below {
            Stage::Source(index) => self.source(*index, &chain, after),
            Stage::Op { op, inputs, .. } => self.operator(below, op.as_ref(), inputs, &chain, after),
        }
    }

    fn source<T: Send>(&mut self, index: usize, chain: &[&Stage], after: After<'_, T>) -> OpResult<Flow<T>> {
        let source = self.pipeline.sources.get(index).ok_or_else(|| Error::bug("a plan has no such source"))?;
        let feed = self.feed;
        let ranges = self.ranges(feed.rows, |_| true);
        let done = self.each(ranges, |range: Range<usize>, task| {
            let mut greatest = Greatest::OfPart { greatest: BTreeMap::new(), before: &feed.in_order };
            let rows = source.rows(feed.reader, feed.input, range, &mut greatest, &mut task.notes, task.config)?;
            let rows = task.through(chain, rows)?;
            let made = after(rows, &mut task.evaluation())?;
            let Greatest::OfPart { greatest, .. } = greatest else { return Err(Error::bug("other times").into()) };
            Ok((made, greatest))
        })?;
        let (parts, greatest): (Vec<T>, Vec<_>) = done.into_iter().unzip();
        if source.has_times() {
            source.keep_greatest(&greatest, self.cx.view)?;
        }
        Ok(Flow { parts, in_order: true })
    }

    fn operator<T: Send>(
        &mut self,
        stage: &'p Stage,
        op: &'p dyn Operator,
        inputs: &'p [Stage],
        chain: &[&Stage],
        after: After<'_, T>,
    ) -> OpResult<Flow<T>> {
        let mut flows = Vec::with_capacity(inputs.len());
        for input in inputs {
            let mut flow = self.stage(input, &|rows, cx| op.exchange(rows, cx))?;
            flow.parts.retain(|rows| !rows.is_empty());
            flows.push(flow);
        }
        if flows.iter().all(|flow| flow.parts.is_empty()) {
            return Ok(Flow { parts: Vec::new(), in_order: true });
        }
        let schema = self.pipeline.schema_of(stage);
        let empty: Vec<Rows> = inputs.iter().map(|input| Rows::empty(self.pipeline.schema_of(input))).collect();
        let shards = self.cx.view.points.count();
        if op.is_partitioned() && shards > 1 && separate(&flows, shards, self.feed.rows) {
            let picks: Vec<Vec<Vec<(usize, usize)>>> = flows.iter().map(|flow| flow.by_shard(shards)).collect();
            let config = self.cx.config;
            let items: Vec<(usize, View<'_>)> = self.cx.view.split().into_iter().enumerate().collect();
            let share = self.share;
            let seed = self.cx.eval.seed();
            let job = |(shard, view): (usize, View<'_>), eval: &mut EvalContext| {
                let mut task = Task { eval, notes: Notes::default(), pending: Vec::new(), view, config };
                let mut rows = Vec::with_capacity(flows.len());
                for ((flow, picks), empty) in flows.iter().zip(&picks).zip(&empty) {
                    rows.push(if picks[shard].is_empty() { empty.clone() } else { flow.take(&picks[shard])? });
                }
                let made = if rows.iter().all(Rows::is_empty) {
                    None
                } else {
                    let rows = task.work(op, rows, &schema)?;
                    let rows = task.through(chain, rows)?;
                    Some(after(rows, &mut task.evaluation())?)
                };
                Ok((made, task.notes, task.pending, task.view.into_delta()))
            };
            let done = share.spread(
                items,
                &mut *self.cx.eval,
                |thread| seed.context(thread),
                |eval, item| caught(|| job(item, eval)),
            );
            let mut parts = Vec::with_capacity(shards);
            for (made, notes, pending, delta) in all(done)? {
                parts.extend(made);
                self.cx.notes.append(notes);
                self.pending.extend(pending);
                self.cx.view.absorb(delta)?;
            }
            return Ok(Flow { parts, in_order: false });
        }
        let mut rows = Vec::with_capacity(flows.len());
        for (flow, empty) in flows.iter().zip(empty) {
            rows.push(if flow.parts.is_empty() { empty } else { flow.take(&flow.order())? });
        }
        drop(flows);
        let rows = super::work(op, rows, &schema, true, &mut self.pending, self.cx)?;
        // Rows of one input row stay together.
        let ranges = self.ranges(rows.len(), |row| rows.pos[row] != rows.pos[row - 1]);
        let parts = self.each(ranges, |range: Range<usize>, task| {
            let rows = task.through(chain, rows.slice(range.start, range.len()))?;
            after(rows, &mut task.evaluation())
        })?;
        Ok(Flow { parts, in_order: true })
    }

    /// Cuts so many rows into parts, at rows that may be the first of one.
    fn ranges(&self, rows: usize, first: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
        let parts = (self.share.threads() + 1) * PARTS_PER_THREAD;
        let length = rows.div_ceil(parts).max(self.cx.config.task_rows_min).max(1);
        let mut ranges = Vec::new();
        let mut start = 0;
        while start < rows {
            let mut end = (start + length).min(rows);
            while end < rows && !first(end) {
                end += 1;
            }
            ranges.push(start..end);
            start = end;
        }
        ranges
    }

    /// A job that looks at no state, for each item.
    fn each<I: Send, T: Send>(
        &mut self,
        items: Vec<I>,
        job: impl Fn(I, &mut Task<'_, '_>) -> OpResult<T> + Sync,
    ) -> OpResult<Vec<T>> {
        let config = self.cx.config;
        let blank = self.cx.view.blank();
        let seed = self.cx.eval.seed();
        let done = self.share.spread(
            items,
            &mut *self.cx.eval,
            |thread| seed.context(thread),
            |eval, item| {
                caught(|| {
                    let mut task =
                        Task { eval, notes: Notes::default(), pending: Vec::new(), view: blank.view(), config };
                    let made = job(item, &mut task)?;
                    Ok((made, task.notes, task.pending))
                })
            },
        );
        let mut parts = Vec::with_capacity(done.len());
        for (made, notes, pending) in all(done)? {
            parts.push(made);
            self.cx.notes.append(notes);
            self.pending.extend(pending);
        }
        Ok(parts)
    }
}

/// The results of all tasks, or what the step does about those that failed: what may pass is tried again, what names no
/// row halves the step, else the first row that failed counts.
fn all<T>(done: Vec<Option<OpResult<T>>>) -> OpResult<Vec<T>> {
    let mut made = Vec::with_capacity(done.len());
    let mut failure: Option<Failure> = None;
    for result in done {
        match result.unwrap_or_else(|| Err(Error::bug("a task of a step ended without a result").into())) {
            Ok(part) => made.push(part),
            Err(other) => {
                let rank = |f: &Failure| (f.error.kind() != ErrorKind::Retry, f.pos);
                if failure.as_ref().is_none_or(|first| rank(&other) < rank(first)) {
                    failure = Some(other);
                }
            }
        }
    }
    match failure {
        None => Ok(made),
        Some(failure) => Err(failure),
    }
}

/// Whether all rows of one input row are in the same shard.
fn separate(flows: &[Flow<Rows>], shards: usize, rows: usize) -> bool {
    let mut of: Vec<Option<u8>> = vec![None; rows];
    flows.iter().flat_map(|flow| &flow.parts).all(|part| {
        part.pos.iter().zip(part.partition.iter()).all(|(pos, partition)| {
            let shard = shard_of(*partition, shards) as u8;
            of.get_mut(*pos as usize).is_some_and(|of| *of.get_or_insert(shard) == shard)
        })
    })
}

impl Flow<Rows> {
    /// All rows in their order: part and row.
    pub fn order(&self) -> Vec<(usize, usize)> {
        let each = |(part, rows): (usize, &Rows)| (0..rows.len()).map(move |row| (part, row)).collect::<Vec<_>>();
        let mut order: Vec<(usize, usize)> = self.parts.iter().enumerate().flat_map(each).collect();
        if !self.in_order {
            // Rows of one `pos` are in one part, in their order.
            order.sort_by_key(|(part, row)| self.parts[*part].pos[*row]);
        }
        order
    }

    /// The same, by the shard of their partitions.
    fn by_shard(&self, shards: usize) -> Vec<Vec<(usize, usize)>> {
        let mut picks = vec![Vec::new(); shards];
        // Parts of tasks that had the same partitions are what each shard needs.
        let aligned = |(part, rows): (usize, &Rows)| {
            let shard = shard_of(*rows.partition.first()?, shards);
            let same = rows.partition.iter().all(|partition| shard_of(*partition, shards) == shard);
            same.then_some((part, shard))
        };
        if !self.in_order
            && let Some(pairs) = self.parts.iter().enumerate().map(aligned).collect::<Option<Vec<_>>>()
            && pairs.iter().map(|(_, shard)| shard).collect::<BTreeSet<_>>().len() == pairs.len()
        {
            for (part, shard) in pairs {
                picks[shard] = (0..self.parts[part].len()).map(|row| (part, row)).collect();
            }
            return picks;
        }
        for (part, row) in self.order() {
            picks[shard_of(self.parts[part].partition[row], shards)].push((part, row));
        }
        picks
    }

    /// Rows by part and row.
    pub fn take(&self, at: &[(usize, usize)]) -> Result<Rows> {
        let parts: Vec<&Rows> = self.parts.iter().collect();
        Rows::interleave(&parts, at)
    }
}
