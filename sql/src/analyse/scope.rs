//! Names: the sources of a query, which column a name means, and expressions in which every name is qualified.
//!
//! Invariant: after `qualify`, every column of an expression is `source.column` of the FROM clause and exists; what is
//! left unqualified is a lambda's parameter, an interval unit, or the synthetic key of a join.

use std::sync::Arc;

use millpond_types::{Column, SqlType};

use crate::diagnostic::{Code, Diagnostic, suggest};
use crate::functions::{Function, FunctionCatalog, ParamType};
use crate::plan::{AnalysisResult, Environment, SourceInfo};
use crate::syntax::{self, CaseBranch, ColumnRef, Expr, ExprKind, Ident, MapEntry, StructField};

pub(super) const ROWTIME: &str = "ROWTIME";
pub(super) const ROWPARTITION: &str = "ROWPARTITION";
pub(super) const ROWOFFSET: &str = "ROWOFFSET";
pub(super) const WINDOWSTART: &str = "WINDOWSTART";
pub(super) const WINDOWEND: &str = "WINDOWEND";

pub(super) fn is_pseudo(name: &str) -> bool {
    matches!(name, ROWTIME | ROWPARTITION | ROWOFFSET) || is_window_bound(name)
}

pub(super) fn is_window_bound(name: &str) -> bool {
    matches!(name, WINDOWSTART | WINDOWEND)
}

/// The pseudo columns of a source, in the order in which they stand in its schema.
pub(super) fn pseudo_columns(windowed: bool) -> Vec<Column> {
    let mut columns = vec![
        Column::pseudo(ROWTIME, SqlType::BigInt),
        Column::pseudo(ROWPARTITION, SqlType::Integer),
        Column::pseudo(ROWOFFSET, SqlType::BigInt),
    ];
    if windowed {
        columns.push(Column::pseudo(WINDOWSTART, SqlType::BigInt));
        columns.push(Column::pseudo(WINDOWEND, SqlType::BigInt));
    }
    columns
}

/// A source as a query sees it.
#[derive(Clone, Debug)]
pub(super) struct FromSource {
    pub alias: String,
    pub info: Arc<SourceInfo>,
    /// Its declared columns, keys first, then its pseudo columns.
    pub columns: Vec<Column>,
}

impl FromSource {
    pub fn new(alias: &str, info: Arc<SourceInfo>) -> Self {
        let declared = &info.schema.columns;
        let mut columns: Vec<Column> = declared.iter().filter(|c| c.is_key()).cloned().collect();
        columns.extend(declared.iter().filter(|c| c.is_value()).cloned());
        columns.extend(declared.iter().filter(|c| !c.is_key() && !c.is_value()).cloned());
        columns.extend(pseudo_columns(info.window.is_some()));
        Self { alias: alias.to_owned(), info, columns }
    }

    pub fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|c| c.name == name)
    }

    /// What `*` means: keys, window bounds where they are wanted, the rest as declared.
    pub fn star(&self, window_bounds: bool) -> Vec<&Column> {
        let keys = self.columns.iter().filter(|c| c.is_key());
        let bounds = self.columns.iter().filter(|c| window_bounds && is_window_bound(&c.name));
        let rest = self.info.schema.columns.iter().filter(|c| !c.is_key());
        keys.chain(bounds).chain(rest).collect()
    }
}

/// The source of this name.
pub(super) fn find_source(env: &dyn Environment, name: &Ident) -> AnalysisResult<Arc<SourceInfo>> {
    env.source(&name.value).ok_or_else(|| unknown_source(env, name, format!("\"{}\" does not exist", name.value)))
}

/// An error about a source that is not there, with the one that was probably meant.
pub(super) fn unknown_source(env: &dyn Environment, name: &Ident, message: String) -> Diagnostic {
    let names = env.source_names();
    let diagnostic = Diagnostic::at(Code::UnknownName, name.span, message);
    if let Some(other) = names.iter().find(|n| n.eq_ignore_ascii_case(&name.value)) {
        return diagnostic.with_hint(format!(
            "did you mean \"{other}\"? wrap the source name in double quotes to make it case-sensitive"
        ));
    }
    match suggest(&name.value, names.iter().map(String::as_str)) {
        Some(other) => diagnostic.with_hint(format!("did you mean \"{other}\"?")),
        None => diagnostic,
    }
}

/// The function of this name.
pub(super) fn find_function(catalog: &dyn FunctionCatalog, name: &Ident) -> AnalysisResult<Arc<Function>> {
    let upper = name.value.to_ascii_uppercase();
    catalog.function(&upper).ok_or_else(|| {
        let diagnostic = Diagnostic::at(
            Code::UnknownName,
            name.span,
            format!("can't find any functions with the name '{}'", name.value),
        );
        let all = catalog.functions();
        match suggest(&upper, all.iter().map(|f| f.name.as_str())) {
            Some(other) => diagnostic.with_hint(format!("did you mean {other}?")),
            None => diagnostic,
        }
    })
}

/// All that names in a query can mean.
pub(super) struct Names<'a> {
    pub sources: &'a [FromSource],
    /// Name of the key column that a join adds because no column of a source can be its key.
    pub synthetic_key: Option<&'a str>,
    /// The query aggregates in windows, so WINDOWSTART and WINDOWEND are those of the result.
    pub window_bounds: bool,
    pub functions: &'a dyn FunctionCatalog,
}

impl Names<'_> {
    pub fn source(&self, alias: &Ident) -> AnalysisResult<&FromSource> {
        self.sources.iter().find(|s| s.alias == alias.value).ok_or_else(|| {
            let diagnostic = Diagnostic::at(
                Code::UnknownName,
                alias.span,
                format!("failed to prepare statement: '{}' is not a valid stream/table name or alias", alias.value),
            );
            match suggest(&alias.value, self.sources.iter().map(|s| s.alias.as_str())) {
                Some(other) => diagnostic.with_hint(format!("did you mean \"{other}\"?")),
                None => diagnostic,
            }
        })
    }

    /// The expression with every column qualified; its functions exist. `clause` is for messages: SELECT, WHERE ...
    pub fn qualify(&self, expr: &Expr, clause: &str) -> AnalysisResult<Expr> {
        let mut unknown = None;
        expr.walk(&mut |e| {
            if let ExprKind::Call(call) = &e.kind {
                unknown = unknown.take().or_else(|| find_function(self.functions, &call.name).err());
            }
            unknown.is_none()
        });
        if let Some(diagnostic) = unknown {
            return Err(diagnostic);
        }
        map_columns(
            expr,
            &mut |column, span, _| {
                if self.is_own_bound(column) { Ok(column.clone()) } else { self.column(column, span, clause) }
            },
            &|call, at| self.is_unit(call, at),
            &mut Vec::new(),
        )
    }

    fn column(&self, column: &ColumnRef, span: syntax::Span, clause: &str) -> AnalysisResult<ColumnRef> {
        let name = &column.name;
        if let Some(qualifier) = &column.qualifier {
            if self.source(qualifier)?.has(&name.value) {
                return Ok(column.clone());
            }
            let shown = format!("{}.{}", qualifier.value, name.value);
            return Err(self.unknown_column(&shown, name, span, clause));
        }
        let mut found = self.sources.iter().filter(|s| s.has(&name.value));
        match (found.next(), found.next()) {
            (None, _) if self.synthetic_key == Some(name.value.as_str()) => Ok(column.clone()),
            (None, _) => Err(self.unknown_column(&name.value, name, span, clause)),
            (Some(source), None) => Ok(ColumnRef {
                qualifier: Some(Ident { value: source.alias.clone(), quoted: true, span: name.span }),
                name: name.clone(),
            }),
            (Some(_), Some(_)) => {
                let all: Vec<String> = self
                    .sources
                    .iter()
                    .filter(|s| s.has(&name.value))
                    .map(|s| format!("{}.{}", s.alias, name.value))
                    .collect();
                let message = format!("column '{}' is ambiguous. Could be {}", name.value, join_words(&all, "or"));
                Err(Diagnostic::at(Code::AmbiguousName, span, message))
            }
        }
    }

    fn unknown_column(&self, shown: &str, name: &Ident, span: syntax::Span, clause: &str) -> Diagnostic {
        let message = format!("{clause} column '{shown}' cannot be resolved");
        let all = self.sources.iter().flat_map(|s| s.columns.iter().map(|c| c.name.as_str()));
        let diagnostic = Diagnostic::at(Code::UnknownName, span, message);
        match all.clone().find(|c| c.eq_ignore_ascii_case(&name.value)).or_else(|| suggest(&name.value, all)) {
            Some(other) => diagnostic.with_hint(format!("did you mean `{other}`?")),
            None => diagnostic,
        }
    }

    /// Whether a bare word here, an argument of this function, is an interval unit.
    fn is_unit(&self, call: &syntax::Call, at: usize) -> bool {
        call.arguments.get(at).is_some_and(|a| a.interval_unit().is_some())
            && self.functions.function(&call.name.value.to_ascii_uppercase()).is_some_and(|f| {
                f.overloads.iter().any(|o| o.params.get(at).is_some_and(|p| p.ty == ParamType::IntervalUnit))
            })
    }

    /// Whether the query's windows give this name a meaning that no source gives it.
    fn is_own_bound(&self, column: &ColumnRef) -> bool {
        self.window_bounds && column.qualifier.is_none() && is_window_bound(&column.name.value)
    }
}

/// What is done with each column of an expression; the names are the lambda parameters in force there.
type OnColumn<'a> = dyn FnMut(&ColumnRef, syntax::Span, &[String]) -> AnalysisResult<ColumnRef> + 'a;

/// The expression with every column replaced, but for arguments that `is_unit` says are interval units.
pub(super) fn map_columns(
    expr: &Expr,
    on_column: &mut OnColumn<'_>,
    is_unit: &dyn Fn(&syntax::Call, usize) -> bool,
    lambda: &mut Vec<String>,
) -> AnalysisResult<Expr> {
    let mut go = |e: &Expr| map_columns(e, on_column, is_unit, lambda);
    let mut boxed = |e: &Expr| go(e).map(Box::new);
    let kind = match &expr.kind {
        ExprKind::Literal(_) => return Ok(expr.clone()),
        ExprKind::Column(column) => {
            if column.qualifier.is_none() && lambda.contains(&column.name.value) {
                return Ok(expr.clone());
            }
            ExprKind::Column(on_column(column, expr.span, lambda)?)
        }
        ExprKind::Unary { op, operand } => ExprKind::Unary { op: *op, operand: boxed(operand)? },
        ExprKind::Binary { op, left, right } => ExprKind::Binary { op: *op, left: boxed(left)?, right: boxed(right)? },
        ExprKind::IsNull { operand, negated } => ExprKind::IsNull { operand: boxed(operand)?, negated: *negated },
        ExprKind::Between { operand, low, high, negated } => {
            ExprKind::Between { operand: boxed(operand)?, low: boxed(low)?, high: boxed(high)?, negated: *negated }
        }
        ExprKind::In { operand, list, negated } => ExprKind::In {
            operand: boxed(operand)?,
            list: list.iter().map(go).collect::<AnalysisResult<_>>()?,
            negated: *negated,
        },
        ExprKind::Like { operand, pattern, escape, negated } => {
            ExprKind::Like { operand: boxed(operand)?, pattern: boxed(pattern)?, escape: *escape, negated: *negated }
        }
        ExprKind::AtTimeZone { operand, zone } => ExprKind::AtTimeZone { operand: boxed(operand)?, zone: boxed(zone)? },
        ExprKind::Case { operand, branches, otherwise } => ExprKind::Case {
            operand: operand.as_deref().map(&mut boxed).transpose()?,
            otherwise: otherwise.as_deref().map(&mut boxed).transpose()?,
            branches: branches
                .iter()
                .map(|b| Ok(CaseBranch { when: go(&b.when)?, then: go(&b.then)? }))
                .collect::<AnalysisResult<_>>()?,
        },
        ExprKind::Cast { operand, ty } => ExprKind::Cast { operand: boxed(operand)?, ty: ty.clone() },
        ExprKind::Array(items) => ExprKind::Array(items.iter().map(go).collect::<AnalysisResult<_>>()?),
        ExprKind::Map(entries) => ExprKind::Map(
            entries
                .iter()
                .map(|e| Ok(MapEntry { key: go(&e.key)?, value: go(&e.value)? }))
                .collect::<AnalysisResult<_>>()?,
        ),
        ExprKind::Struct(fields) => ExprKind::Struct(
            fields
                .iter()
                .map(|f| Ok(StructField { name: f.name.clone(), value: go(&f.value)? }))
                .collect::<AnalysisResult<_>>()?,
        ),
        ExprKind::Subscript { base, index } => ExprKind::Subscript { base: boxed(base)?, index: boxed(index)? },
        ExprKind::Field { base, field } => ExprKind::Field { base: boxed(base)?, field: field.clone() },
        ExprKind::Call(call) => {
            let mut arguments = Vec::with_capacity(call.arguments.len());
            for (i, argument) in call.arguments.iter().enumerate() {
                arguments.push(if is_unit(call, i) { argument.clone() } else { go(argument)? });
            }
            ExprKind::Call(syntax::Call { name: call.name.clone(), star: call.star, arguments })
        }
        ExprKind::Lambda { parameters, body } => {
            let depth = lambda.len();
            lambda.extend(parameters.iter().map(|p| p.value.clone()));
            let body = map_columns(body, on_column, is_unit, lambda);
            lambda.truncate(depth);
            ExprKind::Lambda { parameters: parameters.clone(), body: Box::new(body?) }
        }
    };
    Ok(Expr::new(kind, expr.span))
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn join_words(words: &[String], last: &str) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// The columns that an expression mentions, without lambda parameters; as `qualify` left them.
pub(super) fn columns_of(expr: &Expr) -> Vec<&ColumnRef> {
    let mut columns = Vec::new();
    expr.walk(&mut |e| {
        if let ExprKind::Column(column) = &e.kind
            && column.qualifier.is_some()
        {
            columns.push(column);
        }
        true
    });
    columns
}
