//! DECIMAL arithmetic on unscaled 128-bit integers, exact or not at all.
//!
//! Products and scaled dividends may need more than 128 bits, so the intermediate is 256 bits wide.

use std::cmp::Ordering;

use arrow::datatypes::i256;

/// 10^n for every n a DECIMAL can need.
pub fn pow10(n: u32) -> Option<i128> {
    10i128.checked_pow(n)
}

/// Whether a number of `precision` digits can hold it.
pub fn fits(unscaled: i128, precision: u8) -> bool {
    pow10(u32::from(precision)).is_none_or(|limit| unscaled.unsigned_abs() < limit.unsigned_abs())
}

/// The same value with another scale; `None` where digits would be lost or it overflows.
pub fn rescale_exact(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    match to.cmp(&from) {
        Ordering::Equal => Some(unscaled),
        Ordering::Greater => unscaled.checked_mul(pow10(u32::from(to - from))?),
        Ordering::Less => {
            let factor = pow10(u32::from(from - to))?;
            (unscaled % factor == 0).then_some(unscaled / factor)
        }
    }
}

/// With another scale, rounded half away from zero (Java's HALF_UP).
pub fn rescale_half_up(unscaled: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return rescale_exact(unscaled, from, to);
    }
    let factor = pow10(u32::from(from - to))?;
    let (quotient, rest) = (unscaled / factor, unscaled % factor);
    if rest.unsigned_abs() >= factor.unsigned_abs().div_ceil(2) {
        Some(quotient + unscaled.signum())
    } else {
        Some(quotient)
    }
}

/// Order of two numbers of any scales.
pub fn compare(a: i128, a_scale: u8, b: i128, b_scale: u8) -> Ordering {
    let wide = |v: i128, by: u8| i256::from_i128(v).wrapping_mul(i256::from_i128(pow10(u32::from(by)).unwrap_or(1)));
    match a_scale.cmp(&b_scale) {
        Ordering::Equal => a.cmp(&b),
        Ordering::Less => wide(a, b_scale - a_scale).cmp(&i256::from_i128(b)),
        Ordering::Greater => i256::from_i128(a).cmp(&wide(b, a_scale - b_scale)),
    }
}

/// The DOUBLE nearest to a number.
pub fn to_f64(unscaled: i128, scale: u8) -> f64 {
    if scale == 0 {
        return unscaled as f64;
    }
    // Through the text where the quotient of two doubles could round twice.
    const EXACT: u128 = 1 << 53;
    if unscaled.unsigned_abs() <= EXACT && scale <= 22 {
        return unscaled as f64 / 10f64.powi(i32::from(scale));
    }
    format!("{unscaled}e-{scale}").parse().unwrap_or(f64::NAN)
}

/// A DOUBLE as a number of this type: its exact value rounded half up to `precision` digits, and then to `scale` places,
/// as ksqlDB does it; `None` where it does not fit or is not finite.
pub fn from_f64(value: f64, precision: u8, scale: u8) -> Option<i128> {
    if !value.is_finite() {
        return None;
    }
    // More digits than tell an exact half from what is near it.
    const EXTRA: usize = 40;
    let kept = usize::from(precision.max(1));
    let text = format!("{:.*e}", kept + EXTRA, value.abs());
    let (mantissa, exponent) = text.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    let mut all = mantissa.bytes().filter(u8::is_ascii_digit).map(|b| i128::from(b - b'0'));
    let digits = all.by_ref().take(kept).try_fold(0i128, |n, d| n.checked_mul(10)?.checked_add(d))?;
    let digits = digits + i128::from(all.next().is_some_and(|d| d >= 5));
    // value = digits * 10^(exponent - kept + 1)
    let shift = exponent - kept as i32 + 1 + i32::from(scale);
    let unscaled = if shift >= 0 {
        digits.checked_mul(pow10(shift as u32).or(if digits == 0 { Some(1) } else { None })?)?
    } else {
        match pow10(shift.unsigned_abs()) {
            Some(factor) => digits / factor + i128::from(digits % factor >= factor / 2),
            None => 0,
        }
    };
    let unscaled = if value < 0.0 { -unscaled } else { unscaled };
    fits(unscaled, precision).then_some(unscaled)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    DivisionByZero,
    /// More digits after the point than the result type has.
    Inexact,
    Overflow,
}

impl Failure {
    pub fn message(self) -> &'static str {
        match self {
            Self::DivisionByZero => "division by zero",
            Self::Inexact => "the DECIMAL result is not exact in its type",
            Self::Overflow => "the DECIMAL result does not fit its type",
        }
    }
}

/// Scales of an operation's operands and its result type.
#[derive(Clone, Copy, Debug)]
pub struct Scales {
    pub left: u8,
    pub right: u8,
    pub precision: u8,
    pub scale: u8,
}

type Outcome = Result<i128, Failure>;

fn narrow(value: i256, precision: u8) -> Outcome {
    let value = value.to_i128().ok_or(Failure::Overflow)?;
    if fits(value, precision) { Ok(value) } else { Err(Failure::Overflow) }
}

fn wide_pow10(n: u32) -> Result<i256, Failure> {
    i256::from_i128(10).checked_pow(n).ok_or(Failure::Overflow)
}

/// From any scale to the result's, exactly.
fn settle(value: i256, from: u32, scales: Scales) -> Outcome {
    let to = u32::from(scales.scale);
    if from <= to {
        let value = value.checked_mul(wide_pow10(to - from)?).ok_or(Failure::Overflow)?;
        return narrow(value, scales.precision);
    }
    let factor = wide_pow10(from - to)?;
    let rest = value.checked_rem(factor).ok_or(Failure::Overflow)?;
    if rest != i256::ZERO {
        return Err(Failure::Inexact);
    }
    narrow(value.checked_div(factor).ok_or(Failure::Overflow)?, scales.precision)
}

fn aligned(a: i128, b: i128, s: Scales) -> Result<(i256, i256, u32), Failure> {
    let scale = s.left.max(s.right);
    let lift = |v: i128, from: u8| {
        i256::from_i128(v).checked_mul(wide_pow10(u32::from(scale - from))?).ok_or(Failure::Overflow)
    };
    Ok((lift(a, s.left)?, lift(b, s.right)?, u32::from(scale)))
}

pub fn add(a: i128, b: i128, s: Scales) -> Outcome {
    let (a, b, scale) = aligned(a, b, s)?;
    settle(a.checked_add(b).ok_or(Failure::Overflow)?, scale, s)
}

pub fn subtract(a: i128, b: i128, s: Scales) -> Outcome {
    let (a, b, scale) = aligned(a, b, s)?;
    settle(a.checked_sub(b).ok_or(Failure::Overflow)?, scale, s)
}

pub fn multiply(a: i128, b: i128, s: Scales) -> Outcome {
    let product = i256::from_i128(a).checked_mul(i256::from_i128(b)).ok_or(Failure::Overflow)?;
    settle(product, u32::from(s.left) + u32::from(s.right), s)
}

pub fn divide(a: i128, b: i128, s: Scales) -> Outcome {
    if b == 0 {
        return Err(Failure::DivisionByZero);
    }
    // a / 10^left / (b / 10^right) * 10^scale = a * 10^(scale + right - left) / b
    let shift = i32::from(s.scale) + i32::from(s.right) - i32::from(s.left);
    let (mut dividend, mut divisor) = (i256::from_i128(a), i256::from_i128(b));
    let factor = wide_pow10(shift.unsigned_abs())?;
    if shift >= 0 {
        dividend = dividend.checked_mul(factor).ok_or(Failure::Overflow)?;
    } else {
        divisor = divisor.checked_mul(factor).ok_or(Failure::Overflow)?;
    }
    if dividend.checked_rem(divisor).ok_or(Failure::Overflow)? != i256::ZERO {
        return Err(Failure::Inexact);
    }
    narrow(dividend.checked_div(divisor).ok_or(Failure::Overflow)?, s.precision)
}

pub fn modulo(a: i128, b: i128, s: Scales) -> Outcome {
    if b == 0 {
        return Err(Failure::DivisionByZero);
    }
    let (a, b, scale) = aligned(a, b, s)?;
    settle(a.checked_rem(b).ok_or(Failure::Overflow)?, scale, s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inexact_and_overflowing_results_are_failures() {
        let s = Scales { left: 2, right: 2, precision: 11, scale: 7 };
        assert_eq!(divide(1000, 300, s), Err(Failure::Inexact));
        assert_eq!(divide(1000, 400, s), Ok(25_000_000));
        assert_eq!(divide(1, 0, s), Err(Failure::DivisionByZero));
        assert_eq!(add(99, 99, Scales { left: 0, right: 0, precision: 2, scale: 0 }), Err(Failure::Overflow));
        assert_eq!(multiply(12, -12, Scales { left: 1, right: 1, precision: 5, scale: 2 }), Ok(-144));
    }

    #[test]
    fn rounding_is_half_up() {
        assert_eq!(rescale_half_up(-125, 2, 1), Some(-13));
        assert_eq!(rescale_half_up(124, 2, 1), Some(12));
        assert_eq!(from_f64(1.005, 5, 2), Some(101));
        assert_eq!(from_f64(1.005, 38, 2), Some(100));
        assert_eq!(from_f64(1.4499, 3, 1), Some(15));
        assert_eq!(from_f64(2.5, 1, 0), Some(3));
        assert_eq!(from_f64(0.0, 5, 2), Some(0));
        assert_eq!(from_f64(-0.5, 5, 0), Some(-1));
        assert_eq!(from_f64(1e10, 5, 0), None);
        assert_eq!(from_f64(1e-300, 5, 2), Some(0));
    }
}
