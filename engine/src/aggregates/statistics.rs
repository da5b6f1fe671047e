//! STDDEV_SAMP (the sample variance, as ksqlDB has it), STDDEV_SAMPLE and CORRELATION.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Builder};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use millpond_sql::functions::ResultType;
use millpond_types::{Error, Result, SqlType};

use super::{
    Aggregate, AggregateSite, DoubleResults, Moments, ResultColumn, State, UpdateResult, Updater, fatal_state,
};
use crate::expr::EvalContext;
use crate::functions::{Builtin, Def, exact, param};

pub fn register(b: &mut Builtin) {
    let double = || ResultType::Of(exact(SqlType::Double));
    for (name, form, params, description) in [
        ("STDDEV_SAMP", Form::Variance, &["value"][..], "the variance of the sample"),
        ("STDDEV_SAMPLE", Form::Deviation, &["value"][..], "the standard deviation of the sample"),
        ("CORRELATION", Form::Correlation, &["x", "y"][..], "Pearson's correlation of two columns"),
    ] {
        let defs = [SqlType::Integer, SqlType::BigInt, SqlType::Double]
            .into_iter()
            .map(|ty| {
                let params = params.iter().map(|p| param(p, exact(ty.clone()))).collect();
                Def::aggregate(params, double(), move |_: &AggregateSite<'_>| {
                    Ok(Arc::new(Statistic(form)) as Arc<dyn Aggregate>)
                })
                .undo()
            })
            .collect();
        b.add(name, "AGGREGATE", description, defs);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Variance,
    Deviation,
    Correlation,
}

struct Statistic(Form);

/// Numbers of any type as DOUBLE.
fn doubles(array: &ArrayRef) -> Result<Vec<Option<f64>>> {
    if let Some(a) = array.as_primitive_opt::<Float64Type>() {
        return Ok(a.iter().collect());
    }
    if let Some(a) = array.as_primitive_opt::<Int64Type>() {
        return Ok(a.iter().map(|v| v.map(|v| v as f64)).collect());
    }
    match array.as_primitive_opt::<Int32Type>() {
        Some(a) => Ok(a.iter().map(|v| v.map(f64::from)).collect()),
        None => Err(Error::bug("a statistic was given a column that is no number")),
    }
}

struct Bound {
    form: Form,
    x: Vec<Option<f64>>,
    y: Vec<Option<f64>>,
}

impl Bound {
    fn pair(&self, row: usize) -> Option<(f64, f64)> {
        let x = self.x.get(row).copied().flatten()?;
        let y = if self.form == Form::Correlation { self.y.get(row).copied().flatten()? } else { 0.0 };
        Some((x, y))
    }
}

/// What a value adds to the sum of squared deviations, the count and sum including it.
fn deviation(count: i64, sum: f64, x: f64) -> f64 {
    let n = count as f64;
    (n * x - sum).powi(2) / (n * (n - 1.0))
}

impl Updater for Bound {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        let State::Moments(m) = state else { return Err(fatal_state()) };
        let Some((x, y)) = self.pair(row) else { return Ok(()) };
        m.count += 1;
        m.sum_x += x;
        if self.form == Form::Correlation {
            m.sum_y += y;
            m.sum_xx += x * x;
            m.sum_yy += y * y;
            m.sum_xy += x * y;
        } else if m.count > 1 {
            m.sum_xx += deviation(m.count, m.sum_x, x);
        }
        Ok(())
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        let State::Moments(m) = state else { return Err(fatal_state()) };
        let Some((x, y)) = self.pair(row) else { return Ok(()) };
        if m.count <= 1 {
            *m = Moments::default();
            return Ok(());
        }
        if self.form == Form::Correlation {
            m.sum_y -= y;
            m.sum_xx -= x * x;
            m.sum_yy -= y * y;
            m.sum_xy -= x * y;
        } else {
            m.sum_xx -= deviation(m.count, m.sum_x, x);
        }
        m.count -= 1;
        m.sum_x -= x;
        Ok(())
    }
}

impl Aggregate for Statistic {
    fn create(&self) -> State {
        State::Moments(Moments::default())
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        let column = |i: usize| doubles(args.get(i).ok_or_else(|| Error::bug("a statistic lacks an argument"))?);
        let y = if self.0 == Form::Correlation { column(1)? } else { Vec::new() };
        Ok(Box::new(Bound { form: self.0, x: column(0)?, y }))
    }

    fn has_undo(&self) -> bool {
        true
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        let (State::Moments(a), State::Moments(b)) = (state, other) else { return Err(fatal_state()) };
        if self.0 != Form::Correlation && a.count > 0 && b.count > 0 {
            let (n, m) = (a.count as f64, b.count as f64);
            let apart = b.sum_x / m - a.sum_x / n;
            a.sum_xx += apart * apart * n * m / (n + m);
        }
        a.count += b.count;
        a.sum_x += b.sum_x;
        a.sum_y += b.sum_y;
        a.sum_xx += b.sum_xx;
        a.sum_yy += b.sum_yy;
        a.sum_xy += b.sum_xy;
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        let form = self.0;
        Box::new(DoubleResults(Float64Builder::with_capacity(capacity), move |state: &State| {
            let State::Moments(m) = state else { return None };
            let n = m.count as f64;
            let variance = if m.count > 1 { m.sum_xx / (n - 1.0) } else { 0.0 };
            Some(match form {
                Form::Variance => variance,
                Form::Deviation => variance.sqrt(),
                Form::Correlation => {
                    let x = n * m.sum_xx - m.sum_x * m.sum_x;
                    let y = n * m.sum_yy - m.sum_y * m.sum_y;
                    (n * m.sum_xy - m.sum_x * m.sum_y) / (x * y).sqrt()
                }
            })
        }))
    }
}
