//! Whether a pull query finds its rows by key, for servers that do not allow scans of whole tables.
//!
//! The condition is brought into disjunctive form; each alternative must bind every key column to a value, or a single
//! key column of an unwindowed table to a range.

use millpond_types::SqlType;

use super::pull::{MORE_INFO, OR_PUSH};
use super::scope::{FromSource, WINDOWEND, WINDOWSTART};
use super::shown::shown;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::AnalysisResult;
use crate::syntax::{BinaryOp, ColumnRef, Expr, ExprKind, Literal, Span, UnaryOp};

/// Most alternatives that a condition is taken apart into.
const DISJUNCTS_MAX: usize = 256;

const SCAN_NEEDED: &str = "query requires table scan to be enabled. Table scans can be enabled by setting \
                           ksql.query.pull.table.scan.enabled=true";

/// Refuses what would need a scan, be it of a range of keys unless `ranges_allowed`. `filter` is qualified.
pub(super) fn check_lookup(
    source: &FromSource,
    filter: Option<&Expr>,
    place: Span,
    ranges_allowed: bool,
) -> AnalysisResult<()> {
    let wrong = |message: String| Err(refusal(place, message));
    let Some(filter) = filter else {
        return wrong("missing WHERE clause".to_owned());
    };
    let Some(disjuncts) = disjuncts(filter, false) else {
        return wrong(SCAN_NEEDED.to_owned());
    };
    let keys: Vec<&str> = source.info.schema.keys().map(|c| c.name.as_str()).collect();
    let columns = || {
        let all: Vec<String> = source.info.schema.keys().map(|c| format!("`{}` {} KEY", c.name, c.ty)).collect();
        all.join(", ")
    };
    for disjunct in &disjuncts {
        let mut bound: Vec<&str> = Vec::new();
        let mut ranges = 0;
        let mut lookups = 0;
        for atom in disjunct {
            match &atom.expr.kind {
                ExprKind::Like { operand, .. } if operand.column().is_none() => {
                    return wrong("like condition must be between strings".to_owned());
                }
                ExprKind::Binary { op, left, right } if op.is_comparison() => {
                    if left.column().is_none() && right.column().is_none() {
                        return wrong("a comparison must directly reference a key column".to_owned());
                    }
                }
                ExprKind::Like { .. } => {}
                _ => return wrong(format!("unsupported expression in WHERE clause: {}", shown(&atom.expr, true))),
            }
            let Some((column, op, other)) = key_comparison(&atom.expr, &keys) else { continue };
            check_key(source, column, other, place)?;
            if !super::scope::columns_of(other).is_empty() {
                return wrong("a comparison must be between a key column and a resolvable expression".to_owned());
            }
            match (op, atom.negated) {
                (BinaryOp::Equal, false) | (BinaryOp::NotEqual, true) => lookups += 1,
                (BinaryOp::Equal, true) | (BinaryOp::NotEqual, false) => {
                    return wrong(format!("bound on key columns '[{}]' must currently be '='", columns()));
                }
                _ if !ranges_allowed => {
                    return wrong(format!("bound on key columns '[{}]' must currently be '='", columns()));
                }
                _ => ranges += 1,
            }
            if !bound.contains(&column.name.value.as_str()) {
                bound.push(&column.name.value);
            } else if keys.len() == 1 {
                return wrong(
                    "a comparison condition on the key column cannot be combined with other comparisons such as an IN \
                     predicate"
                        .to_owned(),
                );
            }
        }
        if bound.is_empty() {
            let atoms: Vec<String> = disjunct.iter().map(|a| shown(&a.expr, true)).collect();
            return wrong(format!("WHERE clause missing key column for disjunct: {}", atoms.join(" AND ")));
        }
        if bound.len() < keys.len() {
            let names: Vec<String> = bound.iter().map(|name| format!("`{name}`")).collect();
            return wrong(format!(
                "multi-column sources must specify every key in the WHERE clause. Specified: [{}] Expected: [{}]",
                names.join(", "),
                columns()
            ));
        }
        // Only text is kept in its own order in ksqlDB's state, so that a range of it is no scan.
        let ordered = matches!(keys.as_slice(), [key] if is_text(source, key)) && source.info.window.is_none();
        if ranges > 0 && (lookups > 0 || !ordered) {
            return wrong(SCAN_NEEDED.to_owned());
        }
    }
    Ok(())
}

/// Refuses keys that no row can have, however the rows are found. `filter` is qualified.
pub(super) fn check_keys(source: &FromSource, filter: &Expr) -> AnalysisResult<()> {
    let keys: Vec<&str> = source.info.schema.keys().map(|c| c.name.as_str()).collect();
    for atom in disjuncts(filter, false).unwrap_or_default().iter().flatten() {
        if let Some((column, BinaryOp::Equal, other)) = key_comparison(&atom.expr, &keys) {
            check_key(source, column, other, filter.span)?;
        }
    }
    Ok(())
}

/// Refuses what ksqlDB does not take as bounds of windows: its lookups have one range for each of WINDOWSTART and
/// WINDOWEND. `filter` is qualified.
pub(super) fn check_bounds(source: &FromSource, filter: &Expr) -> AnalysisResult<()> {
    let keys: Vec<&str> = source.info.schema.keys().map(|c| c.name.as_str()).collect();
    let wrong = |message: String| Err(refusal(filter.span, message));
    for disjunct in disjuncts(filter, false).unwrap_or_default() {
        let keyed = disjunct.iter().any(|a| key_comparison(&a.expr, &keys).is_some());
        for bound in [WINDOWSTART, WINDOWEND] {
            let mut seen: Vec<(&str, &Expr)> = Vec::new();
            for atom in &disjunct {
                let Some((_, op, other)) = key_comparison(&atom.expr, &[bound]) else { continue };
                let mirrored = matches!(&atom.expr.kind, ExprKind::Binary { right, .. } if right.column().is_some());
                let kind = match op {
                    BinaryOp::Equal => "EQUAL",
                    BinaryOp::Less | BinaryOp::LessOrEqual if mirrored => "GREATER_THAN",
                    BinaryOp::Less | BinaryOp::LessOrEqual => "LESS_THAN",
                    BinaryOp::Greater | BinaryOp::GreaterOrEqual if mirrored => "LESS_THAN",
                    BinaryOp::Greater | BinaryOp::GreaterOrEqual => "GREATER_THAN",
                    BinaryOp::IsDistinctFrom => {
                        return wrong(format!("unsupported `{bound}` bounds: IS_DISTINCT_FROM"));
                    }
                    BinaryOp::IsNotDistinctFrom => {
                        return wrong(format!("unsupported `{bound}` bounds: IS_NOT_DISTINCT_FROM"));
                    }
                    _ => return wrong(format!("unsupported `{bound}` bounds: NOT_EQUAL")),
                };
                if !keyed {
                    continue;
                }
                if matches!(other.literal(), Some(Literal::Decimal(_) | Literal::Double(_) | Literal::Boolean(_))) {
                    return wrong(
                        "window bounds must resolve to an INT, BIGINT, or STRING containing a datetime".to_owned(),
                    );
                }
                if let Some((_, first)) = seen.iter().find(|(k, _)| *k != kind && (*k == "EQUAL" || kind == "EQUAL")) {
                    let equal = if kind == "EQUAL" { &atom.expr } else { *first };
                    return wrong(format!("`{}` cannot be combined with other `{bound}` bounds", shown(equal, true)));
                }
                if seen.iter().any(|(k, _)| *k == kind) {
                    return wrong(format!("duplicate `{bound}` bounds on: {kind}"));
                }
                seen.push((kind, &atom.expr));
            }
        }
    }
    Ok(())
}

fn check_key(source: &FromSource, column: &ColumnRef, other: &Expr, place: Span) -> AnalysisResult<()> {
    if other.literal() == Some(&Literal::Null) {
        return Err(refusal(place, format!("primary key columns can not be NULL: ({} = null)", column.name.value)));
    }
    if !converts(source, column, other) {
        let key = source.info.schema.get(&column.name.value);
        let key = key.map(|k| format!("{} {} KEY", k.name, k.ty)).unwrap_or_default();
        return Err(refusal(place, format!("{other} can not be converted to the type of the key column: {key}")));
    }
    Ok(())
}

fn refusal(place: Span, message: String) -> Diagnostic {
    Diagnostic::at(Code::Invalid, place, message).with_detail(MORE_INFO).with_hint(OR_PUSH)
}

#[derive(Clone)]
struct Atom {
    expr: Expr,
    negated: bool,
}

/// Alternatives of conditions that must all hold; `None` where there are too many.
fn disjuncts(expr: &Expr, negated: bool) -> Option<Vec<Vec<Atom>>> {
    let either = |parts: Vec<Vec<Vec<Atom>>>| {
        let all: Vec<Vec<Atom>> = parts.into_iter().flatten().collect();
        (all.len() <= DISJUNCTS_MAX).then_some(all)
    };
    match &expr.kind {
        ExprKind::Unary { op: UnaryOp::Not, operand } => disjuncts(operand, !negated),
        ExprKind::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right } => {
            let (l, r) = (disjuncts(left, negated)?, disjuncts(right, negated)?);
            if (*op == BinaryOp::Or) != negated {
                return either(vec![l, r]);
            }
            if l.len().checked_mul(r.len())? > DISJUNCTS_MAX {
                return None;
            }
            Some(l.iter().flat_map(|a| r.iter().map(|b| a.iter().chain(b).cloned().collect())).collect())
        }
        ExprKind::In { operand, list, negated: not } => {
            let any = *not == negated;
            let atom = |item: &Expr| {
                let op = if any { BinaryOp::Equal } else { BinaryOp::NotEqual };
                let kind = ExprKind::Binary { op, left: operand.clone(), right: Box::new(item.clone()) };
                Atom { expr: Expr::new(kind, expr.span), negated: false }
            };
            if any {
                return either(list.iter().map(|item| vec![vec![atom(item)]]).collect());
            }
            Some(vec![list.iter().map(atom).collect()])
        }
        ExprKind::Between { operand, low, high, negated: not } => {
            let inside = *not == negated;
            let (from, to) = if inside {
                (BinaryOp::GreaterOrEqual, BinaryOp::LessOrEqual)
            } else {
                (BinaryOp::Less, BinaryOp::Greater)
            };
            let atom = |op: BinaryOp, bound: &Expr| {
                let kind = ExprKind::Binary { op, left: operand.clone(), right: Box::new(bound.clone()) };
                Atom { expr: Expr::new(kind, expr.span), negated: false }
            };
            let (from, to) = (atom(from, low), atom(to, high));
            if inside { Some(vec![vec![from, to]]) } else { either(vec![vec![vec![from]], vec![vec![to]]]) }
        }
        _ => Some(vec![vec![Atom { expr: expr.clone(), negated }]]),
    }
}

/// A comparison with a key column: the column, the operator, the other side.
fn key_comparison<'e>(expr: &'e Expr, keys: &[&str]) -> Option<(&'e ColumnRef, BinaryOp, &'e Expr)> {
    let ExprKind::Binary { op, left, right } = &expr.kind else { return None };
    if !op.is_comparison() {
        return None;
    }
    let is_key = |e: &Expr| e.column().is_some_and(|c| keys.contains(&c.name.value.as_str()));
    match (is_key(left), is_key(right)) {
        (true, _) => Some((left.column()?, *op, right)),
        (false, true) => Some((right.column()?, *op, left)),
        _ => None,
    }
}

fn is_text(source: &FromSource, column: &str) -> bool {
    source.info.schema.get(column).is_some_and(|c| c.ty == SqlType::String)
}

/// A literal must be of the key's kind: text is no number here.
fn converts(source: &FromSource, column: &ColumnRef, other: &Expr) -> bool {
    let Some(key) = source.info.schema.get(&column.name.value) else { return true };
    match other.literal() {
        Some(Literal::String(_)) => !key.ty.is_numeric() && key.ty != SqlType::Boolean,
        _ => true,
    }
}
