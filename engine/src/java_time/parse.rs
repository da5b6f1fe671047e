//! Patterns applied to texts. What a text leaves open is 1970-01-01T00:00:00.

use super::pattern::{Field, Item, Pattern, Sign, TextStyle};
use super::zone::parse_offset;
use super::{DAY_MS, DAYS, MONTHS, Zone, days_of, is_leap, month_length};

#[derive(Clone, Default)]
struct Parsed {
    year: Option<i64>,
    year_of_era: Option<i64>,
    before_christ: bool,
    quarter: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    day_of_week: Option<i64>,
    hour: Option<i64>,
    hour_of_am_pm: Option<i64>,
    pm: Option<bool>,
    minute: Option<i64>,
    second: Option<i64>,
    nano: Option<i64>,
    nano_of_day: Option<i64>,
    zone: Option<Zone>,
}

impl Pattern {
    /// Milliseconds since the epoch. `zone` counts where the text has none.
    pub fn parse_timestamp_ms(&self, text: &str, zone: impl Into<Zone>) -> Result<i64, String> {
        let parsed = self.parse(text)?;
        let (day, ms) = parsed.resolve().map_err(|e| failed(text, &e))?;
        Ok(parsed.zone.clone().unwrap_or_else(|| zone.into()).to_instant(day.saturating_mul(DAY_MS).saturating_add(ms)))
    }

    /// Days since the epoch. Text behind the date is left unread, as ksqlDB leaves it. A pattern with a time of day is
    /// refused, as the day would depend on it.
    pub fn parse_date(&self, text: &str) -> Result<i32, String> {
        let (parsed, _) = self.parse_prefix(text)?;
        if parsed.has_time() {
            return Err(failed(text, "a DATE has no time of day"));
        }
        let (day, _) = parsed.resolve().map_err(|e| failed(text, &e))?;
        i32::try_from(day).map_err(|_| failed(text, "the date is out of range"))
    }

    /// Milliseconds of the day.
    pub fn parse_time(&self, text: &str) -> Result<i32, String> {
        let parsed = self.parse(text)?;
        if parsed.has_date() {
            return Err(failed(text, "a TIME has no date"));
        }
        let (_, ms) = parsed.resolve().map_err(|e| failed(text, &e))?;
        Ok(ms as i32)
    }

    /// What the start of the text says, and where the rest begins.
    fn parse_prefix(&self, text: &str) -> Result<(Parsed, usize), String> {
        let mut parsed = Parsed::default();
        let at = read_items(&self.items, text, 0, &mut parsed)
            .map_err(|at| failed(text, &format!("the pattern does not match at index {at}")))?;
        Ok((parsed, at))
    }

    fn parse(&self, text: &str) -> Result<Parsed, String> {
        let (parsed, at) = self.parse_prefix(text)?;
        if at < text.len() {
            return Err(failed(text, &format!("unparsed text at index {at}")));
        }
        Ok(parsed)
    }
}

fn failed(text: &str, why: &str) -> String {
    let shown: String = text.chars().take(100).collect();
    format!("text \"{shown}\" could not be parsed: {why}")
}

impl Parsed {
    fn has_time(&self) -> bool {
        [self.hour, self.hour_of_am_pm, self.minute, self.second, self.nano, self.nano_of_day]
            .iter()
            .any(Option::is_some)
    }

    fn has_date(&self) -> bool {
        [self.year, self.year_of_era, self.month, self.day, self.day_of_year].iter().any(Option::is_some)
    }

    /// Day and milliseconds of the day.
    fn resolve(&self) -> Result<(i64, i64), String> {
        let range = |name: &str, value: Option<i64>, from: i64, to: i64| match value {
            Some(v) if v < from || v > to => Err(format!("{name} {v} is not within {from} and {to}")),
            v => Ok(v),
        };
        const YEAR_MAX: i64 = 999_999;
        let year_of_era = range("year", self.year_of_era, 1, YEAR_MAX)?;
        let year = range("year", self.year, -YEAR_MAX, YEAR_MAX)?
            .or(year_of_era.map(|y| if self.before_christ { 1 - y } else { y }))
            .unwrap_or(1970);
        let month = range("month", self.month, 1, 12)?
            .or(range("quarter", self.quarter, 1, 4)?.map(|q| q * 3 - 2))
            .unwrap_or(1) as u32;
        let day = match range("day of the year", self.day_of_year, 1, 366)? {
            Some(366) if !is_leap(year) => return Err(format!("{year} has no day 366")),
            Some(day) if self.month.is_none() => days_of(year, 1, 1) + day - 1,
            _ => {
                let day = range("day", self.day, 1, 31)?.unwrap_or(1) as u32;
                days_of(year, month, day.min(month_length(year, month)))
            }
        };
        if let Some(expected) = range("day of the week", self.day_of_week, 1, 7)?
            && (self.day.is_some() || self.day_of_year.is_some())
            && (day + 3).rem_euclid(7) + 1 != expected
        {
            return Err("the day of the week contradicts the date".into());
        }
        if let Some(nano) = range("time of day", self.nano_of_day, 0, DAY_MS * 1_000_000 - 1)? {
            return Ok((day, nano / 1_000_000));
        }
        let half = range("hour", self.hour_of_am_pm, 0, 11)?;
        let hour = match (range("hour", self.hour, 0, 24)?, half, self.pm) {
            (Some(hour), ..) => hour,
            (None, Some(hour), Some(pm)) => hour + if pm { 12 } else { 0 },
            (None, Some(_), None) => return Err("the hour needs AM or PM".into()),
            (None, None, _) => 0,
        };
        let minute = range("minute", self.minute, 0, 59)?.unwrap_or(0);
        let second = range("second", self.second, 0, 59)?.unwrap_or(0);
        let nano = range("fraction", self.nano, 0, 999_999_999)?.unwrap_or(0);
        let ms = minute * 60_000 + second * 1000 + nano / 1_000_000;
        if hour == 24 {
            return if ms == 0 { Ok((day + 1, 0)) } else { Err("hour 24 is not within 0 and 23".into()) };
        }
        Ok((day, hour * 3_600_000 + ms))
    }

    fn set(&mut self, field: Field, value: i64) {
        match field {
            Field::Year => self.year = Some(value),
            Field::YearOfEra => self.year_of_era = Some(value),
            Field::Quarter => self.quarter = Some(value),
            Field::Month => self.month = Some(value),
            Field::Day => self.day = Some(value),
            Field::DayOfYear => self.day_of_year = Some(value),
            Field::DayOfWeek => self.day_of_week = Some(value),
            Field::Hour => self.hour = Some(value),
            Field::ClockHour => self.hour = Some(if value == 24 { 0 } else { value }),
            Field::HourOfAmPm => self.hour_of_am_pm = Some(value),
            Field::ClockHourOfAmPm => self.hour_of_am_pm = Some(if value == 12 { 0 } else { value }),
            Field::Minute => self.minute = Some(value),
            Field::Second => self.second = Some(value),
            Field::Nano => self.nano = Some(value),
            Field::MilliOfDay => self.nano_of_day = value.checked_mul(1_000_000),
            Field::NanoOfDay => self.nano_of_day = Some(value),
        }
    }
}

fn digits_at(text: &str, at: usize, max: usize) -> usize {
    text.as_bytes().get(at..).map_or(0, |rest| rest.iter().take(max).take_while(|b| b.is_ascii_digit()).count())
}

/// Digits that numbers of fixed width right after this place will take.
fn reserved(items: &[Item]) -> usize {
    items
        .iter()
        .map_while(|item| match item {
            Item::Number { min, max, sign: Sign::Never, .. } if min == max => Some(*min),
            Item::Fraction(digits) => Some(*digits),
            Item::ReducedYear(_) => Some(2),
            _ => None,
        })
        .sum()
}

/// Reads the items from byte `at` on; gives the next byte, or where it failed.
fn read_items(items: &[Item], text: &str, mut at: usize, parsed: &mut Parsed) -> Result<usize, usize> {
    for (i, item) in items.iter().enumerate() {
        let rest = text.get(at..).ok_or(at)?;
        match item {
            Item::Literal(literal) => {
                let there = rest.get(..literal.len()).ok_or(at)?;
                if !there.eq_ignore_ascii_case(literal) {
                    return Err(at);
                }
                at += literal.len();
            }
            Item::Number { field, min, max, sign } => {
                let (signed, negative) = match rest.as_bytes().first() {
                    Some(b'-') if *sign != Sign::Never => (1, true),
                    Some(b'+') if *sign == Sign::ExceedsPad => (1, false),
                    _ => (0, false),
                };
                let start = at + signed;
                let available = digits_at(text, start, *max);
                let spare = if min == max { 0 } else { reserved(items.get(i + 1..).unwrap_or(&[])) };
                let count = if spare == 0 {
                    available
                } else {
                    let all = digits_at(text, start, *max + spare);
                    all.saturating_sub(spare).clamp((*min).min(available), *max)
                };
                if count < *min || count == 0 {
                    return Err(at);
                }
                if *sign == Sign::ExceedsPad && !negative && (count > *min) != (signed == 1) {
                    return Err(at);
                }
                let value: i64 = text.get(start..start + count).and_then(|t| t.parse().ok()).ok_or(at)?;
                parsed.set(*field, if negative { -value } else { value });
                at = start + count;
            }
            Item::ReducedYear(field) => {
                if digits_at(text, at, 2) < 2 {
                    return Err(at);
                }
                let value: i64 = rest.get(..2).and_then(|t| t.parse().ok()).ok_or(at)?;
                parsed.set(*field, 2000 + value);
                at += 2;
            }
            Item::Fraction(digits) => {
                if digits_at(text, at, *digits) < *digits {
                    return Err(at);
                }
                let value = format!("{:0<9}", rest.get(..*digits).ok_or(at)?);
                parsed.nano = Some(value.parse().map_err(|_| at)?);
                at += digits;
            }
            Item::MonthText(style) => {
                let (index, length) = named(rest, &MONTHS, *style).ok_or(at)?;
                parsed.month = Some(index as i64 + 1);
                at += length;
            }
            Item::DayText(style) => {
                let (index, length) = named(rest, &DAYS, *style).ok_or(at)?;
                parsed.day_of_week = Some(index as i64 + 1);
                at += length;
            }
            Item::AmPm => {
                let half = rest.get(..2).ok_or(at)?;
                parsed.pm = Some(match half.to_ascii_uppercase().as_str() {
                    "AM" => false,
                    "PM" => true,
                    _ => return Err(at),
                });
                at += 2;
            }
            Item::Era(style) => {
                let names: [&str; 2] = match style {
                    TextStyle::Short => ["AD", "BC"],
                    TextStyle::Full => ["Anno Domini", "Before Christ"],
                    TextStyle::Narrow => ["A", "B"],
                };
                let starts = |n: &&str| rest.get(..n.len()).is_some_and(|t| t.eq_ignore_ascii_case(n));
                let index = names.iter().position(starts).ok_or(at)?;
                parsed.before_christ = index == 1;
                at += names[index].len();
            }
            Item::ZoneId | Item::ZoneName => {
                let length = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-' | ':')))
                    .unwrap_or(rest.len());
                let id = rest.get(..length).ok_or(at)?;
                let zone = Zone::parse(id).ok().or_else(|| match item {
                    Item::ZoneName => Zone::by_abbreviation(id),
                    _ => None,
                });
                parsed.zone = Some(zone.ok_or(at)?);
                at += length;
            }
            Item::Offset { zero, short, colons, .. } => {
                if *zero == "Z" && rest.starts_with(['Z', 'z']) {
                    parsed.zone = Some(Zone::UTC);
                    at += 1;
                    continue;
                }
                let lengths: &[usize] = match (short, colons) {
                    (true, _) => &[5, 3],
                    (false, true) => &[9, 6],
                    (false, false) => &[7, 5],
                };
                let found = lengths.iter().find_map(|&n| {
                    let text = rest.get(..n)?;
                    let shaped = text.contains(':') == *colons || n == 3;
                    Some((parse_offset(text).filter(|_| shaped)?, n))
                });
                let (seconds, length) = found.ok_or(at)?;
                parsed.zone = Some(Zone::Offset(seconds));
                at += length;
            }
            Item::LocalisedOffset { .. } => {
                if !rest.get(..3).is_some_and(|t| t.eq_ignore_ascii_case("GMT")) {
                    return Err(at);
                }
                at += 3;
                let rest = text.get(at..).unwrap_or("");
                let length = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '+' | '-' | ':')));
                let offset = rest.get(..length.unwrap_or(rest.len())).unwrap_or("");
                if offset.starts_with(['+', '-']) {
                    let padded = match offset.split_once(':') {
                        Some((h, m)) if h.len() == 2 => format!("{}0{}:{m}", &h[..1], &h[1..]),
                        _ => offset.to_owned(),
                    };
                    parsed.zone = Some(Zone::Offset(parse_offset(&padded).ok_or(at)?));
                    at += offset.len();
                } else {
                    parsed.zone = Some(Zone::UTC);
                }
            }
            Item::Optional(items) => {
                let mut inner = parsed.clone();
                if let Ok(next) = read_items(items, text, at, &mut inner) {
                    *parsed = inner;
                    at = next;
                }
            }
        }
    }
    Ok(at)
}

/// Which name the text starts with, and how long it is.
fn named(text: &str, names: &[&str], style: TextStyle) -> Option<(usize, usize)> {
    names.iter().enumerate().find_map(|(i, name)| {
        let name = match style {
            TextStyle::Full => name,
            TextStyle::Short => name.get(..3)?,
            TextStyle::Narrow => name.get(..1)?,
        };
        text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name)).then_some((i, name.len()))
    })
}
