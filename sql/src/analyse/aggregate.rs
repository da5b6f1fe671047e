//! GROUP BY, HAVING, WINDOW and aggregate functions.

use millpond_types::{Column, Schema, SqlType};

use super::calls;
use super::input::Input;
use super::items::Item;
use super::query::{QueryAnalysis, filtered, mentions_columns, own_window_bound};
use super::scope::{FromSource, WINDOWEND, WINDOWSTART, join_words};
use super::shown::shown;
use super::source::check_key_type;
use super::typer::{Binding, Typer};
use crate::diagnostic::{Code, Diagnostic};
use crate::expr::TypedExpr;
use crate::functions::FunctionKind;
use crate::plan::{AggregateCall, AnalysisResult, KeyWindow, Node, NodeKind, Relation, WindowKind, WindowSpec};
use crate::syntax::{self, Emit, Expr, Span};

/// Windows that a row of a hopping window may belong to: all of them are touched in one step.
const WINDOWS_PER_ROW_MAX: i64 = 100_000;

pub(super) struct Aggregation<'a> {
    pub analysis: &'a QueryAnalysis<'a>,
    pub items: &'a [Item],
    pub having: Option<&'a Expr>,
    pub group_by: &'a [Expr],
    pub single: bool,
}

impl Aggregation<'_> {
    fn error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Code::Aggregate, span, message)
    }

    pub fn plan(&self, input: Input, sources: &[FromSource]) -> AnalysisResult<Node> {
        let query = self.analysis.query;
        let aggregates = self.aggregates()?;
        if self.group_by.is_empty() {
            let names: Vec<String> = aggregates.iter().map(|(e, _)| shown(e, self.single)).collect();
            let span = aggregates.first().map(|(_, s)| *s).unwrap_or_default();
            let statement = match self.analysis.purpose {
                super::query::Purpose::Persistent { statement, .. } => format!("{statement} statement"),
                super::query::Purpose::Push => "SELECT statement".to_owned(),
            };
            return Err(self.error(
                span,
                format!(
                    "{statement} does not support aggregate function [{}] without a GROUP BY clause",
                    names.join(", ")
                ),
            ));
        }
        self.check_sources(sources)?;
        self.check_groups()?;
        if aggregates.is_empty() {
            return Err(self.error(
                self.group_span(),
                "GROUP BY requires aggregate functions in either the SELECT or HAVING clause",
            ));
        }
        let env = self.analysis.env;
        let window = query.window.as_ref().map(|w| window_spec(w, query.emit.as_ref().map(|e| e.node))).transpose()?;
        if let (None, Some(emit)) = (&window, query.emit.filter(|e| e.node == Emit::Final)) {
            return Err(Diagnostic::at(
                Code::Window,
                emit.span,
                "EMIT FINAL is only supported for windowed aggregations",
            ));
        }
        let off = |name: &str| env.property(name).is_some_and(|v| v.eq_ignore_ascii_case("false"));
        if let Some(emit) = query.emit.filter(|e| e.node == Emit::Final && off("ksql.suppress.enabled")) {
            return Err(Diagnostic::at(
                Code::Window,
                emit.span,
                "suppression is currently disabled. You can enable it by setting ksql.suppress.enabled to true",
            ));
        }
        if let (Some(_), Relation::Table, Some(clause)) = (&window, input.relation(), &query.window) {
            return Err(Diagnostic::at(
                Code::Window,
                clause.kind.span,
                "WINDOW clause is only supported on streams, not on tables",
            ));
        }

        let mut bindings: Vec<Binding> = Vec::new();
        let mut columns: Vec<Column> = Vec::new();
        let mut groups: Vec<TypedExpr> = Vec::with_capacity(self.group_by.len());
        for expr in self.group_by {
            let typed = Typer::new(env, &input.bindings, "GROUP BY", self.single).expr(expr)?;
            let base = self.items.iter().find(|i| i.expr == *expr).map_or("KSQL_KEY", |i| i.name.as_str());
            let name = super::input::unique(base, |n| columns.iter().any(|c| c.name == n));
            if self.analysis.purpose.is_persistent() {
                check_key_type(&name, &typed.ty, expr.span)?;
            }
            bindings.push(Binding { expr: expr.clone(), index: columns.len(), ty: typed.ty.clone() });
            columns.push(Column::key(name, typed.ty.clone()));
            groups.push(typed);
        }
        let mut calls: Vec<AggregateCall> = Vec::new();
        let mut not_undoable: Vec<(String, Span)> = Vec::new();
        for (expr, span) in &aggregates {
            if bindings.iter().any(|b| b.expr == *expr) {
                continue;
            }
            let syntax::ExprKind::Call(call) = &expr.kind else { continue };
            let mut typer = Typer::new(env, &input.bindings, "SELECT", self.single);
            let function = typer.function(&call.name)?;
            let (call, overload) = typer.aggregate(&function, call, *span)?;
            if !overload.undo && !not_undoable.iter().any(|(n, _)| *n == function.name) {
                not_undoable.push((function.name.clone(), *span));
            }
            let name =
                super::input::unique(&format!("KSQL_AGG_{}", calls.len()), |n| columns.iter().any(|c| c.name == n));
            bindings.push(Binding { expr: expr.clone(), index: columns.len(), ty: call.ty.clone() });
            columns.push(Column::value(name, call.ty.clone()));
            calls.push(call);
        }
        if let (Relation::Table, Some((_, span))) = (input.relation(), not_undoable.first()) {
            let names: Vec<String> = not_undoable.iter().map(|(n, _)| n.clone()).collect();
            let s = if names.len() == 1 { "" } else { "s" };
            return Err(self.error(
                *span,
                format!(
                    "the aggregation function{s} {} cannot be applied to a table source, only to a stream source",
                    join_words(&names, "and")
                ),
            ));
        }
        self.check_intermediate(sources, &calls)?;
        if window.is_some() {
            for name in [WINDOWSTART, WINDOWEND] {
                let expr = super::input::bare_column(name);
                bindings.push(Binding { expr, index: columns.len(), ty: SqlType::BigInt });
                columns.push(Column::pseudo(name, SqlType::BigInt));
            }
        }
        self.check_projection(&bindings)?;

        let by_key = self.group_by.len() == input.keys.len()
            && self.group_by.iter().zip(&input.keys).all(|(e, k)| k.equal.contains(e))
            && input.node.window.is_none();
        let key_format = if by_key && input.key_format.name != "NONE" {
            input.key_format.clone()
        } else {
            let width = groups.len();
            self.analysis.exchange_format(columns.get(..width).unwrap_or(&[]), &input.key_format)
        };
        let key_window = window
            .as_ref()
            .map(|w| KeyWindow { kind: w.kind, size_ms: (w.kind != WindowKind::Session).then_some(w.size_ms) });
        let mut node = Node {
            schema: Schema::new(columns),
            relation: Relation::Table,
            window: key_window,
            kind: NodeKind::Aggregate {
                input: Box::new(input.node),
                group_by: groups,
                calls,
                window,
                key_format,
                exchange: !by_key,
            },
        };
        if let Some(having) = self.having {
            let predicate = Typer::new(env, &bindings, "HAVING", self.single).condition(having)?;
            node = filtered(node, predicate);
        }

        let mut typer = Typer::new(env, &bindings, "SELECT", self.single);
        let typed: Vec<TypedExpr> = self
            .items
            .iter()
            .map(|item| typer.expr(&item.expr).map_err(|d| d.or_span(item.span)))
            .collect::<AnalysisResult<_>>()?;
        let mut key_items = Vec::with_capacity(self.group_by.len());
        if self.analysis.purpose.is_persistent() {
            let mut missing = false;
            for (index, group) in self.group_by.iter().enumerate() {
                let found: Vec<usize> =
                    self.items.iter().enumerate().filter(|(_, i)| i.expr == *group).map(|(i, _)| i).collect();
                match found.as_slice() {
                    [] => missing = true,
                    [one] => key_items.push((*one, index)),
                    several => {
                        let names: Vec<String> = several
                            .iter()
                            .filter_map(|i| self.items.get(*i))
                            .map(|i| format!("`{}`", i.name))
                            .collect();
                        return Err(Diagnostic::at(
                            Code::Key,
                            query.select_span(),
                            format!(
                                "the projection contains a key column more than once: {}",
                                join_words(&names, "and")
                            ),
                        )
                        .with_hint("AS_VALUE(key) copies a key column into the value"));
                    }
                }
            }
            if missing {
                let groups: Vec<String> = self.group_by.iter().map(|e| shown(e, self.single)).collect();
                return Err(self.analysis.group_missing(&groups));
            }
        }
        self.analysis.result(node, self.items, typed, &key_items)
    }

    fn group_span(&self) -> Span {
        self.group_by.iter().map(|e| e.span).reduce(Span::to).unwrap_or_default()
    }

    /// All calls of aggregate functions, checked for nesting.
    fn aggregates(&self) -> AnalysisResult<Vec<(Expr, Span)>> {
        let catalog = self.analysis.env.functions();
        let mut found = Vec::new();
        for expr in self.items.iter().map(|i| &i.expr).chain(self.having) {
            for (call, span) in calls::of_kind(expr, FunctionKind::Aggregate, catalog) {
                for argument in &call.arguments {
                    if let Some((inner, _)) = calls::of_kind(argument, FunctionKind::Aggregate, catalog).first() {
                        return Err(self.error(
                            span,
                            format!(
                                "aggregate functions can not be nested: {}({}())",
                                call.name.value, inner.name.value
                            ),
                        ));
                    }
                    if let Some((name, at)) = own_window_bound(argument) {
                        return Err(window_bound_misplaced(&name, at));
                    }
                }
                found.push((Expr::new(syntax::ExprKind::Call(call.clone()), span), span));
            }
        }
        Ok(found)
    }

    fn check_sources(&self, sources: &[FromSource]) -> AnalysisResult<()> {
        let kafka: Vec<String> =
            sources.iter().filter(|s| s.info.value_format.name == "KAFKA").map(|s| s.info.name.clone()).collect();
        if kafka.is_empty() {
            return Ok(());
        }
        Err(Diagnostic::at(
            Code::Format,
            self.group_span(),
            format!(
                "source(s) {} are using the 'KAFKA' value format. This format does not yet support GROUP BY",
                kafka.join(", ")
            ),
        ))
    }

    /// ksqlDB keeps aggregates in the format of the source's value and refuses those that it cannot hold; here that is
    /// refused only on demand.
    fn check_intermediate(&self, sources: &[FromSource], calls: &[AggregateCall]) -> AnalysisResult<()> {
        const WITH_PARTS: [&str; 13] = [
            "ATTR",
            "AVG",
            "COLLECT_LIST",
            "COLLECT_SET",
            "CORRELATION",
            "COUNT_DISTINCT",
            "EARLIEST_BY_OFFSET",
            "HISTOGRAM",
            "LATEST_BY_OFFSET",
            "STDDEV_SAMP",
            "STDDEV_SAMPLE",
            "TOPK",
            "TOPKDISTINCT",
        ];
        let quirks = self.analysis.env.property("ksql.compat.quirks").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        let delimited = sources.first().is_some_and(|s| s.info.value_format.name == "DELIMITED");
        if quirks && delimited && calls.iter().any(|c| WITH_PARTS.contains(&c.call.name.as_str())) {
            return Err(Diagnostic::at(
                Code::Format,
                self.analysis.query.select_span(),
                "one of the functions used in the statement has an intermediate type that the value format can not \
                 handle. Please remove the function or change the format",
            ));
        }
        Ok(())
    }

    fn check_groups(&self) -> AnalysisResult<()> {
        let catalog = self.analysis.env.functions();
        for (i, expr) in self.group_by.iter().enumerate() {
            if let Some((call, span)) = calls::of_kind(expr, FunctionKind::Aggregate, catalog).first() {
                return Err(self.error(
                    *span,
                    format!(
                        "GROUP BY does not support aggregate functions: {0} is an aggregate function",
                        call.name.value
                    ),
                ));
            }
            if let Some((name, at)) = own_window_bound(expr) {
                return Err(window_bound_misplaced(&name, at));
            }
            if expr.literal() == Some(&syntax::Literal::Null) {
                return Err(self.error(expr.span, "cannot GROUP BY NULL"));
            }
            if self.group_by.iter().take(i).any(|other| other == expr) {
                return Err(
                    self.error(expr.span, format!("duplicate expression in GROUP BY: {}", shown(expr, self.single)))
                );
            }
        }
        if let Some((name, at)) = self.having.and_then(own_window_bound) {
            return Err(window_bound_misplaced(&name, at));
        }
        Ok(())
    }

    /// Everything outside of aggregates must be made of group expressions.
    fn check_projection(&self, bindings: &[Binding]) -> AnalysisResult<()> {
        let strays = |expr: &Expr| {
            let mut stray = false;
            expr.walk(&mut |e| {
                if bindings.iter().any(|b| b.expr == *e) {
                    return false;
                }
                stray |= e.column().is_some_and(|c| c.qualifier.is_some());
                true
            });
            stray && mentions_columns(expr)
        };
        let wrong: Vec<&Item> = self.items.iter().filter(|i| strays(&i.expr)).collect();
        if let Some(first) = wrong.first() {
            let shown: Vec<String> = wrong.iter().map(|i| shown(&i.expr, self.single)).collect();
            return Err(self
                .error(
                    first.span,
                    format!("non-aggregate SELECT expression(s) not part of GROUP BY: {}", shown.join(", ")),
                )
                .with_hint("either add the column(s) to the GROUP BY or remove them from the SELECT"));
        }
        if let Some(having) = self.having.filter(|h| strays(h)) {
            let mut columns: Vec<String> = Vec::new();
            having.walk(&mut |e| {
                if bindings.iter().any(|b| b.expr == *e) {
                    return false;
                }
                if e.column().is_some() {
                    columns.push(shown(e, self.single));
                }
                true
            });
            return Err(self.error(
                having.span,
                format!("non-aggregate HAVING expression not part of GROUP BY: {}", columns.join(", ")),
            ));
        }
        Ok(())
    }
}

fn window_bound_misplaced(name: &str, span: Span) -> Diagnostic {
    Diagnostic::at(
        Code::Window,
        span,
        format!("window bounds column {name} can only be used in the SELECT clause of windowed aggregations"),
    )
    .with_detail("and can not be passed to aggregate functions")
}

/// The WINDOW clause in milliseconds, checked.
pub(super) fn window_spec(window: &syntax::Window, emit: Option<Emit>) -> AnalysisResult<WindowSpec> {
    let span = window.kind.span;
    let wrong = |message: &str| Diagnostic::at(Code::Window, span, message);
    let millis = |interval: &syntax::Interval| interval.millis().ok_or_else(|| wrong("the interval is too long"));
    let (kind, size_ms, advance_ms) = match &window.kind.node {
        syntax::WindowKind::Tumbling { size } => (WindowKind::Tumbling, millis(size)?, millis(size)?),
        syntax::WindowKind::Hopping { size, advance } => (WindowKind::Hopping, millis(size)?, millis(advance)?),
        syntax::WindowKind::Session { gap } => (WindowKind::Session, millis(gap)?, 0),
    };
    if size_ms <= 0 {
        return Err(wrong("the size of a window must be positive"));
    }
    if kind == WindowKind::Hopping && !(1..=size_ms).contains(&advance_ms) {
        return Err(wrong("ADVANCE BY must be positive and at most the SIZE of the window"));
    }
    if kind == WindowKind::Hopping && size_ms / advance_ms > WINDOWS_PER_ROW_MAX {
        return Err(wrong(&format!(
            "every row would be in {} windows, and at most {WINDOWS_PER_ROW_MAX} are possible",
            size_ms / advance_ms
        ))
        .with_hint("make ADVANCE BY longer or SIZE shorter"));
    }
    let grace_ms = window.grace.as_ref().map(&millis).transpose()?;
    let retention_ms = window.retention.as_ref().map(millis).transpose()?;
    let spec = WindowSpec { kind, size_ms, advance_ms, grace_ms, retention_ms, emit_final: emit == Some(Emit::Final) };
    if let (Some(retention), Some(clause)) = (retention_ms, &window.retention) {
        let least = size_ms.saturating_add(grace_ms.unwrap_or(0));
        if retention < least {
            return Err(Diagnostic::at(
                Code::Window,
                clause.span(),
                format!(
                    "RETENTION must be at least the size of the window and its grace period: {retention} ms is less \
                     than {least} ms"
                ),
            ));
        }
    }
    Ok(spec)
}
