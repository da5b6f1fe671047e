//! MATHEMATICAL functions, and GEO_DISTANCE.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Builder, Float64Builder, UInt32Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{Decimal128Type, Int32Type};
use millpond_sql::functions::{ArgType, ParamType, ResultType};
use millpond_types::sql_type::DECIMAL_PRECISION_MAX;
use millpond_types::{Error, Result, SqlType};

use super::typed::{
    Big, Bind, BindVolatile, Builtin, Byt, Dat, Dbl, Def, Int, Kind as _, Str, Tim, Ts, computed, exact, param, same,
    scalar,
};
use super::{Args, CallSite, Failures, Returned, ScalarFunction, ScalarImpl};
use crate::expr::{EvalContext, cast_array, decimal, deep, defect};

const CATEGORY: &str = "MATHEMATICAL";

pub fn register(b: &mut Builtin) {
    /// A function of one number, as DOUBLE.
    macro_rules! of_one {
        ($name:literal, $text:literal, $f:expr) => {{
            let f: fn(f64) -> f64 = $f;
            b.add($name, CATEGORY, $text, vec![
                scalar!((value: Int) -> Dbl => f(f64::from(value))),
                scalar!((value: Big) -> Dbl => f(value as f64)),
                scalar!((value: Dbl) -> Dbl => f(value)),
            ]);
        }};
    }
    of_one!("ACOS", "arc cosine", f64::acos);
    of_one!("ASIN", "arc sine", f64::asin);
    of_one!("ATAN", "arc tangent", f64::atan);
    of_one!("CBRT", "cube root", f64::cbrt);
    of_one!("COS", "cosine", f64::cos);
    of_one!("COSH", "hyperbolic cosine", f64::cosh);
    of_one!("COT", "cotangent", |v| 1.0 / v.tan());
    of_one!("DEGREES", "radians as degrees", f64::to_degrees);
    of_one!("EXP", "e to the power of a number", f64::exp);
    of_one!("LN", "natural logarithm", f64::ln);
    of_one!("RADIANS", "degrees as radians", f64::to_radians);
    of_one!("SIN", "sine", f64::sin);
    of_one!("SINH", "hyperbolic sine", f64::sinh);
    of_one!("SQRT", "square root", f64::sqrt);
    of_one!("TAN", "tangent", f64::tan);
    of_one!("TANH", "hyperbolic tangent", f64::tanh);
    b.add(
        "ATAN2",
        CATEGORY,
        "angle of the point (x, y)",
        vec![
            scalar!((y: Int, x: Int) -> Dbl => f64::from(y).atan2(f64::from(x))),
            scalar!((y: Big, x: Big) -> Dbl => (y as f64).atan2(x as f64)),
            scalar!((y: Dbl, x: Dbl) -> Dbl => y.atan2(x)),
        ],
    );
    b.add(
        "POWER",
        CATEGORY,
        "a number to the power of another",
        vec![
            scalar!((base: Int, exponent: Int) -> Dbl => f64::from(base).powf(f64::from(exponent))),
            scalar!((base: Big, exponent: Big) -> Dbl => (base as f64).powf(exponent as f64)),
            scalar!((base: Dbl, exponent: Dbl) -> Dbl => base.powf(exponent)),
        ],
    );
    b.add(
        "LOG",
        CATEGORY,
        "logarithm to base 10, or to another base",
        vec![
            scalar!((value: Int) -> Dbl => f64::from(value).log10()),
            scalar!((value: Big) -> Dbl => (value as f64).log10()),
            scalar!((value: Dbl) -> Dbl => value.log10()),
            scalar!((base: Int, value: Int) -> Dbl => log(f64::from(base), f64::from(value))),
            scalar!((base: Big, value: Big) -> Dbl => log(base as f64, value as f64)),
            scalar!((base: Dbl, value: Dbl) -> Dbl => log(base, value)),
        ],
    );
    b.add("PI", CATEGORY, "the number pi", vec![scalar!(() -> Dbl => std::f64::consts::PI)]);
    b.add(
        "RANDOM",
        CATEGORY,
        "a random number from 0 to 1",
        vec![Def::scalar(
            vec![],
            ResultType::Of(exact(SqlType::Double)),
            BindVolatile(|_: &CallSite<'_>| {
                let code: Arc<dyn ScalarImpl> = Arc::new(random);
                Ok(code)
            }),
        )],
    );
    b.add(
        "SIGN",
        CATEGORY,
        "-1, 0 or 1",
        vec![
            scalar!((value: Int) -> Int => value.signum()),
            scalar!((value: Big) -> Int => value.signum() as i32),
            scalar!((value: Dbl) -> Int => i32::from(value > 0.0) - i32::from(value < 0.0)),
        ],
    );
    b.add(
        "ABS",
        CATEGORY,
        "the number without its sign",
        vec![
            scalar!((value: Int) -> Int => value.wrapping_abs()),
            scalar!((value: Big) -> Big => value.wrapping_abs()),
            scalar!((value: Dbl) -> Dbl => value.abs()),
            of_decimal(|v, _| Some(v.abs())),
        ],
    );
    b.add(
        "CEIL",
        CATEGORY,
        "the least whole number that is not smaller",
        vec![
            scalar!((value: Int) -> Int => value),
            scalar!((value: Big) -> Big => value),
            scalar!((value: Dbl) -> Dbl => value.ceil()),
            of_decimal(|v, scale| whole(v, scale, |q, rest| q + i128::from(rest > 0))),
        ],
    );
    b.add(
        "FLOOR",
        CATEGORY,
        "the greatest whole number that is not larger",
        vec![
            scalar!((value: Int) -> Int => value),
            scalar!((value: Big) -> Big => value),
            scalar!((value: Dbl) -> Dbl => value.floor()),
            of_decimal(|v, scale| whole(v, scale, |q, rest| q - i128::from(rest < 0))),
        ],
    );
    b.add(
        "ROUND",
        CATEGORY,
        "rounded, halves up, to whole numbers or so many places",
        vec![
            scalar!((value: Big) -> Big => value),
            scalar!((value: Int) -> Big => i64::from(value)),
            scalar!((value: Dbl) -> Big => round_half_up(value)),
            scalar!((value: Dbl, places: Int) -> Dbl => places_of(value, places, half_up)),
            to_places(half_up, false),
            to_places(half_up, true),
        ],
    );
    b.add(
        "TRUNC",
        CATEGORY,
        "cut to whole numbers or so many places",
        vec![
            scalar!((value: Big) -> Big => value),
            scalar!((value: Int) -> Big => i64::from(value)),
            scalar!((value: Dbl) -> Big => value.trunc() as i64),
            scalar!((value: Dbl, places: Int) -> Dbl => places_of(value, places, cut)),
            to_places(cut, false),
            to_places(cut, true),
        ],
    );
    b.add("GREATEST", CATEGORY, "the largest of the values, NULLs left out", extremes(Ordering::Greater));
    b.add("LEAST", CATEGORY, "the smallest of the values, NULLs left out", extremes(Ordering::Less));
    b.add("GEO_DISTANCE", "OTHER", "great-circle distance of two points, in KM or MILES", vec![
        scalar!((lat1: Dbl, lon1: Dbl, lat2: Dbl, lon2: Dbl) -> Dbl => distance(lat1, lon1, lat2, lon2, "KM")),
        scalar!((lat1: Dbl, lon1: Dbl, lat2: Dbl, lon2: Dbl, unit: Str) -> Dbl => distance(lat1, lon1, lat2, lon2, unit)),
    ]);
}

/// To the nearest whole number, halves up; the sum with 0.5 would round twice.
fn round_half_up(value: f64) -> i64 {
    let floor = value.floor();
    (if value - floor >= 0.5 { floor + 1.0 } else { floor }) as i64
}

fn log(base: f64, value: f64) -> f64 {
    if base <= 0.0 || base == 1.0 { f64::NAN } else { value.ln() / base.ln() }
}

fn random(args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
    let mut out = Float64Builder::with_capacity(args.rows);
    for _ in 0..args.rows {
        out.append_value((cx.next_random() >> 11) as f64 / (1u64 << 53) as f64);
    }
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn distance(lat1: f64, lon1: f64, lat2: f64, lon2: f64, unit: &str) -> Result<f64, String> {
    let radius = match unit.to_ascii_uppercase().as_str() {
        "KM" | "KILOMETER" | "KILOMETERS" | "KILOMETRE" | "KILOMETRES" => 6371.0,
        "MILE" | "MILES" => 3959.0,
        _ => return Err(format!("unit \"{unit}\" is neither KM nor MILES")),
    };
    if lat1.abs() > 90.0 || lat2.abs() > 90.0 || lon1.abs() > 180.0 || lon2.abs() > 180.0 {
        return Err("a latitude is not within -90 and 90, or a longitude not within -180 and 180".into());
    }
    let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    let chord = half(lat2 - lat1) + half(lon2 - lon1) * lat1.to_radians().cos() * lat2.to_radians().cos();
    Ok(2.0 * radius * chord.sqrt().asin())
}

/// The whole part by `pick`, at the same scale.
fn whole(value: i128, scale: u8, pick: fn(i128, i128) -> i128) -> Option<i128> {
    let one = decimal::pow10(u32::from(scale))?;
    pick(value / one, value % one).checked_mul(one)
}

/// A function of a DECIMAL that keeps its type.
fn of_decimal(f: fn(i128, u8) -> Option<i128>) -> Def {
    let code = Bind(move |site: &CallSite<'_>| {
        let (precision, scale) = decimal_type(site.result)?;
        let code: Arc<dyn ScalarImpl> =
            Arc::new(move |args: &Args<'_>, _: &mut EvalContext| decimals(args, precision, scale, |v, _| f(v, scale)));
        Ok(code)
    });
    Def::scalar(vec![param("value", ParamType::Decimal)], ResultType::Of(ParamType::Decimal), code)
}

fn decimal_type(ty: &SqlType) -> Result<(u8, u8)> {
    match ty {
        SqlType::Decimal { precision, scale } => Ok((*precision, *scale)),
        other => Err(Error::bug(format!("a function of DECIMAL has the result {other}"))),
    }
}

/// Maps the first argument row by row (`f` also gets the row); results that do not fit are failures.
fn decimals(args: &Args<'_>, precision: u8, scale: u8, f: impl Fn(i128, usize) -> Option<i128>) -> Result<Returned> {
    let values = args.values(0)?;
    let array = values.array().as_primitive_opt::<Decimal128Type>();
    let array = array.ok_or_else(|| Error::bug("a function of DECIMAL was given another column"))?;
    let mut out =
        Decimal128Builder::with_capacity(args.rows).with_data_type(SqlType::decimal(precision, scale).to_arrow());
    let mut failures = Failures::default();
    for row in 0..args.rows {
        let at = values.index(row);
        if array.is_null(at) {
            out.append_null();
            continue;
        }
        match f(array.value(at), row).filter(|v| decimal::fits(*v, precision)) {
            Some(v) => out.append_value(v),
            None => {
                failures.push(row, || format!("the result does not fit DECIMAL({precision}, {scale})"));
                out.append_null();
            }
        }
    }
    Ok(Returned { array: Arc::new(out.finish()), failures })
}

/// How a quotient is settled from what is left of the division by `one`.
type Rounding = fn(quotient: i128, rest: i128, one: i128) -> i128;

/// Halves go up, towards positive infinity.
fn half_up(quotient: i128, rest: i128, one: i128) -> i128 {
    match () {
        () if rest >= 0 && rest >= one - rest => quotient + 1,
        () if rest < 0 && -rest > one + rest => quotient - 1,
        () => quotient,
    }
}

fn cut(quotient: i128, _: i128, _: i128) -> i128 {
    quotient
}

/// ROUND and TRUNC of DECIMAL: to whole numbers, or to a number of places at the same type.
fn to_places(rounding: Rounding, places: bool) -> Def {
    let code = Bind(move |site: &CallSite<'_>| {
        let (precision, scale) = decimal_type(site.result)?;
        let from = match site.args.first().map(|a| &a.ty) {
            Some(SqlType::Decimal { scale, .. }) => *scale,
            _ => return Err(Error::bug("ROUND and TRUNC of DECIMAL have no DECIMAL")),
        };
        let code: Arc<dyn ScalarImpl> = Arc::new(move |args: &Args<'_>, _: &mut EvalContext| {
            if !places {
                let one = decimal::pow10(u32::from(from)).unwrap_or(1);
                return decimals(args, precision, scale, |v, _| Some(rounding(v / one, v % one, one)));
            }
            let wanted = args.values(1)?;
            let wanted_array = wanted.array().as_primitive_opt::<Int32Type>();
            let wanted_array = wanted_array.ok_or_else(|| Error::bug("the number of places is not INTEGER"))?;
            let returned = decimals(args, precision, scale, |v, row| {
                let places = wanted_array.value(wanted.index(row));
                let drop = i64::from(from) - i64::from(places);
                if drop <= 0 {
                    return Some(v);
                }
                let Some(one) = u32::try_from(drop).ok().and_then(decimal::pow10) else { return Some(0) };
                rounding(v / one, v % one, one).checked_mul(one)
            })?;
            // A NULL number of places.
            if wanted_array.null_count() == 0 {
                return Ok(returned);
            }
            let keep = (0..args.rows).map(|row| wanted_array.is_valid(wanted.index(row)).then_some(row as u32));
            let array = take(&returned.array, &UInt32Array::from_iter(keep), None).map_err(defect)?;
            Ok(Returned { array, failures: returned.failures })
        });
        Ok(code)
    });
    if places {
        let params = vec![param("value", ParamType::Decimal), param("places", Int::param())];
        return Def::scalar(params, ResultType::Of(ParamType::Decimal), code);
    }
    let result = computed(|args: &[ArgType]| match args.first().map(|a| &a.ty) {
        Some(SqlType::Decimal { precision, scale }) => Ok(SqlType::decimal((precision - scale).max(1), 0)),
        _ => Err("the argument must be DECIMAL".into()),
    });
    Def::scalar(vec![param("value", ParamType::Decimal)], result, code)
}

/// A DOUBLE's shortest decimal text rounded at a place.
fn places_of(value: f64, places: i32, rounding: Rounding) -> f64 {
    if !value.is_finite() {
        return value;
    }
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return value };
    let (Ok(exponent), Ok(digits)) = (exponent.parse::<i64>(), mantissa.replace('.', "").parse::<i128>()) else {
        return value;
    };
    let fraction = mantissa.split_once('.').map_or(0, |(_, f)| f.len() as i64);
    // value = digits * 10^(exponent - fraction)
    let drop = fraction - exponent - i64::from(places);
    if drop <= 0 {
        return value;
    }
    let Some(one) = u32::try_from(drop).ok().and_then(decimal::pow10) else { return 0.0 };
    format!("{}e{}", rounding(digits / one, digits % one, one), -i64::from(places)).parse().unwrap_or(value)
}

/// Overloads of GREATEST and LEAST.
fn extremes(wanted: Ordering) -> Vec<Def> {
    let plain =
        [Int::param(), Big::param(), Dbl::param(), Str::param(), Byt::param(), Dat::param(), Tim::param(), Ts::param()];
    let mut defs: Vec<Def> = plain
        .into_iter()
        .map(|ty| {
            let code = same(move |args: &Args<'_>, _: &mut EvalContext| {
                let columns = (0..args.args.len())
                    .map(|i| args.values(i)?.clone().into_array(args.rows))
                    .collect::<Result<Vec<_>>>()?;
                extreme(&columns, args.rows, wanted)
            });
            let params = vec![param("first", ty.clone()), param("others", ty.clone())];
            Def::scalar(params, ResultType::Of(ty), code).variadic(1)
        })
        .collect();
    let params = vec![param("first", ParamType::Decimal), param("others", ParamType::Decimal)];
    defs.push(Def::scalar(params, computed(widest_decimal), DecimalExtreme(wanted)).variadic(1));
    defs
}

fn extreme(columns: &[ArrayRef], rows: usize, wanted: Ordering) -> Result<Returned> {
    let mut picks = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut best: Option<usize> = None;
        for (i, column) in columns.iter().enumerate() {
            if column.is_valid(row) && best.is_none_or(|b| deep::compare(column, row, &columns[b], row) == wanted) {
                best = Some(i);
            }
        }
        // Where all are NULL, any will do.
        picks.push((best.unwrap_or(0), row));
    }
    let sources: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
    Ok(Returned::ok(interleave(&sources, &picks).map_err(defect)?))
}

/// The DECIMAL that holds all arguments.
fn widest_decimal(args: &[ArgType]) -> std::result::Result<SqlType, String> {
    let (mut left, mut scale) = (0, 0);
    for arg in args {
        if let SqlType::Decimal { precision, scale: s } = arg.ty {
            left = left.max(precision - s);
            scale = scale.max(s);
        }
    }
    let precision = left + scale;
    if precision == 0 || precision > DECIMAL_PRECISION_MAX {
        return Err(format!("no DECIMAL of at most {DECIMAL_PRECISION_MAX} digits holds all arguments"));
    }
    Ok(SqlType::decimal(precision, scale))
}

struct DecimalExtreme(Ordering);

impl ScalarFunction for DecimalExtreme {
    fn bind(&self, site: &CallSite<'_>) -> Result<Arc<dyn ScalarImpl>> {
        let (result, wanted) = (site.result.clone(), self.0);
        let types: Vec<SqlType> = site.args.iter().map(|a| a.ty.clone()).collect();
        Ok(Arc::new(move |args: &Args<'_>, _: &mut EvalContext| {
            let mut columns = Vec::with_capacity(types.len());
            for (i, ty) in types.iter().enumerate() {
                let (array, _) = cast_array(&args.values(i)?.clone().into_array(args.rows)?, ty, &result)?;
                columns.push(array);
            }
            extreme(&columns, args.rows, wanted)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_round_by_their_shortest_text() {
        for (value, places, rounded) in [
            (1.005, 2, 1.01),
            (-1.5, 0, -1.0),
            (1.5, 0, 2.0),
            (-1.7, 0, -2.0),
            (12345.678, -2, 12300.0),
            (0.1, 20, 0.1),
            (1e300, 2, 1e300),
            (1e-300, 2, 0.0),
        ] {
            assert_eq!(places_of(value, places, half_up), rounded, "{value} at {places}");
        }
        assert_eq!(places_of(-1.79, 1, cut), -1.7);
    }
}
