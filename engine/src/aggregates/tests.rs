//! Every aggregate over small columns: results after each row, undo, merge, and states through their bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use millpond_formats::value_to_json;
use millpond_sql::expr::{ExprKind, FunctionCall, TypedExpr};
use millpond_sql::functions::{ArgType, FunctionCatalog, ParamType, ResultType};
use millpond_sql::plan::AggregateCall;
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{SqlType, Value};

use super::{Aggregate, State, UpdateError, compile_aggregate};
use crate::expr::EvalContext;
use crate::functions::FunctionLibrary;

fn fits(param: &ParamType, ty: &SqlType) -> bool {
    match (param, ty) {
        (ParamType::Exact(a), b) => a == b,
        (ParamType::Decimal, SqlType::Decimal { .. }) => true,
        (ParamType::Generic(_) | ParamType::Any, _) => true,
        (ParamType::Array(a), SqlType::Array(b)) => fits(a, b),
        _ => false,
    }
}

fn filled(param: &ParamType, first: &SqlType) -> SqlType {
    match param {
        ParamType::Exact(ty) => ty.clone(),
        ParamType::Array(item) => SqlType::array(filled(item, first)),
        ParamType::Map(k, v) => SqlType::map(filled(k, first), filled(v, first)),
        _ => first.clone(),
    }
}

/// A call with its overload found by the argument types.
fn aggregate(name: &str, args: &[SqlType], init: &[Value]) -> (Arc<dyn Aggregate>, SqlType) {
    let library = FunctionLibrary::default();
    let function = library.function(name).unwrap();
    let all: Vec<ArgType> = args
        .iter()
        .map(|ty| ArgType { ty: ty.clone(), literal: None })
        .chain(init.iter().map(|v| {
            let ty = if matches!(v, Value::Boolean(_)) { SqlType::Boolean } else { SqlType::Integer };
            ArgType { ty, literal: Some(v.clone()) }
        }))
        .collect();
    let found = function.overloads.iter().find(|o| {
        let spread = o.variadic.map_or(0, |_| (all.len() + 1).saturating_sub(o.params.len()));
        let mut params = Vec::new();
        for (i, p) in o.params.iter().enumerate() {
            params.extend(std::iter::repeat_n(&p.ty, if o.variadic == Some(i) { spread } else { 1 }));
        }
        o.init_params == init.len() && params.len() == all.len() && params.iter().zip(&all).all(|(p, a)| fits(p, &a.ty))
    });
    let overload = found.unwrap_or_else(|| panic!("no overload of {name} for {args:?}"));
    let ty = match &overload.result {
        ResultType::Of(ty) => filled(ty, args.first().unwrap_or(&SqlType::BigInt)),
        ResultType::Computed(f) => f(&all).unwrap(),
    };
    let column = |(i, ty): (usize, &SqlType)| TypedExpr::new(ExprKind::Column(i), ty.clone(), Default::default());
    let call = AggregateCall {
        call: FunctionCall {
            name: name.into(),
            overload: overload.id,
            args: args.iter().enumerate().map(column).collect(),
        },
        init: init.to_vec(),
        ty: ty.clone(),
    };
    (compile_aggregate(&call, &library).unwrap(), ty)
}

fn results(aggregate: &dyn Aggregate, ty: &SqlType, states: &[State]) -> Vec<String> {
    let mut column = aggregate.results(states.len());
    states.iter().for_each(|s| column.append(s).unwrap());
    let array = column.finish().unwrap();
    assert_eq!(array.data_type(), &ty.to_arrow());
    (0..array.len()).map(|row| value_to_json(&value_at(&array, ty, row)).to_string()).collect()
}

/// The result after each row; the states go through their bytes on the way.
#[track_caller]
fn check(name: &str, columns: &[(SqlType, Vec<Value>)], init: &[Value], expected: &str) {
    let types: Vec<SqlType> = columns.iter().map(|(ty, _)| ty.clone()).collect();
    let (aggregate, ty) = aggregate(name, &types, init);
    let arrays: Vec<ArrayRef> = columns.iter().map(|(ty, v)| array_from_values(ty, v).unwrap()).collect();
    let rows = arrays.first().map_or(0, |a| a.len());
    let mut cx = EvalContext::new(0, 0);
    let mut updater = aggregate.bind(&arrays, &mut cx).unwrap();
    let (mut state, mut all) = (aggregate.create(), Vec::new());
    for row in 0..rows {
        updater.update(&mut state, row).unwrap();
        all.push(state.clone());
        let mut bytes = Vec::new();
        aggregate.encode(&state, &mut bytes);
        let decoded = aggregate.decode(&bytes).unwrap();
        let mut again = Vec::new();
        aggregate.encode(&decoded, &mut again);
        assert_eq!(bytes, again, "{name}: decoded states have the same bytes");
        assert!(aggregate.decode(&bytes[..bytes.len() - 1]).is_err(), "{name}: a cut state is noticed");
        state = decoded;
    }
    let found = results(aggregate.as_ref(), &ty, &all);
    assert_eq!(found.join(" "), expected, "{name}");
    // Merging two halves is the same as taking all rows.
    for cut in 0..=rows {
        let (mut left, mut right) = (aggregate.create(), aggregate.create());
        (0..cut).for_each(|row| updater.update(&mut left, row).unwrap());
        (cut..rows).for_each(|row| updater.update(&mut right, row).unwrap());
        aggregate.merge(&mut left, &right).unwrap();
        assert_eq!(results(aggregate.as_ref(), &ty, &[left]).last(), found.last(), "{name} merged at {cut}");
    }
    if aggregate.has_undo() {
        let mut state = aggregate.create();
        (0..rows).for_each(|row| updater.update(&mut state, row).unwrap());
        (0..rows).rev().for_each(|row| updater.undo(&mut state, row).unwrap());
        let fresh = [aggregate.create(), state];
        let shown = results(aggregate.as_ref(), &ty, &fresh);
        assert_eq!(shown[0], shown[1], "{name}: undoing all rows leaves what there was");
    }
}

fn ints(values: &[Option<i32>]) -> (SqlType, Vec<Value>) {
    (SqlType::Integer, values.iter().map(|v| v.map_or(Value::Null, Value::Integer)).collect())
}

fn texts(values: &[Option<&str>]) -> (SqlType, Vec<Value>) {
    (SqlType::String, values.iter().map(|v| v.map_or(Value::Null, |t| Value::String(t.into()))).collect())
}

fn doubles(values: &[f64]) -> (SqlType, Vec<Value>) {
    (SqlType::Double, values.iter().map(|v| Value::Double(*v)).collect())
}

#[test]
fn counts_and_sums() {
    let column = || ints(&[Some(3), None, Some(i32::MAX)]);
    check("COUNT", &[column()], &[], "1 1 2");
    check("SUM", &[column()], &[], "3 3 -2147483646");
    check("AVG", &[column()], &[], "3.0 3.0 1.073741825E9");
    check("SUM", &[doubles(&[0.5, 1.5])], &[], "0.5 2.0");
    check("COUNT_DISTINCT", &[texts(&[Some("a"), Some("b"), Some("a"), None])], &[], "1 2 2 2");
    let lists = [vec![1, 2], vec![], vec![4]];
    let lists = lists.iter().map(|l| Value::Array(l.iter().map(|i| Value::Integer(*i)).collect())).collect();
    check("SUM_LIST", &[(SqlType::array(SqlType::Integer), lists)], &[], "3 3 7");
}

#[test]
fn a_decimal_sum_that_does_not_fit_is_fatal() {
    let ty = SqlType::decimal(3, 1);
    let decimal = |unscaled| Value::Decimal { unscaled, precision: 3, scale: 1 };
    check("SUM", &[(ty.clone(), vec![decimal(15), Value::Null, decimal(-20)])], &[], "1.5 1.5 -0.5");
    let (sum, _) = aggregate("SUM", std::slice::from_ref(&ty), &[]);
    let arrays = [array_from_values(&ty, &[decimal(999), decimal(1)]).unwrap()];
    let mut cx = EvalContext::new(0, 0);
    let mut updater = sum.bind(&arrays, &mut cx).unwrap();
    let mut states = [sum.create()];
    let outcome = updater.update_groups(&mut states, &[0, 0], &mut |_, _| {});
    assert!(matches!(outcome, Err(UpdateError::Fatal(_))));
}

#[test]
fn extremes_and_offsets() {
    let column = || texts(&[Some("b"), None, Some("a"), Some("c")]);
    check("MIN", &[column()], &[], r#""b" "b" "a" "a""#);
    check("MAX", &[column()], &[], r#""b" "b" "b" "c""#);
    check("EARLIEST_BY_OFFSET", &[column()], &[], r#""b" "b" "b" "b""#);
    check("LATEST_BY_OFFSET", &[column()], &[Value::Boolean(false)], r#""b" null "a" "c""#);
    check("LATEST_BY_OFFSET", &[column()], &[Value::Integer(2)], r#"["b"] ["b"] ["b","a"] ["a","c"]"#);
    check(
        "EARLIEST_BY_OFFSET",
        &[column()],
        &[Value::Integer(2), Value::Boolean(false)],
        r#"["b"] ["b",null] ["b",null] ["b",null]"#,
    );
}

#[test]
fn collections() {
    let column = || texts(&[Some("b"), None, Some("b")]);
    check("COLLECT_LIST", &[column()], &[], r#"["b"] ["b",null] ["b",null,"b"]"#);
    check("COLLECT_SET", &[column()], &[], r#"["b"] ["b",null] ["b",null]"#);
    check("HISTOGRAM", &[column()], &[], r#"{"b":1} {"b":1} {"b":2}"#);
    check("ATTR", &[column()], &[], r#""b" null null"#);
    check("TOPK", &[ints(&[Some(1), Some(5), None, Some(5)])], &[Value::Integer(2)], "[1] [5,1] [5,1] [5,5]");
    check("TOPKDISTINCT", &[ints(&[Some(1), Some(5), None, Some(5)])], &[Value::Integer(2)], "[1] [5,1] [5,1] [5,1]");
    check(
        "TOPK",
        &[ints(&[Some(1), Some(1)]), texts(&[Some("x"), None])],
        &[Value::Integer(2)],
        r#"[{"sort_col":1,"col0":"x"}] [{"sort_col":1,"col0":"x"},{"sort_col":1,"col0":null}]"#,
    );
}

#[test]
fn statistics() {
    check("STDDEV_SAMP", &[doubles(&[10.0, 12.0, 14.0])], &[], "0.0 2.0 4.0");
    check("STDDEV_SAMPLE", &[doubles(&[10.0, 12.0, 14.0])], &[], "0.0 1.4142135623730951 2.0");
    check("CORRELATION", &[doubles(&[1.0, 2.0, 3.0]), doubles(&[2.0, 4.0, 6.0])], &[], r#""NaN" 1.0 1.0"#);
}
