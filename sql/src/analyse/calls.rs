//! Finds the calls of a kind in an expression.

use crate::functions::{FunctionCatalog, FunctionKind};
use crate::syntax::{Call, Expr, ExprKind, Span};

/// The outermost calls of functions of this kind, from left to right.
pub(super) fn of_kind<'e>(expr: &'e Expr, kind: FunctionKind, catalog: &dyn FunctionCatalog) -> Vec<(&'e Call, Span)> {
    let mut found = Vec::new();
    expr.walk(&mut |e| {
        if let ExprKind::Call(call) = &e.kind {
            let function = catalog.function(&call.name.value.to_ascii_uppercase());
            if function.is_some_and(|f| f.kind == kind) {
                found.push((call, e.span));
                return false;
            }
        }
        true
    });
    found
}
