//! When an actual value is the expected one: the rules of ksqlDB's own comparison.

use millpond_formats::json::Json;

/// Where and how two values differ; `None` where they are the same. `exact` numbers compare digit by digit, others to
/// six places; a whole number is never the same as one with a fraction, be it `.0`.
pub fn difference(expected: &Json, actual: &Json, exact: bool) -> Option<String> {
    match (expected, actual) {
        (Json::Null, Json::Null) => None,
        (Json::Bool(a), Json::Bool(b)) if a == b => None,
        (Json::String(a), Json::String(b)) if a == b => None,
        (Json::Number(a), Json::Number(b)) if same_number(a, b, exact) => None,
        // DECIMALs may be written as text.
        (Json::String(a), Json::Number(b)) if Number::parse(a).is_some() && same_number(a, b, exact) => None,
        (Json::Array(a), Json::Array(b)) => {
            if a.len() != b.len() {
                return Some(mismatch(expected, actual));
            }
            a.iter().zip(b).find_map(|(x, y)| difference(x, y, exact)).map(|why| format!("in an array: {why}"))
        }
        (Json::Object(a), Json::Object(b)) => {
            let find = |members: &[(String, Json)], name: &str| {
                let exactly = members.iter().find(|(n, _)| n == name);
                exactly
                    .or_else(|| {
                        let upper = name.to_uppercase();
                        members.iter().find(|(n, _)| *n == upper)
                    })
                    .map(|(_, v)| v.clone())
            };
            // A missing member is the same as a NULL one, on either side.
            for (name, value) in a {
                let other = find(b, name).unwrap_or(Json::Null);
                if let Some(why) = difference(value, &other, exact) {
                    return Some(format!("{name}: {why}"));
                }
            }
            let named = |n: &str| a.iter().any(|(m, _)| m == n || m.to_uppercase() == n);
            b.iter()
                .find(|(name, value)| !named(name) && !value.is_null())
                .map(|(name, value)| format!("{name}: not expected, is {}", show(value)))
        }
        _ => Some(mismatch(expected, actual)),
    }
}

fn mismatch(expected: &Json, actual: &Json) -> String {
    format!("expected {}, is {}", show(expected), show(actual))
}

pub fn show(json: &Json) -> String {
    let mut out = Vec::new();
    json.write(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A decimal number as digits and scale, as Java's BigDecimal reads it.
struct Number {
    negative: bool,
    digits: String,
    scale: i64,
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = digits.trim_start_matches('0').to_string();
        Some(Self { negative: negative && !digits.is_empty(), digits, scale: fraction.len() as i64 - exponent })
    }

    /// Without trailing zeros.
    fn stripped(mut self) -> Self {
        while self.digits.ends_with('0') {
            self.digits.pop();
            self.scale -= 1;
        }
        if self.digits.is_empty() {
            self.scale = 0;
        }
        self
    }
}

fn same_number(expected: &str, actual: &str, exact: bool) -> bool {
    if !exact && let (Ok(a), Ok(b)) = (expected.parse::<f64>(), actual.parse::<f64>()) {
        return (a - b).abs() < 1e-6;
    }
    let (Some(a), Some(b)) = (Number::parse(expected), Number::parse(actual)) else { return expected == actual };
    let whole = |text: &str| !text.contains(['.', 'e', 'E']);
    if whole(expected) {
        if !whole(actual) && b.scale > 0 {
            return false;
        }
    } else if whole(actual) {
        return false;
    }
    let (a, b) = (a.stripped(), b.stripped());
    a.negative == b.negative && a.digits == b.digits && a.scale == b.scale
}

#[cfg(test)]
mod tests {
    use millpond_formats::json::Comments;

    use super::*;

    fn same(expected: &str, actual: &str) -> bool {
        let parse = |text| Json::parse(text, Comments::Refused).unwrap();
        difference(&parse(expected), &parse(actual), true).is_none()
    }

    #[test]
    fn numbers_compare_by_value_and_kind() {
        assert!(same("12.30", "12.30"));
        // A DECIMAL(6, 4) that is read from 10 is expected as 10.0: trailing zeros do not count.
        assert!(same("12.30", "12.3"));
        assert!(!same("12.30", "12.31"));
        assert!(!same("5.0", "5"));
        assert!(!same("1", "1.0"));
        assert!(same("5", "5"));
        assert!(same("1.0E10", "1.0E10"));
        assert!(!same("1", "2"));
        assert!(same("\"12.30\"", "12.30"));
    }

    #[test]
    fn a_missing_member_is_null() {
        assert!(same(r#"{"a": null}"#, "{}"));
        assert!(same("{}", r#"{"A": null}"#));
        assert!(same(r#"{"a": 1}"#, r#"{"A": 1}"#));
        assert!(!same("{}", r#"{"A": 1}"#));
        assert!(!same(r#"[{"a": 1}]"#, r#"[{"a": 2}]"#));
    }
}
