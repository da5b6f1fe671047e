//! ARRAY functions. Elements are compared as Java's collections do: NULL equals NULL.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBuilder, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use millpond_formats::text::TextColumn;
use millpond_sql::functions::ResultType;
use millpond_types::{Result, SqlType};

use super::list::{Lists, Picks};
use super::typed::{
    Big, Builtin, Def, Int, Kind as _, List, Output as _, Push as _, Read as _, Str, T, VALUE_BYTES_MAX, Write as _,
    exact, list_of, param, same, scalar,
};
use super::{Args, Returned};
use crate::expr::{EvalContext, deep, defect};

const CATEGORY: &str = "ARRAY";
/// Elements that GENERATE_SERIES may give for one row.
const SERIES_MAX: i128 = 1 << 20;

pub fn register(b: &mut Builtin) {
    let list = || list_of(T);
    let one = || vec![param("array", list())];
    let two = || vec![param("left", list()), param("right", list())];
    let lists = || ResultType::Of(list());
    b.add(
        "ARRAY_LENGTH",
        CATEGORY,
        "number of elements",
        vec![Def::scalar(one(), ResultType::Of(exact(SqlType::Integer)), same(length))],
    );
    b.add(
        "ARRAY_CONTAINS",
        CATEGORY,
        "whether a value is among the elements",
        vec![Def::scalar(
            vec![param("array", list()), param("value", T)],
            ResultType::Of(exact(SqlType::Boolean)),
            same(contains),
        )],
    );
    b.add(
        "ARRAY_MAX",
        CATEGORY,
        "the largest element",
        vec![Def::scalar(
            one(),
            ResultType::Of(T),
            same(|args: &Args<'_>, _: &mut EvalContext| extreme(args, Ordering::Greater)),
        )],
    );
    b.add(
        "ARRAY_MIN",
        CATEGORY,
        "the smallest element",
        vec![Def::scalar(
            one(),
            ResultType::Of(T),
            same(|args: &Args<'_>, _: &mut EvalContext| extreme(args, Ordering::Less)),
        )],
    );
    b.add(
        "ARRAY_SORT",
        CATEGORY,
        "the elements in order, NULLs last",
        vec![
            Def::scalar(one(), lists(), same(sort)),
            Def::scalar(vec![param("array", list()), param("direction", Str::param())], lists(), same(sort)),
        ],
    );
    b.add(
        "ARRAY_DISTINCT",
        CATEGORY,
        "the elements without repetitions",
        vec![Def::scalar(one(), lists(), same(distinct))],
    );
    b.add("ARRAY_CONCAT", CATEGORY, "the elements of both arrays", vec![Def::scalar(two(), lists(), same(concat))]);
    b.add(
        "ARRAY_UNION",
        CATEGORY,
        "the distinct elements of both arrays",
        vec![Def::scalar(two(), lists(), same(union))],
    );
    b.add(
        "ARRAY_INTERSECT",
        CATEGORY,
        "the distinct elements that are in both arrays",
        vec![Def::scalar(two(), lists(), same(|args: &Args<'_>, _: &mut EvalContext| filtered(args, true)))],
    );
    b.add(
        "ARRAY_EXCEPT",
        CATEGORY,
        "the distinct elements that are not in the other array",
        vec![Def::scalar(two(), lists(), same(|args: &Args<'_>, _: &mut EvalContext| filtered(args, false)))],
    );
    b.add(
        "ARRAY_REMOVE",
        CATEGORY,
        "the elements that are not equal to a value",
        vec![Def::scalar(vec![param("array", list()), param("victim", T)], lists(), same(remove))],
    );
    b.add(
        "ARRAY_JOIN",
        CATEGORY,
        "the elements as text with a delimiter between them",
        vec![
            Def::scalar(one(), ResultType::Of(exact(SqlType::String)), same(join)),
            Def::scalar(
                vec![param("array", list()), param("delimiter", Str::param())],
                ResultType::Of(exact(SqlType::String)),
                same(join),
            ),
        ],
    );
    b.add(
        "SLICE",
        CATEGORY,
        "the elements from one position to another",
        vec![Def::scalar(
            vec![param("array", list()), param("from", Int::param()), param("to", Int::param())],
            lists(),
            same(slice),
        )],
    );
    b.add("GENERATE_SERIES", CATEGORY, "the numbers from one to another", vec![
        scalar!((start: Int, end: Int) -> List<Int> =>
            series(i64::from(start), i64::from(end), None).map(|v| v.into_iter().map(|n| n as i32).collect::<Vec<_>>())),
        scalar!((start: Int, end: Int, step: Int) -> List<Int> =>
            series(i64::from(start), i64::from(end), Some(step)).map(|v| v.into_iter().map(|n| n as i32).collect::<Vec<_>>())),
        scalar!((start: Big, end: Big) -> List<Big> => series(start, end, None)),
        scalar!((start: Big, end: Big, step: Int) -> List<Big> => series(start, end, Some(step))),
    ]);
}

fn length(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let lengths = (0..args.rows).map(|row| lists.range(row).map(|r| r.len() as i32));
    let array: arrow::array::Int32Array = lengths.collect();
    Ok(Returned::ok(Arc::new(array)))
}

/// The bytes that stand for an element.
fn key(items: &ArrayRef, at: usize) -> Vec<u8> {
    let mut key = Vec::new();
    deep::encode(items, at, &mut key);
    key
}

fn contains(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let wanted = args.values(1)?;
    let mut out = BooleanBuilder::with_capacity(args.rows);
    for row in 0..args.rows {
        let at = wanted.index(row);
        out.append_value(match lists.range(row) {
            Some(mut range) => range.any(|i| deep::equal(lists.items(), i, wanted.array(), at)),
            None => false,
        });
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn extreme(args: &Args<'_>, wanted: Ordering) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let items = lists.items();
    let picks = (0..args.rows).map(|row| {
        let mut best: Option<usize> = None;
        for i in lists.range(row)?.filter(|i| items.is_valid(*i)) {
            if best.is_none_or(|b| deep::compare(items, i, items, b) == wanted) {
                best = Some(i);
            }
        }
        best.map(|b| b as u32)
    });
    Ok(Returned::ok(take(items, &UInt32Array::from_iter(picks), None).map_err(defect)?))
}

fn sort(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let items = lists.items();
    let direction = match args.args.len() {
        1 => None,
        _ => Some(args.values(1)?),
    };
    let direction = direction.map(|d| Str::reader(d.array(), d.is_scalar())).transpose()?;
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let descending = match &direction {
            None => Some(false),
            Some(d) => match Str::get(d, row).map(str::to_ascii_uppercase).as_deref() {
                Some("ASC" | "ASCENDING") => Some(false),
                Some("DESC" | "DESCENDING") => Some(true),
                _ => None,
            },
        };
        let (Some(range), Some(descending)) = (lists.range(row), descending) else {
            picks.push_null();
            continue;
        };
        let mut order: Vec<usize> = range.collect();
        order.sort_by(|&a, &b| match (items.is_null(a), items.is_null(b)) {
            (false, false) if descending => deep::compare(items, b, items, a),
            (false, false) => deep::compare(items, a, items, b),
            (a, b) => a.cmp(&b),
        });
        picks.push(order.into_iter().map(|i| (0, i)));
    }
    picks.into_list(lists.list.data_type(), &[items])
}

fn distinct(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let mut seen = HashSet::new();
        picks.push_option(
            lists
                .range(row)
                .map(|r| r.filter(|&i| seen.insert(key(lists.items(), i))).map(|i| (0, i)).collect::<Vec<_>>()),
        );
    }
    picks.into_list(lists.list.data_type(), &[lists.items()])
}

/// A NULL array counts as empty, unless both are NULL.
fn concat(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let (left, right) = (Lists::new(args, 0)?, Lists::new(args, 1)?);
    let mut picks = Picks::default();
    for row in 0..args.rows {
        match (left.range(row), right.range(row)) {
            (None, None) => picks.push_null(),
            (a, b) => {
                let (a, b) = (a.unwrap_or(0..0), b.unwrap_or(0..0));
                picks.push(a.map(|i| (0, i)).chain(b.map(|i| (1, i))));
            }
        }
    }
    picks.into_list(left.list.data_type(), &[left.items(), right.items()])
}

fn union(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let (left, right) = (Lists::new(args, 0)?, Lists::new(args, 1)?);
    let sources = [left.items(), right.items()];
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let (Some(a), Some(b)) = (left.range(row), right.range(row)) else {
            picks.push_null();
            continue;
        };
        let mut seen = HashSet::new();
        let all = a.map(|i| (0, i)).chain(b.map(|i| (1, i)));
        picks.push(all.filter(|&(source, i)| seen.insert(key(sources[source], i))));
    }
    picks.into_list(left.list.data_type(), &sources)
}

/// The distinct elements of the left array whose being in the right one is `wanted`.
fn filtered(args: &Args<'_>, wanted: bool) -> Result<Returned> {
    let (left, right) = (Lists::new(args, 0)?, Lists::new(args, 1)?);
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let (Some(a), Some(b)) = (left.range(row), right.range(row)) else {
            picks.push_null();
            continue;
        };
        let there: HashSet<Vec<u8>> = b.map(|i| key(right.items(), i)).collect();
        let mut seen = HashSet::new();
        picks.push(
            a.filter(|&i| {
                let key = key(left.items(), i);
                there.contains(&key) == wanted && seen.insert(key)
            })
            .map(|i| (0, i)),
        );
    }
    picks.into_list(left.list.data_type(), &[left.items()])
}

fn remove(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let victim = args.values(1)?;
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let at = victim.index(row);
        let kept = |i: &usize| !deep::equal(lists.items(), *i, victim.array(), at);
        picks.push_option(lists.range(row).map(|r| r.filter(kept).map(|i| (0, i))));
    }
    picks.into_list(lists.list.data_type(), &[lists.items()])
}

fn join(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let texts = TextColumn::new(lists.items())?;
    use DataType as D;
    let plain = matches!(
        lists.items().data_type(),
        D::Boolean | D::Int32 | D::Int64 | D::Float64 | D::Utf8 | D::Decimal128(..)
    );
    let delimiter = if args.args.len() > 1 { Some(args.values(1)?) } else { None };
    let delimiter = delimiter.map(|d| Str::reader(d.array(), d.is_scalar())).transpose()?;
    let mut out = Str::output(args.rows);
    let mut joined = Vec::new();
    for row in 0..args.rows {
        let Some(range) = lists.range(row) else {
            out.append_null();
            continue;
        };
        let delimiter = delimiter.as_ref().map_or(",", |d| Str::get(d, row).unwrap_or(""));
        if range.len().saturating_mul(delimiter.len()) > VALUE_BYTES_MAX {
            out.push(row, Err::<String, _>("the joined text is too large".to_owned()));
            continue;
        }
        if !plain && range.clone().any(|i| lists.items().is_valid(i)) {
            out.push(row, Err::<String, _>("ARRAY_JOIN does not take elements of this type".to_owned()));
            continue;
        }
        joined.clear();
        for (n, i) in range.enumerate() {
            if n > 0 {
                joined.extend_from_slice(delimiter.as_bytes());
            }
            if !texts.write(&mut joined, i) {
                joined.extend_from_slice(b"null");
            }
        }
        out.push(row, String::from_utf8_lossy(&joined));
    }
    out.finish()
}

/// 1-based, both ends included; positions outside give NULL, a NULL end is the array's.
fn slice(args: &Args<'_>, _: &mut EvalContext) -> Result<Returned> {
    let lists = Lists::new(args, 0)?;
    let (from, to) = (args.values(1)?, args.values(2)?);
    let from = Int::reader(from.array(), from.is_scalar())?;
    let to = Int::reader(to.array(), to.is_scalar())?;
    let mut picks = Picks::default();
    for row in 0..args.rows {
        let part = lists.range(row).and_then(|range| {
            let start = Int::get(&from, row).map_or(Some(0), |f| usize::try_from(f.checked_sub(1)?).ok())?;
            let end = Int::get(&to, row).map_or(Some(range.len()), |t| usize::try_from(t).ok())?;
            (start <= end && end <= range.len()).then(|| range.start + start..range.start + end)
        });
        picks.push_option(part.map(|r| r.map(|i| (0, i))));
    }
    picks.into_list(lists.list.data_type(), &[lists.items()])
}

fn series(start: i64, end: i64, step: Option<i32>) -> Result<Vec<i64>, String> {
    let step = step.map_or(if start <= end { 1 } else { -1 }, i64::from);
    if step == 0 {
        return Err("the step of GENERATE_SERIES is 0".into());
    }
    if start != end && (end > start) != (step > 0) {
        return Err("the step of GENERATE_SERIES leads away from the end".into());
    }
    let count = (i128::from(end) - i128::from(start)) / i128::from(step) + 1;
    if count > SERIES_MAX {
        return Err(format!("GENERATE_SERIES gives at most {SERIES_MAX} numbers"));
    }
    Ok((0..count as i64).map(|i| start.wrapping_add(i.wrapping_mul(step))).collect())
}
