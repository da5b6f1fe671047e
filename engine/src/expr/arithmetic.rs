//! `+ - * / %`, unary minus and `||`.
//!
//! Integers wrap; a NULL operand, an integer division by zero and a DECIMAL result that its type cannot hold exactly
//! are row errors. DOUBLE follows IEEE 754.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, PrimitiveArray, StringBuilder};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, Int64Type};
use millpond_sql::diagnostic::Span;
use millpond_sql::expr::ArithmeticOp;
use millpond_types::{Error, Result, SqlType};

use super::decimal::{self, Scales};
use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, Values, defect, union_errors};

/// What both operands gave, and where the result is an error before anything is computed.
pub(super) struct Operands {
    pub left: Values,
    pub right: Values,
    pub errors: Option<BooleanBuffer>,
}

/// Evaluates both; rows with a NULL operand become errors named `what`.
pub(super) fn operands(
    (left, right): (&NodeRef, &NodeRef),
    what: &'static str,
    span: Span,
    input: &EvalInput<'_>,
    cx: &mut EvalContext,
) -> Result<Operands> {
    let a = left.eval(input, cx)?;
    let b = right.eval(input, cx)?;
    let known = union_errors(a.errors, b.errors);
    let mut errors = nulls_as_errors(&a.values, known, what, span, input, cx);
    errors = nulls_as_errors(&b.values, errors, what, span, input, cx);
    Ok(Operands { left: a.values, right: b.values, errors })
}

/// Adds the rows that are NULL without being in error, with a line for each.
pub(super) fn nulls_as_errors(
    values: &Values,
    errors: Option<BooleanBuffer>,
    what: &'static str,
    span: Span,
    input: &EvalInput<'_>,
    cx: &mut EvalContext,
) -> Option<BooleanBuffer> {
    let rows = input.rows();
    let nulls: BooleanBuffer = match values {
        Values::Scalar(a) if a.is_null(0) => BooleanBuffer::new_set(rows),
        Values::Array(a) if a.null_count() > 0 => match a.nulls() {
            Some(nulls) => !nulls.inner(),
            None => return errors,
        },
        _ => return errors,
    };
    let new = match &errors {
        Some(errors) => &nulls & &!errors,
        None => nulls.clone(),
    };
    for row in new.set_indices() {
        cx.log(input.row(row), span, || format!("{what} with a NULL operand"));
    }
    union_errors(errors, Some(nulls))
}

struct Binary {
    op: ArithmeticOp,
    left: NodeRef,
    right: NodeRef,
    kind: Kind,
    span: Span,
}

#[derive(Clone, Copy)]
enum Kind {
    Integer,
    BigInt,
    Double,
    Decimal(Scales),
}

pub fn arithmetic(
    op: ArithmeticOp,
    (left, left_ty): (NodeRef, &SqlType),
    (right, right_ty): (NodeRef, &SqlType),
    ty: &SqlType,
    span: Span,
) -> Result<NodeRef> {
    let kind = match (left_ty, right_ty, ty) {
        (SqlType::Integer, SqlType::Integer, SqlType::Integer) => Kind::Integer,
        (SqlType::BigInt, SqlType::BigInt, SqlType::BigInt) => Kind::BigInt,
        (SqlType::Double, SqlType::Double, SqlType::Double) => Kind::Double,
        (
            SqlType::Decimal { scale: left, .. },
            SqlType::Decimal { scale: right, .. },
            SqlType::Decimal { precision, scale },
        ) => Kind::Decimal(Scales { left: *left, right: *right, precision: *precision, scale: *scale }),
        (SqlType::String, SqlType::String, SqlType::String) if op == ArithmeticOp::Add => {
            return concat(left, right, ty, span);
        }
        _ => return Err(Error::bug(format!("arithmetic of {left_ty} and {right_ty} to {ty}"))),
    };
    Ok(Arc::new(Binary { op, left, right, kind, span }))
}

impl Node for Binary {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let Operands { left, right, mut errors } =
            operands((&self.left, &self.right), "arithmetic", self.span, input, cx)?;
        let by_zero = matches!(self.op, ArithmeticOp::Divide | ArithmeticOp::Modulo);
        if let Kind::Decimal(scales) = self.kind {
            return self.decimal(&left, &right, errors, scales, input, cx);
        }
        if by_zero && matches!(self.kind, Kind::Integer | Kind::BigInt) {
            let mut failed = |row: usize| cx.log(input.row(row), self.span, || "division by zero".to_owned());
            let array = match self.kind {
                Kind::Integer => self.divide::<Int32Type>(
                    (&left, &right),
                    input.rows(),
                    &mut errors,
                    &mut failed,
                    if self.op == ArithmeticOp::Divide { i32::wrapping_div } else { i32::wrapping_rem },
                )?,
                _ => self.divide::<Int64Type>(
                    (&left, &right),
                    input.rows(),
                    &mut errors,
                    &mut failed,
                    if self.op == ArithmeticOp::Divide { i64::wrapping_div } else { i64::wrapping_rem },
                )?,
            };
            return Ok(Evaluated { values: array, errors });
        }
        let kernel = match self.op {
            ArithmeticOp::Add => numeric::add_wrapping,
            ArithmeticOp::Subtract => numeric::sub_wrapping,
            ArithmeticOp::Multiply => numeric::mul_wrapping,
            ArithmeticOp::Divide => numeric::div,
            ArithmeticOp::Modulo => numeric::rem,
        };
        let array = kernel(&left, &right).map_err(defect)?;
        let values = if left.is_scalar() && right.is_scalar() { Values::Scalar(array) } else { Values::Array(array) };
        Ok(Evaluated { values, errors })
    }

    fn infallible(&self) -> bool {
        false
    }
}

/// Values of a primitive column with scalars spread over the rows by index.
struct Lane<'a, T: ArrowPrimitiveType> {
    values: &'a [T::Native],
    step: usize,
}

impl<'a, T: ArrowPrimitiveType> Lane<'a, T> {
    fn new(values: &'a Values) -> Result<Self> {
        let array = values
            .array()
            .as_primitive_opt::<T>()
            .ok_or_else(|| Error::bug(format!("arithmetic on a column of type {}", values.array().data_type())))?;
        Ok(Self { values: array.values(), step: usize::from(!values.is_scalar()) })
    }

    #[inline]
    fn at(&self, row: usize) -> T::Native {
        self.values[row * self.step]
    }
}

fn with_errors<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    errors: Option<&BooleanBuffer>,
    scalar: bool,
) -> Result<Values> {
    let nulls = errors.map(|e| NullBuffer::new(!e));
    let array: ArrayRef = if scalar {
        let is_null = nulls.is_some_and(|n| !n.is_empty() && n.is_null(0));
        Arc::new(PrimitiveArray::<T>::from_iter([values.first().copied().filter(|_| !is_null)]))
    } else {
        Arc::new(PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls).map_err(defect)?)
    };
    Ok(if scalar { Values::Scalar(array) } else { Values::Array(array) })
}

impl Binary {
    fn divide<T: ArrowPrimitiveType>(
        &self,
        (left, right): (&Values, &Values),
        rows: usize,
        errors: &mut Option<BooleanBuffer>,
        failed: &mut dyn FnMut(usize),
        op: fn(T::Native, T::Native) -> T::Native,
    ) -> Result<Values> {
        let (a, b) = (Lane::<T>::new(left)?, Lane::<T>::new(right)?);
        let zero = T::Native::default();
        let scalar = left.is_scalar() && right.is_scalar();
        let known = errors.take();
        let mut zeros = false;
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            let divisor = b.at(row);
            if divisor == zero {
                if known.as_ref().is_none_or(|e| !e.value(row)) {
                    zeros = true;
                    failed(row);
                }
                values.push(zero);
            } else {
                values.push(op(a.at(row), divisor));
            }
        }
        *errors = if zeros {
            let zeros = BooleanBuffer::collect_bool(rows, |row| b.at(row) == zero);
            union_errors(known, Some(zeros))
        } else {
            known
        };
        with_errors::<T>(values, errors.as_ref(), scalar)
    }

    fn decimal(
        &self,
        left: &Values,
        right: &Values,
        known: Option<BooleanBuffer>,
        scales: Scales,
        input: &EvalInput<'_>,
        cx: &mut EvalContext,
    ) -> Result<Evaluated> {
        let op = match self.op {
            ArithmeticOp::Add => decimal::add,
            ArithmeticOp::Subtract => decimal::subtract,
            ArithmeticOp::Multiply => decimal::multiply,
            ArithmeticOp::Divide => decimal::divide,
            ArithmeticOp::Modulo => decimal::modulo,
        };
        let rows = input.rows();
        let (a, b) = (Lane::<Decimal128Type>::new(left)?, Lane::<Decimal128Type>::new(right)?);
        let mut values = Vec::with_capacity(rows);
        let mut failed = Vec::new();
        for row in 0..rows {
            if known.as_ref().is_some_and(|e| e.value(row)) {
                values.push(0);
                continue;
            }
            match op(a.at(row), b.at(row), scales) {
                Ok(value) => values.push(value),
                Err(failure) => {
                    values.push(0);
                    failed.push(row);
                    cx.log(input.row(row), self.span, || failure.message().to_owned());
                }
            }
        }
        let errors = union_errors(known, error_rows(rows, &failed));
        let nulls = errors.as_ref().map(|e| NullBuffer::new(!e));
        let array = PrimitiveArray::<Decimal128Type>::try_new(ScalarBuffer::from(values), nulls)
            .and_then(|a| a.with_precision_and_scale(scales.precision, scales.scale as i8))
            .map_err(defect)?;
        Ok(Evaluated { values: Values::Array(Arc::new(array)), errors })
    }
}

/// A mask of these rows (ascending), `None` if there are none.
pub(super) fn error_rows(rows: usize, failed: &[usize]) -> Option<BooleanBuffer> {
    if failed.is_empty() {
        return None;
    }
    let mut mask = vec![false; rows];
    for &row in failed {
        if let Some(bit) = mask.get_mut(row) {
            *bit = true;
        }
    }
    Some(BooleanBuffer::from(mask))
}

struct Negate {
    operand: NodeRef,
    span: Span,
}

pub fn negate(operand: NodeRef, ty: &SqlType, span: Span) -> Result<NodeRef> {
    if !ty.is_numeric() {
        return Err(Error::bug(format!("unary minus on {ty}")));
    }
    Ok(Arc::new(Negate { operand, span }))
}

impl Node for Negate {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let evaluated = self.operand.eval(input, cx)?;
        let errors = nulls_as_errors(&evaluated.values, evaluated.errors, "unary minus", self.span, input, cx);
        let values = match evaluated.values {
            Values::Array(a) => Values::Array(negated(&a)?),
            Values::Scalar(a) => Values::Scalar(negated(&a)?),
        };
        Ok(Evaluated { values, errors })
    }
}

fn negated(array: &ArrayRef) -> Result<ArrayRef> {
    if let Some(doubles) = array.as_primitive_opt::<Float64Type>() {
        return Ok(Arc::new(doubles.unary::<_, Float64Type>(|v| -v)));
    }
    numeric::neg_wrapping(array).map_err(defect)
}

struct Concat {
    left: NodeRef,
    right: NodeRef,
    bytes: bool,
    span: Span,
}

pub fn concat(left: NodeRef, right: NodeRef, ty: &SqlType, span: Span) -> Result<NodeRef> {
    let bytes = match ty {
        SqlType::String => false,
        SqlType::Bytes => true,
        _ => return Err(Error::bug(format!("|| to {ty}"))),
    };
    Ok(Arc::new(Concat { left, right, bytes, span }))
}

impl Node for Concat {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let Operands { left, right, errors } =
            operands((&self.left, &self.right), "concatenation", self.span, input, cx)?;
        let rows = input.rows();
        let skip = |row: usize| errors.as_ref().is_some_and(|e| e.value(row));
        let wrong = || Error::bug("|| on columns of another type");
        let array: ArrayRef = if self.bytes {
            let a = left.array().as_binary_opt::<i32>().ok_or_else(wrong)?;
            let b = right.array().as_binary_opt::<i32>().ok_or_else(wrong)?;
            let mut out = BinaryBuilder::with_capacity(rows, a.value_data().len() + b.value_data().len());
            let mut joined = Vec::new();
            for row in 0..rows {
                if skip(row) {
                    out.append_null();
                    continue;
                }
                joined.clear();
                joined.extend_from_slice(a.value(left.index(row)));
                joined.extend_from_slice(b.value(right.index(row)));
                out.append_value(&joined);
            }
            Arc::new(out.finish())
        } else {
            let a = left.array().as_string_opt::<i32>().ok_or_else(wrong)?;
            let b = right.array().as_string_opt::<i32>().ok_or_else(wrong)?;
            let mut out = StringBuilder::with_capacity(rows, a.value_data().len() + b.value_data().len());
            let mut joined = String::new();
            for row in 0..rows {
                if skip(row) {
                    out.append_null();
                    continue;
                }
                joined.clear();
                joined.push_str(a.value(left.index(row)));
                joined.push_str(b.value(right.index(row)));
                out.append_value(&joined);
            }
            Arc::new(out.finish())
        };
        Ok(Evaluated { values: Values::Array(array), errors })
    }
}
