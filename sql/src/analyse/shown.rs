//! Expressions as messages show them: as ksqlDB writes them, whose clients know these texts.
//!
//! Not here: SQL that is read again (`syntax::display`).

use std::fmt::{self, Display, Formatter};

use super::scope::map_columns;
use crate::syntax::{self, ColumnRef, Expr, ExprKind, Literal, UnaryOp};

/// The text of an expression. `single`: there is one source, and columns are shown without it.
pub(super) fn shown(expr: &Expr, single: bool) -> String {
    if !single {
        return Shown(expr).to_string();
    }
    let mut strip = |column: &ColumnRef, _: syntax::Span, _: &[String]| {
        Ok(ColumnRef { qualifier: None, name: column.name.clone() })
    };
    let stripped = map_columns(expr, &mut strip, &|_, _| false, &mut Vec::new());
    Shown(stripped.as_ref().unwrap_or(expr)).to_string()
}

struct Shown<'a>(&'a Expr);

struct List<'a>(&'a [Expr]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, Shown(item))?;
        }
        Ok(())
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        let comma = |i: usize| if i > 0 { ", " } else { "" };
        match &self.0.kind {
            ExprKind::Literal(Literal::Null) => f.write_str("null"),
            ExprKind::Literal(Literal::Boolean(value)) => write!(f, "{value}"),
            ExprKind::Literal(_) | ExprKind::Column(_) => self.0.fmt(f),
            ExprKind::Unary { op: UnaryOp::Not, operand } => write!(f, "(NOT {})", Shown(operand)),
            ExprKind::Unary { op, operand } => {
                write!(f, "{}{}", if *op == UnaryOp::Plus { "+" } else { "-" }, Shown(operand))
            }
            ExprKind::Binary { op, left, right } => write!(f, "({} {op} {})", Shown(left), Shown(right)),
            ExprKind::IsNull { operand, negated } => write!(f, "({} IS {}NULL)", Shown(operand), not(negated)),
            ExprKind::Between { operand, low, high, negated } => {
                let [operand, low, high] = [operand, low, high].map(|e| Shown(e));
                write!(f, "({operand} {}BETWEEN {low} AND {high})", not(negated))
            }
            ExprKind::In { operand, list, negated } => {
                write!(f, "({} {}IN ({}))", Shown(operand), not(negated), List(list))
            }
            ExprKind::Like { operand, pattern, escape, negated } => {
                write!(f, "({} {}LIKE {}", Shown(operand), not(negated), Shown(pattern))?;
                match escape {
                    Some(c) => write!(f, " ESCAPE '{c}')"),
                    None => f.write_str(")"),
                }
            }
            ExprKind::AtTimeZone { operand, zone } => write!(f, "{} AT TIME ZONE {}", Shown(operand), Shown(zone)),
            ExprKind::Case { operand, branches, otherwise } => {
                f.write_str("(CASE")?;
                if let Some(operand) = operand {
                    write!(f, " {}", Shown(operand))?;
                }
                for branch in branches {
                    write!(f, " WHEN {} THEN {}", Shown(&branch.when), Shown(&branch.then))?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {}", Shown(otherwise))?;
                }
                f.write_str(" END)")
            }
            ExprKind::Cast { operand, ty } => write!(f, "CAST({} AS {ty})", Shown(operand)),
            ExprKind::Array(items) => write!(f, "ARRAY[{}]", List(items)),
            ExprKind::Map(entries) => {
                f.write_str("MAP(")?;
                for (i, entry) in entries.iter().enumerate() {
                    write!(f, "{}{}:={}", comma(i), Shown(&entry.key), Shown(&entry.value))?;
                }
                f.write_str(")")
            }
            ExprKind::Struct(fields) => {
                f.write_str("STRUCT(")?;
                for (i, field) in fields.iter().enumerate() {
                    write!(f, "{}{}:={}", comma(i), field.name, Shown(&field.value))?;
                }
                f.write_str(")")
            }
            ExprKind::Subscript { base, index } => write!(f, "{}[{}]", Shown(base), Shown(index)),
            ExprKind::Field { base, field } => write!(f, "{}->{field}", Shown(base)),
            ExprKind::Call(call) if call.star => write!(f, "{}(*)", call.name),
            ExprKind::Call(call) => write!(f, "{}({})", call.name, List(&call.arguments)),
            ExprKind::Lambda { parameters, body } => match parameters.as_slice() {
                [parameter] => write!(f, "{parameter} => {}", Shown(body)),
                _ => {
                    f.write_str("(")?;
                    for (i, parameter) in parameters.iter().enumerate() {
                        write!(f, "{}{parameter}", comma(i))?;
                    }
                    write!(f, ") => {}", Shown(body))
                }
            },
        }
    }
}
