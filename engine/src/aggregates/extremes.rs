//! MIN and MAX.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use millpond_sql::functions::{ParamType, ResultType};
use millpond_types::value::value_at;
use millpond_types::{Error, Result, SqlType, Value};

use super::{Aggregate, AggregateSite, ResultColumn, State, UpdateResult, Updater, ValueResults, fatal_state};
use crate::expr::{EvalContext, deep};
use crate::functions::{Builtin, Def, exact, param};

pub fn register(b: &mut Builtin) {
    for (name, wanted, description) in
        [("MIN", Ordering::Less, "the smallest value"), ("MAX", Ordering::Greater, "the largest value")]
    {
        let bind = move |site: &AggregateSite<'_>| {
            Ok(Arc::new(Extreme { wanted, ty: site.result.clone() }) as Arc<dyn Aggregate>)
        };
        let types = [
            SqlType::Integer,
            SqlType::BigInt,
            SqlType::Double,
            SqlType::Date,
            SqlType::Time,
            SqlType::Timestamp,
            SqlType::String,
            SqlType::Bytes,
        ];
        let mut defs: Vec<Def> = types
            .into_iter()
            .map(|ty| Def::aggregate(vec![param("value", exact(ty.clone()))], ResultType::Of(exact(ty)), bind))
            .collect();
        let decimal = || ParamType::Decimal;
        defs.push(Def::aggregate(vec![param("value", decimal())], ResultType::Of(decimal()), bind));
        b.add(name, "AGGREGATE", description, defs);
    }
}

struct Extreme {
    wanted: Ordering,
    ty: SqlType,
}

/// Natural order of two values of one primitive type; text by UTF-16 units.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => deep::compare_text(a, b),
        _ => a.partial_compare(b).unwrap_or(Ordering::Equal),
    }
}

struct Bound<'a> {
    aggregate: &'a Extreme,
    column: &'a ArrayRef,
}

impl Updater for Bound<'_> {
    #[inline]
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        let State::Value(best) = state else { return Err(fatal_state()) };
        if self.column.is_null(row) {
            return Ok(());
        }
        // Texts are compared before they are copied.
        if let (Value::String(best), Some(texts)) = (&*best, self.column.as_string_opt::<i32>())
            && deep::compare_text(texts.value(row), best) != self.aggregate.wanted
        {
            return Ok(());
        }
        let value = value_at(self.column, &self.aggregate.ty, row);
        if best.is_null() || compare(&value, best) == self.aggregate.wanted {
            *best = value;
        }
        Ok(())
    }
}

impl Aggregate for Extreme {
    fn create(&self) -> State {
        State::Value(Value::Null)
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        let column = args.first().ok_or_else(|| Error::bug("MIN and MAX need an argument"))?;
        Ok(Box::new(Bound { aggregate: self, column }))
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        let (State::Value(best), State::Value(other)) = (state, other) else { return Err(fatal_state()) };
        if !other.is_null() && (best.is_null() || compare(other, best) == self.wanted) {
            *best = other.clone();
        }
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        ValueResults::boxed(&self.ty, capacity, |state| match state {
            State::Value(v) => v.clone(),
            _ => Value::Null,
        })
    }
}
