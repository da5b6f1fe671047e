//! Table functions: EXPLODE and CUBE_EXPLODE, and the compiled call that operators hold.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::DataType;
use millpond_sql::diagnostic::Span;
use millpond_sql::expr::{ExprKind, TypedExpr};
use millpond_sql::functions::ResultType;
use millpond_types::{Error, Result};

use super::typed::{Builtin, Def, ITEMS_MAX, T, list_of, param};
use super::{Args, CallSite, Expanded, Failures, FunctionLibrary, TableFunction, TableImpl};
use crate::expr::call::{CompiledArg, arg_infos, compile_args, eval_args, log_failures};
use crate::expr::{EvalContext, EvalInput, defect};

/// Elements beyond which CUBE_EXPLODE's 2^n rows are refused.
const CUBE_ELEMENTS_MAX: usize = 16;

pub fn register(b: &mut Builtin) {
    b.add(
        "EXPLODE",
        "TABLE",
        "a row for each element of an array",
        vec![Def::table(vec![param("list", list_of(T))], ResultType::Of(T), Bound(explode))],
    );
    b.add(
        "CUBE_EXPLODE",
        "TABLE",
        "a row for each combination of an array's elements and NULL",
        vec![Def::table(vec![param("columns", list_of(T))], ResultType::Of(list_of(T)), Bound(cube_explode))],
    );
}

type Expand = fn(&Args<'_>) -> Result<Expanded>;

struct Bound(Expand);

impl TableFunction for Bound {
    fn bind(&self, _: &CallSite<'_>) -> Result<Arc<dyn TableImpl>> {
        Ok(Arc::new(Bound(self.0)))
    }
}

impl TableImpl for Bound {
    fn expand(&self, args: &Args<'_>, _: &mut EvalContext) -> Result<Expanded> {
        (self.0)(args)
    }
}

fn list_arg<'a>(args: &'a Args<'_>) -> Result<&'a ListArray> {
    let list = args.values(0)?.array().as_list_opt::<i32>();
    list.ok_or_else(|| Error::bug("a table function's argument is not ARRAY"))
}

fn explode(args: &Args<'_>) -> Result<Expanded> {
    let values = args.values(0)?;
    let list = list_arg(args)?;
    let mut picks = Vec::new();
    let mut lengths = Vec::with_capacity(args.rows);
    let mut failures = Failures::default();
    for row in 0..args.rows {
        let at = values.index(row);
        if list.is_null(at) {
            lengths.push(0);
            continue;
        }
        let range = list.value_offsets()[at] as u32..list.value_offsets()[at + 1] as u32;
        if range.len() > ITEMS_MAX {
            failures.push(row, || format!("the array has more than {ITEMS_MAX} elements"));
            lengths.push(0);
            continue;
        }
        if picks.len() + range.len() > ITEMS_MAX {
            break;
        }
        lengths.push(range.len());
        picks.extend(range);
    }
    let items = take(list.values(), &UInt32Array::from(picks), None).map_err(defect)?;
    Ok(Expanded { offsets: OffsetBuffer::from_lengths(lengths), items, failures })
}

/// A NULL element has no other form than NULL, so it does not double the combinations.
fn cube_explode(args: &Args<'_>) -> Result<Expanded> {
    let values = args.values(0)?;
    let list = list_arg(args)?;
    let items = list.values();
    let mut picks: Vec<Option<u32>> = Vec::new();
    let mut item_lengths = Vec::new();
    let mut lengths = Vec::with_capacity(args.rows);
    let mut failures = Failures::default();
    for row in 0..args.rows {
        let at = values.index(row);
        if list.is_null(at) {
            lengths.push(0);
            continue;
        }
        let elements: Vec<u32> = (list.value_offsets()[at] as u32..list.value_offsets()[at + 1] as u32).collect();
        if elements.len() > CUBE_ELEMENTS_MAX {
            failures
                .push(row, || format!("an array of more than {CUBE_ELEMENTS_MAX} elements has too many combinations"));
            lengths.push(0);
            continue;
        }
        // Of one row there are never so many.
        if picks.len() + (elements.len() << elements.len()) > ITEMS_MAX {
            break;
        }
        let mut combinations = 0;
        for mask in 0..1u32 << elements.len() {
            // The first element is the mask's highest bit, so that rows begin with all NULL and end with all there.
            let bit = |i: usize| mask >> (elements.len() - 1 - i) & 1 == 1;
            if elements.iter().enumerate().any(|(i, &e)| bit(i) && items.is_null(e as usize)) {
                continue;
            }
            combinations += 1;
            item_lengths.push(elements.len());
            picks.extend(elements.iter().enumerate().map(|(i, &e)| bit(i).then_some(e)));
        }
        lengths.push(combinations);
    }
    let DataType::List(field) = list.data_type() else { return Err(Error::bug("ARRAY is not a list")) };
    let inner = take(items, &UInt32Array::from(picks), None).map_err(defect)?;
    let made = ListArray::try_new(field.clone(), OffsetBuffer::from_lengths(item_lengths), inner, None);
    let items: ArrayRef = Arc::new(made.map_err(defect)?);
    Ok(Expanded { offsets: OffsetBuffer::from_lengths(lengths), items, failures })
}

/// A call of a table function, compiled.
pub struct TableCall {
    name: String,
    code: Arc<dyn TableImpl>,
    args: Vec<CompiledArg>,
    span: Span,
}

/// Compiles the call of a `FlatMap`.
pub fn compile_table(expr: &TypedExpr, library: &FunctionLibrary) -> Result<TableCall> {
    let ExprKind::Call(call) = &expr.kind else { return Err(Error::bug("a table function must be called by itself")) };
    let code = library.table(&call.name, call.overload)?.bind(&CallSite {
        name: &call.name,
        args: arg_infos(&call.args),
        result: &expr.ty,
        settings: library.settings().clone(),
    })?;
    Ok(TableCall { name: call.name.clone(), code, args: compile_args(&call.args, library)?, span: expr.span })
}

impl TableCall {
    /// The items of every row, or of the first ones. A row that fails, or one of whose arguments does, has none; the failure
    /// is logged.
    pub fn expand(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Expanded> {
        let (args, errors) = eval_args(&self.args, input, cx)?;
        let expanded = self.code.expand(&Args { args: &args, rows: input.rows(), input }, cx)?;
        let all = input.rows() + 1;
        if expanded.offsets.len() > all || (expanded.offsets.len() < 2 && all > 1) {
            return Err(Error::bug(format!("table function \"{}\" gave items for other rows", self.name)));
        }
        log_failures(&expanded.failures, &self.name, self.span, input, cx);
        match errors {
            Some(errors) if errors.has_true() => without(expanded, &errors),
            _ => Ok(expanded),
        }
    }
}

/// Without the items of the rows in which an argument failed.
fn without(expanded: Expanded, failed: &BooleanBuffer) -> Result<Expanded> {
    let mut picks = Vec::with_capacity(expanded.items.len());
    let mut lengths = Vec::with_capacity(failed.len());
    for (row, range) in expanded.offsets.windows(2).enumerate() {
        let kept = if failed.value(row) { 0..0 } else { range[0] as u32..range[1] as u32 };
        lengths.push(kept.len());
        picks.extend(kept);
    }
    let items = take(&expanded.items, &UInt32Array::from(picks), None).map_err(defect)?;
    Ok(Expanded { offsets: OffsetBuffer::from_lengths(lengths), items, failures: expanded.failures })
}

#[cfg(test)]
mod tests {
    use arrow::array::Int8Array;
    use arrow::datatypes::Field;

    use super::*;
    use crate::expr::Values;
    use crate::functions::Arg;

    #[test]
    fn rows_that_are_too_many_for_one_batch_are_left_and_not_failed() {
        let item = Arc::new(Field::new_list_field(DataType::Int8, true));
        let offsets = OffsetBuffer::from_lengths([ITEMS_MAX / 4]);
        let list = ListArray::new(item, offsets, Arc::new(Int8Array::from(vec![1; ITEMS_MAX / 4])), None);
        let args = [Arg::Values(Values::Scalar(Arc::new(list)))];
        let expanded = explode(&Args { args: &args, rows: 9, input: &EvalInput::new(&[], 9) }).unwrap();
        assert_eq!((expanded.offsets.len(), expanded.items.len()), (5, ITEMS_MAX));
    }
}
