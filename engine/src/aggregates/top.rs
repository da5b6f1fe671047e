//! TOPK and TOPKDISTINCT: the largest values, largest first; of equal ones the earliest first.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use millpond_sql::functions::{ArgType, ParamType, ResultType};
use millpond_types::value::value_at;
use millpond_types::{Error, Field, Result, SqlType, Value};

use super::extremes::compare;
use super::{Aggregate, AggregateSite, ResultColumn, State, UpdateResult, Updater, ValueResults, fatal_state};
use crate::expr::EvalContext;
use crate::functions::{Builtin, Def, computed, exact, list_of, param};

pub fn register(b: &mut Builtin) {
    let k = || param("k", exact(SqlType::Integer));
    let sortable = [SqlType::Integer, SqlType::BigInt, SqlType::Double, SqlType::String];
    let defs = sortable
        .into_iter()
        .map(|ty| {
            let params = vec![param("sort_col", exact(ty)), param("col", ParamType::Any), k()];
            Def::aggregate(params, computed(topk_result), |site: &AggregateSite<'_>| Top::bound(false, site))
                .variadic(1)
                .init(1)
        })
        .collect();
    b.add("TOPK", "AGGREGATE", "the K largest values, with further columns of their rows", defs);
    let distinct = |params: ParamType, result: ParamType| {
        Def::aggregate(
            vec![param("value", params), k()],
            ResultType::Of(list_of(result)),
            |site: &AggregateSite<'_>| Top::bound(true, site),
        )
        .init(1)
    };
    let types = [
        SqlType::Integer,
        SqlType::BigInt,
        SqlType::Double,
        SqlType::String,
        SqlType::Date,
        SqlType::Time,
        SqlType::Timestamp,
        SqlType::Bytes,
    ];
    let mut defs: Vec<Def> = types.into_iter().map(|ty| distinct(exact(ty.clone()), exact(ty))).collect();
    defs.push(distinct(ParamType::Decimal, ParamType::Decimal));
    b.add("TOPKDISTINCT", "AGGREGATE", "the K largest distinct values", defs);
}

/// ARRAY of the sort column, or of STRUCTs where there are further columns. The last argument is K.
fn topk_result(args: &[ArgType]) -> std::result::Result<SqlType, String> {
    match args {
        [sort, _k] => Ok(SqlType::array(sort.ty.clone())),
        [sort, columns @ .., _k] if !columns.is_empty() => {
            let first = Field::new("sort_col", sort.ty.clone());
            let rest = columns.iter().enumerate().map(|(i, c)| Field::new(format!("col{i}"), c.ty.clone()));
            Ok(SqlType::array(SqlType::Struct(std::iter::once(first).chain(rest).collect())))
        }
        _ => Err("TOPK needs a column and K".into()),
    }
}

struct Top {
    count: usize,
    distinct: bool,
    args: Vec<SqlType>,
    /// Of the STRUCT form.
    fields: Option<Vec<Field>>,
    result: SqlType,
}

impl Top {
    fn bound(distinct: bool, site: &AggregateSite<'_>) -> Result<Arc<dyn Aggregate>> {
        let count = site.init.first().and_then(Value::as_i64).and_then(|k| usize::try_from(k).ok());
        let count = count.filter(|k| *k > 0);
        let count = count.ok_or_else(|| Error::bad_request(format!("{} needs K of at least 1", site.name)))?;
        let fields = match site.result {
            SqlType::Array(item) => match &**item {
                SqlType::Struct(fields) if site.args.len() > 1 => Some(fields.clone()),
                _ => None,
            },
            _ => None,
        };
        Ok(Arc::new(Self { count, distinct, args: site.args.clone(), fields, result: site.result.clone() }))
    }

    /// What an entry is ordered by.
    fn sort<'a>(&self, entry: &'a Value) -> &'a Value {
        match entry {
            Value::Struct(parts) if self.fields.is_some() => parts.first().map_or(&Value::Null, |(_, v)| v),
            other => other,
        }
    }

    /// Where an entry would go; `None` if it does not get in.
    fn place(&self, values: &[Value], sort: &Value) -> Option<usize> {
        let at = values.partition_point(|v| compare(self.sort(v), sort) != Ordering::Less);
        let twin = at.checked_sub(1).and_then(|i| values.get(i));
        if self.distinct && twin.is_some_and(|v| compare(self.sort(v), sort) == Ordering::Equal) {
            return None;
        }
        (at < self.count).then_some(at)
    }

    fn insert(&self, values: &mut Vec<Value>, at: usize, entry: Value) {
        values.insert(at, entry);
        values.truncate(self.count);
    }
}

struct Bound<'a> {
    top: &'a Top,
    columns: &'a [ArrayRef],
}

impl Updater for Bound<'_> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        let State::Values(values) = state else { return Err(fatal_state()) };
        let value = |i: usize| match (self.columns.get(i), self.top.args.get(i)) {
            (Some(column), Some(ty)) => value_at(column, ty, row),
            _ => Value::Null,
        };
        let sort = value(0);
        if sort.is_null() {
            return Ok(());
        }
        let Some(at) = self.top.place(values, &sort) else { return Ok(()) };
        let entry = match &self.top.fields {
            None => sort,
            Some(fields) => Value::Struct(fields.iter().enumerate().map(|(i, f)| (f.name.clone(), value(i))).collect()),
        };
        self.top.insert(values, at, entry);
        Ok(())
    }
}

impl Aggregate for Top {
    fn create(&self) -> State {
        State::Values(Vec::new())
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        if args.len() != self.args.len() || args.iter().any(|a| a.len() != args[0].len()) {
            return Err(Error::bug("TOPK was given other columns than it was compiled for"));
        }
        Ok(Box::new(Bound { top: self, columns: args }))
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        let (State::Values(mine), State::Values(theirs)) = (state, other) else { return Err(fatal_state()) };
        for entry in theirs {
            if let Some(at) = self.place(mine, self.sort(entry)) {
                self.insert(mine, at, entry.clone());
            }
        }
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        ValueResults::boxed(&self.result, capacity, |state| match state {
            State::Values(values) => Value::Array(values.clone()),
            _ => Value::Null,
        })
    }
}
