//! FROM clauses: which joins there are, what they demand, and the nodes they become.
//!
//! Invariant: both sides of a join node are keyed by the join key in one format. Streams are re-keyed for that; tables
//! only where their key stays what it is and only its format changes.

use millpond_types::{Column, ColumnRole, Schema};

use super::input::{Input, KeyColumn, bare_column, unique};
use super::scope::{FromSource, Names, columns_of, is_pseudo};
use super::shown::shown;
use super::source::default_format;
use super::typer::{Binding, Typer};
use crate::diagnostic::{Code, Diagnostic};
use crate::expr::TypedExpr;
use crate::plan::{
    AnalysisResult, Environment, FormatSpec, JoinColumn, JoinKind, JoinOutput, KeyWindow, Node, NodeKind, Relation,
    Side, WindowKind,
};
use crate::syntax::{self, BinaryOp, Expr, Span};

/// The sources of the FROM clause, joined.
pub(super) fn plan_from(from: &syntax::From, sources: &[FromSource], env: &dyn Environment) -> AnalysisResult<Input> {
    let Some((first, others)) = sources.split_first() else { return Err(Diagnostic::bug("a query without a source")) };
    let mut left = Input::of_source(first);
    for (i, (join, right)) in from.joins.iter().zip(others).enumerate() {
        let so_far = sources.get(..i + 2).unwrap_or(sources);
        left =
            Joiner { join, sources: so_far, all: sources, right_source: right, env, last: i + 1 == from.joins.len() }
                .plan(left, from.joins.len())?;
    }
    Ok(left)
}

struct Joiner<'a> {
    join: &'a syntax::Join,
    /// Sources up to and with the right one.
    sources: &'a [FromSource],
    /// All sources of the query.
    all: &'a [FromSource],
    right_source: &'a FromSource,
    env: &'a dyn Environment,
    last: bool,
}

impl Joiner<'_> {
    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Code::Join, span, message)
    }

    /// `A JOIN B`, for messages.
    fn got(&self) -> String {
        let left = self.sources.first().map_or("", |s| s.info.name.as_str());
        let kind = match self.join.kind.node {
            syntax::JoinKind::Inner => "JOIN",
            syntax::JoinKind::Left => "LEFT OUTER JOIN",
            syntax::JoinKind::Right => "RIGHT OUTER JOIN",
            syntax::JoinKind::Full => "[FULL] OUTER JOIN",
        };
        format!("{left} {kind} {}", self.right_source.info.name)
    }

    fn plan(&self, left: Input, joins: usize) -> AnalysisResult<Input> {
        let right = Input::of_source(self.right_source);
        let (left_expr, right_expr) = self.condition(left.synthetic_key.as_deref())?;
        let left_typed = Typer::new(self.env, &left.bindings, "JOIN ON", false).expr(&left_expr)?;
        let right_typed = Typer::new(self.env, &right.bindings, "JOIN ON", false).expr(&right_expr)?;
        if left_typed.ty != right_typed.ty {
            return Err(self
                .error(
                    self.join.on.span,
                    format!(
                        "invalid join condition: types don't match. Got {}{{{}}} = {}{{{}}}",
                        shown(&left_expr, false),
                        left_typed.ty,
                        shown(&right_expr, false),
                        right_typed.ty
                    ),
                )
                .with_hint("cast one side to the type of the other"));
        }
        let sides = Sides { left, right, left_expr, right_expr, left_typed, right_typed };
        match (sides.left.relation(), sides.right.relation()) {
            (Relation::Stream, Relation::Stream) => self.stream_stream(sides),
            (Relation::Stream, Relation::Table) => self.stream_table(sides),
            (Relation::Table, Relation::Stream) => Err(self
                .error(
                    self.join.kind.span,
                    format!(
                        "invalid join order: table-stream joins are not supported; only stream-table joins. Got {}",
                        self.got()
                    ),
                )
                .with_hint("name the stream first")),
            (Relation::Table, Relation::Table) => self.table_table(sides, joins),
        }
    }

    /// The two sides of the ON clause, the one about the sources so far first.
    fn condition(&self, synthetic_key: Option<&str>) -> AnalysisResult<(Expr, Expr)> {
        let on = &self.join.on;
        let (left, right) = match &on.kind {
            syntax::ExprKind::Binary { op: BinaryOp::Equal, left, right } => (left, right),
            syntax::ExprKind::Binary { op: BinaryOp::And | BinaryOp::Or, .. } => {
                return Err(self
                    .error(on.span, "JOINs on multiple conditions are not yet supported")
                    .with_detail(format!("got {on}")));
            }
            _ => {
                return Err(self.error(
                    on.span,
                    format!("unsupported join expression: {on}. Only one equality of two columns or expressions is supported"),
                ));
            }
        };
        let functions = self.env.functions();
        let names = Names { sources: self.sources, synthetic_key, window_bounds: false, functions };
        let (left, right) = (names.qualify(left, "JOIN ON")?, names.qualify(right, "JOIN ON")?);
        let source_of = |side: &Expr| -> AnalysisResult<String> {
            let mut sources: Vec<String> =
                columns_of(side).iter().filter_map(|c| c.qualifier.as_ref().map(|q| q.value.clone())).collect();
            sources.dedup();
            sources.sort();
            sources.dedup();
            match sources.as_slice() {
                [one] => Ok(one.clone()),
                _ => Err(self.error(
                    side.span,
                    format!(
                        "invalid comparison expression '{}' in join '({left} = {right})'. Each side of the join \
                         comparision must contain references from exactly one source",
                        shown(side, false)
                    ),
                )),
            }
        };
        let (of_left, of_right) = (source_of(&left)?, source_of(&right)?);
        let joined = &self.right_source.alias;
        match (of_left == *joined, of_right == *joined) {
            (false, true) => Ok((left, right)),
            (true, false) => Ok((right, left)),
            _ => Err(self.error(
                on.span,
                format!(
                    "a join criteria is expected to reference the source (`{joined}`) in the FROM clause, instead the \
                     right source references `{of_right}` and the left source references `{of_left}`"
                ),
            )),
        }
    }

    fn stream_stream(&self, mut sides: Sides) -> AnalysisResult<Input> {
        let Some(within) = &self.join.within else {
            return Err(self
                .error(
                    self.join.kind.span,
                    "Stream-Stream joins must have a WITHIN clause specified. None was provided",
                )
                .with_hint("say how far apart the rows may be: WITHIN 1 HOUR"));
        };
        let span = within.span;
        let millis = |interval: &syntax::Interval| {
            interval.millis().ok_or_else(|| self.error(span, "the WITHIN interval is too long"))
        };
        let (before_ms, after_ms) = (millis(&within.node.before)?, millis(&within.node.after)?);
        let grace_ms = within.node.grace.as_ref().map(millis).transpose()?;
        self.check_windows(&sides)?;
        self.check_value_formats()?;

        let left_keyed = sides.left.is_keyed_by(&sides.left_expr);
        let right_keyed = sides.right.is_keyed_by(&sides.right_expr);
        let format = match (left_keyed, right_keyed) {
            (true, _) => sides.left.key_format.clone(),
            (false, true) => sides.right.key_format.clone(),
            (false, false) => self.join_format(&sides)?,
        };
        let rekey_left = !left_keyed;
        let rekey_right = !right_keyed || !sides.right.key_format.keys_like(&format);
        self.check_partitions(&sides, rekey_left, rekey_right)?;
        let partitions = if rekey_left && !rekey_right { sides.right.partitions } else { sides.left.partitions };
        if rekey_left {
            sides.left = self.rekey(sides.left, &sides.left_expr, &sides.left_typed, &format)?;
        }
        if rekey_right {
            sides.right = self.rekey(sides.right, &sides.right_expr, &sides.right_typed, &format)?;
        }
        let kind = join_kind(self.join.kind.node);
        self.joined(sides, kind, partitions, format, |left, right, output| NodeKind::StreamStreamJoin {
            left,
            right,
            kind,
            before_ms,
            after_ms,
            grace_ms,
            output,
        })
    }

    fn stream_table(&self, mut sides: Sides) -> AnalysisResult<Input> {
        self.refuse_within("Stream-Table")?;
        let refused = match self.join.kind.node {
            syntax::JoinKind::Right => Some("right-outer"),
            syntax::JoinKind::Full => Some("full-outer"),
            syntax::JoinKind::Inner | syntax::JoinKind::Left => None,
        };
        if let Some(which) = refused {
            return Err(self
                .error(
                    self.join.kind.span,
                    format!("invalid join type: {which} join not supported for stream-table join. Got {}", self.got()),
                )
                .with_hint("inner and left joins are supported"));
        }
        if !sides.right.is_keyed_by(&sides.right_expr) {
            return Err(self.error(
                self.join.on.span,
                format!(
                    "invalid join condition: stream-table joins require to join on the table's primary key. Got {} = {}",
                    shown(&sides.left_expr, false),
                    shown(&sides.right_expr, false)
                ),
            ));
        }
        self.check_windows(&sides)?;
        self.check_value_formats()?;
        let format = sides.right.key_format.clone();
        let rekey = !sides.left.is_keyed_by(&sides.left_expr) || !sides.left.key_format.keys_like(&format);
        self.check_partitions(&sides, rekey, false)?;
        let partitions = sides.right.partitions;
        if rekey {
            sides.left = self.rekey(sides.left, &sides.left_expr, &sides.left_typed, &format)?;
        }
        let kind = join_kind(self.join.kind.node);
        self.joined(sides, kind, partitions, format, |left, right, output| NodeKind::StreamTableJoin {
            left,
            right,
            kind,
            output,
        })
    }

    fn table_table(&self, mut sides: Sides, joins: usize) -> AnalysisResult<Input> {
        self.refuse_within("Table-Table")?;
        if !sides.right.is_keyed_by(&sides.right_expr) {
            let (left, right) = self.as_written(&sides);
            return Err(self.error(
                self.join.on.span,
                format!(
                    "invalid join condition: table-table joins require to join on the primary key of the right input \
                     table. Got {left} = {right}"
                ),
            ));
        }
        self.check_value_formats()?;
        if !sides.left.is_keyed_by(&sides.left_expr) {
            return self.foreign_key(sides, joins);
        }
        self.check_windows(&sides)?;
        self.check_partitions(&sides, false, !sides.right.key_format.keys_like(&sides.left.key_format))?;
        let (format, partitions) = (sides.left.key_format.clone(), sides.left.partitions);
        if !sides.right.key_format.keys_like(&format) {
            sides.right = self.rekey(sides.right, &sides.right_expr, &sides.right_typed, &format)?;
        }
        let kind = join_kind(self.join.kind.node);
        self.joined(sides, kind, partitions, format, |left, right, output| NodeKind::TableTableJoin {
            left,
            right,
            kind,
            output,
        })
    }

    fn foreign_key(&self, sides: Sides, joins: usize) -> AnalysisResult<Input> {
        let (left, right) = self.as_written(&sides);
        if joins > 1 && self.sources.len() > 2 {
            return Err(self.error(
                self.join.on.span,
                format!(
                    "invalid join condition: foreign-key table-table joins are not supported as part of n-way joins. \
                     Got {left} = {right}"
                ),
            ));
        }
        if sides.left.node.window.is_some() || sides.right.node.window.is_some() {
            return Err(
                self.error(self.join.kind.span, "foreign-key table-table joins are not supported on windowed tables")
            );
        }
        let refused = match self.join.kind.node {
            syntax::JoinKind::Right => Some("RIGHT OUTER JOIN"),
            syntax::JoinKind::Full => Some("FULL OUTER JOIN"),
            syntax::JoinKind::Inner | syntax::JoinKind::Left => None,
        };
        if let Some(which) = refused {
            return Err(self
                .error(self.join.kind.span, format!("{which} on a foreign key is not supported. Got {left} = {right}"))
                .with_hint("inner and left joins are supported"));
        }
        let kind = join_kind(self.join.kind.node);
        let Sides { left, right, left_typed, .. } = sides;
        let (columns, schema, bindings) = self.output(&left, &right, &left.keys, None);
        let keys =
            left.keys.iter().enumerate().map(|(index, key)| KeyColumn { index, equal: key.equal.clone() }).collect();
        let node = Node {
            relation: Relation::Table,
            window: None,
            schema,
            kind: NodeKind::ForeignKeyJoin {
                left: Box::new(left.node),
                right: Box::new(right.node),
                kind,
                left_key: left_typed,
                output: JoinOutput { columns },
            },
        };
        Ok(Input {
            node,
            bindings,
            keys,
            partitions: left.partitions,
            key_format: left.key_format,
            synthetic_key: left.synthetic_key,
            foreign_key_left: if self.last { self.sources.first().map(|s| s.alias.clone()) } else { None },
        })
    }

    /// The condition's sides in the order of the text, for messages.
    fn as_written(&self, sides: &Sides) -> (String, String) {
        let (left, right) = (shown(&sides.left_expr, false), shown(&sides.right_expr, false));
        if sides.left_expr.span.start <= sides.right_expr.span.start { (left, right) } else { (right, left) }
    }

    fn refuse_within(&self, which: &str) -> AnalysisResult<()> {
        match &self.join.within {
            None => Ok(()),
            Some(within) => Err(self
                .error(
                    within.span,
                    format!("a window definition was provided for a {which} join. These joins are not windowed"),
                )
                .with_hint("drop the WITHIN clause, or join other kinds of sources")),
        }
    }

    /// Windowed sources join windowed sources of their kind only.
    fn check_windows(&self, sides: &Sides) -> AnalysisResult<()> {
        let name = |window: Option<KeyWindow>| match window.map(|w| w.kind) {
            None => "not".to_owned(),
            Some(kind) => window_name(kind).to_owned(),
        };
        let left_name = self.sources.first().map_or("", |s| s.info.name.as_str());
        let right_name = &self.right_source.info.name;
        let (left, right) = (sides.left.node.window, sides.right.node.window);
        let describe = |source: &str, window: Option<KeyWindow>| format!("`{source}` is {} windowed", name(window));
        match (left, right) {
            (None, None) => Ok(()),
            (Some(l), Some(r)) if (l.kind == WindowKind::Session) == (r.kind == WindowKind::Session) => Ok(()),
            (Some(l), Some(r)) => Err(self.error(
                self.join.kind.span,
                format!(
                    "incompatible windowed sources. Left source: {}. Right source: {}. Session windowed sources can \
                     only be joined to other session windowed sources, and may still not result in expected behaviour \
                     as session bounds must be an exact match for the join to work",
                    window_name(l.kind),
                    window_name(r.kind)
                ),
            )),
            _ => Err(self.error(
                self.join.kind.span,
                format!(
                    "can not join windowed source to non-windowed source. {}. {}",
                    describe(left_name, left),
                    describe(right_name, right)
                ),
            )),
        }
    }

    fn check_value_formats(&self) -> AnalysisResult<()> {
        let kafka: Vec<String> =
            self.all.iter().filter(|s| s.info.value_format.name == "KAFKA").map(|s| s.info.name.clone()).collect();
        if kafka.is_empty() {
            return Ok(());
        }
        Err(Diagnostic::at(
            Code::Format,
            self.join.kind.span,
            format!(
                "source(s) {} are using the 'KAFKA' value format. This format does not yet support JOIN",
                kafka.join(", ")
            ),
        ))
    }

    fn check_partitions(&self, sides: &Sides, rekey_left: bool, rekey_right: bool) -> AnalysisResult<()> {
        if rekey_left || rekey_right || sides.left.partitions == sides.right.partitions {
            return Ok(());
        }
        let left = self.sources.first().map_or("", |s| s.info.name.as_str());
        let right = &self.right_source.info.name;
        Err(self.error(
            self.join.kind.span,
            format!(
                "can't join `{left}` with `{right}` since the number of partitions don't match. `{left}` partitions = \
                 {}; `{right}` partitions = {}. Please repartition either one so that the number of partitions match",
                sides.left.partitions, sides.right.partitions
            ),
        ))
    }

    /// The format of a join key that neither side has yet.
    fn join_format(&self, sides: &Sides) -> AnalysisResult<FormatSpec> {
        let known = [&sides.left.key_format, &sides.right.key_format].into_iter().find(|f| f.name != "NONE");
        let spec = match known {
            Some(spec) => spec.clone(),
            None => plain_format(default_format(Side::Key, self.env)?),
        };
        let columns = [("ROWKEY".to_owned(), sides.left_typed.ty.clone())];
        if self.env.key_format_supports(&spec.name, &columns) { Ok(spec) } else { Ok(plain_format("JSON".to_owned())) }
    }

    /// A side keyed by the join expression.
    fn rekey(&self, side: Input, expr: &Expr, typed: &TypedExpr, format: &FormatSpec) -> AnalysisResult<Input> {
        if side.node.window.is_some() {
            return Err(self.error(self.join.on.span, "implicit repartitioning of windowed sources is not supported"));
        }
        let base = expr.column().map_or("ROWKEY", |c| c.name.value.as_str());
        let name = unique(base, |n| side.node.schema.get(n).is_some());
        let mut columns = vec![Column::key(name, typed.ty.clone())];
        columns.extend(side.node.schema.columns.iter().map(|c| {
            let role = if c.role == ColumnRole::Key { ColumnRole::Value } else { c.role.clone() };
            Column::new(c.name.clone(), c.ty.clone(), role)
        }));
        let keep = (0..side.node.schema.columns.len()).collect();
        let relation = side.node.relation;
        let node = Node {
            schema: Schema::new(columns),
            relation,
            window: None,
            kind: NodeKind::Rekey {
                input: Box::new(side.node),
                keys: vec![typed.clone()],
                keep,
                key_format: format.clone(),
            },
        };
        let bindings = side.bindings.into_iter().map(|b| Binding { index: b.index + 1, ..b }).collect();
        // Where only the format changes, what equalled the key still does.
        let equal = match side.keys.as_slice() {
            [key] if key.equal.contains(expr) => key.equal.clone(),
            _ => vec![expr.clone()],
        };
        let keys = vec![KeyColumn { index: 0, equal }];
        Ok(Input { node, bindings, keys, key_format: format.clone(), synthetic_key: None, ..side })
    }

    /// The output of a join: the key columns, then every column of both sides.
    fn output(
        &self,
        left: &Input,
        right: &Input,
        keys: &[KeyColumn],
        synthetic: Option<&str>,
    ) -> (Vec<JoinColumn>, Schema, Vec<Binding>) {
        let mut columns = Vec::new();
        let mut schema: Vec<Column> = Vec::new();
        let mut bindings = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            let name = match (synthetic, key.viable().next().and_then(Expr::column)) {
                (Some(name), _) => name.to_owned(),
                (None, Some(column)) => prefixed(column),
                (None, None) => "ROWKEY".to_owned(),
            };
            let ty = left.node.schema.columns.get(key.index).map(|c| c.ty.clone());
            let Some(ty) = ty else { continue };
            if let Some(name) = synthetic {
                bindings.push(Binding { expr: bare_column(name), index: schema.len(), ty: ty.clone() });
            }
            columns.push(JoinColumn::Key(i));
            schema.push(Column::key(name, ty));
        }
        for (side, is_left) in [(left, true), (right, false)] {
            for binding in &side.bindings {
                let Some(column) = binding.expr.column() else { continue };
                if column.qualifier.is_none() {
                    continue;
                }
                let role = if is_pseudo(&column.name.value) { ColumnRole::Pseudo } else { ColumnRole::Value };
                let name = unique(&prefixed(column), |n| schema.iter().any(|c| c.name == n));
                bindings.push(Binding { expr: binding.expr.clone(), index: schema.len(), ty: binding.ty.clone() });
                columns.push(if is_left { JoinColumn::Left(binding.index) } else { JoinColumn::Right(binding.index) });
                schema.push(Column::new(name, binding.ty.clone(), role));
            }
        }
        (columns, Schema::new(schema), bindings)
    }

    fn joined(
        &self,
        sides: Sides,
        kind: JoinKind,
        partitions: i32,
        key_format: FormatSpec,
        make: impl FnOnce(Box<Node>, Box<Node>, JoinOutput) -> NodeKind,
    ) -> AnalysisResult<Input> {
        let Sides { left, right, left_expr, right_expr, .. } = sides;
        let [left_key] = left.keys.as_slice() else { return Err(Diagnostic::bug("a join side without its key")) };
        let mut equal = left_key.equal.clone();
        if !equal.contains(&left_expr) {
            equal.push(left_expr);
        }
        equal.push(right_expr);
        let named = equal.iter().any(|e| e.column().is_some_and(|c| c.qualifier.is_some()));
        let synthetic = if kind == JoinKind::Full || !named {
            let taken = |n: &str| self.all.iter().any(|s| s.has(n));
            let name = unique("ROWKEY", taken);
            equal = vec![bare_column(&name)];
            Some(name)
        } else {
            equal.retain(|e| e.column().is_none_or(|c| c.qualifier.is_some()));
            None
        };
        let keys = vec![KeyColumn { index: left_key.index, equal }];
        let (columns, schema, bindings) = self.output(&left, &right, &keys, synthetic.as_deref());
        let relation = left.node.relation;
        let window = left.node.window;
        let kind = make(Box::new(left.node), Box::new(right.node), JoinOutput { columns });
        Ok(Input {
            node: Node { kind, schema, relation, window },
            bindings,
            keys: keys.into_iter().map(|k| KeyColumn { index: 0, ..k }).collect(),
            partitions,
            key_format,
            synthetic_key: synthetic,
            foreign_key_left: None,
        })
    }
}

struct Sides {
    left: Input,
    right: Input,
    left_expr: Expr,
    right_expr: Expr,
    left_typed: TypedExpr,
    right_typed: TypedExpr,
}

fn prefixed(column: &syntax::ColumnRef) -> String {
    match &column.qualifier {
        Some(qualifier) => format!("{}_{}", qualifier.value, column.name.value),
        None => column.name.value.clone(),
    }
}

pub(super) fn plain_format(name: String) -> FormatSpec {
    FormatSpec { name, delimiter: None, wrap_single: None, properties: Default::default() }
}

fn window_name(kind: WindowKind) -> &'static str {
    match kind {
        WindowKind::Tumbling => "TUMBLING",
        WindowKind::Hopping => "HOPPING",
        WindowKind::Session => "SESSION",
    }
}

pub(super) fn join_kind(kind: syntax::JoinKind) -> JoinKind {
    match kind {
        syntax::JoinKind::Inner => JoinKind::Inner,
        syntax::JoinKind::Left => JoinKind::Left,
        syntax::JoinKind::Right => JoinKind::Right,
        syntax::JoinKind::Full => JoinKind::Full,
    }
}
