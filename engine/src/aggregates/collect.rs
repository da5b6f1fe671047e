//! COLLECT_LIST, COLLECT_SET, HISTOGRAM and ATTR.

use std::sync::Arc;

use arrow::array::ArrayRef;
use millpond_sql::functions::ResultType;
use millpond_types::value::value_at;
use millpond_types::{Error, Result, SqlType, Value};

use super::{Aggregate, AggregateSite, ResultColumn, State, UpdateResult, Updater, ValueResults, fatal_state};
use crate::expr::EvalContext;
use crate::functions::{Builtin, Def, T, exact, list_of, map_of, param};

/// Distinct texts that HISTOGRAM counts; further ones are left out.
const HISTOGRAM_KEYS_MAX: usize = 1000;

pub fn register(b: &mut Builtin) {
    let bind = |form: Form, limit: fn(&AggregateSite<'_>) -> usize| {
        move |site: &AggregateSite<'_>| {
            let value = match (form, site.result) {
                (Form::List | Form::Set, SqlType::Array(item)) => (**item).clone(),
                (Form::Histogram, _) => SqlType::String,
                (_, ty) => ty.clone(),
            };
            let code = Collect { form, max: limit(site), value, result: site.result.clone() };
            Ok(Arc::new(code) as Arc<dyn Aggregate>)
        }
    };
    let value = || vec![param("value", T)];
    b.add(
        "COLLECT_LIST",
        "AGGREGATE",
        "all values, in the order of arrival",
        vec![
            Def::aggregate(value(), ResultType::Of(list_of(T)), bind(Form::List, |s| s.settings.collect_list_max))
                .undo(),
        ],
    );
    b.add(
        "COLLECT_SET",
        "AGGREGATE",
        "the distinct values, in the order of first arrival",
        vec![Def::aggregate(value(), ResultType::Of(list_of(T)), bind(Form::Set, |s| s.settings.collect_set_max))],
    );
    b.add(
        "HISTOGRAM",
        "AGGREGATE",
        "how often each text occurs",
        vec![
            Def::aggregate(
                vec![param("value", exact(SqlType::String))],
                ResultType::Of(map_of(exact(SqlType::String), exact(SqlType::BigInt))),
                bind(Form::Histogram, |_| HISTOGRAM_KEYS_MAX),
            )
            .undo(),
        ],
    );
    b.add(
        "ATTR",
        "AGGREGATE",
        "the value if all rows have the same one, else NULL",
        vec![Def::aggregate(value(), ResultType::Of(T), bind(Form::Attr, |_| usize::MAX)).undo()],
    );
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    List,
    Set,
    Histogram,
    Attr,
}

struct Collect {
    form: Form,
    max: usize,
    value: SqlType,
    result: SqlType,
}

/// Equality as in a Java collection: NaN equals itself.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => {
            a == b && a.is_sign_negative() == b.is_sign_negative() || a.is_nan() && b.is_nan()
        }
        _ => a == b,
    }
}

impl Collect {
    fn add(&self, state: &mut State, value: Value, by: i64) -> UpdateResult {
        match (self.form, state) {
            (Form::List, State::Values(values)) => {
                if by > 0 {
                    if values.len() < self.max {
                        values.push(value);
                    }
                } else if let Some(at) = values.iter().rposition(|v| same(v, &value)) {
                    values.remove(at);
                }
            }
            (Form::Set, State::Values(values)) => {
                if values.len() < self.max && !values.iter().any(|v| same(v, &value)) {
                    values.push(value);
                }
            }
            (Form::Histogram, State::Counts(_)) if value.is_null() => {}
            (Form::Histogram | Form::Attr, State::Counts(counts)) => {
                match counts.iter().position(|(v, _)| same(v, &value)) {
                    Some(at) => {
                        counts[at].1 += by;
                        if counts[at].1 == 0 {
                            counts.remove(at);
                        }
                    }
                    None if by > 0 && counts.len() < self.max => counts.push((value, by)),
                    None => {}
                }
            }
            _ => return Err(fatal_state()),
        }
        Ok(())
    }
}

struct Bound<'a> {
    aggregate: &'a Collect,
    column: &'a ArrayRef,
}

impl Updater for Bound<'_> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.aggregate.add(state, value_at(self.column, &self.aggregate.value, row), 1)
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.aggregate.add(state, value_at(self.column, &self.aggregate.value, row), -1)
    }
}

impl Aggregate for Collect {
    fn create(&self) -> State {
        match self.form {
            Form::List | Form::Set => State::Values(Vec::new()),
            Form::Histogram | Form::Attr => State::Counts(Vec::new()),
        }
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        let column = args.first().ok_or_else(|| Error::bug("the aggregate needs an argument"))?;
        Ok(Box::new(Bound { aggregate: self, column }))
    }

    fn has_undo(&self) -> bool {
        self.form != Form::Set
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        match other {
            State::Values(values) => values.iter().try_for_each(|v| self.add(state, v.clone(), 1)),
            State::Counts(counts) => counts.iter().try_for_each(|(v, n)| self.add(state, v.clone(), *n)),
            _ => Err(fatal_state()),
        }
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        let form = self.form;
        ValueResults::boxed(&self.result, capacity, move |state| match (form, state) {
            (_, State::Values(values)) => Value::Array(values.clone()),
            (Form::Histogram, State::Counts(counts)) => {
                Value::Map(counts.iter().map(|(v, n)| (v.clone(), Value::BigInt(*n))).collect())
            }
            (_, State::Counts(counts)) => match counts.as_slice() {
                [(value, _)] => value.clone(),
                _ => Value::Null,
            },
            _ => Value::Null,
        })
    }
}
