//! Operators: how rows become rows, over a view of state.
//!
//! An operator is a pure function of its inputs and its state. It works in two halves: `prepare` evaluates what it needs
//! of its rows and names the entries of state it will look at; the driver fetches them in one read; `work` computes the
//! outputs and writes to the view. Nothing of a batch outlives `work`.
//!
//! Not here: reading sources, writing sinks, deciding where a step ends (`step`).
//! Invariants: outputs inherit `pos` and come in its order; several inputs are merged by (`pos`, input); what an
//! operator does to a row depends on the rows before it and on state alone, never on where a batch begins or ends.

pub mod aggregate;
pub mod filter;
pub mod flat_map;
pub mod foreign_key_join;
pub mod joined;
pub mod key;
pub mod materialise;
pub mod project;
pub mod rekey;
pub mod stream_stream_join;
pub mod stream_table_join;
pub mod table_table_join;
pub mod times;
pub mod window;

use arrow::array::ArrayRef;
use millpond_types::Error;

use crate::expr::EvalContext;
use crate::processing_log::{LINES_PER_STEP_MAX, LineKind};
use crate::query::QuerySettings;
use crate::rows::Rows;
use crate::state::points::EntryId;
use crate::state::view::{View, Wants};

pub type OpResult<T> = std::result::Result<T, Failure>;

/// Why a step cannot go on, and at which of its input rows, where that is known.
#[derive(Clone, Debug)]
pub struct Failure {
    pub pos: Option<u32>,
    pub error: Error,
}

impl Failure {
    /// The outputs so far fill a step: the rows before this one are a step by themselves. Not for the first row.
    pub fn cut(pos: u32) -> Self {
        Self::at(pos, Error::bug("a row that should have been left for the next step was not"))
    }

    /// So many rows give or look at too much at a time: half of them are tried. Not where `Context::alone` is set.
    pub fn too_much(what: &str, bytes_max: usize) -> Self {
        Error::bad_request(format!("the step {what} more than {bytes_max} bytes")).into()
    }

    pub fn at(pos: u32, error: Error) -> Self {
        Self { pos: Some(pos), error }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { pos: None, error }
    }
}

/// What an operator made of its inputs.
pub struct Emitted {
    pub rows: Rows,
    /// Set where a row's outputs were too many for one step; the row is the last one that was worked on.
    pub more: Option<More>,
}

/// Where an operator goes on with a half-done row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct More {
    pub pos: u32,
    pub resume: Vec<u8>,
}

impl From<Rows> for Emitted {
    fn from(rows: Rows) -> Self {
        Self { rows, more: None }
    }
}

/// The second half of an operator's work on its inputs.
/// It gets the numbers of the entries that were asked for, in their order.
pub type Work<'a> = Box<dyn FnOnce(&mut Context<'_, '_>, &[EntryId]) -> OpResult<Emitted> + 'a>;

pub struct Prepared<'a> {
    pub wants: Wants,
    pub work: Work<'a>,
}

impl<'a> Prepared<'a> {
    /// Nothing to read: the outputs are there already.
    pub fn done(rows: Rows) -> Self {
        Self { wants: Wants::default(), work: Box::new(move |_, _| Ok(rows.into())) }
    }
}

pub trait Operator: Send + Sync {
    /// Role and structural path: names the operator's state and its errors.
    fn id(&self) -> &str;

    /// `inputs` has one entry per input of the operator's node, left first.
    fn prepare<'a>(&'a self, inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>>;

    /// It keeps nothing: any runs of its rows, worked on one after the other or at the same time, give what all of them
    /// give together. It then has one input.
    fn is_stateless(&self) -> bool {
        false
    }

    /// What it does in one partition has nothing to do with what it does in another, and so each may be a task.
    fn is_partitioned(&self) -> bool {
        false
    }

    /// What can be done without state to a run of rows of the one input: to evaluate what is needed of them, and to hand
    /// each to its partition. [`Operator::prepare_exchanged`] goes on with that.
    fn exchange(&self, rows: Rows, _cx: &mut Evaluation<'_>) -> OpResult<Rows> {
        Ok(rows)
    }

    /// As `prepare`, of what `exchange` gave.
    fn prepare_exchanged<'a>(&'a self, inputs: Vec<Rows>, cx: &mut Evaluation<'_>) -> OpResult<Prepared<'a>> {
        self.prepare(inputs, cx)
    }

    /// Goes on with a half-done row. Called with what `More::resume` said.
    fn resume(&self, _resume: &[u8], _pos: u32, _cx: &mut Context<'_, '_>) -> OpResult<Emitted> {
        Err(Error::bug(format!("operator \"{}\" has no half-done rows", self.id())).into())
    }
}

/// What expressions may use, and where their errors go.
pub struct Evaluation<'a> {
    pub eval: &'a mut EvalContext,
    pub notes: &'a mut Notes,
    pub config: &'a QuerySettings,
}

impl Evaluation<'_> {
    /// Moves the row errors of the last evaluation to the step's notes.
    pub fn note_errors(&mut self, rows: &Rows) {
        note_errors(self.eval, self.notes, &rows.pos);
    }
}

pub fn note_errors(eval: &mut EvalContext, notes: &mut Notes, pos: &[u32]) {
    let (errors, total) = eval.take_errors();
    let listed = errors.len() as u64;
    for e in errors {
        notes.push(pos.get(e.row as usize).copied().unwrap_or(0), LineKind::Expression, || e.message);
    }
    notes.more += total - listed.min(total);
}

/// What `work` may use.
pub struct Context<'a, 'v> {
    pub view: &'a mut View<'v>,
    pub eval: &'a mut EvalContext,
    pub notes: &'a mut Notes,
    pub config: &'a QuerySettings,
    /// The step is of one input row, and cannot be made smaller.
    pub alone: bool,
}

impl Context<'_, '_> {
    /// How many bytes of rows an operator may give at once, and how many of state it may hold for them.
    pub fn emit_bytes_max(&self) -> usize {
        self.config.step_write_bytes_max.saturating_mul(2)
    }
}

/// Lines for the processing log and counts, held until the step's end is known. The lines of the first rows are kept, in
/// the order of their rows, whatever order they come in: how the step was spread over threads is not seen.
#[derive(Debug, Default)]
pub struct Notes {
    lines: Vec<(u32, LineKind, String)>,
    /// Lines beyond those kept.
    pub more: u64,
    pub late: u64,
    pub skipped: u64,
}

impl Notes {
    pub fn push(&mut self, pos: u32, kind: LineKind, message: impl FnOnce() -> String) {
        match kind {
            LineKind::Late => self.late += 1,
            LineKind::Deserialization | LineKind::Timestamp | LineKind::Skipped => self.skipped += 1,
            LineKind::Expression | LineKind::Fatal => {}
        }
        let full = self.lines.len() >= LINES_PER_STEP_MAX;
        if full && self.lines.last().is_some_and(|(last, ..)| *last <= pos) {
            self.more += 1;
            return;
        }
        // Most come in order; of one row they stay as they came.
        let at = self.lines.partition_point(|(other, ..)| *other <= pos);
        self.lines.insert(at, (pos, kind, message()));
        if full {
            self.lines.pop();
            self.more += 1;
        }
    }

    /// Takes over what a task has noted.
    pub fn append(&mut self, task: Notes) {
        let all = self.lines.len() + task.lines.len();
        self.lines.extend(task.lines);
        self.lines.sort_by_key(|(pos, ..)| *pos);
        self.lines.truncate(LINES_PER_STEP_MAX);
        self.more += task.more + (all - self.lines.len()) as u64;
        self.late += task.late;
        self.skipped += task.skipped;
    }

    /// The lines that are kept, by row.
    pub fn lines(&self) -> &[(u32, LineKind, String)] {
        &self.lines
    }
}

/// Whether any of these columns is NULL in a row.
pub fn any_null(columns: &[ArrayRef], row: usize) -> bool {
    columns.iter().any(|c| arrow::array::Array::is_null(c.as_ref(), row))
}

/// Walks two inputs in the order of (`pos`, input): calls `f(input, row)` for each row.
pub fn merge_inputs(left: &[u32], right: &[u32], mut f: impl FnMut(usize, usize) -> OpResult<()>) -> OpResult<()> {
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if r >= right.len() || (l < left.len() && left[l] <= right[r]) {
            f(0, l)?;
            l += 1;
        } else {
            f(1, r)?;
            r += 1;
        }
    }
    Ok(())
}

/// The one input of an operator that has one.
pub fn only(inputs: &mut Vec<Rows>) -> OpResult<Rows> {
    inputs.pop().filter(|_| inputs.is_empty()).ok_or_else(|| Error::bug("an operator has one input").into())
}

/// The two inputs of an operator that has two.
pub fn both(inputs: Vec<Rows>) -> OpResult<(Rows, Rows)> {
    <[Rows; 2]>::try_from(inputs)
        .map(|[left, right]| (left, right))
        .map_err(|_| Error::bug("an operator has two inputs").into())
}
