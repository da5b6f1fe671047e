//! EARLIEST_BY_OFFSET and LATEST_BY_OFFSET: by the order in which rows arrive.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use millpond_sql::functions::ResultType;
use millpond_types::value::value_at;
use millpond_types::{Error, Result, SqlType, Value};

use super::{Aggregate, AggregateSite, ResultColumn, State, UpdateResult, Updater, ValueResults, fatal_state};
use crate::expr::EvalContext;
use crate::functions::{Builtin, Def, T, exact, list_of, param};

pub fn register(b: &mut Builtin) {
    for (name, latest, description) in [
        ("EARLIEST_BY_OFFSET", false, "the value, or the first N values, that came first"),
        ("LATEST_BY_OFFSET", true, "the value, or the last N values, that came last"),
    ] {
        let bind = move |site: &AggregateSite<'_>| ByOffset::bound(latest, site);
        let (value, nulls) = (|| param("value", T), || param("ignoreNulls", exact(SqlType::Boolean)));
        let count = || param("n", exact(SqlType::Integer));
        let (one, many) = (|| ResultType::Of(T), || ResultType::Of(list_of(T)));
        b.add(
            name,
            "AGGREGATE",
            description,
            vec![
                Def::aggregate(vec![value()], one(), bind),
                Def::aggregate(vec![value(), nulls()], one(), bind).init(1),
                Def::aggregate(vec![value(), count()], many(), bind).init(1),
                Def::aggregate(vec![value(), count(), nulls()], many(), bind).init(2),
            ],
        );
    }
}

struct ByOffset {
    latest: bool,
    ignore_nulls: bool,
    /// The N-form.
    count: Option<usize>,
    value: SqlType,
    result: SqlType,
}

impl ByOffset {
    fn bound(latest: bool, site: &AggregateSite<'_>) -> Result<Arc<dyn Aggregate>> {
        let (mut count, mut ignore_nulls) = (None, true);
        for value in site.init {
            match value {
                Value::Boolean(b) => ignore_nulls = *b,
                other => match other.as_i64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0) {
                    Some(n) => count = Some(n),
                    None => {
                        return Err(Error::bad_request(format!("{} needs N of at least 1", site.name)));
                    }
                },
            }
        }
        let value = match (site.result, count) {
            (SqlType::Array(item), Some(_)) => (**item).clone(),
            (ty, _) => ty.clone(),
        };
        Ok(Arc::new(Self { latest, ignore_nulls, count, value, result: site.result.clone() }))
    }
}

struct Bound<'a> {
    aggregate: &'a ByOffset,
    column: &'a ArrayRef,
}

impl Updater for Bound<'_> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        let by = self.aggregate;
        if by.ignore_nulls && self.column.is_null(row) {
            return Ok(());
        }
        let value = || value_at(self.column, &by.value, row);
        match state {
            State::Seen(seen) => {
                if by.latest || seen.is_none() {
                    *seen = Some(value());
                }
            }
            State::Values(values) => {
                let count = by.count.unwrap_or(1);
                if by.latest {
                    if values.len() >= count {
                        values.remove(0);
                    }
                    values.push(value());
                } else if values.len() < count {
                    values.push(value());
                }
            }
            _ => return Err(fatal_state()),
        }
        Ok(())
    }
}

impl Aggregate for ByOffset {
    fn create(&self) -> State {
        if self.count.is_some() { State::Values(Vec::new()) } else { State::Seen(None) }
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        let column = args.first().ok_or_else(|| Error::bug("..._BY_OFFSET needs an argument"))?;
        Ok(Box::new(Bound { aggregate: self, column }))
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        match (state, other) {
            (State::Seen(mine), State::Seen(theirs)) => {
                if theirs.is_some() && (self.latest || mine.is_none()) {
                    mine.clone_from(theirs);
                }
            }
            (State::Values(mine), State::Values(theirs)) => {
                let count = self.count.unwrap_or(1);
                mine.extend(theirs.iter().cloned());
                if self.latest {
                    mine.drain(..mine.len().saturating_sub(count));
                } else {
                    mine.truncate(count);
                }
            }
            _ => return Err(fatal_state()),
        }
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        ValueResults::boxed(&self.result, capacity, |state| match state {
            State::Seen(Some(v)) => v.clone(),
            State::Values(values) => Value::Array(values.clone()),
            _ => Value::Null,
        })
    }
}
