//! AND, OR, NOT, IS NULL and CASE. A NULL operand that had to be looked at is a row error; what need not be looked at is
//! not evaluated.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use millpond_sql::diagnostic::Span;
use millpond_types::{Error, Result};

use super::arithmetic::nulls_as_errors;
use super::compare::{boolean, two_valued};
use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, Values, defect, union_errors};

/// Indices of the set bits.
pub(super) fn indices(bits: &BooleanBuffer) -> UInt32Array {
    UInt32Array::from_iter_values(bits.set_indices_u32())
}

/// A condition as bits (NULL and errors are false) and its errors.
struct Truth {
    bits: BooleanBuffer,
    errors: Option<BooleanBuffer>,
}

fn truth(evaluated: Evaluated, rows: usize) -> Result<Truth> {
    let Evaluated { values, errors } = evaluated;
    let wrong = || Error::bug("a condition is not BOOLEAN");
    let array = values.array().as_boolean_opt().ok_or_else(wrong)?;
    let bits = two_valued(array);
    let bits = if values.is_scalar() {
        if bits.len() == 1 && bits.value(0) { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) }
    } else {
        bits
    };
    Ok(Truth { bits, errors })
}

/// As `truth`, with NULLs as errors.
fn strict_truth(
    node: &NodeRef,
    what: &'static str,
    span: Span,
    input: &EvalInput<'_>,
    cx: &mut EvalContext,
) -> Result<Truth> {
    let evaluated = node.eval(input, cx)?;
    let errors = nulls_as_errors(&evaluated.values, evaluated.errors, what, span, input, cx);
    truth(Evaluated { values: evaluated.values, errors }, input.rows())
}

/// Spreads bits of selected rows over all rows.
fn scatter(bits: &BooleanBuffer, to: &UInt32Array, rows: usize) -> BooleanBuffer {
    let mut all = vec![false; rows];
    for (i, &row) in to.values().iter().enumerate() {
        if let Some(bit) = all.get_mut(row as usize) {
            *bit = bits.value(i);
        }
    }
    BooleanBuffer::from(all)
}

struct Connective {
    /// AND goes on where the left side is true, OR where it is false.
    and: bool,
    left: NodeRef,
    right: NodeRef,
    span: Span,
}

pub fn and(left: NodeRef, right: NodeRef, span: Span) -> NodeRef {
    Arc::new(Connective { and: true, left, right, span })
}

pub fn or(left: NodeRef, right: NodeRef, span: Span) -> NodeRef {
    Arc::new(Connective { and: false, left, right, span })
}

impl Node for Connective {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let what = if self.and { "AND" } else { "OR" };
        let rows = input.rows();
        let left = strict_truth(&self.left, what, self.span, input, cx)?;
        let open = match (&left.errors, self.and) {
            (None, true) => left.bits.clone(),
            (None, false) => !&left.bits,
            (Some(errors), true) => &left.bits & &!errors,
            (Some(errors), false) => &!&left.bits & &!errors,
        };
        if !open.has_true() {
            return Ok(boolean(left.bits, left.errors));
        }
        // A right side that can fail, or be NULL (an error here), is kept from rows that do not need it.
        let right = if !open.has_false() || self.right.total() {
            strict_truth(&self.right, what, self.span, input, cx)?
        } else {
            let to = indices(&open);
            let selected = input.select(to.clone())?;
            let right = strict_truth(&self.right, what, self.span, &selected, cx)?;
            Truth { bits: scatter(&right.bits, &to, rows), errors: right.errors.map(|e| scatter(&e, &to, rows)) }
        };
        let bits = if self.and { &left.bits & &right.bits } else { &left.bits | &right.bits };
        Ok(boolean(bits, union_errors(left.errors, right.errors)))
    }

    fn infallible(&self) -> bool {
        self.total()
    }

    fn total(&self) -> bool {
        self.left.total() && self.right.total()
    }
}

struct Not {
    operand: NodeRef,
    span: Span,
}

pub fn not(operand: NodeRef, span: Span) -> NodeRef {
    Arc::new(Not { operand, span })
}

impl Node for Not {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let operand = strict_truth(&self.operand, "NOT", self.span, input, cx)?;
        Ok(boolean(!&operand.bits, operand.errors))
    }

    fn infallible(&self) -> bool {
        self.total()
    }

    fn total(&self) -> bool {
        self.operand.total()
    }
}

struct IsNull {
    operand: NodeRef,
    negated: bool,
}

pub fn is_null(operand: NodeRef, negated: bool) -> NodeRef {
    Arc::new(IsNull { operand, negated })
}

impl Node for IsNull {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let operand = self.operand.eval(input, cx)?;
        let rows = input.rows();
        let valid = match &operand.values {
            Values::Scalar(a) if a.is_null(0) => BooleanBuffer::new_unset(rows),
            Values::Scalar(_) => BooleanBuffer::new_set(rows),
            Values::Array(a) => a.nulls().map_or_else(|| BooleanBuffer::new_set(rows), |n| n.inner().clone()),
        };
        Ok(boolean(if self.negated { valid } else { !&valid }, operand.errors))
    }

    fn infallible(&self) -> bool {
        self.operand.infallible()
    }

    fn total(&self) -> bool {
        self.infallible()
    }
}

struct Case {
    branches: Vec<(NodeRef, NodeRef)>,
    otherwise: Option<NodeRef>,
    ty: DataType,
}

pub fn case(branches: Vec<(NodeRef, NodeRef)>, otherwise: Option<NodeRef>, ty: DataType) -> NodeRef {
    Arc::new(Case { branches, otherwise, ty })
}

impl Node for Case {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let rows = input.rows();
        // Source 0 is NULL; every evaluated branch adds one.
        let mut sources: Vec<ArrayRef> = vec![new_null_array(&self.ty, 1)];
        let mut picks: Vec<(usize, usize)> = vec![(0, 0); rows];
        let mut errors: Option<BooleanBuffer> = None;
        let mut open = UInt32Array::from_iter_values(0..rows as u32);
        let mut pick = |node: &NodeRef,
                        to: &UInt32Array,
                        errors: &mut Option<BooleanBuffer>,
                        cx: &mut EvalContext|
         -> Result<()> {
            if to.is_empty() {
                return Ok(());
            }
            let given = if to.len() == rows { input.clone() } else { input.select(to.clone())? };
            let result = node.eval(&given, cx)?;
            let source = sources.len();
            for (i, &row) in to.values().iter().enumerate() {
                picks[row as usize] = (source, result.values.index(i));
            }
            if let Some(failed) = result.errors {
                *errors = union_errors(errors.take(), Some(scatter(&failed, to, rows)));
            }
            sources.push(result.values.array().clone());
            Ok(())
        };
        for (when, then) in &self.branches {
            if open.is_empty() {
                break;
            }
            let given = if open.len() == rows { input.clone() } else { input.select(open.clone())? };
            // A NULL condition is no match.
            let condition = truth(when.eval(&given, cx)?, open.len())?;
            if let Some(failed) = &condition.errors {
                errors = union_errors(errors, Some(scatter(failed, &open, rows)));
            }
            let matched = &condition.bits;
            let goes_on = match &condition.errors {
                None => !matched,
                Some(failed) => &!matched & &!failed,
            };
            let rows_of =
                |bits: &BooleanBuffer| UInt32Array::from_iter_values(bits.set_indices().map(|i| open.value(i)));
            pick(then, &rows_of(matched), &mut errors, cx)?;
            open = rows_of(&goes_on);
        }
        if let Some(otherwise) = &self.otherwise {
            pick(otherwise, &open, &mut errors, cx)?;
        }
        let sources: Vec<&dyn Array> = sources.iter().map(AsRef::as_ref).collect();
        let array = interleave(&sources, &picks).map_err(defect)?;
        Ok(Evaluated { values: Values::Array(array), errors })
    }
}
