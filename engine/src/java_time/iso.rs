//! ISO 8601 texts, the timestamp's possibly partial: `2020`, `2020-01`, `2020-01-01T10:00`, with an optional offset.

use super::zone::parse_offset;
use super::{DAY_MS, Zone, days_of, month_length};

fn bad(what: &str, text: &str) -> String {
    let shown: String = text.chars().take(100).collect();
    format!("\"{shown}\" is not an ISO {what}")
}

fn number(text: &str, digits: std::ops::RangeInclusive<usize>, max: u32) -> Option<u32> {
    let fits = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten().filter(|n| *n <= max)
}

/// `yyyy[-MM[-dd]]` as days.
fn date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = number(parts.next()?, 4..=4, 9999)?;
    let month = parts.next().map_or(Some(1), |p| number(p, 2..=2, 12)).filter(|m| *m > 0)?;
    let day = parts.next().map_or(Some(1), |p| number(p, 2..=2, 31)).filter(|d| *d > 0)?;
    if parts.next().is_some() {
        return None;
    }
    let day = day.min(month_length(i64::from(year), month));
    Some(days_of(i64::from(year), month, day))
}

/// `[HH[:mm[:ss[.S..]]]]` as milliseconds of the day.
fn time(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let mut parts = text.split(':');
    let hour = number(parts.next()?, 2..=2, 23)?;
    let minute = parts.next().map_or(Some(0), |p| number(p, 2..=2, 59))?;
    let (second, ms) = match parts.next() {
        None => (0, 0),
        Some(seconds) => {
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            let mut ms = 0;
            if !fraction.is_empty() {
                number(fraction, 1..=9, u32::MAX)?;
                ms = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
            }
            (number(whole, 2..=2, 59)?, ms)
        }
    };
    if parts.next().is_some() {
        return None;
    }
    Some(i64::from(hour) * 3_600_000 + i64::from(minute) * 60_000 + i64::from(second) * 1000 + ms)
}

/// Milliseconds since the epoch; UTC unless the text has an offset.
pub fn parse_iso_timestamp(text: &str) -> Result<i64, String> {
    let wrong = || bad("timestamp", text);
    let Some((day, rest)) = text.split_once('T') else {
        return date(text).map(|d| d * DAY_MS).ok_or_else(wrong);
    };
    let day = date(day).ok_or_else(wrong)?;
    let (clock, zone) = match rest.find(['+', '-']) {
        Some(at) => {
            let seconds = parse_offset(&rest[at..]).ok_or_else(wrong)?;
            (&rest[..at], Zone::Offset(seconds))
        }
        None => (rest.strip_suffix('Z').unwrap_or(rest), Zone::UTC),
    };
    let ms = time(clock).ok_or_else(wrong)?;
    Ok(zone.to_instant(day * DAY_MS + ms))
}

/// Days since the epoch.
pub fn parse_iso_date(text: &str) -> Result<i32, String> {
    let days = match text.contains('T') {
        true => parse_iso_timestamp(text).ok().map(|ms| ms.div_euclid(DAY_MS)),
        false => date(text),
    };
    days.map(|d| d as i32).ok_or_else(|| bad("date", text))
}

/// Milliseconds of the day.
pub fn parse_iso_time(text: &str) -> Result<i32, String> {
    time(text).filter(|_| !text.is_empty()).map(|ms| ms as i32).ok_or_else(|| bad("time", text))
}
