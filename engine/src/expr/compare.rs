//! Comparisons, BETWEEN and IN: two-valued, so a NULL operand gives false (but for the DISTINCT pair).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{Decimal128Type, Float64Type};
use millpond_sql::expr::CompareOp;
use millpond_types::{Error, Result, SqlType};

use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, Values, decimal, deep, defect, union_errors};

/// Literal lists of IN from this length on are looked up by hash.
const HASHED_LIST_MIN: usize = 9;

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Arrow's own order.
    Plain,
    Double,
    Decimal(u8, u8),
    /// Equality only.
    Nested,
}

fn kind(left: &SqlType, right: &SqlType) -> Result<Kind> {
    Ok(match (left, right) {
        (SqlType::Double, SqlType::Double) => Kind::Double,
        (SqlType::Decimal { scale: a, .. }, SqlType::Decimal { scale: b, .. }) => Kind::Decimal(*a, *b),
        (a, b) if !a.is_primitive() && std::mem::discriminant(a) == std::mem::discriminant(b) => Kind::Nested,
        (a, b) if a == b => Kind::Plain,
        _ => return Err(Error::bug(format!("comparison of {left} with {right}"))),
    })
}

fn holds(op: CompareOp, order: Ordering) -> bool {
    match op {
        CompareOp::Eq | CompareOp::IsNotDistinct => order == Ordering::Equal,
        CompareOp::NotEq | CompareOp::IsDistinct => order != Ordering::Equal,
        CompareOp::Less => order == Ordering::Less,
        CompareOp::LessEq => order != Ordering::Greater,
        CompareOp::Greater => order == Ordering::Greater,
        CompareOp::GreaterEq => order != Ordering::Less,
    }
}

/// Whether a row of the values is NULL.
fn null_at(values: &Values, row: usize) -> bool {
    values.array().is_null(values.index(row))
}

/// The comparison for every row, false where an operand is NULL.
fn compare_values(op: CompareOp, kind: Kind, left: &Values, right: &Values, rows: usize) -> Result<BooleanBuffer> {
    let distinct = matches!(op, CompareOp::IsDistinct | CompareOp::IsNotDistinct);
    let by_row = |compare: &dyn Fn(usize, usize) -> bool| {
        BooleanBuffer::collect_bool(rows, |row| match (null_at(left, row), null_at(right, row)) {
            (false, false) => compare(left.index(row), right.index(row)),
            (a, b) if distinct => (a == b) == (op == CompareOp::IsNotDistinct),
            _ => false,
        })
    };
    let (a, b) = (left.array(), right.array());
    let wrong = || Error::bug("a comparison met columns of another type");
    Ok(match kind {
        Kind::Plain => {
            let kernel = match op {
                CompareOp::Eq => cmp::eq,
                CompareOp::NotEq => cmp::neq,
                CompareOp::Less => cmp::lt,
                CompareOp::LessEq => cmp::lt_eq,
                CompareOp::Greater => cmp::gt,
                CompareOp::GreaterEq => cmp::gt_eq,
                CompareOp::IsDistinct => cmp::distinct,
                CompareOp::IsNotDistinct => cmp::not_distinct,
            };
            let result = kernel(left, right).map_err(defect)?;
            let bits = two_valued(&result);
            if left.is_scalar() && right.is_scalar() && rows != 1 {
                let value = bits.len() == 1 && bits.value(0);
                if value { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) }
            } else {
                bits
            }
        }
        Kind::Double => {
            let a = a.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
            let b = b.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
            by_row(&|i, j| {
                let (x, y) = (a.value(i), b.value(j));
                match x.partial_cmp(&y) {
                    Some(order) => holds(op, order),
                    // As objects, NaNs are equal; in no order to anything.
                    None => match op {
                        CompareOp::Eq | CompareOp::IsNotDistinct => x.is_nan() && y.is_nan(),
                        CompareOp::NotEq | CompareOp::IsDistinct => !(x.is_nan() && y.is_nan()),
                        _ => false,
                    },
                }
            })
        }
        Kind::Decimal(s, t) => {
            let a = a.as_primitive_opt::<Decimal128Type>().ok_or_else(wrong)?;
            let b = b.as_primitive_opt::<Decimal128Type>().ok_or_else(wrong)?;
            by_row(&|i, j| holds(op, decimal::compare(a.value(i), s, b.value(j), t)))
        }
        Kind::Nested => {
            let negated = match op {
                CompareOp::Eq | CompareOp::IsNotDistinct => false,
                CompareOp::NotEq | CompareOp::IsDistinct => true,
                _ => return Err(Error::bug("ARRAY, MAP and STRUCT have no order")),
            };
            by_row(&|i, j| deep::equal(a, i, b, j) != negated)
        }
    })
}

/// NULL as false.
pub(super) fn two_valued(array: &BooleanArray) -> BooleanBuffer {
    match array.nulls() {
        None => array.values().clone(),
        Some(nulls) => array.values() & nulls.inner(),
    }
}

/// A BOOLEAN column that is NULL exactly where there are errors.
pub(super) fn boolean(bits: BooleanBuffer, errors: Option<BooleanBuffer>) -> Evaluated {
    let nulls = errors.as_ref().map(|e| NullBuffer::new(!e));
    Evaluated { values: Values::Array(Arc::new(BooleanArray::new(bits, nulls))), errors }
}

struct Compare {
    op: CompareOp,
    kind: Kind,
    left: NodeRef,
    right: NodeRef,
}

pub fn compare(
    op: CompareOp,
    (left, left_ty): (NodeRef, &SqlType),
    (right, right_ty): (NodeRef, &SqlType),
) -> Result<NodeRef> {
    Ok(Arc::new(Compare { op, kind: kind(left_ty, right_ty)?, left, right }))
}

impl Node for Compare {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let left = self.left.eval(input, cx)?;
        let right = self.right.eval(input, cx)?;
        let bits = compare_values(self.op, self.kind, &left.values, &right.values, input.rows())?;
        Ok(boolean(bits, union_errors(left.errors, right.errors)))
    }

    fn infallible(&self) -> bool {
        self.left.infallible() && self.right.infallible()
    }

    fn total(&self) -> bool {
        self.infallible()
    }
}

struct Between {
    operand: NodeRef,
    low: NodeRef,
    high: NodeRef,
    low_kind: Kind,
    high_kind: Kind,
    negated: bool,
}

pub fn between(
    (operand, ty): (NodeRef, &SqlType),
    (low, low_ty): (NodeRef, &SqlType),
    (high, high_ty): (NodeRef, &SqlType),
    negated: bool,
) -> Result<NodeRef> {
    let (low_kind, high_kind) = (kind(ty, low_ty)?, kind(ty, high_ty)?);
    Ok(Arc::new(Between { operand, low, high, low_kind, high_kind, negated }))
}

impl Node for Between {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let operand = self.operand.eval(input, cx)?;
        let low = self.low.eval(input, cx)?;
        let high = self.high.eval(input, cx)?;
        let rows = input.rows();
        let above = compare_values(CompareOp::GreaterEq, self.low_kind, &operand.values, &low.values, rows)?;
        let below = compare_values(CompareOp::LessEq, self.high_kind, &operand.values, &high.values, rows)?;
        let bits = &above & &below;
        let bits = if self.negated { !&bits } else { bits };
        Ok(boolean(bits, union_errors(union_errors(operand.errors, low.errors), high.errors)))
    }

    fn infallible(&self) -> bool {
        self.operand.infallible() && self.low.infallible() && self.high.infallible()
    }

    fn total(&self) -> bool {
        self.infallible()
    }
}

struct In {
    operand: NodeRef,
    list: Vec<NodeRef>,
    kinds: Vec<Kind>,
    /// For long lists of literals of the operand's type.
    set: Option<HashSet<Vec<u8>>>,
    negated: bool,
}

pub fn is_in(
    (operand, ty): (NodeRef, &SqlType),
    list: Vec<NodeRef>,
    types: &[&SqlType],
    literal: bool,
    negated: bool,
) -> Result<NodeRef> {
    let kinds = types.iter().map(|t| kind(ty, t)).collect::<Result<Vec<_>>>()?;
    let hashable = kinds.iter().all(|k| matches!(k, Kind::Plain)) && types.iter().all(|t| *t == ty);
    let mut set = None;
    if literal && hashable && list.len() >= HASHED_LIST_MIN {
        let mut items = HashSet::with_capacity(list.len());
        let input = EvalInput::new(&[], 1);
        let mut cx = EvalContext::new(0, 0);
        for node in &list {
            let item = node.eval(&input, &mut cx)?.values;
            if !item.array().is_null(0) {
                let mut key = Vec::new();
                deep::encode(item.array(), 0, &mut key);
                items.insert(key);
            }
        }
        set = Some(items);
    }
    Ok(Arc::new(In { operand, list, kinds, set, negated }))
}

impl Node for In {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let rows = input.rows();
        let operand = self.operand.eval(input, cx)?;
        let mut errors = operand.errors;
        let bits = if let Some(set) = &self.set {
            let mut key = Vec::new();
            BooleanBuffer::collect_bool(rows, |row| {
                key.clear();
                deep::encode(operand.values.array(), operand.values.index(row), &mut key);
                !null_at(&operand.values, row) && set.contains(&key)
            })
        } else {
            let mut bits = BooleanBuffer::new_unset(rows);
            for (node, kind) in self.list.iter().zip(&self.kinds) {
                let item = node.eval(input, cx)?;
                bits = &bits | &compare_values(CompareOp::Eq, *kind, &operand.values, &item.values, rows)?;
                errors = union_errors(errors, item.errors);
            }
            bits
        };
        Ok(boolean(if self.negated { !&bits } else { bits }, errors))
    }

    fn infallible(&self) -> bool {
        self.operand.infallible() && self.list.iter().all(|n| n.infallible())
    }

    fn total(&self) -> bool {
        self.infallible()
    }
}
