//! COALESCE, IFNULL, NULLIF, AS_VALUE.

use arrow::array::{Array, UInt32Array};
use arrow::compute::{interleave, take};
use millpond_sql::functions::ResultType;
use millpond_types::Result;

use super::typed::{Builtin, Def, T, param, same};
use super::{Args, Returned};
use crate::expr::{EvalContext, deep, defect};

const CATEGORY: &str = "CONDITIONAL";

pub fn register(b: &mut Builtin) {
    let result = || ResultType::Of(T);
    b.add(
        "COALESCE",
        CATEGORY,
        "the first value that is not NULL",
        vec![Def::scalar(vec![param("first", T), param("others", T)], result(), same(coalesce)).variadic(1)],
    );
    b.add(
        "IFNULL",
        CATEGORY,
        "the value, or another where it is NULL",
        vec![Def::scalar(vec![param("value", T), param("alternative", T)], result(), same(coalesce))],
    );
    b.add(
        "NULLIF",
        CATEGORY,
        "NULL where two values are equal, else the first",
        vec![Def::scalar(vec![param("value", T), param("other", T)], result(), same(null_if))],
    );
    b.add(
        "AS_VALUE",
        "OTHER",
        "a copy of a key column among the values",
        vec![Def::scalar(
            vec![param("keyColumn", T)],
            result(),
            same(|args: &Args<'_>, _: &mut EvalContext| {
                Ok(Returned::ok(args.values(0)?.clone().into_array(args.rows)?))
            }),
        )],
    );
}

fn coalesce(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let first = args.values(0)?;
    if first.array().null_count() == 0 {
        return Ok(Returned::ok(first.clone().into_array(args.rows)?));
    }
    let values = (0..args.args.len()).map(|i| args.values(i)).collect::<Result<Vec<_>>>()?;
    let picks: Vec<(usize, usize)> = (0..args.rows)
        .map(|row| {
            let found = values.iter().position(|v| v.array().is_valid(v.index(row))).unwrap_or(0);
            (found, values[found].index(row))
        })
        .collect();
    let sources: Vec<&dyn Array> = values.iter().map(|v| v.array().as_ref()).collect();
    Ok(Returned::ok(interleave(&sources, &picks).map_err(defect)?))
}

fn null_if(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let (a, b) = (args.values(0)?, args.values(1)?);
    let picks = (0..args.rows).map(|row| {
        let (i, j) = (a.index(row), b.index(row));
        (!deep::equal(a.array(), i, b.array(), j)).then_some(i as u32)
    });
    let array = take(a.array(), &UInt32Array::from_iter(picks), None).map_err(defect)?;
    Ok(Returned::ok(array))
}
