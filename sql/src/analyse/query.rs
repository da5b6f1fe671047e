//! Streaming queries, persistent and push: clauses to nodes, and the rules about which clauses go together.
//!
//! The nodes are built with every column their inputs have; `prune` then drops what nobody reads.

use std::sync::Arc;

use millpond_types::{Column, ColumnRole, Schema, SqlType};

use super::aggregate::Aggregation;
use super::calls;
use super::input::Input;
use super::items::{Item, expand_items};
use super::join::plan_from;
use super::prune::prune;
use super::scope::{FromSource, Names, columns_of, is_window_bound, join_words, unknown_source};
use super::shown::shown;
use super::source::{check_key_type, noun};
use super::typer::{Binding, Typer};
use crate::diagnostic::{Code, Diagnostic};
use crate::expr::{ExprKind, TypedExpr};
use crate::functions::{FunctionCatalog, FunctionKind};
use crate::plan::{AnalysisResult, Environment, FormatSpec, Node, NodeKind, QueryPlan, Relation, SourceInfo};
use crate::syntax::{self, Emit, Expr, Literal, Query, Span};

/// What a query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// Feeds a stream or table of this name. The word is the statement's, for messages.
    Persistent { sink: &'a str, statement: &'a str },
    /// Feeds a client.
    Push,
}

impl Purpose<'_> {
    pub fn is_persistent(self) -> bool {
        matches!(self, Self::Persistent { .. })
    }
}

/// A query that was planned, and what a sink takes over from it.
#[derive(Debug)]
pub(super) struct PlannedQuery {
    pub plan: QueryPlan,
    /// Key format of the left-most source that has one.
    pub key_format: Option<FormatSpec>,
    pub value_format: FormatSpec,
    pub partitions: i32,
    pub replicas: i16,
    /// RETENTION of the window clause.
    pub retention_ms: Option<i64>,
}

pub(super) struct QueryAnalysis<'a> {
    pub query: &'a Query,
    pub env: &'a dyn Environment,
    pub purpose: Purpose<'a>,
    /// How rows go from stage to stage where the key changes.
    pub key_format: Option<FormatSpec>,
}

impl<'a> QueryAnalysis<'a> {
    pub fn plan(&self) -> AnalysisResult<PlannedQuery> {
        let query = self.query;
        let sources = from_sources(query, self.env)?;
        let Some(first) = sources.first() else { return Err(Diagnostic::bug("a query without a source")) };
        let first = first.info.clone();
        self.check_clauses(&sources)?;
        let mut input = plan_from(&query.from, &sources, self.env)?;
        let synthetic = input.synthetic_key.clone();
        let names = Names {
            sources: &sources,
            synthetic_key: synthetic.as_deref(),
            window_bounds: query.window.is_some(),
            functions: self.env.functions(),
        };
        let single = sources.len() == 1;

        if let Some(filter) = &query.filter {
            let names = Names { window_bounds: false, ..names };
            let predicate = self.where_clause(filter, &names, &input)?;
            input.node = filtered(input.node, predicate);
        }
        let partition_by = self.qualified(&query.partition_by, &names, "PARTITION BY")?;
        let group_by = self.qualified(&query.group_by, &names, "GROUP BY")?;
        let items = self.items(&names, &input, &partition_by)?;
        let having = query.having.as_ref().map(|h| names.qualify(h, "HAVING")).transpose()?;
        let input = self.flat_map(input, &items, &group_by, single)?;

        let catalog = self.env.functions();
        let mut has_aggregates = false;
        for expr in items.iter().map(|i| &i.expr).chain(&having) {
            has_aggregates |= !calls::of_kind(expr, FunctionKind::Aggregate, catalog).is_empty();
        }
        let mut group_by = group_by;
        if has_aggregates && group_by.is_empty() && !self.purpose.is_persistent() {
            // All rows are one group.
            group_by.push(Expr::new(syntax::ExprKind::Literal(Literal::Integer(1)), query.select_span()));
        }
        let aggregation =
            Aggregation { analysis: self, items: &items, having: having.as_ref(), group_by: &group_by, single };
        let node = if !group_by.is_empty() || has_aggregates {
            aggregation.plan(input, &sources)?
        } else {
            if let Some(window) = &query.window {
                return Err(Diagnostic::at(Code::Window, window.kind.span, "WINDOW clause requires a GROUP BY clause"));
            }
            if let Some(having) = &query.having {
                return Err(Diagnostic::at(Code::Aggregate, having.span, "HAVING requires a GROUP BY clause"));
            }
            if let Some(emit) = query.emit.filter(|e| e.node == Emit::Final) {
                return Err(Diagnostic::at(
                    Code::Window,
                    emit.span,
                    "EMIT FINAL is only supported for windowed aggregations",
                ));
            }
            let (input, key) = if partition_by.is_empty() {
                (input, KeyWord::Source)
            } else {
                (self.partition_by(input, &partition_by, &sources)?, KeyWord::Partitioning)
            };
            self.project(input, &items, key, single)?
        };
        let modules = modules_of(&node, self.env);
        let root = prune(node);
        let key_format = sources.iter().map(|s| &s.info.key_format).find(|f| f.name != "NONE").cloned();
        Ok(PlannedQuery {
            plan: QueryPlan {
                root,
                sources: sources.iter().map(|s| s.info.name.clone()).collect(),
                limit: query.limit.map(|l| l.node),
                modules,
            },
            key_format,
            value_format: first.value_format.clone(),
            partitions: first.partitions,
            replicas: first.replicas,
            retention_ms: query.window.as_ref().and_then(|w| w.retention.as_ref()).and_then(|r| r.millis()),
        })
    }

    fn qualified(&self, exprs: &[Expr], names: &Names<'_>, clause: &str) -> AnalysisResult<Vec<Expr>> {
        exprs.iter().map(|e| names.qualify(e, clause)).collect()
    }

    /// What can be said of the clauses before any expression is looked at.
    fn check_clauses(&self, sources: &[FromSource]) -> AnalysisResult<()> {
        let query = self.query;
        if let Some(order) = query.order_by.first() {
            return Err(Diagnostic::at(
                Code::Invalid,
                order.expr.span,
                "ORDER BY is only supported in pull queries: a stream of changes has no end",
            ));
        }
        if let (Purpose::Persistent { statement, .. }, Some(limit)) = (self.purpose, &query.limit) {
            return Err(Diagnostic::at(
                Code::Invalid,
                limit.span,
                format!("{statement} statements don't support LIMIT clause"),
            ));
        }
        if self.purpose.is_persistent()
            && let Some(source) = sources.iter().find(|s| s.info.relation == Relation::Table && s.info.window.is_some())
        {
            return Err(Diagnostic::at(
                Code::Window,
                query.from.first.name.span,
                format!("KSQL does not support persistent queries on windowed tables: \"{}\"", source.info.name),
            ));
        }
        if let (Some(partition), Some(group)) = (query.partition_by.first(), query.group_by.first()) {
            return Err(Diagnostic::at(
                Code::Invalid,
                partition.span.to(group.span),
                "PARTITION BY and GROUP BY cannot be used together",
            ));
        }
        Ok(())
    }

    fn where_clause(&self, filter: &Expr, names: &Names<'_>, input: &Input) -> AnalysisResult<TypedExpr> {
        let qualified = names.qualify(filter, "WHERE")?;
        let catalog = self.env.functions();
        for (kind, what) in [(FunctionKind::Aggregate, "aggregate"), (FunctionKind::Table, "table")] {
            if let Some((call, span)) = calls::of_kind(&qualified, kind, catalog).first() {
                return Err(Diagnostic::at(
                    Code::Aggregate,
                    *span,
                    format!("WHERE clause does not support {what} functions: {} is one", call.name.value),
                ));
            }
        }
        Typer::new(self.env, &input.bindings, "WHERE", names.sources.len() == 1).condition(&qualified)
    }

    /// The SELECT list with every `*` written out and every column named.
    fn items(&self, names: &Names<'_>, input: &Input, partition_by: &[Expr]) -> AnalysisResult<Vec<Item>> {
        expand_items(
            &self.query.select,
            names,
            input,
            partition_by,
            !self.purpose.is_persistent(),
            self.purpose.is_persistent(),
            self.env,
        )
    }

    /// Table functions of the SELECT list, computed below everything else.
    fn flat_map(&self, mut input: Input, items: &[Item], group_by: &[Expr], single: bool) -> AnalysisResult<Input> {
        let catalog = self.env.functions();
        let mut found: Vec<(Expr, Span)> = Vec::new();
        let aggregated = |i: &Item| !calls::of_kind(&i.expr, FunctionKind::Aggregate, catalog).is_empty();
        let grouped = !group_by.is_empty() || items.iter().any(aggregated);
        for expr in items.iter().map(|i| &i.expr).chain(group_by) {
            if let Some((name, span)) = inside_case(expr, catalog) {
                return Err(Diagnostic::at(
                    Code::Invalid,
                    span,
                    format!("table functions cannot be used in CASE: {name}"),
                ));
            }
            for (call, span) in calls::of_kind(expr, FunctionKind::Table, catalog) {
                if grouped {
                    let message = "table functions cannot be used with aggregations";
                    return Err(Diagnostic::at(Code::Invalid, span, message)
                        .with_hint("write the table function's rows into a stream and aggregate that"));
                }
                let whole = Expr::new(syntax::ExprKind::Call(call.clone()), span);
                for argument in &call.arguments {
                    if let Some((inner, at)) = calls::of_kind(argument, FunctionKind::Table, catalog).first() {
                        return Err(Diagnostic::at(
                            Code::Invalid,
                            *at,
                            format!("table functions cannot be nested: {}({}())", call.name.value, inner.name.value),
                        ));
                    }
                }
                if !found.iter().any(|(e, _)| *e == whole) {
                    found.push((whole, span));
                }
            }
        }
        let Some((_, span)) = found.first() else { return Ok(input) };
        if input.relation() == Relation::Table {
            return Err(Diagnostic::at(Code::Invalid, *span, "table source is not supported with table functions"));
        }
        let mut columns = input.node.schema.columns.clone();
        let mut typed = Vec::with_capacity(found.len());
        let mut computed = Vec::with_capacity(found.len());
        for (i, (expr, span)) in found.into_iter().enumerate() {
            let syntax::ExprKind::Call(call) = &expr.kind else { continue };
            let mut typer = Typer::new(self.env, &input.bindings, "SELECT", single);
            let function = typer.function(&call.name)?;
            let call = typer.resolve_call(&function, call, span)?;
            let index = columns.len();
            let name = super::input::unique(&format!("KSQL_UDTF_{i}"), |n| columns.iter().any(|c| c.name == n));
            columns.push(Column::value(name, call.ty.clone()));
            computed.push(Binding { expr, index, ty: call.ty.clone() });
            typed.push(call);
        }
        // Whole calls come before the columns in them.
        computed.append(&mut input.bindings);
        input.bindings = computed;
        let (relation, window) = (input.node.relation, input.node.window);
        input.node = Node {
            schema: Schema::new(columns),
            relation,
            window,
            kind: NodeKind::FlatMap { input: Box::new(input.node), calls: typed },
        };
        Ok(input)
    }

    fn partition_by(&self, input: Input, partition_by: &[Expr], sources: &[FromSource]) -> AnalysisResult<Input> {
        let span = partition_by.iter().map(|e| e.span).reduce(Span::to).unwrap_or_default();
        if input.relation() == Relation::Table {
            return Err(Diagnostic::at(
                Code::Key,
                span,
                "PARTITION BY is only supported on streams: the key of a table cannot be changed",
            )
            .with_hint("use GROUP BY to aggregate the table under another key"));
        }
        let is_null = |e: &Expr| e.literal() == Some(&Literal::Null);
        let to_null = partition_by.iter().any(is_null);
        if to_null && partition_by.len() > 1 {
            return Err(Diagnostic::at(Code::Key, span, "cannot PARTITION BY multiple columns including NULL"));
        }
        let single = sources.len() == 1;
        let unchanged = !to_null
            && partition_by.len() == input.keys.len()
            && partition_by.iter().zip(&input.keys).all(|(e, k)| k.equal.contains(e));
        if unchanged {
            let mut input = input;
            for (key, expr) in input.keys.iter_mut().zip(partition_by) {
                key.equal.retain(|e| e == expr);
            }
            input.synthetic_key = None;
            input.foreign_key_left = None;
            return Ok(input);
        }
        if input.node.window.is_some() {
            return Err(Diagnostic::at(
                Code::Key,
                span,
                "implicit repartitioning of windowed sources is not supported",
            ));
        }
        let catalog = self.env.functions();
        let mut keys = Vec::new();
        let mut columns = Vec::new();
        let mut bindings = Vec::new();
        let mut key_columns = Vec::new();
        for expr in partition_by.iter().filter(|e| !is_null(e)) {
            for kind in [FunctionKind::Aggregate, FunctionKind::Table] {
                if let Some((call, at)) = calls::of_kind(expr, kind, catalog).first() {
                    return Err(Diagnostic::at(
                        Code::Key,
                        *at,
                        format!("PARTITION BY does not support aggregate or table functions: {}", call.name.value),
                    ));
                }
            }
            let typed = Typer::new(self.env, &input.bindings, "PARTITION BY", single).expr(expr)?;
            let base = expr.column().map_or("KSQL_KEY", |c| c.name.value.as_str());
            let name = super::input::unique(base, |n| columns.iter().any(|c: &Column| c.name == n));
            check_key_type(&name, &typed.ty, expr.span)?;
            bindings.push(Binding { expr: expr.clone(), index: columns.len(), ty: typed.ty.clone() });
            key_columns.push(super::input::KeyColumn { index: columns.len(), equal: vec![expr.clone()] });
            columns.push(Column::key(name, typed.ty.clone()));
            keys.push(typed);
        }
        let shift = keys.len();
        for column in &input.node.schema.columns {
            let role = if column.role == ColumnRole::Key { ColumnRole::Value } else { column.role.clone() };
            let name = super::input::unique(&column.name, |n| columns.iter().any(|c| c.name == n));
            columns.push(Column::new(name, column.ty.clone(), role));
        }
        bindings.extend(input.bindings.into_iter().map(|b| Binding { index: b.index + shift, ..b }));
        let exchange_format = match &self.key_format {
            Some(format) => format.clone(),
            None => self.exchange_format(columns.get(..shift).unwrap_or(&[]), &input.key_format),
        };
        let keep = (0..input.node.schema.columns.len()).collect();
        let relation = input.node.relation;
        let node = Node {
            schema: Schema::new(columns),
            relation,
            window: None,
            kind: NodeKind::Rekey { input: Box::new(input.node), keys, keep, key_format: exchange_format.clone() },
        };
        Ok(Input {
            node,
            bindings,
            keys: key_columns,
            partitions: input.partitions,
            key_format: exchange_format,
            synthetic_key: None,
            foreign_key_left: None,
        })
    }

    /// The format in which rows with a new key are partitioned: the old one if it can hold the key, else JSON.
    pub fn exchange_format(&self, keys: &[Column], old: &FormatSpec) -> FormatSpec {
        if let Some(format) = &self.key_format {
            return format.clone();
        }
        let columns: Vec<(String, SqlType)> = keys.iter().map(|c| (c.name.clone(), c.ty.clone())).collect();
        let old = if old.name == "NONE" {
            super::join::plain_format(
                super::source::default_format(crate::plan::Side::Key, self.env).unwrap_or_else(|_| "KAFKA".to_owned()),
            )
        } else {
            old.clone()
        };
        if self.env.key_format_supports(&old.name, &columns) {
            old
        } else {
            super::join::plain_format("JSON".to_owned())
        }
    }

    /// The last node: the SELECT list over rows that are keyed already.
    fn project(&self, input: Input, items: &[Item], key: KeyWord, single: bool) -> AnalysisResult<Node> {
        let mut typed = Vec::with_capacity(items.len());
        let mut typer = Typer::new(self.env, &input.bindings, "SELECT", single);
        for item in items {
            typed.push(typer.expr(&item.expr).map_err(|d| d.or_span(item.span))?);
        }
        let mut key_items = Vec::with_capacity(input.keys.len());
        if self.purpose.is_persistent() {
            let mut missing = Vec::new();
            for column in &input.keys {
                let chosen: Vec<usize> = column
                    .viable()
                    .chain(column.equal.iter().filter(|e| e.column().is_none() && key == KeyWord::Partitioning))
                    .find_map(|viable| {
                        let found: Vec<usize> =
                            items.iter().enumerate().filter(|(_, i)| i.expr == *viable).map(|(i, _)| i).collect();
                        (!found.is_empty()).then_some(found)
                    })
                    .unwrap_or_default();
                match chosen.as_slice() {
                    [] => missing.push(column),
                    [one] => key_items.push((*one, column.index)),
                    several => return Err(self.key_twice(&input, column, several, items, single)),
                }
            }
            let drops_keys = input.relation() == Relation::Stream
                && self.env.property("ksql.new.query.planner.enabled").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            if !missing.is_empty() && !drops_keys {
                return Err(self.key_missing(&input, &missing, key, single));
            }
        }
        self.result(input.node, items, typed, &key_items)
    }

    /// A `Project` that puts the key items first. `key_items`: index of the item, index of the input's key column.
    pub fn result(
        &self,
        input: Node,
        items: &[Item],
        typed: Vec<TypedExpr>,
        key_items: &[(usize, usize)],
    ) -> AnalysisResult<Node> {
        let mut columns: Vec<Column> = Vec::with_capacity(items.len());
        let mut exprs = Vec::with_capacity(items.len());
        let mut add = |item: &Item, expr: TypedExpr, role: ColumnRole| {
            if columns.iter().any(|c| c.name == item.name) {
                return Err(Diagnostic::at(
                    Code::DuplicateName,
                    item.span,
                    format!("the projection contains a duplicate column name: `{}`", item.name),
                )
                .with_hint("give one of the columns an alias"));
            }
            columns.push(Column::new(item.name.clone(), expr.ty.clone(), role));
            exprs.push(expr);
            Ok(())
        };
        for (at, index) in key_items {
            let (Some(item), Some(expr)) = (items.get(*at), typed.get(*at)) else { continue };
            check_key_type(&item.name, &expr.ty, item.span)?;
            let column = TypedExpr::new(ExprKind::Column(*index), expr.ty.clone(), expr.span);
            add(item, column, ColumnRole::Key)?;
        }
        for (i, (item, expr)) in items.iter().zip(typed).enumerate() {
            if !key_items.iter().any(|(at, _)| *at == i) {
                add(item, expr, ColumnRole::Value)?;
            }
        }
        if self.purpose.is_persistent() && columns.iter().all(Column::is_key) {
            return Err(Diagnostic::at(
                Code::Key,
                self.query.select_span(),
                "the projection contains no value columns",
            )
            .with_hint("AS_VALUE(key) puts a copy of the key into the value"));
        }
        let (relation, window) = (input.relation, input.window);
        let node = Node {
            schema: Schema::new(columns),
            relation,
            window,
            kind: NodeKind::Project { input: Box::new(input), exprs },
        };
        Ok(node)
    }

    fn sink(&self) -> &str {
        match self.purpose {
            Purpose::Persistent { sink, .. } => sink,
            Purpose::Push => "",
        }
    }

    fn key_twice(
        &self,
        input: &Input,
        column: &super::input::KeyColumn,
        found: &[usize],
        items: &[Item],
        single: bool,
    ) -> Diagnostic {
        let names: Vec<String> = found.iter().filter_map(|i| items.get(*i)).map(|i| i.name.clone()).collect();
        let span = found.iter().filter_map(|i| items.get(*i)).map(|i| i.span).reduce(Span::to).unwrap_or_default();
        let key = input.node.schema.columns.get(column.index).map_or("", |c| c.name.as_str());
        let key = match column.viable().next() {
            Some(expr) if single => shown(expr, true),
            _ => key.to_owned(),
        };
        Diagnostic::at(
            Code::Key,
            span,
            format!(
                "the projection contains a key column (`{key}`) more than once, aliased as: {}",
                join_words(&names, "and")
            ),
        )
        .with_hint("each key column must only be in the projection once; AS_VALUE(key) copies it into the value")
    }

    fn key_missing(
        &self,
        input: &Input,
        missing: &[&super::input::KeyColumn],
        key: KeyWord,
        single: bool,
    ) -> Diagnostic {
        let span = self.query.select_span();
        if let Some(left) = &input.foreign_key_left {
            let columns: Vec<String> = missing
                .iter()
                .filter_map(|k| k.viable().next().and_then(Expr::column))
                .map(|c| format!("`{}`", c.name.value))
                .collect();
            let s = if columns.len() == 1 { "" } else { "s" };
            return Diagnostic::at(
                Code::Key,
                span,
                format!(
                    "primary key column{s} missing in projection. For foreign-key table-table joins, the projection \
                     must include all primary key columns from the left input table (`{left}`). Missing column{s}: {}",
                    columns.join(", ")
                ),
            );
        }
        let joined = !single && key == KeyWord::Source;
        let all: Vec<String> = if joined {
            input.keys.iter().flat_map(|k| k.viable().map(|e| shown(e, false))).collect()
        } else {
            let single = single && key == KeyWord::Source;
            input.keys.iter().filter_map(|k| k.equal.first()).map(|e| shown(e, single)).collect()
        };
        let what = match (key, joined) {
            (KeyWord::Partitioning, _) => "partitioning expression",
            (KeyWord::Source, true) => "join expression",
            (KeyWord::Source, false) => "key column",
        };
        let s = if all.len() == 1 { "" } else { "s" };
        let (words, example) = if joined {
            (join_words(&all, "or"), all.first().cloned().unwrap_or_default())
        } else {
            (join_words(&all, "and"), all.join(", "))
        };
        let diagnostic = Diagnostic::at(
            Code::Key,
            span,
            format!(
                "key missing from projection. The query used to build `{}` must include the {what}{s} {words} in its \
                 projection (eg, SELECT {example}...)",
                self.sink()
            ),
        );
        match &input.synthetic_key {
            Some(name) if joined => diagnostic.with_detail(format!(
                "{name} was added as a synthetic key column because the join criteria did not match any source column"
            )),
            _ => diagnostic,
        }
    }

    /// The same for a GROUP BY.
    pub fn group_missing(&self, groups: &[String]) -> Diagnostic {
        let s = if groups.len() == 1 { "" } else { "s" };
        Diagnostic::at(
            Code::Key,
            self.query.select_span(),
            format!(
                "key missing from projection. The query used to build `{}` must include the grouping expression{s} {} \
                 in its projection (eg, SELECT {}...)",
                self.sink(),
                join_words(groups, "and"),
                groups.join(", ")
            ),
        )
    }
}

/// What makes the key of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyWord {
    Source,
    Partitioning,
}

pub(super) fn filtered(input: Node, predicate: TypedExpr) -> Node {
    Node {
        schema: input.schema.clone(),
        relation: input.relation,
        window: input.window,
        kind: NodeKind::Filter { input: Box::new(input), predicate },
    }
}

/// The sources of a query, each once.
pub(super) fn from_sources(query: &Query, env: &dyn Environment) -> AnalysisResult<Vec<FromSource>> {
    let mut sources: Vec<FromSource> = Vec::new();
    for reference in query.sources() {
        let info: Arc<SourceInfo> = match env.source(&reference.name.value) {
            Some(info) => info,
            None => {
                let message = format!("{} does not exist", reference.name.value);
                return Err(unknown_source(env, &reference.name, message));
            }
        };
        if sources.iter().any(|s| s.info.name == info.name) {
            return Err(Diagnostic::at(
                Code::Join,
                reference.name.span,
                format!("can not join '{0}' to '{0}': self joins are not yet supported", info.name),
            ));
        }
        let alias = &reference.reference().value;
        if sources.iter().any(|s| s.alias == *alias) {
            return Err(Diagnostic::at(
                Code::DuplicateName,
                reference.reference().span,
                format!("each source needs its own alias: '{alias}' is used twice"),
            ));
        }
        sources.push(FromSource::new(alias, info));
    }
    Ok(sources)
}

/// WebAssembly modules behind the functions that a plan calls.
fn modules_of(root: &Node, env: &dyn Environment) -> Vec<(String, String)> {
    let mut names: Vec<String> = Vec::new();
    crate::plan::walk(root, &mut |node| {
        let mut note = |name: &str| {
            if !names.iter().any(|n| n == name) {
                names.push(name.to_owned());
            }
        };
        for expr in node.exprs() {
            expr.walk(&mut |e| {
                if let ExprKind::Call(call) = &e.kind {
                    note(&call.name);
                }
            });
        }
        if let NodeKind::Aggregate { calls, .. } = &node.kind {
            calls.iter().for_each(|c| note(&c.call.name));
        }
    });
    let catalog = env.functions();
    names.into_iter().filter_map(|n| Some((n.clone(), catalog.function(&n)?.module.clone()?))).collect()
}

/// Whether an expression mentions a bound of the query's own windows.
pub(super) fn own_window_bound(expr: &Expr) -> Option<(String, Span)> {
    let mut found = None;
    expr.walk(&mut |e| {
        if let Some(column) = e.column()
            && column.qualifier.is_none()
            && is_window_bound(&column.name.value)
            && found.is_none()
        {
            found = Some((column.name.value.clone(), e.span));
        }
        true
    });
    found
}

/// Names of the columns an expression mentions, for messages.
pub(super) fn mentions_columns(expr: &Expr) -> bool {
    !columns_of(expr).is_empty()
}

/// An error that a query gives another kind of result than its statement wants.
pub(super) fn wrong_result(span: Span, produces: Relation, statement: &str) -> Diagnostic {
    let what = noun(produces).to_uppercase();
    Diagnostic::at(
        Code::Invalid,
        span,
        format!(
            "invalid result type. Your SELECT query produces a {what}. Please use CREATE {what} AS SELECT statement \
             instead of {statement}"
        ),
    )
}

/// A table function that a CASE of the expression calls.
fn inside_case(expr: &Expr, catalog: &dyn FunctionCatalog) -> Option<(String, Span)> {
    let mut found = None;
    expr.walk(&mut |e| {
        if found.is_none() && matches!(e.kind, syntax::ExprKind::Case { .. }) {
            let call = calls::of_kind(e, FunctionKind::Table, catalog).into_iter().next();
            found = call.map(|(call, span)| (call.name.value.clone(), span));
        }
        found.is_none()
    });
    found
}
