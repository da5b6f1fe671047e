//! A plan as operators, and one pass of rows through them.
//!
//! Owns how plan nodes become operators, which of them need the rows that changes replace, and in how many partitions
//! each stage works. Not here: which rows make a step, what is done with failures and results (`query`).
//! Invariants: operator ids are roles and structural paths over stateful nodes and join sides only, so that a filter or
//! projection that is put in orphans no state; the result of a pass equals that of passing each input row by itself.

pub mod tasks;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use millpond_formats::Schemas;
use millpond_sql::plan::{JoinColumn, JoinKind, JoinOutput, Node, NodeKind, QueryPlan, Relation, WindowKind};
use millpond_types::ports::Storage;
use millpond_types::{ColumnRole, Error, Field, Result, TopicId};

use crate::aggregates::compile_aggregate;
use crate::expr::{self, Expr};
use crate::functions::{self, FunctionLibrary};
use crate::ops::aggregate::{Aggregate, Call, OutColumn, Windowing};
use crate::ops::filter::Filter;
use crate::ops::flat_map::FlatMap;
use crate::ops::foreign_key_join::ForeignKeyJoin;
use crate::ops::joined::Joined;
use crate::ops::key::{KeyWriter, names_schemas};
use crate::ops::materialise::Materialise;
use crate::ops::project::Project;
use crate::ops::rekey::{Exchange, Rekey};
use crate::ops::stream_stream_join::StreamStreamJoin;
use crate::ops::stream_table_join::StreamTableJoin;
use crate::ops::table_table_join::TableTableJoin;
use crate::ops::window::TimeWindows;
use crate::ops::{Context, Evaluation, More, OpResult, Operator};
use crate::rows::Rows;
use crate::source::SourceStage;
use crate::state::key::{KeySpace, Kind};

/// A plan's operators.
pub struct Pipeline {
    pub sources: Vec<SourceStage>,
    root: Stage,
    /// Groups that one row may touch in a windowed aggregation: a step takes so many times fewer rows.
    pub fan_out: usize,
    /// Most partitions that rows are in on their way.
    pub partitions: i32,
}

enum Stage {
    Source(usize),
    Op { op: Box<dyn Operator>, inputs: Vec<Stage>, schema: SchemaRef },
}

/// A half-done row of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub operator: String,
    pub more: More,
}

struct Builder<'a> {
    query: &'a str,
    library: &'a FunctionLibrary,
    storage: &'a dyn Storage,
    schemas: &'a Arc<dyn Schemas>,
    sources: Vec<SourceStage>,
    fan_out: usize,
    most_partitions: i32,
}

/// What a node's parents ask of it.
#[derive(Clone, Copy)]
struct Ask {
    /// The rows that changes replace.
    old: bool,
    /// Only the last of several changes of a row in a step.
    last_only: bool,
    /// Partitions after an exchange; `None`: as many as the input has.
    partitions: Option<i32>,
}

impl Pipeline {
    pub fn new(
        query: &str,
        plan: &QueryPlan,
        library: &FunctionLibrary,
        storage: &dyn Storage,
        schemas: &Arc<dyn Schemas>,
        coalesce: bool,
    ) -> Result<Self> {
        let (sources, fan_out, most_partitions) = (Vec::new(), 1, 1);
        let mut builder = Builder { query, library, storage, schemas, sources, fan_out, most_partitions };
        let ask = Ask { old: false, last_only: coalesce, partitions: None };
        let root = builder.build(&plan.root, "", ask)?;
        let Builder { sources, fan_out, most_partitions, .. } = builder;
        Ok(Self { sources, root, fan_out, partitions: most_partitions })
    }

    /// Passes the rows of each source through the plan.
    pub fn run(&self, mut sources: Vec<Rows>, cx: &mut Context<'_, '_>) -> OpResult<(Rows, Vec<Pending>)> {
        let mut pending = Vec::new();
        let rows = self.eval(&self.root, &mut sources, &mut pending, cx)?;
        Ok((rows, pending))
    }

    fn eval(
        &self,
        stage: &Stage,
        sources: &mut [Rows],
        pending: &mut Vec<Pending>,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Rows> {
        match stage {
            Stage::Source(index) => {
                let empty = Rows::empty(self.sources[*index].schema().clone());
                Ok(sources.get_mut(*index).map_or(empty.clone(), |rows| std::mem::replace(rows, empty)))
            }
            Stage::Op { op, inputs, schema } => {
                let mut rows = Vec::with_capacity(inputs.len());
                for input in inputs {
                    rows.push(self.eval(input, sources, pending, cx)?);
                }
                work(op.as_ref(), rows, schema, false, pending, cx)
            }
        }
    }

    /// Goes on with a half-done row and passes what comes of it on to the root.
    pub fn resume(&self, half: &Pending, cx: &mut Context<'_, '_>) -> OpResult<(Rows, Vec<Pending>)> {
        let mut pending = Vec::new();
        match self.resume_in(&self.root, half, &mut pending, cx)? {
            Some(rows) => Ok((rows, pending)),
            None => Err(Error::corrupt(format!(
                "operator \"{}\" has a half-done row in state, but is not in the plan",
                half.operator
            ))
            .into()),
        }
    }

    fn resume_in(
        &self,
        stage: &Stage,
        half: &Pending,
        pending: &mut Vec<Pending>,
        cx: &mut Context<'_, '_>,
    ) -> OpResult<Option<Rows>> {
        let Stage::Op { op, inputs, schema } = stage else { return Ok(None) };
        if op.id() == half.operator {
            let emitted = op.resume(&half.more.resume, 0, cx)?;
            if let Some(more) = emitted.more {
                pending.push(Pending { operator: op.id().to_string(), more });
            }
            return Ok(Some(emitted.rows));
        }
        for (i, input) in inputs.iter().enumerate() {
            if let Some(rows) = self.resume_in(input, half, pending, cx)? {
                let mut all: Vec<Rows> = inputs.iter().map(|s| Rows::empty(self.schema_of(s))).collect();
                all[i] = rows;
                return work(op.as_ref(), all, schema, false, pending, cx).map(Some);
            }
        }
        Ok(None)
    }

    fn schema_of(&self, stage: &Stage) -> SchemaRef {
        match stage {
            Stage::Source(index) => self.sources[*index].schema().clone(),
            Stage::Op { schema, .. } => schema.clone(),
        }
    }
}

fn work(
    op: &dyn Operator,
    inputs: Vec<Rows>,
    schema: &SchemaRef,
    exchanged: bool,
    pending: &mut Vec<Pending>,
    cx: &mut Context<'_, '_>,
) -> OpResult<Rows> {
    if inputs.iter().all(Rows::is_empty) {
        return Ok(Rows::empty(schema.clone()));
    }
    let mut evaluation = Evaluation { eval: &mut *cx.eval, notes: &mut *cx.notes, config: cx.config };
    let prepared =
        if exchanged { op.prepare_exchanged(inputs, &mut evaluation)? } else { op.prepare(inputs, &mut evaluation)? };
    let ids = cx.view.fetch(&prepared.wants)?;
    let emitted = (prepared.work)(cx, &ids)?;
    if let Some(more) = emitted.more {
        pending.push(Pending { operator: op.id().to_string(), more });
    }
    Ok(emitted.rows)
}

fn join_path(path: &str, part: &str) -> String {
    if path.is_empty() { part.to_string() } else { format!("{path}/{part}") }
}

impl Builder<'_> {
    fn space(&self, kind: Kind, operator: &str) -> KeySpace {
        KeySpace::new(kind, self.query, operator)
    }

    fn compile(&self, expr: &millpond_sql::expr::TypedExpr) -> Result<Expr> {
        expr::compile(expr, self.library)
    }

    fn compile_all(&self, exprs: &[millpond_sql::expr::TypedExpr]) -> Result<Vec<Expr>> {
        exprs.iter().map(|e| self.compile(e)).collect()
    }

    fn topic(&self, name: &str) -> Result<(TopicId, i32)> {
        let info =
            self.storage.topic(name).ok_or_else(|| Error::not_found(format!("topic \"{name}\" does not exist")))?;
        Ok((info.id, info.partitions))
    }

    /// In how many partitions a node's rows are.
    fn partitions(&self, node: &Node) -> Result<i32> {
        match &node.kind {
            NodeKind::Source(info) => Ok(self.topic(&info.topic)?.1),
            NodeKind::Filter { input, .. }
            | NodeKind::Project { input, .. }
            | NodeKind::FlatMap { input, .. }
            | NodeKind::Rekey { input, .. }
            | NodeKind::Aggregate { input, .. } => self.partitions(input),
            NodeKind::StreamStreamJoin { left, right, .. }
            | NodeKind::StreamTableJoin { left, right, .. }
            | NodeKind::TableTableJoin { left, right, .. } => self.joined_partitions(left, right),
            NodeKind::ForeignKeyJoin { left, .. } => self.partitions(left),
        }
    }

    /// A side that is re-keyed goes where the other side's rows are; of two such sides the larger number counts.
    fn joined_partitions(&self, left: &Node, right: &Node) -> Result<i32> {
        let (l, r) = (self.partitions(left)?, self.partitions(right)?);
        match (rekeyed(left), rekeyed(right)) {
            (true, true) => Ok(l.max(r)),
            (true, false) => Ok(r),
            (false, true) => Ok(l),
            (false, false) if l == r => Ok(l),
            (false, false) => Err(Error::bad_request(format!(
                "can't join: the sides have {l} and {r} partitions, and the same key is not in the same partition of \
                 both; repartition one of them"
            ))),
        }
    }

    fn build(&mut self, node: &Node, path: &str, ask: Ask) -> Result<Stage> {
        let schema = node.schema.to_arrow();
        let keys = node.schema.keys().count();
        match &node.kind {
            NodeKind::Source(info) => {
                let (topic, partitions) = self.topic(&info.topic)?;
                self.most_partitions = self.most_partitions.max(partitions);
                let id = join_path(path, "source");
                let times = self.space(Kind::Times, &id);
                let index = self.sources.len();
                self.sources.push(SourceStage::new(info.clone(), &node.schema, topic, times, self.schemas)?);
                if !(ask.old && info.relation == Relation::Table) {
                    return Ok(Stage::Source(index));
                }
                let id = join_path(path, "table");
                let values = node.schema.columns.iter().skip(keys).map(|c| c.ty.clone()).collect();
                let op = Materialise { space: self.space(Kind::Keyed, &id), id, keys, values };
                let mut input = Stage::Source(index);
                if names_schemas(&info.key_format) {
                    input = exchanged(input, path, node, partitions);
                }
                Ok(Stage::Op { op: Box::new(op), inputs: vec![input], schema })
            }
            NodeKind::Filter { input, predicate } => {
                let table = node.relation == Relation::Table;
                let predicate = self.compile(predicate)?;
                // A row that stops matching must be taken back: a change in between may not be left out, as it may have
                // been one that matched.
                let ask = Ask { old: ask.old || table, ..ask };
                let inputs = vec![self.build(input, path, ask)?];
                let op = Filter { id: join_path(path, "filter"), predicate, relation: node.relation, keys };
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::Project { input, exprs } => {
                let exprs = self.compile_all(exprs)?;
                let inputs = vec![self.build(input, path, ask)?];
                let op = Project { id: join_path(path, "project"), exprs, schema: schema.clone(), old: ask.old };
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::FlatMap { input, calls } => {
                let calls =
                    calls.iter().map(|c| functions::compile_table(c, self.library)).collect::<Result<Vec<_>>>()?;
                let inputs = vec![self.build(input, path, ask)?];
                let op = FlatMap {
                    id: join_path(path, "flat_map"),
                    calls,
                    input: input.schema.to_arrow(),
                    input_types: input.schema.columns.iter().map(|c| c.ty.clone()).collect(),
                    schema: schema.clone(),
                };
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::Rekey { input, keys: exprs, keep, key_format } => {
                let partitions = match ask.partitions {
                    Some(partitions) => partitions,
                    None => self.partitions(input)?,
                };
                self.most_partitions = self.most_partitions.max(partitions);
                let key_fields: Vec<Field> = crate::serdes::fields(node.schema.keys());
                let writer = KeyWriter::new(key_format, &key_fields, true)?;
                let keys = self.compile_all(exprs)?;
                let ask = Ask { partitions: None, ..ask };
                let inputs = vec![self.build(input, path, ask)?];
                let id = join_path(path, "rekey");
                let reads_value = |e: &millpond_sql::expr::TypedExpr| {
                    e.columns().iter().any(|i| input.schema.columns.get(*i).is_some_and(|c| !c.is_key()))
                };
                let of_value = exprs.iter().map(reads_value).collect();
                let op = Rekey { id, keys, keep: keep.clone(), schema: schema.clone(), writer, partitions, of_value };
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::Aggregate { .. } => self.aggregate(node, path, ask),
            NodeKind::StreamTableJoin { left, right, kind, output } => {
                let id = join_path(path, "stream_table");
                let (inputs, joined) = self.sides(node, left, right, output, &id, false)?;
                if !matches!(kind, JoinKind::Inner | JoinKind::Left) {
                    return Err(Error::unsupported("a stream is joined with a table by INNER or LEFT JOIN only"));
                }
                let op = StreamTableJoin {
                    space: self.space(Kind::Keyed, &id),
                    id,
                    left_outer: *kind == JoinKind::Left,
                    keys,
                    joined,
                };
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::StreamStreamJoin { left, right, kind, before_ms, after_ms, grace_ms, output } => {
                let id = join_path(path, "stream_stream");
                let (inputs, joined) = self.sides(node, left, right, output, &id, false)?;
                let op = StreamStreamJoin::new(
                    id.clone(),
                    *kind,
                    [*before_ms, *after_ms],
                    *grace_ms,
                    keys,
                    node.window.and_then(|w| w.size_ms),
                    joined,
                    self.space(Kind::Joined, &id),
                    self.space(Kind::Waiting, &id),
                    self.space(Kind::Times, &id),
                );
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::TableTableJoin { left, right, kind, output } => {
                let id = join_path(path, "table_table");
                let (inputs, joined) = self.sides(node, left, right, output, &id, false)?;
                let op = TableTableJoin {
                    left: self.space(Kind::Keyed, &join_path(&id, "left")),
                    right: self.space(Kind::Keyed, &join_path(&id, "right")),
                    id,
                    kind: *kind,
                    keys,
                    joined,
                    old: ask.old,
                };
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
            NodeKind::ForeignKeyJoin { left, right, kind, left_key, output } => {
                let id = join_path(path, "foreign_key");
                let left_key = self.compile(left_key)?;
                let inputs = vec![
                    self.build(left, &join_path(&id, "left"), ALL)?,
                    self.build(right, &join_path(&id, "right"), ALL)?,
                ];
                let joined = self.joined(node, left, right, output)?;
                let op = ForeignKeyJoin::new(
                    id.clone(),
                    *kind,
                    left_key,
                    keys,
                    joined,
                    ask.old,
                    self.space(Kind::Keyed, &join_path(&id, "left")),
                    self.space(Kind::Keyed, &join_path(&id, "right")),
                    self.space(Kind::Subscription, &id),
                )?;
                Ok(Stage::Op { op: Box::new(op), inputs, schema })
            }
        }
    }

    /// The inputs of a join of co-partitioned sides.
    fn sides(
        &mut self,
        node: &Node,
        left: &Node,
        right: &Node,
        output: &JoinOutput,
        id: &str,
        old: bool,
    ) -> Result<(Vec<Stage>, Joined)> {
        let partitions = Some(self.joined_partitions(left, right)?);
        let ask = Ask { old, last_only: false, partitions };
        let by_schema = placed_by_schema(left) || placed_by_schema(right);
        let mut inputs = Vec::with_capacity(2);
        for (side, name) in [(left, "left"), (right, "right")] {
            let path = join_path(id, name);
            let stage = self.build(side, &path, ask)?;
            inputs.push(match partitions {
                Some(partitions) if by_schema => exchanged(stage, &path, side, partitions),
                _ => stage,
            });
        }
        Ok((inputs, self.joined(node, left, right, output)?))
    }

    fn joined(&self, node: &Node, left: &Node, right: &Node, output: &JoinOutput) -> Result<Joined> {
        if output.columns.len() != node.schema.columns.len() {
            return Err(Error::bug("a join's output does not fit its schema"));
        }
        let types = |n: &Node| n.schema.columns.iter().map(|c| c.ty.clone()).collect::<Vec<_>>();
        let (left_types, right_types) = (types(left), types(right));
        let fits = output.columns.iter().all(|c| match c {
            JoinColumn::Key(i) => *i < left_types.len() && *i < right_types.len().max(left_types.len()),
            JoinColumn::Left(i) => *i < left_types.len(),
            JoinColumn::Right(i) => *i < right_types.len(),
            JoinColumn::RowTime => true,
        });
        if !fits {
            return Err(Error::bug("a join's output names columns that its sides do not have"));
        }
        Ok(Joined {
            schema: node.schema.to_arrow(),
            columns: output.columns.clone(),
            left: left_types,
            right: right_types,
        })
    }

    fn aggregate(&mut self, node: &Node, path: &str, ask: Ask) -> Result<Stage> {
        let NodeKind::Aggregate { input, group_by, calls, window, key_format, exchange } = &node.kind else {
            return Err(Error::bug("not an aggregation"));
        };
        let id = join_path(path, "aggregate");
        let mut compiled = Vec::with_capacity(calls.len());
        for call in calls {
            compiled.push(Call {
                aggregate: compile_aggregate(call, self.library)?,
                args: self.compile_all(&call.call.args)?,
            });
        }
        let windowing = match window {
            None => Windowing::None,
            Some(spec) if spec.kind == WindowKind::Session => {
                Windowing::Session { gap_ms: spec.size_ms, grace_ms: spec.grace_ms() }
            }
            Some(spec) => {
                let windows = TimeWindows::new(spec);
                self.fan_out = self.fan_out.max(windows.per_row());
                Windowing::Time(windows)
            }
        };
        let emit_final = window.as_ref().is_some_and(|w| w.emit_final);
        let groups = group_by.len();
        let mut columns = Vec::with_capacity(node.schema.columns.len());
        let mut next_call = 0;
        for (i, column) in node.schema.columns.iter().enumerate() {
            columns.push(match (&column.role, column.name.as_str()) {
                (ColumnRole::Key, _) if i < groups => OutColumn::Group(i),
                (ColumnRole::Pseudo, "WINDOWSTART") => OutColumn::WindowStart,
                (ColumnRole::Pseudo, "WINDOWEND") => OutColumn::WindowEnd,
                (ColumnRole::Pseudo, "ROWTIME") => OutColumn::RowTime,
                (ColumnRole::Value, _) if next_call < calls.len() => {
                    next_call += 1;
                    OutColumn::Call(next_call - 1)
                }
                _ => {
                    return Err(Error::bug(format!("an aggregation cannot give column \"{}\"", column.name)));
                }
            });
        }
        let key_fields: Vec<Field> = crate::serdes::fields(node.schema.keys());
        let partitions = self.partitions(input)?;
        let table = input.relation == Relation::Table;
        let below = Ask { old: table, last_only: false, partitions: None };
        let inputs = vec![self.build(input, &id, below)?];
        let types = group_by.iter().map(|e| &e.ty).chain(compiled.iter().flat_map(|c| c.args.iter().map(Expr::ty)));
        let exchanged: Vec<arrow::datatypes::Field> = types
            .enumerate()
            .map(|(i, ty)| arrow::datatypes::Field::new(format!("c{i}"), ty.to_arrow(), true))
            .collect();
        let op = Aggregate {
            exchanged: std::sync::Arc::new(arrow::datatypes::Schema::new(exchanged)),
            group_types: group_by.iter().map(|e| e.ty.clone()).collect(),
            group_by: self.compile_all(group_by)?,
            calls: compiled,
            input: input.relation,
            windowing,
            emit_final,
            writer: KeyWriter::new(key_format, &key_fields, false)?,
            exchange: *exchange || names_schemas(key_format),
            partitions,
            schema: node.schema.to_arrow(),
            columns,
            old: ask.old,
            last_only: ask.last_only && !emit_final && !matches!(windowing, Windowing::Session { .. }),
            groups: self.space(
                match windowing {
                    Windowing::None => Kind::Keyed,
                    Windowing::Time(_) => Kind::Windowed,
                    Windowing::Session { .. } => Kind::Sessions,
                },
                &id,
            ),
            ends: self.space(Kind::SessionEnds, &id),
            times: self.space(Kind::Times, &id),
            id,
        };
        Ok(Stage::Op { op: Box::new(op), inputs, schema: node.schema.to_arrow() })
    }
}

/// Every change, and no exchange asked for.
const ALL: Ask = Ask { old: false, last_only: false, partitions: None };

/// Whether a node's rows were handed to the partitions of a key by the plan itself.
fn rekeyed(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Rekey { .. } => true,
        NodeKind::Filter { input, .. } | NodeKind::Project { input, .. } | NodeKind::FlatMap { input, .. } => {
            rekeyed(input)
        }
        _ => false,
    }
}

/// Whether the keys of a node's rows, as the topics they come from have them, name schemas: rows with one key may then be in
/// several partitions, and keys that were written anew in others.
fn placed_by_schema(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Source(info) => names_schemas(&info.key_format),
        NodeKind::Rekey { key_format, .. } | NodeKind::Aggregate { key_format, .. } => names_schemas(key_format),
        NodeKind::Filter { input, .. } | NodeKind::Project { input, .. } | NodeKind::FlatMap { input, .. } => {
            placed_by_schema(input)
        }
        NodeKind::StreamStreamJoin { left, right, .. }
        | NodeKind::StreamTableJoin { left, right, .. }
        | NodeKind::TableTableJoin { left, right, .. } => placed_by_schema(left) || placed_by_schema(right),
        NodeKind::ForeignKeyJoin { left, .. } => placed_by_schema(left),
    }
}

/// A node's rows by the cells of their keys.
fn exchanged(input: Stage, path: &str, node: &Node, partitions: i32) -> Stage {
    let (id, keys) = (join_path(path, "exchange"), node.schema.keys().count());
    let op = Exchange { id, keys, writer: KeyWriter::of_cells(), partitions };
    Stage::Op { op: Box::new(op), inputs: vec![input], schema: node.schema.to_arrow() }
}
