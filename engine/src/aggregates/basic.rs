//! COUNT, SUM, SUM_LIST and AVG.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder,
    ListArray, PrimitiveArray,
};
use arrow::datatypes::{Decimal128Type, Float64Type, Int32Type, Int64Type};
use millpond_sql::functions::{ParamType, ResultType};
use millpond_types::{Error, Result, SqlType};

use super::{
    Aggregate, AggregateSite, BigIntResults, DoubleResults, Moments, ResultColumn, State, UpdateError, UpdateResult,
    Updater, fatal_state, foreign_state,
};
use crate::expr::{EvalContext, decimal};
use crate::functions::{Builtin, Def, T, exact, list_of, param};

const CATEGORY: &str = "AGGREGATE";

pub fn register(b: &mut Builtin) {
    let count = |_: &AggregateSite<'_>| Ok(Arc::new(Count) as Arc<dyn Aggregate>);
    let bigint = || ResultType::Of(exact(SqlType::BigInt));
    b.add(
        "COUNT",
        CATEGORY,
        "number of rows, or of rows with a value",
        vec![
            Def::aggregate(vec![], bigint(), count).undo(),
            Def::aggregate(vec![param("value", T)], bigint(), count).undo(),
        ],
    );
    let sum = |ty: SqlType, number| {
        Def::aggregate(
            vec![param("value", exact(ty.clone()))],
            ResultType::Of(exact(ty)),
            move |_: &AggregateSite<'_>| Ok(Arc::new(Sum { number, list: false }) as Arc<dyn Aggregate>),
        )
        .undo()
    };
    b.add(
        "SUM",
        CATEGORY,
        "sum of the values",
        vec![
            sum(SqlType::Integer, Number::Integer),
            sum(SqlType::BigInt, Number::BigInt),
            sum(SqlType::Double, Number::Double),
            Def::aggregate(
                vec![param("value", ParamType::Decimal)],
                ResultType::Of(ParamType::Decimal),
                |site: &AggregateSite<'_>| match site.result {
                    SqlType::Decimal { precision, scale } => {
                        let number = Number::Decimal { precision: *precision, scale: *scale };
                        Ok(Arc::new(Sum { number, list: false }) as Arc<dyn Aggregate>)
                    }
                    other => Err(Error::bug(format!("SUM of DECIMAL to {other}"))),
                },
            )
            .undo(),
        ],
    );
    let sum_list = |ty: SqlType, number| {
        Def::aggregate(
            vec![param("list", list_of(exact(ty.clone())))],
            ResultType::Of(exact(ty)),
            move |_: &AggregateSite<'_>| Ok(Arc::new(Sum { number, list: true }) as Arc<dyn Aggregate>),
        )
        .undo()
    };
    b.add(
        "SUM_LIST",
        CATEGORY,
        "sum of all elements of the arrays",
        vec![
            sum_list(SqlType::Integer, Number::Integer),
            sum_list(SqlType::BigInt, Number::BigInt),
            sum_list(SqlType::Double, Number::Double),
        ],
    );
    let avg = |ty: SqlType, number| {
        Def::aggregate(
            vec![param("value", exact(ty))],
            ResultType::Of(exact(SqlType::Double)),
            move |_: &AggregateSite<'_>| Ok(Arc::new(Average { number }) as Arc<dyn Aggregate>),
        )
        .undo()
    };
    b.add(
        "AVG",
        CATEGORY,
        "mean of the values",
        vec![
            avg(SqlType::Integer, Number::Integer),
            avg(SqlType::BigInt, Number::BigInt),
            avg(SqlType::Double, Number::Double),
        ],
    );
}

struct Count;

struct CountUpdater<'a>(Option<&'a ArrayRef>);

impl CountUpdater<'_> {
    #[inline]
    fn add(&self, state: &mut State, row: usize, by: i64) -> UpdateResult {
        let State::I64(count) = state else { return Err(fatal_state()) };
        if self.0.is_none_or(|a| a.is_valid(row)) {
            *count = count.wrapping_add(by);
        }
        Ok(())
    }
}

impl Updater for CountUpdater<'_> {
    #[inline]
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.add(state, row, 1)
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.add(state, row, -1)
    }
}

impl Aggregate for Count {
    fn create(&self) -> State {
        State::I64(0)
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        Ok(Box::new(CountUpdater(args.first())))
    }

    fn has_undo(&self) -> bool {
        true
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        match (state, other) {
            (State::I64(a), State::I64(b)) => *a = a.wrapping_add(*b),
            _ => return Err(fatal_state()),
        }
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        Box::new(BigIntResults(Int64Builder::with_capacity(capacity)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Integer,
    BigInt,
    Double,
    Decimal { precision: u8, scale: u8 },
}

/// A number type as its sum is kept.
trait Summed: ArrowPrimitiveType {
    fn add(state: &mut State, value: Self::Native, sign: i64, precision: u8) -> UpdateResult;
}

impl Summed for Int32Type {
    #[inline]
    fn add(state: &mut State, value: i32, sign: i64, _: u8) -> UpdateResult {
        let State::I64(sum) = state else { return Err(fatal_state()) };
        // Wraps as INTEGER.
        *sum = i64::from((*sum as i32).wrapping_add(value.wrapping_mul(sign as i32)));
        Ok(())
    }
}

impl Summed for Int64Type {
    #[inline]
    fn add(state: &mut State, value: i64, sign: i64, _: u8) -> UpdateResult {
        let State::I64(sum) = state else { return Err(fatal_state()) };
        *sum = sum.wrapping_add(value.wrapping_mul(sign));
        Ok(())
    }
}

impl Summed for Float64Type {
    #[inline]
    fn add(state: &mut State, value: f64, sign: i64, _: u8) -> UpdateResult {
        let State::F64(sum) = state else { return Err(fatal_state()) };
        *sum += value * sign as f64;
        Ok(())
    }
}

impl Summed for Decimal128Type {
    #[inline]
    fn add(state: &mut State, value: i128, sign: i64, precision: u8) -> UpdateResult {
        let State::I128(sum) = state else { return Err(fatal_state()) };
        match sum.checked_add(value * i128::from(sign)).filter(|s| decimal::fits(*s, precision)) {
            Some(new) => {
                *sum = new;
                Ok(())
            }
            None => Err(UpdateError::Fatal(format!("the sum of DECIMALs does not fit {precision} digits"))),
        }
    }
}

struct Sum {
    number: Number,
    list: bool,
}

struct SumUpdater<'a, P: ArrowPrimitiveType> {
    array: &'a PrimitiveArray<P>,
    precision: u8,
}

impl<P: Summed> Updater for SumUpdater<'_, P> {
    #[inline]
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        if self.array.is_null(row) {
            return Ok(());
        }
        P::add(state, self.array.value(row), 1, self.precision)
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        if self.array.is_null(row) {
            return Ok(());
        }
        P::add(state, self.array.value(row), -1, self.precision)
    }
}

struct SumListUpdater<'a, P: ArrowPrimitiveType> {
    list: &'a ListArray,
    items: &'a PrimitiveArray<P>,
}

impl<P: Summed> SumListUpdater<'_, P> {
    fn add(&self, state: &mut State, row: usize, sign: i64) -> UpdateResult {
        if self.list.is_null(row) {
            return Ok(());
        }
        for i in self.list.value_offsets()[row] as usize..self.list.value_offsets()[row + 1] as usize {
            if self.items.is_valid(i) {
                P::add(state, self.items.value(i), sign, 0)?;
            }
        }
        Ok(())
    }
}

impl<P: Summed> Updater for SumListUpdater<'_, P> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.add(state, row, 1)
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.add(state, row, -1)
    }
}

fn primitive<P: ArrowPrimitiveType>(array: Option<&ArrayRef>) -> Result<&PrimitiveArray<P>> {
    array
        .and_then(|a| a.as_primitive_opt::<P>())
        .ok_or_else(|| Error::bug("an aggregate was given a column of another type"))
}

fn sum_updater<'a, P: Summed>(args: &'a [ArrayRef], list: bool, precision: u8) -> Result<Box<dyn Updater + 'a>> {
    if !list {
        return Ok(Box::new(SumUpdater { array: primitive::<P>(args.first())?, precision }));
    }
    let list = args.first().and_then(|a| a.as_list_opt::<i32>());
    let list = list.ok_or_else(|| Error::bug("SUM_LIST was given a column that is not ARRAY"))?;
    Ok(Box::new(SumListUpdater { list, items: primitive::<P>(Some(list.values()))? }))
}

struct IntResults(Int32Builder);

impl ResultColumn for IntResults {
    fn append(&mut self, state: &State) -> Result<()> {
        let State::I64(v) = state else { return Err(foreign_state()) };
        self.0.append_value(*v as i32);
        Ok(())
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

struct DecimalResults(Decimal128Builder);

impl ResultColumn for DecimalResults {
    fn append(&mut self, state: &State) -> Result<()> {
        let State::I128(v) = state else { return Err(foreign_state()) };
        self.0.append_value(*v);
        Ok(())
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

impl Aggregate for Sum {
    fn create(&self) -> State {
        match self.number {
            Number::Integer | Number::BigInt => State::I64(0),
            Number::Double => State::F64(0.0),
            Number::Decimal { .. } => State::I128(0),
        }
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        match self.number {
            Number::Integer => sum_updater::<Int32Type>(args, self.list, 0),
            Number::BigInt => sum_updater::<Int64Type>(args, self.list, 0),
            Number::Double => sum_updater::<Float64Type>(args, self.list, 0),
            Number::Decimal { precision, .. } => sum_updater::<Decimal128Type>(args, self.list, precision),
        }
    }

    fn has_undo(&self) -> bool {
        true
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        match (self.number, other) {
            (Number::Integer, State::I64(v)) => Int32Type::add(state, *v as i32, 1, 0),
            (Number::BigInt, State::I64(v)) => Int64Type::add(state, *v, 1, 0),
            (Number::Double, State::F64(v)) => Float64Type::add(state, *v, 1, 0),
            (Number::Decimal { precision, .. }, State::I128(v)) => Decimal128Type::add(state, *v, 1, precision),
            _ => Err(fatal_state()),
        }
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        match self.number {
            Number::Integer => Box::new(IntResults(Int32Builder::with_capacity(capacity))),
            Number::BigInt => Box::new(BigIntResults(Int64Builder::with_capacity(capacity))),
            Number::Double => Box::new(DoubleResults(Float64Builder::with_capacity(capacity), |s: &State| match s {
                State::F64(v) => Some(*v),
                _ => None,
            })),
            Number::Decimal { precision, scale } => {
                let ty = SqlType::decimal(precision, scale).to_arrow();
                Box::new(DecimalResults(Decimal128Builder::with_capacity(capacity).with_data_type(ty)))
            }
        }
    }
}

struct Average {
    number: Number,
}

enum AverageUpdater<'a> {
    Integer(&'a PrimitiveArray<Int32Type>),
    BigInt(&'a PrimitiveArray<Int64Type>),
    Double(&'a PrimitiveArray<Float64Type>),
}

impl AverageUpdater<'_> {
    fn add(&self, state: &mut State, row: usize, sign: i64) -> UpdateResult {
        macro_rules! whole {
            ($array:expr) => {{
                let State::Sum { sum, count } = state else { return Err(fatal_state()) };
                if $array.is_valid(row) {
                    *sum += i128::from($array.value(row)) * i128::from(sign);
                    *count += sign;
                }
            }};
        }
        match self {
            Self::Integer(a) => whole!(a),
            Self::BigInt(a) => whole!(a),
            Self::Double(a) => {
                let State::Moments(m) = state else { return Err(fatal_state()) };
                if a.is_valid(row) {
                    m.sum_x += a.value(row) * sign as f64;
                    m.count += sign;
                }
            }
        }
        Ok(())
    }
}

impl Updater for AverageUpdater<'_> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.add(state, row, 1)
    }

    fn undo(&mut self, state: &mut State, row: usize) -> UpdateResult {
        self.add(state, row, -1)
    }
}

impl Aggregate for Average {
    fn create(&self) -> State {
        match self.number {
            Number::Double => State::Moments(Moments::default()),
            _ => State::Sum { sum: 0, count: 0 },
        }
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        Ok(Box::new(match self.number {
            Number::Integer => AverageUpdater::Integer(primitive(args.first())?),
            Number::BigInt => AverageUpdater::BigInt(primitive(args.first())?),
            _ => AverageUpdater::Double(primitive(args.first())?),
        }))
    }

    fn has_undo(&self) -> bool {
        true
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        match (state, other) {
            (State::Sum { sum, count }, State::Sum { sum: s, count: n }) => {
                *sum += s;
                *count += n;
            }
            (State::Moments(a), State::Moments(b)) => {
                a.sum_x += b.sum_x;
                a.count += b.count;
            }
            _ => return Err(fatal_state()),
        }
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        Box::new(DoubleResults(Float64Builder::with_capacity(capacity), |state: &State| match state {
            State::Sum { count: 0, .. } | State::Moments(Moments { count: 0, .. }) => Some(0.0),
            State::Sum { sum, count } => Some(*sum as f64 / *count as f64),
            State::Moments(m) => Some(m.sum_x / m.count as f64),
            _ => None,
        }))
    }
}
