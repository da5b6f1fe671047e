//! Implicit conversions: which type becomes which, the common type of several expressions, result types of DECIMAL
//! arithmetic, and what CAST can do.
//!
//! Two grades. *Strict*, for any expression: numbers widen (INTEGER, BIGINT, DECIMAL, DOUBLE), containers part by part.
//! *Lax*, for literals and constructors of literals: also text that reads as a value of the wanted type, and anything
//! as text. A lax conversion is carried out here, so that a wrong literal is an error of the statement, not of a row.

use millpond_types::sql_type::DECIMAL_PRECISION_MAX;
use millpond_types::{Field, SqlType, Value};

use crate::expr::{ArithmeticOp, ExprKind, TypedExpr};

/// Why an expression cannot have a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// A text literal that does not read as a value of the type.
    Text { ty: SqlType, text: String },
    /// The types have nothing in common.
    Types { wanted: SqlType, found: SqlType },
}

impl Misfit {
    pub fn message(&self, shown: &str) -> String {
        match self {
            Self::Text { ty, text } => format!("invalid input syntax for type {ty}: \"{text}\""),
            Self::Types { wanted, found } => format!("operator does not exist: {wanted} = {found} ({shown})"),
        }
    }
}

fn rank(ty: &SqlType) -> Option<u8> {
    Some(match ty {
        SqlType::Integer => 0,
        SqlType::BigInt => 1,
        SqlType::Decimal { .. } => 2,
        SqlType::Double => 3,
        _ => return None,
    })
}

/// INTEGER and BIGINT as the DECIMAL that holds every value of theirs.
fn as_decimal(ty: &SqlType) -> Option<(u8, u8)> {
    match ty {
        SqlType::Integer => Some((10, 0)),
        SqlType::BigInt => Some((19, 0)),
        SqlType::Decimal { precision, scale } => Some((*precision, *scale)),
        _ => None,
    }
}

/// Whether every expression of `from` is accepted where `to` is wanted.
pub(super) fn widens(from: &SqlType, to: &SqlType) -> bool {
    if from == to {
        return true;
    }
    match (from, to) {
        (SqlType::Array(a), SqlType::Array(b)) => widens(a, b),
        (SqlType::Map(k, a), SqlType::Map(l, b)) => widens(k, l) && widens(a, b),
        (SqlType::Struct(fields), SqlType::Struct(wanted)) => {
            fields.iter().all(|f| wanted.iter().any(|w| w.name == f.name && widens(&f.ty, &w.ty)))
        }
        (from, SqlType::Decimal { precision, scale }) => as_decimal(from)
            .is_some_and(|(p, s)| *scale >= s && precision.saturating_sub(*scale) >= p.saturating_sub(s)),
        _ => matches!((rank(from), rank(to)), (Some(a), Some(b)) if a < b),
    }
}

/// How far `to` is from `from` on the way of widening; `None` where it does not widen.
pub(super) fn widening_distance(from: &SqlType, to: &SqlType) -> Option<u32> {
    if from == to {
        return Some(0);
    }
    match (rank(from), rank(to)) {
        (Some(a), Some(b)) if a < b => Some(u32::from(b - a)),
        _ => widens(from, to).then_some(1),
    }
}

/// Text is read as a value of these types where one is wanted.
pub(super) fn reads_text(ty: &SqlType) -> bool {
    matches!(ty, SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::Bytes)
}

/// The smallest type that both widen to. STRUCTs get the fields of both.
pub(super) fn common_type(a: &SqlType, b: &SqlType) -> Option<SqlType> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (SqlType::Array(x), SqlType::Array(y)) => Some(SqlType::array(common_type(x, y)?)),
        (SqlType::Map(k, x), SqlType::Map(l, y)) => Some(SqlType::map(common_type(k, l)?, common_type(x, y)?)),
        (SqlType::Struct(x), SqlType::Struct(y)) => {
            let mut fields = x.clone();
            for field in y {
                match fields.iter_mut().find(|f| f.name == field.name) {
                    Some(known) => known.ty = common_type(&known.ty, &field.ty)?,
                    None => fields.push(field.clone()),
                }
            }
            Some(SqlType::Struct(fields))
        }
        _ => match (rank(a)?, rank(b)?) {
            (3, _) | (_, 3) => Some(SqlType::Double),
            (2, _) | (_, 2) => {
                let ((p, s), (q, t)) = (as_decimal(a)?, as_decimal(b)?);
                let scale = s.max(t);
                Some(decimal(
                    u16::from(p.saturating_sub(s).max(q.saturating_sub(t))) + u16::from(scale),
                    u16::from(scale),
                ))
            }
            (x, y) => Some(if x.max(y) == 0 { SqlType::Integer } else { SqlType::BigInt }),
        },
    }
}

/// A DECIMAL of at most the precision there is; the scale stays as long as it can.
fn decimal(precision: u16, scale: u16) -> SqlType {
    let max = u16::from(DECIMAL_PRECISION_MAX);
    let precision = precision.clamp(1, max);
    SqlType::decimal(precision as u8, scale.min(precision) as u8)
}

/// Result type of arithmetic on two numeric types.
pub(super) fn arithmetic_type(op: ArithmeticOp, a: &SqlType, b: &SqlType) -> Option<SqlType> {
    let common = common_type(a, b)?;
    let SqlType::Decimal { .. } = common else {
        return common.is_numeric().then_some(common);
    };
    let ((p1, s1), (p2, s2)) = (as_decimal(a)?, as_decimal(b)?);
    let (p1, s1, p2, s2) = (u16::from(p1), u16::from(s1), u16::from(p2), u16::from(s2));
    Some(match op {
        ArithmeticOp::Add | ArithmeticOp::Subtract => {
            let scale = s1.max(s2);
            decimal(p1.saturating_sub(s1).max(p2.saturating_sub(s2)) + scale + 1, scale)
        }
        ArithmeticOp::Multiply => decimal(p1 + p2 + 1, s1 + s2),
        ArithmeticOp::Divide => {
            let scale = (s1 + p2 + 1).max(6);
            let digits = p1.saturating_sub(s1) + s2;
            // Too long a quotient gives up places behind the point before it gives up those in front of it.
            let fitting = u16::from(DECIMAL_PRECISION_MAX).saturating_sub(digits).max(6);
            decimal(digits + scale.min(fitting), scale.min(fitting))
        }
        ArithmeticOp::Modulo => {
            let scale = s1.max(s2);
            decimal(p1.saturating_sub(s1).min(p2.saturating_sub(s2)) + scale, scale)
        }
    })
}

/// The numeric type of a text that reads as a number.
fn type_of_number(text: &str) -> Option<SqlType> {
    if text.parse::<i32>().is_ok() {
        return Some(SqlType::Integer);
    }
    if text.parse::<i64>().is_ok() {
        return Some(SqlType::BigInt);
    }
    let (_, precision, scale) = parse_decimal(text)?;
    Some(SqlType::decimal(precision, scale))
}

/// Digits, precision and scale of a number as text, with or without an exponent.
fn parse_decimal(text: &str) -> Option<(i128, u8, u8)> {
    let text = text.trim();
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut unscaled: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let mut scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    while scale < 0 {
        unscaled = unscaled.checked_mul(10)?;
        scale += 1;
    }
    let digits = count_digits(unscaled).max(u32::try_from(scale).ok()?).max(1);
    if digits > u32::from(DECIMAL_PRECISION_MAX) {
        return None;
    }
    Some((if negative { -unscaled } else { unscaled }, digits as u8, scale as u8))
}

fn count_digits(unscaled: i128) -> u32 {
    unscaled.unsigned_abs().checked_ilog10().map_or(1, |d| d + 1)
}

fn parse_boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let is_prefix = |word: &str| !text.is_empty() && word.starts_with(&text);
    if is_prefix("true") || is_prefix("yes") || text == "on" || text == "1" {
        Some(true)
    } else if is_prefix("false") || is_prefix("no") || text == "off" || text == "of" || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// The type that is common to what was `so_far` and one more expression: lax for literals and constructors.
pub(super) fn merge(so_far: &SqlType, expr: &TypedExpr) -> Result<SqlType, Misfit> {
    let misfit = || Misfit::Types { wanted: so_far.clone(), found: expr.ty.clone() };
    match (&expr.kind, so_far) {
        (ExprKind::Literal(Value::Null), _) => common_type(so_far, &expr.ty).ok_or_else(misfit),
        (ExprKind::Literal(value), _) => {
            if let Some(common) = common_type(so_far, &expr.ty) {
                return Ok(common);
            }
            match (so_far, value) {
                (SqlType::String, _) if expr.ty.is_primitive() => Ok(SqlType::String),
                (ty, Value::String(_)) if reads_text(ty) => Ok(so_far.clone()),
                (SqlType::Boolean, Value::String(text)) => match parse_boolean(text) {
                    Some(_) => Ok(SqlType::Boolean),
                    None => Err(Misfit::Text { ty: so_far.clone(), text: text.clone() }),
                },
                (ty, Value::String(text)) if ty.is_numeric() => {
                    let wrong = || Misfit::Text { ty: ty.clone(), text: text.clone() };
                    let number = type_of_number(text.trim());
                    let number = number.or_else(|| text.trim().parse::<f64>().ok().map(|_| SqlType::Double));
                    common_type(ty, &number.ok_or_else(wrong)?).ok_or_else(wrong)
                }
                _ => Err(misfit()),
            }
        }
        (ExprKind::Array(items), SqlType::Array(item)) => {
            let merged = items.iter().try_fold((**item).clone(), |ty, e| merge(&ty, e));
            Ok(SqlType::array(merged?))
        }
        (ExprKind::Map(entries), SqlType::Map(key, value)) => {
            let key = entries.iter().try_fold((**key).clone(), |ty, (k, _)| merge(&ty, k))?;
            let value = entries.iter().try_fold((**value).clone(), |ty, (_, v)| merge(&ty, v))?;
            Ok(SqlType::map(key, value))
        }
        (ExprKind::Struct(values), SqlType::Struct(known)) => {
            let SqlType::Struct(fields) = &expr.ty else { return Err(misfit()) };
            let mut merged = known.clone();
            for (field, value) in fields.iter().zip(values) {
                match merged.iter_mut().find(|f| f.name == field.name) {
                    Some(known) => {
                        known.ty = merge(&known.ty, value).map_err(|m| match m {
                            Misfit::Types { .. } => misfit(),
                            text => text,
                        })?;
                    }
                    None => merged.push(field.clone()),
                }
            }
            Ok(SqlType::Struct(merged))
        }
        _ => common_type(so_far, &expr.ty).ok_or_else(misfit),
    }
}

/// The expression as one of type `to`, lax for literals and constructors, strict else.
pub(super) fn coerce(expr: TypedExpr, to: &SqlType) -> Result<TypedExpr, Misfit> {
    if expr.ty == *to {
        return Ok(expr);
    }
    let TypedExpr { kind, ty, span } = expr;
    let misfit = || Misfit::Types { wanted: to.clone(), found: ty.clone() };
    let kind = match (kind, to) {
        (ExprKind::Literal(Value::Null), _) => ExprKind::Literal(Value::Null),
        (ExprKind::Literal(value), _) => match coerce_literal(&value, to) {
            Some(value) => ExprKind::Literal(value),
            None => match value {
                Value::String(_) if reads_text(to) => {
                    ExprKind::Cast(Box::new(TypedExpr::new(ExprKind::Literal(value), ty, span)))
                }
                Value::String(text) => return Err(Misfit::Text { ty: to.clone(), text }),
                _ => return Err(misfit()),
            },
        },
        (ExprKind::Array(items), SqlType::Array(item)) => {
            ExprKind::Array(items.into_iter().map(|e| coerce(e, item)).collect::<Result<_, _>>()?)
        }
        (ExprKind::Map(entries), SqlType::Map(key, value)) => ExprKind::Map(
            entries.into_iter().map(|(k, v)| Ok((coerce(k, key)?, coerce(v, value)?))).collect::<Result<_, _>>()?,
        ),
        (ExprKind::Struct(values), SqlType::Struct(wanted)) => {
            let SqlType::Struct(fields) = &ty else { return Err(misfit()) };
            if fields.iter().any(|f| wanted.iter().all(|w| w.name != f.name)) {
                return Err(misfit());
            }
            let mut parts: Vec<Option<TypedExpr>> = values.into_iter().map(Some).collect();
            let mut out = Vec::with_capacity(wanted.len());
            for field in wanted {
                let at = fields.iter().position(|f| f.name == field.name);
                out.push(match at.and_then(|i| parts.get_mut(i)).and_then(Option::take) {
                    Some(part) => coerce(part, &field.ty)?,
                    None => TypedExpr::new(ExprKind::Literal(Value::Null), field.ty.clone(), span),
                });
            }
            ExprKind::Struct(out)
        }
        (kind, _) if widens(&ty, to) || (ty == SqlType::String && reads_text(to)) => {
            ExprKind::Cast(Box::new(TypedExpr::new(kind, ty, span)))
        }
        _ => return Err(misfit()),
    };
    Ok(TypedExpr::new(kind, to.clone(), span))
}

/// A literal as a value of another type, where it is one.
pub(super) fn coerce_literal(value: &Value, to: &SqlType) -> Option<Value> {
    let text = match value {
        Value::Null => return Some(Value::Null),
        Value::Boolean(b) if *to == SqlType::Boolean => return Some(Value::Boolean(*b)),
        Value::Boolean(b) => return (*to == SqlType::String).then(|| Value::String(b.to_string())),
        Value::Integer(i) => i.to_string(),
        Value::BigInt(i) => i.to_string(),
        Value::Decimal { unscaled, scale, .. } => decimal_text(*unscaled, *scale),
        Value::Double(d) if *to == SqlType::Double => return Some(Value::Double(*d)),
        Value::Double(d) => return (*to == SqlType::String).then(|| Value::String(double_text(*d))),
        Value::String(s) => s.trim().to_owned(),
        _ => return None,
    };
    match to {
        SqlType::String => Some(match value {
            Value::String(s) => Value::String(s.clone()),
            _ => Value::String(text),
        }),
        SqlType::Boolean => match value {
            Value::String(_) => parse_boolean(&text).map(Value::Boolean),
            _ => None,
        },
        SqlType::Integer | SqlType::BigInt => {
            let (unscaled, _, scale) = parse_decimal(&text)?;
            let whole = rescale(unscaled, scale, 0)?;
            if *to == SqlType::Integer {
                i32::try_from(whole).ok().map(Value::Integer)
            } else {
                i64::try_from(whole).ok().map(Value::BigInt)
            }
        }
        SqlType::Decimal { precision, scale } => {
            let (unscaled, _, found) = parse_decimal(&text)?;
            let unscaled = rescale(unscaled, found, *scale)?;
            let fits = count_digits(unscaled) <= u32::from(*precision);
            fits.then_some(Value::Decimal { unscaled, precision: *precision, scale: *scale })
        }
        SqlType::Double => text.parse::<f64>().ok().filter(|d| d.is_finite()).map(Value::Double),
        _ => None,
    }
}

/// Without rounding; `None` where digits would be lost or there are too many.
fn rescale(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        unscaled.checked_mul(10i128.checked_pow(u32::from(to - from))?)
    } else {
        let factor = 10i128.checked_pow(u32::from(from - to))?;
        (unscaled % factor == 0).then_some(unscaled / factor)
    }
}

fn decimal_text(unscaled: i128, scale: u8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// As Java writes doubles: a point always, an exponent from 10^7 on and below 10^-3.
fn double_text(d: f64) -> String {
    let size = d.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{d:?}");
    }
    let text = format!("{d:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

/// Whether `CAST(x AS to)` exists for an `x` of type `from`.
pub(super) fn can_cast(from: &SqlType, to: &SqlType) -> bool {
    use SqlType as T;
    if from == to {
        return true;
    }
    match (from, to) {
        (T::Array(a), T::Array(b)) => can_cast(a, b),
        (T::Map(k, a), T::Map(l, b)) => can_cast(k, l) && can_cast(a, b),
        (T::Struct(fields), T::Struct(wanted)) => wanted
            .iter()
            .all(|w| fields.iter().find(|f| f.name == w.name).is_none_or(|f: &Field| can_cast(&f.ty, &w.ty))),
        (T::Array(_) | T::Map(..) | T::Struct(_), T::String) => true,
        (T::Boolean, T::String) => true,
        (T::String, to) => to.is_primitive(),
        (T::Timestamp, T::String | T::Date | T::Time) => true,
        (T::Date, T::Timestamp | T::String) => true,
        (T::Time, T::String) => true,
        (from, to) if from.is_numeric() => to.is_numeric() || *to == T::String,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::Span;

    fn literal(value: Value, ty: SqlType) -> TypedExpr {
        TypedExpr::new(ExprKind::Literal(value), ty, Span::default())
    }

    #[test]
    fn decimal_results() {
        let (a, b) = (SqlType::decimal(5, 2), SqlType::decimal(4, 3));
        assert_eq!(arithmetic_type(ArithmeticOp::Add, &a, &b), Some(SqlType::decimal(7, 3)));
        assert_eq!(arithmetic_type(ArithmeticOp::Multiply, &a, &b), Some(SqlType::decimal(10, 5)));
        assert_eq!(arithmetic_type(ArithmeticOp::Divide, &a, &b), Some(SqlType::decimal(13, 7)));
        assert_eq!(arithmetic_type(ArithmeticOp::Modulo, &a, &b), Some(SqlType::decimal(4, 3)));
        assert_eq!(arithmetic_type(ArithmeticOp::Add, &SqlType::Integer, &a), Some(SqlType::decimal(13, 2)));
        assert_eq!(arithmetic_type(ArithmeticOp::Add, &SqlType::Double, &a), Some(SqlType::Double));
    }

    #[test]
    fn literals_are_lax_expressions_strict() {
        let text = literal(Value::String("2e1".into()), SqlType::String);
        let merged = merge(&SqlType::Integer, &text).unwrap();
        assert_eq!(merged, SqlType::decimal(10, 0));
        assert_eq!(
            coerce(text, &SqlType::decimal(19, 0)).unwrap().kind,
            ExprKind::Literal(Value::Decimal { unscaled: 20, precision: 19, scale: 0 })
        );
        let column = TypedExpr::new(ExprKind::Column(0), SqlType::String, Span::default());
        assert!(merge(&SqlType::Integer, &column).is_err());
        let wrong = literal(Value::String("x".into()), SqlType::String);
        assert!(matches!(merge(&SqlType::Integer, &wrong), Err(Misfit::Text { .. })));
        let one = literal(Value::Integer(1), SqlType::Integer);
        assert_eq!(coerce(one, &SqlType::String).unwrap().kind, ExprKind::Literal(Value::String("1".into())));
    }

    #[test]
    fn structs_merge_by_name() {
        let a = SqlType::Struct(vec![Field::new("X", SqlType::Integer), Field::new("Y", SqlType::BigInt)]);
        let b = SqlType::Struct(vec![Field::new("Y", SqlType::Integer), Field::new("Z", SqlType::BigInt)]);
        let SqlType::Struct(fields) = common_type(&a, &b).unwrap() else { panic!("a struct") };
        let names: Vec<_> = fields.iter().map(|f| (f.name.as_str(), f.ty.clone())).collect();
        assert_eq!(names, [("X", SqlType::Integer), ("Y", SqlType::BigInt), ("Z", SqlType::BigInt)]);
    }
}
