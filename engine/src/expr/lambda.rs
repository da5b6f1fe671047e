//! Lambda bodies, evaluated over many elements at once: outer columns are taken by each element's parent row.

use arrow::array::{ArrayRef, UInt32Array};
use millpond_types::{Error, Result};

use super::{EvalContext, EvalInput, Evaluated, NodeRef};

/// Evaluates a body once per element. `parents` gives each element's row in `input`; `bindings` the parameters' values,
/// one per element.
pub fn eval_body(
    input: &EvalInput<'_>,
    parents: UInt32Array,
    params: &[u32],
    bindings: Vec<ArrayRef>,
    body: &NodeRef,
    cx: &mut EvalContext,
) -> Result<Evaluated> {
    if params.len() != bindings.len() {
        return Err(Error::bug(format!("a lambda of {} parameters is given {}", params.len(), bindings.len())));
    }
    let mut inner = input.select(parents)?;
    for (&id, array) in params.iter().zip(bindings) {
        inner.bind(id, array);
    }
    body.eval(&inner, cx)
}
