//! Typed expressions to nodes.

use std::sync::Arc;

use millpond_sql::expr::{ExprKind, TypedExpr};
use millpond_types::value::array_from_values;
use millpond_types::{Error, Result};

use super::{
    EvalContext, EvalInput, Evaluated, Node, NodeRef, arithmetic, call, cast, collection, compare, like, logic,
};
use crate::functions::FunctionLibrary;

/// The node for an expression. Errors are defects of the plan, or a function that was dropped meanwhile.
pub fn compile_node(expr: &TypedExpr, library: &FunctionLibrary) -> Result<NodeRef> {
    let compile = |e: &TypedExpr| compile_node(e, library);
    let all = |items: &[TypedExpr]| items.iter().map(compile).collect::<Result<Vec<_>>>();
    Ok(match &expr.kind {
        ExprKind::Column(index) => Arc::new(Column(*index)),
        ExprKind::Literal(value) => Arc::new(Literal(array_from_values(&expr.ty, std::slice::from_ref(value))?)),
        ExprKind::Negate(operand) => arithmetic::negate(compile(operand)?, &operand.ty, expr.span)?,
        ExprKind::Arithmetic { op, left, right } => {
            arithmetic::arithmetic(*op, (compile(left)?, &left.ty), (compile(right)?, &right.ty), &expr.ty, expr.span)?
        }
        ExprKind::Concat(left, right) => arithmetic::concat(compile(left)?, compile(right)?, &expr.ty, expr.span)?,
        ExprKind::Compare { op, left, right } => {
            compare::compare(*op, (compile(left)?, &left.ty), (compile(right)?, &right.ty))?
        }
        ExprKind::And(left, right) => logic::and(compile(left)?, compile(right)?, expr.span),
        ExprKind::Or(left, right) => logic::or(compile(left)?, compile(right)?, expr.span),
        ExprKind::Not(operand) => logic::not(compile(operand)?, expr.span),
        ExprKind::IsNull { operand, negated } => logic::is_null(compile(operand)?, *negated),
        ExprKind::Between { operand, low, high, negated } => compare::between(
            (compile(operand)?, &operand.ty),
            (compile(low)?, &low.ty),
            (compile(high)?, &high.ty),
            *negated,
        )?,
        ExprKind::In { operand, list, negated } => {
            let types: Vec<_> = list.iter().map(|e| &e.ty).collect();
            let literal = list.iter().all(|e| matches!(e.kind, ExprKind::Literal(_)));
            compare::is_in((compile(operand)?, &operand.ty), all(list)?, &types, literal, *negated)?
        }
        ExprKind::Like { operand, pattern, escape, negated } => {
            like::like(compile(operand)?, compile(pattern)?, *escape, *negated, expr.span)
        }
        ExprKind::Case { branches, otherwise } => {
            let branches =
                branches.iter().map(|(when, then)| Ok((compile(when)?, compile(then)?))).collect::<Result<Vec<_>>>()?;
            let otherwise = otherwise.as_deref().map(compile).transpose()?;
            logic::case(branches, otherwise, expr.ty.to_arrow())
        }
        ExprKind::Cast(operand) => cast::cast(compile(operand)?, &operand.ty, &expr.ty, expr.span)?,
        ExprKind::Array(items) => collection::array(all(items)?, &expr.ty)?,
        ExprKind::Map(entries) => {
            let (keys, values) = (
                entries.iter().map(|(k, _)| compile(k)).collect::<Result<Vec<_>>>()?,
                entries.iter().map(|(_, v)| compile(v)).collect::<Result<Vec<_>>>()?,
            );
            collection::map(keys, values, &expr.ty, expr.span)?
        }
        ExprKind::Struct(fields) => collection::structure(all(fields)?, &expr.ty)?,
        ExprKind::Subscript { base, index } => {
            collection::subscript(compile(base)?, compile(index)?, &base.ty, expr.span)?
        }
        ExprKind::Field { base, index } => collection::field(compile(base)?, *index),
        ExprKind::Call(call) => call::call(call, &expr.ty, expr.span, library)?,
        ExprKind::Lambda(_) => return Err(Error::bug("a lambda stands outside a call")),
        ExprKind::LambdaParam(id) => Arc::new(Param(*id)),
    })
}

struct Column(usize);

impl Node for Column {
    fn eval(&self, input: &EvalInput<'_>, _: &mut EvalContext) -> Result<Evaluated> {
        Ok(Evaluated::array(input.column(self.0)?))
    }

    fn infallible(&self) -> bool {
        true
    }
}

struct Literal(arrow::array::ArrayRef);

impl Node for Literal {
    fn eval(&self, _: &EvalInput<'_>, _: &mut EvalContext) -> Result<Evaluated> {
        Ok(Evaluated::scalar(self.0.clone()))
    }

    fn infallible(&self) -> bool {
        true
    }
}

struct Param(u32);

impl Node for Param {
    fn eval(&self, input: &EvalInput<'_>, _: &mut EvalContext) -> Result<Evaluated> {
        Ok(Evaluated::array(input.param(self.0)?))
    }

    fn infallible(&self) -> bool {
        true
    }
}
