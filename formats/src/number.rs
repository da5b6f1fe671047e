//! Numbers as text: exact decimals, Java's shape of a DOUBLE, and the whole-number view of any numeric literal.
//!
//! All readers take the syntax of Java's `BigDecimal(String)`: sign, digits with an optional point, optional exponent.
//! Nothing here allocates by the size of an exponent.

use std::io::Write as _;

/// Why a numeric text is not a value of a DECIMAL type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// Not a number at all.
    Syntax,
    /// More digits before the point than the type has.
    Overflow,
    /// More digits after the point than the type has.
    Inexact,
}

/// 10^exponent; `None` from 39 on.
pub const fn pow10(exponent: u32) -> Option<i128> {
    10i128.checked_pow(exponent)
}

/// A numeric text taken apart: the value is `digits * 10^exponent`, negated if `negative`.
#[derive(Clone, Copy, Debug)]
struct Literal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Literal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let digits = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        let (whole, rest) = rest.split_at(digits(rest));
        let (fraction, rest) = match rest.split_first() {
            Some((b'.', rest)) => rest.split_at(digits(rest)),
            _ => (&rest[..0], rest),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match rest.split_first() {
            None => 0,
            Some((b'e' | b'E', rest)) => {
                let (minus, rest) = match rest.split_first()? {
                    (b'-', rest) => (true, rest),
                    (b'+', rest) => (false, rest),
                    _ => (false, rest),
                };
                // Java's exponents are 32 bits; ten digits hold them.
                if rest.is_empty() || digits(rest) != rest.len() {
                    return None;
                }
                let significant = rest.iter().position(|&b| b != b'0').map_or(&rest[rest.len()..], |i| &rest[i..]);
                if significant.len() > 10 {
                    return None;
                }
                let value = significant.iter().fold(0i64, |n, b| n * 10 + i64::from(b - b'0'));
                if value > i64::from(i32::MAX) {
                    return None;
                }
                if minus { -value } else { value }
            }
            Some(_) => return None,
        };
        Some(Self { negative, whole, fraction, exponent })
    }

    fn digits(&self) -> impl Iterator<Item = u8> + '_ {
        self.whole.iter().chain(self.fraction).map(|b| b - b'0')
    }

    /// Power of ten of the last digit.
    fn last_power(&self) -> i64 {
        self.exponent - self.fraction.len() as i64
    }
}

/// The unscaled value of a numeric text as DECIMAL(precision, scale). Exact: zeros may be cut or added at the end, other
/// digits may not be lost.
pub fn parse_decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, DecimalError> {
    let literal = Literal::parse(text).ok_or(DecimalError::Syntax)?;
    let (mut value, mut zeros, mut significant) = (0i128, 0u32, 0u32);
    for digit in literal.digits() {
        if digit == 0 {
            zeros += u32::from(value != 0);
            continue;
        }
        significant += zeros + 1;
        if significant > 38 {
            // Too many digits either way; which way decides the message.
            let above = literal.whole.iter().skip_while(|&&b| b == b'0').count() as i64 + literal.exponent;
            let room = i64::from(precision) - i64::from(scale);
            return Err(if above > room { DecimalError::Overflow } else { DecimalError::Inexact });
        }
        let shift = pow10(zeros + 1).ok_or(DecimalError::Overflow)?;
        value =
            value.checked_mul(shift).and_then(|v| v.checked_add(i128::from(digit))).ok_or(DecimalError::Overflow)?;
        zeros = 0;
    }
    if value == 0 {
        return Ok(0);
    }
    let power = literal.last_power() + i64::from(zeros) + i64::from(scale);
    if power < 0 {
        // The last digit is not a zero, so it would be lost; but a number too large is reported as that.
        return Err(if i64::from(significant) + power > i64::from(precision) {
            DecimalError::Overflow
        } else {
            DecimalError::Inexact
        });
    }
    if power + i64::from(significant) > i64::from(precision) {
        return Err(DecimalError::Overflow);
    }
    let shift = pow10(power as u32).ok_or(DecimalError::Overflow)?;
    let value = value.checked_mul(shift).ok_or(DecimalError::Overflow)?;
    Ok(if literal.negative { -value } else { value })
}

/// What is wrong, as ksqlDB says it.
pub fn decimal_error(error: DecimalError, text: &str, precision: u8, scale: u8) -> String {
    match error {
        DecimalError::Syntax => format!("\"{text}\" is not a number"),
        DecimalError::Overflow => {
            let digits = precision.saturating_sub(scale);
            format!(
                "Numeric field overflow: A field with precision {precision} and scale {scale} must round to an absolute \
                 value less than 10^{digits}. Got {text}"
            )
        }
        DecimalError::Inexact => {
            format!("Cannot fit decimal '{text}' into DECIMAL({precision}, {scale}) without rounding.")
        }
    }
}

/// The low 64 bits of the whole part of a number, as Java's `BigDecimal.longValue` gives them.
pub fn wrapping_i64(text: &[u8]) -> Option<i64> {
    let literal = Literal::parse(text)?;
    let power = literal.last_power();
    let count = literal.whole.len() + literal.fraction.len();
    let kept = if power >= 0 { count } else { count.saturating_sub(power.unsigned_abs() as usize) };
    let mut value = literal.digits().take(kept).fold(0u64, |n, d| n.wrapping_mul(10).wrapping_add(u64::from(d)));
    // 10^64 is a multiple of 2^64.
    for _ in 0..power.clamp(0, 64) {
        value = value.wrapping_mul(10);
    }
    Some(if literal.negative { value.wrapping_neg() } else { value } as i64)
}

/// A DOUBLE from text as `Double.parseDouble` reads it, but for hexadecimal forms.
pub fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim_matches(|c: char| c <= ' ');
    let (negative, bare) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let value = match bare {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let bare = bare.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(bare);
            if !bare.as_bytes().first()?.is_ascii_digit() && !bare.starts_with('.') {
                return None;
            }
            fast_float2::parse(bare).ok()?
        }
    };
    Some(if negative { -value } else { value })
}

/// Appends a DOUBLE in the shape of Java's `Double.toString` (JDK 19 on): the shortest digits that read back as the same
/// number, plain from 1e-3 up to 1e7, else with an exponent; at least one digit after the point.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let magnitude = value.abs();
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value);
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return out.extend_from_slice(text.as_bytes());
    }
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if negative {
        out.push(b'-');
    }
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = [0u8; 32];
    let mut len = 0;
    let mut point = whole.len() as i32;
    for &b in whole.as_bytes().iter().chain(fraction.as_bytes()) {
        if len == 0 && b == b'0' {
            point -= 1;
        } else if len < digits.len() {
            digits[len] = b;
            len += 1;
        }
    }
    while len > 1 && digits[len - 1] == b'0' {
        len -= 1;
    }
    exponent += point - 1;
    if len == 1 && exponent < -300 {
        // Java takes the nearest of two digits where one would do; only the smallest numbers tell the difference.
        let two = format!("{magnitude:.1e}");
        return write_scientific(out, &two);
    }
    out.push(digits[0]);
    out.push(b'.');
    if len > 1 {
        out.extend_from_slice(&digits[1..len]);
    } else {
        out.push(b'0');
    }
    out.push(b'E');
    out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
}

fn write_scientific(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().map(|b| b.to_ascii_uppercase()));
}

/// See [`write_double`].
pub fn java_double(value: f64) -> String {
    let mut out = Vec::with_capacity(24);
    write_double(&mut out, value);
    into_string(out)
}

/// Appends a DECIMAL in plain notation with all its decimals.
pub fn write_decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    let scale = usize::from(scale);
    if unscaled < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let magnitude = unscaled.unsigned_abs();
    let digits = match u64::try_from(magnitude) {
        Ok(small) => buffer.format(small).as_bytes(),
        Err(_) => buffer.format(magnitude).as_bytes(),
    };
    if scale == 0 {
        return out.extend_from_slice(digits);
    }
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.push(b'0');
    } else {
        out.extend_from_slice(&digits[..whole]);
    }
    out.push(b'.');
    out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(&digits[whole..]);
}

/// See [`write_decimal`].
pub fn decimal_text(unscaled: i128, scale: u8) -> String {
    let mut out = Vec::with_capacity(48);
    write_decimal(&mut out, unscaled, scale);
    into_string(out)
}

/// Appends digits with a scale as Java's `BigDecimal.toString`: an exponent where the scale is negative or the number
/// begins later than six places after the point.
fn write_big_decimal(out: &mut Vec<u8>, negative: bool, digits: &[u8], scale: i64) {
    if negative {
        out.push(b'-');
    }
    let adjusted = digits.len() as i64 - 1 - scale;
    if scale == 0 {
        out.extend_from_slice(digits);
    } else if scale > 0 && adjusted >= -6 {
        let scale = scale as usize;
        if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        } else {
            out.extend_from_slice(b"0.");
            // At most six zeros, as `adjusted` says.
            out.resize(out.len() + (scale - digits.len()), b'0');
            out.extend_from_slice(digits);
        }
    } else {
        if let Some((first, rest)) = digits.split_first() {
            out.push(*first);
            if !rest.is_empty() {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
        }
        if adjusted != 0 {
            let _ = write!(out, "E{adjusted:+}");
        }
    }
}

/// Appends a number literal as Java writes the number it reads from it: whole numbers as they are, others as
/// `BigDecimal.toString`.
pub fn write_literal_as_java(out: &mut Vec<u8>, literal: &[u8]) {
    if literal.iter().all(|b| b.is_ascii_digit() || *b == b'-') {
        return out.extend_from_slice(if literal == b"-0" { b"0" } else { literal });
    }
    let Some(parsed) = Literal::parse(literal) else { return out.extend_from_slice(literal) };
    let mut digits: Vec<u8> = parsed.digits().skip_while(|&d| d == 0).map(|d| d + b'0').collect();
    let zero = digits.is_empty();
    if zero {
        digits.push(b'0');
    }
    write_big_decimal(out, parsed.negative && !zero, &digits, -parsed.last_power());
}

/// Appends a DECIMAL as Java's `BigDecimal.toString`.
pub fn write_decimal_as_java(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(unscaled.unsigned_abs());
    write_big_decimal(out, unscaled < 0, digits.as_bytes(), i64::from(scale));
}

/// Text from bytes that this crate wrote itself.
pub(crate) fn into_string(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_have_javas_shape() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (100.0, "100.0"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (12_345_678.9, "1.23456789E7"),
            (1e10, "1.0E10"),
            (123_456_789_012_345_680.0, "1.2345678901234568E17"),
            (0.001, "0.001"),
            (0.000_999, "9.99E-4"),
            (1e-5, "1.0E-5"),
            (-1.25e-7, "-1.25E-7"),
            (f64::MAX, "1.7976931348623157E308"),
            (f64::MIN_POSITIVE, "2.2250738585072014E-308"),
            (f64::from_bits(1), "4.9E-324"),
            (f64::from_bits(2), "9.9E-324"),
            (f64::from_bits(3), "1.5E-323"),
            (f64::from_bits(4), "2.0E-323"),
            (2e23, "2.0E23"),
            (1e23, "1.0E23"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(java_double(value), text);
        }
        assert_eq!(java_double(f64::NAN), "NaN");
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        use DecimalError::{Inexact, Overflow, Syntax};
        for (text, precision, scale, expected) in [
            ("12.30", 4, 2, Ok(1230)),
            ("12.3", 4, 2, Ok(1230)),
            (".12", 4, 2, Ok(12)),
            ("1.", 4, 2, Ok(100)),
            ("-0.01", 4, 2, Ok(-1)),
            ("12.3000000", 4, 2, Ok(1230)),
            ("1e1", 4, 2, Ok(1000)),
            ("100000e-5", 4, 2, Ok(100)),
            ("12.345", 4, 2, Err(Inexact)),
            ("100", 4, 2, Err(Overflow)),
            ("99.99", 4, 2, Ok(9999)),
            ("1e2147483647", 4, 2, Err(Overflow)),
            ("1e-2147483647", 4, 2, Err(Inexact)),
            ("0e99999999999", 4, 2, Err(Syntax)),
            ("0.0000000000000000000000000000000000000000000000", 4, 2, Ok(0)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
            ("999999999999999999999999999999999999999", 38, 0, Err(Overflow)),
            ("0.999999999999999999999999999999999999999", 38, 0, Err(Inexact)),
            ("", 4, 2, Err(Syntax)),
            ("-", 4, 2, Err(Syntax)),
            (".", 4, 2, Err(Syntax)),
            ("1e", 4, 2, Err(Syntax)),
            ("1x", 4, 2, Err(Syntax)),
        ] {
            assert_eq!(parse_decimal(text.as_bytes(), precision, scale), expected, "{text}");
        }
    }

    #[test]
    fn whole_parts_wrap_as_in_java() {
        for (text, expected) in [
            ("1.9", 1),
            ("-1.9", -1),
            ("1e3", 1000),
            ("1234e-2", 12),
            ("0.1e-5", 0),
            ("9223372036854775808", i64::MIN),
            ("18446744073709551617", 1),
            ("1e400", 0),
            ("1e-2147483647", 0),
        ] {
            assert_eq!(wrapping_i64(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn decimals_are_written_plain_or_as_java_does() {
        for (unscaled, scale, plain, java) in [
            (1230, 2, "12.30", "12.30"),
            (-5, 3, "-0.005", "-0.005"),
            (0, 2, "0.00", "0.00"),
            (7, 0, "7", "7"),
            (1, 8, "0.00000001", "1E-8"),
            (123, 10, "0.0000000123", "1.23E-8"),
            (0, 10, "0.0000000000", "0E-10"),
        ] {
            assert_eq!(decimal_text(unscaled, scale), plain);
            let mut out = Vec::new();
            write_decimal_as_java(&mut out, unscaled, scale);
            assert_eq!(String::from_utf8(out).unwrap(), java);
        }
        for (literal, java) in [
            ("1e5", "1E+5"),
            ("1.50", "1.50"),
            ("-0.0", "0.0"),
            ("-0", "0"),
            ("12", "12"),
            ("1e0", "1"),
            ("1.5e3", "1.5E+3"),
        ] {
            let mut out = Vec::new();
            write_literal_as_java(&mut out, literal.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), java);
        }
    }
}
