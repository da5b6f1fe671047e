//! Pull queries: a SELECT without EMIT over materialised tables, or over a stream up to its end.
//!
//! Joins, GROUP BY, HAVING and ORDER BY go beyond ksqlDB; `ksql.compat.quirks` refuses them.

use millpond_types::{Column, ColumnRole, Schema, SqlType};

use super::calls;
use super::input::{Input, column_expr};
use super::items::{Item, expand_items};
use super::lookup::{check_bounds, check_keys, check_lookup};
use super::query::{Purpose, QueryAnalysis, from_sources};
use super::scope::{FromSource, Names, ROWOFFSET, ROWPARTITION, columns_of};
use super::shown::shown;
use super::typer::{Binding, Typer};
use crate::diagnostic::{Code, Diagnostic};
use crate::expr::{ExprKind, TypedExpr};
use crate::functions::FunctionKind;
use crate::plan::{AggregateCall, Analysed, AnalysisResult, Environment, OrderBy, PullJoin, PullPlan, Relation};
use crate::syntax::{self, BinaryOp, Expr, Query, Span};

pub(super) fn pull(query: &Query, env: &dyn Environment) -> AnalysisResult<Analysed> {
    let sources = from_sources(query, env)?;
    let quirks = env.property("ksql.compat.quirks").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let on_stream = sources.iter().any(|s| s.info.relation == Relation::Stream);
    refuse_clauses(query, quirks || on_stream)?;
    refuse_offsets(query)?;
    let off = |name: &str| env.property(name).is_some_and(|v| v.eq_ignore_ascii_case("false"));
    if let Some(limit) = query.limit.filter(|_| off("ksql.query.pull.limit.clause.enabled")) {
        return Err(Diagnostic::at(
            Code::Invalid,
            limit.span,
            "LIMIT clause in pull queries is currently disabled. You can enable them by setting \
             ksql.query.pull.limit.clause.enabled=true",
        )
        .with_detail(MORE_INFO)
        .with_hint(OR_PUSH));
    }
    if on_stream {
        let catalog = env.functions();
        let mut selected = query.select.iter().filter_map(|item| match item {
            syntax::SelectItem::Expr { expr, .. } => Some(expr),
            _ => None,
        });
        let aggregate = selected.find_map(|e| calls::of_kind(e, FunctionKind::Aggregate, catalog).into_iter().next());
        if let Some((call, span)) = aggregate {
            return Err(Diagnostic::at(
                Code::Aggregate,
                span,
                format!("pull queries on streams don't support aggregate functions: {}", call.name.value),
            )
            .with_hint("add EMIT CHANGES if you intended to issue a push query"));
        }
        if off("ksql.query.pull.stream.enabled") {
            return Err(Diagnostic::at(
                Code::Invalid,
                query.from.first.name.span,
                "pull queries on streams are disabled. To create a push query on the stream, add EMIT CHANGES to the \
                 end. To enable pull queries on streams, set the ksql.query.pull.stream.enabled config to 'true'",
            ));
        }
        let planned = QueryAnalysis { query, env, purpose: Purpose::Push, key_format: None }.plan()?;
        return Ok(Analysed::PullStream(planned.plan));
    }
    for (source, reference) in sources.iter().zip(query.sources()) {
        if !source.info.materialised {
            return Err(Diagnostic::at(
                Code::Invalid,
                reference.name.span,
                format!(
                    "the `{0}` table isn't queryable. To derive a queryable table, you can do 'CREATE TABLE \
                     QUERYABLE_{0} AS SELECT * FROM {0}'",
                    source.info.name
                ),
            )
            .with_detail(MORE_INFO)
            .with_hint(OR_PUSH));
        }
    }
    Puller { query, env, sources: &sources }.plan().map(Analysed::Pull)
}

/// What ksqlDB adds to what it says of pull queries.
pub(super) const MORE_INFO: &str = "see https://cnfl.io/queries for more info";
pub(super) const OR_PUSH: &str = "add EMIT CHANGES if you intended to issue a push query";

fn unsupported(span: Span, what: &str) -> Diagnostic {
    Diagnostic::at(Code::Invalid, span, format!("pull queries don't support {what} clauses"))
        .with_detail(MORE_INFO)
        .with_hint(OR_PUSH)
}

fn refuse_clauses(query: &Query, strict: bool) -> AnalysisResult<()> {
    if let Some(window) = &query.window {
        return Err(unsupported(window.kind.span, "WINDOW"));
    }
    if let Some(partition) = query.partition_by.first() {
        return Err(unsupported(partition.span, "PARTITION BY"));
    }
    if strict {
        if let Some(join) = query.from.joins.first() {
            return Err(unsupported(join.kind.span, "JOIN"));
        }
        if let Some(group) = query.group_by.first() {
            return Err(unsupported(group.span, "GROUP BY"));
        }
        if let Some(having) = &query.having {
            return Err(unsupported(having.span, "HAVING"));
        }
        if let Some(order) = query.order_by.first() {
            return Err(unsupported(order.expr.span, "ORDER BY"));
        }
    }
    Ok(())
}

/// ROWPARTITION and ROWOFFSET are not kept in state.
fn refuse_offsets(query: &Query) -> AnalysisResult<()> {
    let selected = query.select.iter().filter_map(|item| match item {
        syntax::SelectItem::Expr { expr, .. } => Some(expr),
        _ => None,
    });
    let all = selected.map(|e| ("SELECT", e)).chain(query.filter.iter().map(|e| ("WHERE", e)));
    let mut found: Option<(&str, Span, Vec<String>)> = None;
    for (clause, expr) in all {
        // WHERE comes last, and is told by itself.
        if clause == "WHERE" && found.is_some() {
            break;
        }
        expr.walk(&mut |e| {
            if let Some(column) = e.column()
                && matches!(column.name.value.as_str(), ROWPARTITION | ROWOFFSET)
            {
                let name = format!("`{}`", column.name.value);
                let names = &mut found.get_or_insert((clause, e.span, Vec::new())).2;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            true
        });
    }
    match found {
        None => Ok(()),
        Some((clause, span, names)) => Err(Diagnostic::at(
            Code::Invalid,
            span,
            format!("pull queries don't support the following columns in {clause} clauses: {}", names.join(", ")),
        )
        .with_detail(MORE_INFO)
        .with_hint(OR_PUSH)),
    }
}

struct Puller<'a> {
    query: &'a Query,
    env: &'a dyn Environment,
    sources: &'a [FromSource],
}

impl Puller<'_> {
    fn single(&self) -> bool {
        self.sources.len() == 1
    }

    /// Columns of all tables, as `PullPlan` orders them: each table's schema, its window bounds, its ROWTIME.
    fn bindings(&self) -> Vec<Binding> {
        let mut bindings = Vec::new();
        for source in self.sources {
            let declared = source.info.schema.columns.iter().map(|c| (c.name.as_str(), c.ty.clone()));
            let bounds = source.info.window.map(|_| ["WINDOWSTART", "WINDOWEND"]).into_iter().flatten();
            let pseudo = bounds.chain(["ROWTIME"]).map(|n| (n, SqlType::BigInt));
            for (name, ty) in declared.chain(pseudo) {
                bindings.push(Binding { expr: column_expr(&source.alias, name), index: bindings.len(), ty });
            }
        }
        bindings
    }

    fn plan(&self) -> AnalysisResult<PullPlan> {
        let query = self.query;
        let env = self.env;
        let catalog = env.functions();
        let single = self.single();
        let names = Names { sources: self.sources, synthetic_key: None, window_bounds: false, functions: catalog };
        let bindings = self.bindings();
        let joins = self.joins(&names, &bindings)?;
        let written = query.filter.as_ref().map(|f| names.qualify(f, "WHERE")).transpose()?;
        let quirks = env.property("ksql.compat.quirks").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        if let ([only], Some(written), true) = (self.sources, &written, quirks)
            && only.info.window.is_some()
        {
            check_bounds(only, written)?;
        }
        let mut condition = Typer::new(env, &bindings, "WHERE", single);
        let filter = written.as_ref().map(|f| condition.condition(f)).transpose()?;
        if env.property("ksql.query.pull.table.scan.enabled").is_some_and(|v| v.eq_ignore_ascii_case("false")) {
            let ranges_allowed =
                !env.property("ksql.query.pull.range.scan.enabled").is_some_and(|v| v.eq_ignore_ascii_case("false"));
            for source in self.sources {
                let span = written.as_ref().map_or(query.from.first.name.span, |f| f.span);
                check_lookup(source, written.as_ref(), span, ranges_allowed)?;
            }
        } else if let ([only], Some(written)) = (self.sources, &written) {
            check_keys(only, written)?;
        }
        let Some(first) = self.sources.first() else { return Err(Diagnostic::bug("a query without a source")) };
        let mut input = Input::of_source(first);
        input.bindings = bindings.clone();
        let mut items = expand_items(&query.select, &names, &input, &[], true, false, env)?;
        let group_by =
            query.group_by.iter().map(|e| names.qualify(e, "GROUP BY")).collect::<AnalysisResult<Vec<_>>>()?;
        let having = query.having.as_ref().map(|h| names.qualify(h, "HAVING")).transpose()?;
        let order_by = query
            .order_by
            .iter()
            .map(|o| Ok((self.order_expr(&o.expr, &items, &names)?, o.descending)))
            .collect::<AnalysisResult<Vec<_>>>()?;
        let all: Vec<&Expr> =
            items.iter().map(|i| &i.expr).chain(&having).chain(order_by.iter().map(|(e, _)| e)).collect();
        if let Some((call, span)) = all.iter().flat_map(|e| calls::of_kind(e, FunctionKind::Table, catalog)).next() {
            return Err(Diagnostic::at(
                Code::Invalid,
                span,
                format!("table source is not supported with table functions: {}", call.name.value),
            ));
        }
        let calls_found: Vec<(Expr, Span)> = all
            .iter()
            .flat_map(|e| calls::of_kind(e, FunctionKind::Aggregate, catalog))
            .map(|(call, span)| (Expr::new(syntax::ExprKind::Call(call.clone()), span), span))
            .collect();
        let grouped = !group_by.is_empty() || !calls_found.is_empty();
        if grouped && quirks {
            let span = calls_found.first().map(|(_, s)| *s).unwrap_or_default();
            return Err(unsupported(span, "GROUP BY"));
        }
        let mut above: Vec<Binding> = Vec::new();
        let mut groups = Vec::new();
        let mut aggregates: Vec<AggregateCall> = Vec::new();
        if grouped {
            for expr in &group_by {
                let typed = Typer::new(env, &bindings, "GROUP BY", single).expr(expr)?;
                above.push(Binding { expr: expr.clone(), index: above.len(), ty: typed.ty.clone() });
                groups.push(typed);
            }
            for (expr, span) in &calls_found {
                if above.iter().any(|b| b.expr == *expr) {
                    continue;
                }
                let syntax::ExprKind::Call(call) = &expr.kind else { continue };
                let mut typer = Typer::new(env, &bindings, "SELECT", single);
                let function = typer.function(&call.name)?;
                let (call, _) = typer.aggregate(&function, call, *span)?;
                above.push(Binding { expr: expr.clone(), index: above.len(), ty: call.ty.clone() });
                aggregates.push(call);
            }
            for item in &items {
                self.check_grouped(&item.expr, &above, "SELECT")?;
            }
            for expr in having.iter().chain(order_by.iter().map(|(e, _)| e)) {
                self.check_grouped(expr, &above, "HAVING or ORDER BY")?;
            }
        } else if let Some(having) = &having {
            return Err(Diagnostic::at(Code::Aggregate, having.span, "HAVING requires a GROUP BY clause"));
        }
        let scope: &[Binding] = if grouped { &above } else { &bindings };
        let having = having.map(|h| Typer::new(env, scope, "HAVING", single).condition(&h)).transpose()?;
        let mut order = Vec::with_capacity(order_by.len());
        for (expr, descending) in &order_by {
            let expr = Typer::new(env, scope, "ORDER BY", single).expr(expr)?;
            if !expr.ty.is_primitive() {
                return Err(Diagnostic::at(
                    Code::Type,
                    expr.span,
                    format!("cannot ORDER BY a value of type {}", expr.ty),
                ));
            }
            order.push(OrderBy { expr, descending: *descending });
        }
        uniquely_named(&mut items);
        let mut select = Vec::with_capacity(items.len());
        let mut columns = Vec::with_capacity(items.len());
        for item in &items {
            let typed = Typer::new(env, scope, "SELECT", single).expr(&item.expr)?;
            columns.push(Column::new(item.name.clone(), typed.ty.clone(), self.role(&typed, grouped)));
            select.push((item.name.clone(), typed));
        }
        Ok(PullPlan {
            tables: self.sources.iter().map(|s| s.info.clone()).collect(),
            joins,
            filter,
            group_by: grouped.then_some(groups),
            aggregates,
            having,
            select,
            schema: Schema::new(columns),
            order_by: order,
            limit: query.limit.map(|l| l.node),
        })
    }

    /// Keys of a single table stay keys, and its window's bounds are part of them.
    fn role(&self, typed: &TypedExpr, grouped: bool) -> ColumnRole {
        let (ExprKind::Column(i), [only]) = (&typed.kind, self.sources) else { return ColumnRole::Value };
        let declared = &only.info.schema.columns;
        match declared.get(*i) {
            _ if grouped => ColumnRole::Value,
            Some(column) => column.role.clone(),
            None if only.info.window.is_some() && *i < declared.len() + 2 => ColumnRole::Key,
            None => ColumnRole::Value,
        }
    }

    fn check_grouped(&self, expr: &Expr, above: &[Binding], clause: &str) -> AnalysisResult<()> {
        let mut stray = None;
        expr.walk(&mut |e| {
            if above.iter().any(|b| b.expr == *e) {
                return false;
            }
            if e.column().is_some_and(|c| c.qualifier.is_some()) && stray.is_none() {
                stray = Some(e.span);
            }
            true
        });
        match stray {
            None => Ok(()),
            Some(span) => Err(Diagnostic::at(
                Code::Aggregate,
                span,
                format!("non-aggregate {clause} expression(s) not part of GROUP BY: {}", shown(expr, self.single())),
            )),
        }
    }

    /// An ORDER BY may name a column of the result.
    fn order_expr(&self, expr: &Expr, items: &[Item], names: &Names<'_>) -> AnalysisResult<Expr> {
        if let Some(column) = expr.column().filter(|c| c.qualifier.is_none())
            && let Some(item) = items.iter().find(|i| i.name == column.name.value)
        {
            return Ok(item.expr.clone());
        }
        names.qualify(expr, "ORDER BY")
    }

    fn joins(&self, names: &Names<'_>, bindings: &[Binding]) -> AnalysisResult<Vec<PullJoin>> {
        let mut joins = Vec::new();
        for (join, right) in self.query.from.joins.iter().zip(self.sources.iter().skip(1)) {
            let wrong = |span: Span, message: &str| Diagnostic::at(Code::Join, span, message.to_owned());
            if let Some(within) = &join.within {
                return Err(wrong(
                    within.span,
                    "WITHIN is for joins of streams; pull queries join tables as they are now",
                ));
            }
            let syntax::ExprKind::Binary { op: BinaryOp::Equal, left: l, right: r } = &join.on.kind else {
                return Err(wrong(join.on.span, "only one equality is supported in ON"));
            };
            let (mut l, mut r) = (names.qualify(l, "JOIN ON")?, names.qualify(r, "JOIN ON")?);
            let about_right =
                |e: &Expr| columns_of(e).iter().any(|c| c.qualifier.as_ref().is_some_and(|q| q.value == right.alias));
            if about_right(&l) {
                std::mem::swap(&mut l, &mut r);
            }
            if about_right(&l) || !about_right(&r) {
                return Err(wrong(
                    join.on.span,
                    "one side of ON must be about the joined table, the other about those before it",
                ));
            }
            let mut typer = Typer::new(self.env, bindings, "JOIN ON", false);
            let (left, right) = (typer.expr(&l)?, typer.expr(&r)?);
            if left.ty != right.ty {
                return Err(wrong(
                    join.on.span,
                    &format!("invalid join condition: types don't match. Got {l}{{{}}} = {r}{{{}}}", left.ty, right.ty),
                ));
            }
            joins.push(PullJoin { kind: super::join::join_kind(join.kind.node), left, right });
        }
        Ok(joins)
    }
}

/// Result columns of a pull query are told apart by their names.
fn uniquely_named(items: &mut [Item]) {
    for i in 0..items.len() {
        let (before, rest) = items.split_at_mut(i);
        let Some(item) = rest.first_mut() else { continue };
        item.name = super::input::unique(&item.name, |n| before.iter().any(|b| b.name == n));
    }
}
