//! MAP functions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray, new_null_array};
use arrow::datatypes::DataType;
use millpond_sql::functions::ResultType;
use millpond_types::{Error, Field, Result, SqlType};

use super::list::{Lists, Maps, Picks};
use super::typed::{Bind, Bool, Builtin, Def, Kind as _, Read as _, Str, T, exact, list_of, map_of, param, same};
use super::{Args, CallSite, Returned, ScalarImpl};
use crate::expr::collection::make_map;
use crate::expr::{EvalContext, deep, defect};

const CATEGORY: &str = "MAP";

pub fn register(b: &mut Builtin) {
    let map = || map_of(Str::param(), T);
    b.add(
        "MAP_KEYS",
        CATEGORY,
        "the keys",
        vec![Def::scalar(
            vec![param("map", map())],
            ResultType::Of(list_of(Str::param())),
            same(|args: &Args<'_>, _: &mut EvalContext| {
                let maps = Maps::new(args, 0)?;
                children(args, &maps, maps.keys(), &SqlType::array(SqlType::String).to_arrow())
            }),
        )],
    );
    b.add(
        "MAP_VALUES",
        CATEGORY,
        "the values",
        vec![Def::scalar(
            vec![param("map", map())],
            ResultType::Of(list_of(T)),
            Bind(|site: &CallSite<'_>| {
                let ty = site.result.to_arrow();
                let code: Arc<dyn ScalarImpl> = Arc::new(move |args: &Args<'_>, _: &mut EvalContext| {
                    let maps = Maps::new(args, 0)?;
                    children(args, &maps, maps.items(), &ty)
                });
                Ok(code)
            }),
        )],
    );
    b.add(
        "MAP_UNION",
        CATEGORY,
        "the entries of both maps; of equal keys the second map's",
        vec![Def::scalar(vec![param("map1", map()), param("map2", map())], ResultType::Of(map()), same(union))],
    );
    b.add(
        "AS_MAP",
        CATEGORY,
        "a map of keys and values",
        vec![Def::scalar(
            vec![param("keys", list_of(Str::param())), param("values", list_of(T))],
            ResultType::Of(map()),
            Bind(|site: &CallSite<'_>| {
                let ty = site.result.to_arrow();
                let code: Arc<dyn ScalarImpl> = Arc::new(move |args: &Args<'_>, _: &mut EvalContext| as_map(args, &ty));
                Ok(code)
            }),
        )],
    );
    let entries = [SqlType::Integer, SqlType::BigInt, SqlType::Double, SqlType::Boolean, SqlType::String]
        .into_iter()
        .map(|ty| {
            let entry = SqlType::Struct(vec![Field::new("K", SqlType::String), Field::new("V", ty.clone())]);
            let result = SqlType::array(entry);
            let arrow = result.to_arrow();
            let code = same(move |args: &Args<'_>, _: &mut EvalContext| entries(args, &arrow));
            let params = vec![param("map", map_of(Str::param(), exact(ty))), param("sorted", Bool::param())];
            Def::scalar(params, ResultType::Of(exact(result)), code)
        })
        .collect();
    b.add("ENTRIES", CATEGORY, "the entries as an array of structs, by key if wanted", entries);
}

fn children(args: &Args<'_>, maps: &Maps<'_>, child: &ArrayRef, ty: &DataType) -> Result<Returned> {
    let mut picks = Picks::default();
    for row in 0..args.rows {
        picks.push_option(maps.range(row).map(|r| r.map(|i| (0, i))));
    }
    picks.into_list(ty, &[child])
}

fn union(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let (left, right) = (Maps::new(args, 0)?, Maps::new(args, 1)?);
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let (a, b) = (left.range(row), right.range(row));
        if a.is_none() && b.is_none() {
            picks.push_null();
            continue;
        }
        let (a, b) = (a.unwrap_or(0..0), b.unwrap_or(0..0));
        let equal = |i: usize, j: usize| deep::equal(left.keys(), i, right.keys(), j);
        let mut entries: Vec<(usize, usize)> = Vec::with_capacity(a.len() + b.len());
        // An overridden entry keeps its place.
        entries.extend(a.clone().map(|i| b.clone().rev().find(|&j| equal(i, j)).map_or((0, i), |j| (1, j))));
        entries.extend(b.filter(|&j| !a.clone().any(|i| equal(i, j))).map(|j| (1, j)));
        picks.push(entries);
    }
    picks.into_map(left.map.data_type(), &[left.keys(), right.keys()], &[left.items(), right.items()])
}

/// Keys without a value have NULL; NULL keys are left out, of equal keys the last counts.
fn as_map(args: &Args<'_>, ty: &DataType) -> Result<Returned> {
    let (keys, values) = (Lists::new(args, 0)?, Lists::new(args, 1)?);
    let missing = new_null_array(values.items().data_type(), 1);
    let (mut key_picks, mut value_picks) = (Picks::default(), Picks::default());
    for row in 0..args.rows {
        let (Some(k), Some(v)) = (keys.range(row), values.range(row)) else {
            key_picks.push_null();
            value_picks.push_null();
            continue;
        };
        let v = v.map(|i| (0, i)).chain(std::iter::repeat((1, 0)));
        let pairs: Vec<(usize, (usize, usize))> = k.zip(v).filter(|(k, _)| keys.items().is_valid(*k)).collect();
        let same = |a: usize, b: usize| deep::equal(keys.items(), a, keys.items(), b);
        let last = |k: usize| pairs.iter().rev().find(|(other, _)| same(k, *other)).copied();
        let firsts =
            pairs.iter().enumerate().filter(|(n, (k, _))| !pairs[..*n].iter().any(|(other, _)| same(*k, *other)));
        let settled: Vec<(usize, (usize, usize))> =
            firsts.map(|(_, &(k, v))| last(k).map_or((k, v), |(_, v)| (k, v))).collect();
        key_picks.push(settled.iter().map(|(k, _)| (0, *k)));
        value_picks.push(settled.iter().map(|(_, v)| *v));
    }
    let (offsets, nulls) = (key_picks.offsets(), key_picks.nulls());
    let gathered = (key_picks.gather(&[keys.items()])?, value_picks.gather(&[values.items(), &missing])?);
    let array = make_map(ty, offsets, gathered.0, gathered.1, nulls)?;
    Ok(Returned { array, failures: key_picks.into_failures() })
}

fn entries(args: &Args<'_>, ty: &DataType) -> Result<Returned> {
    let maps = Maps::new(args, 0)?;
    let sorted = args.values(1)?;
    let sorted = Bool::reader(sorted.array(), sorted.is_scalar())?;
    let keys = maps.keys().as_string_opt::<i32>().ok_or_else(|| Error::bug("a map's keys are not STRING"))?;
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let (Some(range), Some(sorted)) = (maps.range(row), Bool::get(&sorted, row)) else {
            picks.push_null();
            continue;
        };
        let mut order: Vec<usize> = range.collect();
        if sorted {
            order.sort_by(|&a, &b| deep::compare_text(keys.value(a), keys.value(b)));
        }
        picks.push(order.into_iter().map(|i| (0, i)));
    }
    let DataType::List(item) = ty else { return Err(Error::bug("ENTRIES gives no ARRAY")) };
    let DataType::Struct(fields) = item.data_type() else { return Err(Error::bug("ENTRIES gives no STRUCTs")) };
    let columns = vec![picks.gather(&[maps.keys()])?, picks.gather(&[maps.items()])?];
    let structs = StructArray::try_new(fields.clone(), columns, None).map_err(defect)?;
    let made = ListArray::try_new(item.clone(), picks.offsets(), Arc::new(structs), picks.nulls());
    Ok(Returned { array: Arc::new(made.map_err(defect)?), failures: picks.into_failures() })
}
