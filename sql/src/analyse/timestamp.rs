//! Points in time as text, possibly in part: `2020`, `2020-02-10T08:31`, `2020-02-10T08:31:44.001+0100`.

/// Milliseconds since the epoch. What is left out is the start of the year, month, day, ...; no zone is UTC.
pub(super) fn parse_partial_timestamp(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "failed to parse timestamp '{text}': expected \"yyyy-MM-dd'T'HH:mm:ss.SSS\" or a leading part of it, \
             with a time zone such as \"Z\" or \"+0100\" behind it if wanted"
        )
    };
    let trimmed = text.trim();
    let (date, time) = match trimmed.find(['T', 't']) {
        Some(at) => (trimmed.get(..at).unwrap_or(""), trimmed.get(at + 1..).unwrap_or("")),
        None => match trimmed.strip_suffix('Z') {
            Some(date) => (date, ""),
            None => (trimmed, ""),
        },
    };
    let (time, offset_ms) = split_zone(time).ok_or_else(wrong)?;
    let mut parts = date.split('-');
    let year = number(parts.next().unwrap_or(""), 4, 0, 9999).ok_or_else(wrong)?;
    let month = optional(parts.next(), 2, 1, 12, 1).ok_or_else(wrong)?;
    let day = optional(parts.next(), 2, 1, days_in_month(year, month), 1).ok_or_else(wrong)?;
    if parts.next().is_some() {
        return Err(wrong());
    }
    let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.split(':').filter(|p| !clock.is_empty() || !p.is_empty());
    // 24:00 is the end of the day.
    let hour = optional(parts.next(), 2, 0, 24, 0).ok_or_else(wrong)?;
    let minute = optional(parts.next(), 2, 0, 59, 0).ok_or_else(wrong)?;
    let second = optional(parts.next(), 2, 0, 59, 0).ok_or_else(wrong)?;
    if hour == 24 && (minute, second) != (0, 0) {
        return Err(wrong());
    }
    if parts.next().is_some() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let millis = fraction.bytes().map(|b| i64::from(b - b'0')).chain([0, 0, 0]).take(3).fold(0, |ms, d| ms * 10 + d);
    let days = days_from_civil(year, month, day);
    Ok(((days * 24 + hour) * 60 + minute) * 60_000 + second * 1000 + millis - offset_ms)
}

fn number(text: &str, width: usize, low: i64, high: i64) -> Option<i64> {
    if text.len() > width || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| (low..=high).contains(n))
}

fn optional(text: Option<&str>, width: usize, low: i64, high: i64, default: i64) -> Option<i64> {
    text.map_or(Some(default), |t| number(t, width, low, high))
}

/// The clock's part and the zone's offset in milliseconds.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    let Some(at) = time.find(|c: char| c == '+' || c == '-' || c.is_ascii_alphabetic()) else {
        return Some((time, 0));
    };
    let (clock, zone) = (time.get(..at)?, time.get(at..)?);
    if ["Z", "UTC", "GMT"].iter().any(|z| zone.eq_ignore_ascii_case(z)) {
        return Some((clock, 0));
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits: String = zone.get(1..)?.chars().filter(|c| *c != ':').collect();
    if !zone.starts_with(['+', '-']) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours = number(digits.get(..2)?, 2, 0, 18)?;
    let minutes = number(digits.get(2..)?, 2, 0, 59).or((digits.len() == 2).then_some(0))?;
    Some((clock, sign * (hours * 60 + minutes) * 60_000))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since the epoch of a day of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse_partial_timestamp as parse;

    #[test]
    fn partial_and_zoned() {
        assert_eq!(parse("1970"), Ok(0));
        assert_eq!(parse("2018-01-01T00:00:00.001"), Ok(1_514_764_800_001));
        assert_eq!(parse("2019-01-01T00:00:00+0445"), Ok(1_546_300_800_000 - (4 * 60 + 45) * 60_000));
        assert_eq!(parse("2020-02-29"), Ok(1_582_934_400_000));
        assert_eq!(parse("2020-02-10T08:31:44.001Z"), parse("2020-02-10T09:31:44.001+01:00"));
        assert!(parse("2019-02-29").is_err());
        assert!(parse("soon").is_err());
    }
}
