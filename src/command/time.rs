//! Points in time and durations as they are typed.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// ISO 8601, UTC where no zone is given: `2026-01-31`, `2026-01-31T12:00:00.5`, `2026-01-31 12:00:00+01:00`; milliseconds.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim().replacen(' ', "T", 1);
    if let Ok(time) = DateTime::parse_from_rfc3339(&text) {
        return Some(time.timestamp_millis());
    }
    for form in ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%z"] {
        if let Ok(time) = DateTime::parse_from_str(&text, form) {
            return Some(time.timestamp_millis());
        }
    }
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(&text, form) {
            return Some(time.and_utc().timestamp_millis());
        }
    }
    let day = NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

/// ISO 8601 as Kafka's tools take it (`P1DT2H`, `PT30M`) or short (`90s`, `30m`, `2h`, `7d`); milliseconds.
pub fn duration(text: &str) -> Option<i64> {
    let text = text.trim();
    let Some(rest) = text.strip_prefix(['P', 'p']) else {
        let at = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(at);
        return number.parse::<i64>().ok()?.checked_mul(unit_ms(unit)?);
    };
    let (mut total, mut time, mut some) = (0i64, false, false);
    let mut rest = rest;
    while let Some(c) = rest.chars().next() {
        if matches!(c, 'T' | 't') {
            time = true;
            rest = rest.get(1..)?;
            continue;
        }
        let at = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(at);
        let unit = match (after.chars().next()?.to_ascii_uppercase(), time) {
            ('D', false) => "d",
            ('W', false) => "w",
            ('H', true) => "h",
            ('M', true) => "m",
            ('S', true) => "s",
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit_ms(unit)?)?)?;
        some = true;
        rest = after.get(1..)?;
    }
    some.then_some(total)
}

fn unit_ms(unit: &str) -> Option<i64> {
    Some(match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for text in [
            "1970-01-02",
            "1970-01-02T00:00:00Z",
            "1970-01-02T01:00:00.000+01:00",
            "1970-01-02 00:00",
            "1970-01-02T01:00:00+0100",
        ] {
            assert_eq!(parse(text), Some(86_400_000), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.250"), Some(250));
        for wrong in ["", "now", "1970-13-01", "12:00", "ü"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        for (text, ms) in
            [("P1DT2H", 93_600_000), ("PT30M", 1_800_000), ("90s", 90_000), ("7d", 604_800_000), ("5ms", 5)]
        {
            assert_eq!(duration(text), Some(ms), "{text}");
        }
        for wrong in ["", "P", "PT", "P1M", "5", "h", "P1", "5ü", "99999999999999999999s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
