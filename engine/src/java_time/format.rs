//! Patterns applied to values.

use std::fmt::Write as _;

use super::pattern::{Field, Item, Pattern, Sign, TextStyle};
use super::zone::offset_text;
use super::{DAY_MS, DAYS, MONTHS, Zone, date_of, days_of};

/// What a pattern can ask of a value; a DATE has no time, a TIME no date, neither a zone.
struct Source<'a> {
    day: Option<i64>,
    ms_of_day: Option<i64>,
    zone: Option<(&'a Zone, i64)>,
}

impl Pattern {
    /// A timestamp as it is in a zone.
    pub fn format_timestamp(&self, ms: i64, zone: impl Into<Zone>) -> Result<String, String> {
        let zone = &zone.into();
        let local = ms.saturating_add(i64::from(zone.offset_at(ms)) * 1000);
        self.format(&Source {
            day: Some(local.div_euclid(DAY_MS)),
            ms_of_day: Some(local.rem_euclid(DAY_MS)),
            zone: Some((zone, ms)),
        })
    }

    /// Days since the epoch.
    pub fn format_date(&self, days: i32) -> Result<String, String> {
        self.format(&Source { day: Some(i64::from(days)), ms_of_day: None, zone: None })
    }

    /// Milliseconds of the day.
    pub fn format_time(&self, ms: i32) -> Result<String, String> {
        self.format(&Source { day: None, ms_of_day: Some(i64::from(ms).rem_euclid(DAY_MS)), zone: None })
    }

    fn format(&self, source: &Source<'_>) -> Result<String, String> {
        let mut out = String::new();
        write_items(&self.items, source, &mut out)?;
        Ok(out)
    }
}

fn write_items(items: &[Item], source: &Source<'_>, out: &mut String) -> Result<(), String> {
    for item in items {
        match item {
            Item::Literal(text) => out.push_str(text),
            Item::Number { field, min, sign, max } => {
                let value = value(*field, source)?;
                let digits = value.unsigned_abs().to_string();
                if digits.len() > *max {
                    return Err(format!("{value} does not fit the pattern"));
                }
                match sign {
                    _ if value < 0 => out.push('-'),
                    Sign::ExceedsPad if digits.len() > *min => out.push('+'),
                    _ => {}
                }
                out.extend(std::iter::repeat_n('0', min.saturating_sub(digits.len())));
                out.push_str(&digits);
            }
            Item::ReducedYear(field) => {
                let _ = write!(out, "{:02}", value(*field, source)?.rem_euclid(100));
            }
            Item::Fraction(digits) => {
                let nano = format!("{:09}", value(Field::Nano, source)?);
                out.push_str(nano.get(..*digits).unwrap_or(&nano));
            }
            Item::MonthText(style) => styled(MONTHS.get(value(Field::Month, source)? as usize - 1), *style, out),
            Item::DayText(style) => styled(DAYS.get(value(Field::DayOfWeek, source)? as usize - 1), *style, out),
            Item::AmPm => out.push_str(if value(Field::Hour, source)? < 12 { "AM" } else { "PM" }),
            Item::Era(style) => {
                let common = value(Field::Year, source)? > 0;
                out.push_str(match (style, common) {
                    (TextStyle::Short, true) => "AD",
                    (TextStyle::Short, false) => "BC",
                    (TextStyle::Full, true) => "Anno Domini",
                    (TextStyle::Full, false) => "Before Christ",
                    (TextStyle::Narrow, true) => "A",
                    (TextStyle::Narrow, false) => "B",
                });
            }
            Item::ZoneId => out.push_str(&zone(source)?.0.id()),
            Item::ZoneName => {
                let (zone, ms) = zone(source)?;
                out.push_str(&zone.short_name(ms));
            }
            Item::Offset { zero, short, colons, seconds } => {
                let (zone, ms) = zone(source)?;
                let mut offset = zone.offset_at(ms);
                if !seconds {
                    offset -= offset % 60;
                }
                if offset == 0 {
                    out.push_str(zero);
                } else {
                    let text = offset_text(offset, *colons);
                    out.push_str(if *short && offset % 3600 == 0 { &text[..3] } else { &text });
                }
            }
            Item::LocalisedOffset { full } => {
                let (zone, ms) = zone(source)?;
                let offset = zone.offset_at(ms);
                out.push_str("GMT");
                if offset != 0 {
                    let text = offset_text(offset, true);
                    if *full {
                        out.push_str(&text);
                    } else {
                        let (sign, rest) = text.split_at(1);
                        let rest = rest.strip_prefix('0').unwrap_or(rest);
                        out.push_str(sign);
                        out.push_str(rest.strip_suffix(":00").unwrap_or(rest));
                    }
                }
            }
            Item::Optional(items) => {
                let mut inner = String::new();
                if write_items(items, source, &mut inner).is_ok() {
                    out.push_str(&inner);
                }
            }
        }
    }
    Ok(())
}

fn styled(text: Option<&&str>, style: TextStyle, out: &mut String) {
    let text = text.copied().unwrap_or("");
    out.push_str(match style {
        TextStyle::Full => text,
        TextStyle::Short => text.get(..3).unwrap_or(text),
        TextStyle::Narrow => text.get(..1).unwrap_or(text),
    });
}

fn zone<'a>(source: &'a Source<'_>) -> Result<(&'a Zone, i64), String> {
    source.zone.ok_or_else(|| "the pattern asks for a time zone, which the value does not have".into())
}

fn value(field: Field, source: &Source<'_>) -> Result<i64, String> {
    let day = || source.day.ok_or_else(|| "the pattern asks for a date, which the value does not have".to_owned());
    let ms = || source.ms_of_day.ok_or_else(|| "the pattern asks for a time, which the value does not have".to_owned());
    Ok(match field {
        Field::Year => date_of(day()?).0,
        Field::YearOfEra => {
            let year = date_of(day()?).0;
            if year > 0 { year } else { 1 - year }
        }
        Field::Quarter => i64::from((date_of(day()?).1 - 1) / 3 + 1),
        Field::Month => i64::from(date_of(day()?).1),
        Field::Day => i64::from(date_of(day()?).2),
        Field::DayOfYear => day()? - days_of(date_of(day()?).0, 1, 1) + 1,
        // The epoch was a Thursday.
        Field::DayOfWeek => (day()? + 3).rem_euclid(7) + 1,
        Field::Hour => ms()? / 3_600_000,
        Field::ClockHour => match ms()? / 3_600_000 {
            0 => 24,
            h => h,
        },
        Field::HourOfAmPm => ms()? / 3_600_000 % 12,
        Field::ClockHourOfAmPm => match ms()? / 3_600_000 % 12 {
            0 => 12,
            h => h,
        },
        Field::Minute => ms()? / 60_000 % 60,
        Field::Second => ms()? / 1000 % 60,
        Field::Nano => ms()? % 1000 * 1_000_000,
        Field::MilliOfDay => ms()?,
        Field::NanoOfDay => ms()? * 1_000_000,
    })
}
