//! Calls of scalar functions: arguments in error are NULL, failed rows are errors.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use millpond_sql::diagnostic::Span;
use millpond_sql::expr::{ExprKind, FunctionCall, TypedExpr};
use millpond_types::{Error, Result, SqlType};

use super::arithmetic::error_rows;
use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, Values, compile_node, union_errors};
use crate::functions::{Arg, ArgInfo, Args, CallSite, Failures, FunctionLibrary, ScalarImpl};

/// One argument as compiled.
pub(crate) enum CompiledArg {
    Value(NodeRef),
    Lambda(Arc<[u32]>, NodeRef),
}

pub(crate) fn compile_args(args: &[TypedExpr], library: &FunctionLibrary) -> Result<Vec<CompiledArg>> {
    args.iter()
        .map(|arg| match &arg.kind {
            ExprKind::Lambda(lambda) => Ok(CompiledArg::Lambda(
                lambda.params.iter().map(|p| p.id).collect(),
                compile_node(&lambda.body, library)?,
            )),
            _ => Ok(CompiledArg::Value(compile_node(arg, library)?)),
        })
        .collect()
}

pub(crate) fn arg_infos(args: &[TypedExpr]) -> Vec<ArgInfo> {
    args.iter()
        .map(|arg| ArgInfo {
            ty: arg.ty.clone(),
            literal: match &arg.kind {
                ExprKind::Literal(value) => Some(value.clone()),
                _ => None,
            },
        })
        .collect()
}

/// The arguments' values, and the rows in which one of them failed.
pub(crate) fn eval_args(
    args: &[CompiledArg],
    input: &EvalInput<'_>,
    cx: &mut EvalContext,
) -> Result<(Vec<Arg>, Option<BooleanBuffer>)> {
    let mut errors = None;
    let args = args
        .iter()
        .map(|arg| match arg {
            CompiledArg::Value(node) => {
                let evaluated = node.eval(input, cx)?;
                errors = union_errors(errors.take(), evaluated.errors);
                Ok(Arg::Values(evaluated.values))
            }
            CompiledArg::Lambda(params, body) => Ok(Arg::Lambda(params.clone(), body.clone())),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((args, errors))
}

/// Notes a call's failed rows.
pub(crate) fn log_failures(failures: &Failures, name: &str, span: Span, input: &EvalInput<'_>, cx: &mut EvalContext) {
    for (i, &row) in failures.rows.iter().enumerate() {
        if (row as usize) < input.rows() {
            cx.log(input.row(row as usize), span, || match failures.messages.get(i) {
                Some(message) => format!("function \"{name}\": {message}"),
                None => format!("function \"{name}\" failed"),
            });
        }
    }
}

struct Call {
    name: String,
    code: Arc<dyn ScalarImpl>,
    args: Vec<CompiledArg>,
    /// Deterministic and without lambdas: over scalars one evaluation serves all rows.
    foldable: bool,
    span: Span,
}

pub fn call(call: &FunctionCall, ty: &SqlType, span: Span, library: &FunctionLibrary) -> Result<NodeRef> {
    let function = library.scalar(&call.name, call.overload)?;
    let code = function.bind(&CallSite {
        name: &call.name,
        args: arg_infos(&call.args),
        result: ty,
        settings: library.settings().clone(),
    })?;
    let args = compile_args(&call.args, library)?;
    let foldable = function.deterministic() && args.iter().all(|a| matches!(a, CompiledArg::Value(_)));
    Ok(Arc::new(Call { name: call.name.clone(), code, args, foldable, span }))
}

impl Node for Call {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let (args, _) = eval_args(&self.args, input, cx)?;
        let scalar = self.foldable && args.iter().all(|a| matches!(a, Arg::Values(v) if v.is_scalar()));
        let rows = if scalar { 1 } else { input.rows() };
        let returned = self.code.eval(&Args { args: &args, rows, input }, cx)?;
        if returned.array.len() != rows {
            return Err(Error::bug(format!(
                "function \"{}\" gave {} values for {rows} rows",
                self.name,
                returned.array.len()
            )));
        }
        log_failures(&returned.failures, &self.name, self.span, input, cx);
        let failed: Vec<usize> = returned.failures.rows.iter().map(|&r| r as usize).collect();
        let errors = match error_rows(rows, &failed) {
            Some(_) if scalar => Some(BooleanBuffer::new_set(input.rows())),
            errors => errors,
        };
        let values = if scalar { Values::Scalar(returned.array) } else { Values::Array(returned.array) };
        Ok(Evaluated { values, errors })
    }
}
