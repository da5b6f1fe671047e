//! DATE_TIME functions. Patterns are Java's, compiled once per call site and context.

use std::sync::Arc;

use arrow::array::{Int32Builder, Int64Builder};
use millpond_sql::functions::ResultType;
use millpond_types::{Result, SqlType};

use super::typed::{Big, Builtin, Dat, Def, Int, Memo, Str, Tim, TimePat, Ts, Unit, ZoneName, exact, same, scalar};
use super::{Args, Returned};
use crate::expr::EvalContext;
use crate::java_time::{DAY_MS, Pattern, Zone};

const CATEGORY: &str = "DATE_TIME";

/// Patterns and zones of a call site.
#[derive(Default)]
struct Texts {
    patterns: Memo<Pattern>,
    zones: Memo<Zone>,
}

impl Texts {
    fn format(&mut self, ms: i64, pattern: &str, zone: &str) -> Result<String, String> {
        let zone = self.zones.get(zone, Zone::parse)?;
        self.patterns.get(pattern, Pattern::compile)?.format_timestamp(ms, zone)
    }

    fn parse(&mut self, text: &str, pattern: &str, zone: &str) -> Result<i64, String> {
        let zone = self.zones.get(zone, Zone::parse)?;
        self.patterns.get(pattern, Pattern::compile)?.parse_timestamp_ms(text, zone)
    }
}

pub fn register(b: &mut Builtin) {
    b.add("FORMAT_TIMESTAMP", CATEGORY, "a timestamp as text by a pattern", vec![
        scalar!(memo: Texts; (timestamp: Ts, pattern: TimePat) -> Str => memo.format(timestamp, pattern, "UTC")),
        scalar!(memo: Texts; (timestamp: Ts, pattern: TimePat, zone: ZoneName) -> Str => memo.format(timestamp, pattern, zone)),
    ]);
    b.add("TIMESTAMPTOSTRING", CATEGORY, "milliseconds as text by a pattern (use FORMAT_TIMESTAMP)", vec![
        scalar!(memo: Texts; (epoch_milli: Big, pattern: TimePat) -> Str => memo.format(epoch_milli, pattern, "UTC")),
        scalar!(memo: Texts; (epoch_milli: Big, pattern: TimePat, zone: ZoneName) -> Str => memo.format(epoch_milli, pattern, zone)),
    ]);
    b.add(
        "PARSE_TIMESTAMP",
        CATEGORY,
        "a text as timestamp by a pattern",
        vec![
            scalar!(memo: Texts; (text: Str, pattern: TimePat) -> Ts => memo.parse(text, pattern, "UTC")),
            scalar!(memo: Texts; (text: Str, pattern: TimePat, zone: ZoneName) -> Ts => memo.parse(text, pattern, zone)),
        ],
    );
    b.add(
        "STRINGTOTIMESTAMP",
        CATEGORY,
        "a text as milliseconds by a pattern (use PARSE_TIMESTAMP)",
        vec![
            scalar!(memo: Texts; (text: Str, pattern: TimePat) -> Big => memo.parse(text, pattern, "UTC")),
            scalar!(memo: Texts; (text: Str, pattern: TimePat, zone: ZoneName) -> Big => memo.parse(text, pattern, zone)),
        ],
    );
    b.add(
        "FORMAT_DATE",
        CATEGORY,
        "a date as text by a pattern",
        vec![scalar!(memo: Memo<Pattern>; (date: Dat, pattern: TimePat) -> Str =>
            memo.get(pattern, Pattern::compile).and_then(|p| p.format_date(date)))],
    );
    b.add(
        "DATETOSTRING",
        CATEGORY,
        "days as text by a pattern (use FORMAT_DATE)",
        vec![scalar!(memo: Memo<Pattern>; (epoch_days: Int, pattern: TimePat) -> Str =>
            memo.get(pattern, Pattern::compile).and_then(|p| p.format_date(epoch_days)))],
    );
    b.add(
        "PARSE_DATE",
        CATEGORY,
        "a text as date by a pattern",
        vec![scalar!(memo: Memo<Pattern>; (text: Str, pattern: TimePat) -> Dat =>
            memo.get(pattern, Pattern::compile).and_then(|p| p.parse_date(text)))],
    );
    b.add(
        "STRINGTODATE",
        CATEGORY,
        "a text as days by a pattern (use PARSE_DATE)",
        vec![scalar!(memo: Memo<Pattern>; (text: Str, pattern: TimePat) -> Int =>
            memo.get(pattern, Pattern::compile).and_then(|p| p.parse_date(text)))],
    );
    b.add(
        "FORMAT_TIME",
        CATEGORY,
        "a time as text by a pattern",
        vec![scalar!(memo: Memo<Pattern>; (time: Tim, pattern: TimePat) -> Str =>
            memo.get(pattern, Pattern::compile).and_then(|p| p.format_time(time)))],
    );
    b.add(
        "PARSE_TIME",
        CATEGORY,
        "a text as time by a pattern",
        vec![scalar!(memo: Memo<Pattern>; (text: Str, pattern: TimePat) -> Tim =>
            memo.get(pattern, Pattern::compile).and_then(|p| p.parse_time(text)))],
    );
    b.add(
        "CONVERT_TZ",
        CATEGORY,
        "a timestamp moved from one time zone to another",
        vec![
            scalar!(memo: Memo<Zone>; (timestamp: Ts, from: ZoneName, to: ZoneName) -> Ts => convert(memo, timestamp, from, to)),
        ],
    );
    b.add(
        "DATEADD",
        CATEGORY,
        "a date and a duration",
        vec![scalar!((unit: Unit, interval: Int, date: Dat) -> Dat => add_to_date(unit, i64::from(interval), date))],
    );
    b.add(
        "DATESUB",
        CATEGORY,
        "a date less a duration",
        vec![scalar!((unit: Unit, interval: Int, date: Dat) -> Dat => add_to_date(unit, -i64::from(interval), date))],
    );
    b.add(
        "TIMEADD",
        CATEGORY,
        "a time and a duration, within a day",
        vec![scalar!((unit: Unit, interval: Int, time: Tim) -> Tim => add_to_time(unit, i64::from(interval), time))],
    );
    b.add(
        "TIMESUB",
        CATEGORY,
        "a time less a duration, within a day",
        vec![scalar!((unit: Unit, interval: Int, time: Tim) -> Tim => add_to_time(unit, -i64::from(interval), time))],
    );
    b.add(
        "TIMESTAMPADD",
        CATEGORY,
        "a timestamp and a duration",
        vec![scalar!((unit: Unit, interval: Int, timestamp: Ts) -> Ts =>
            duration(unit, i64::from(interval)).map(|ms| timestamp.wrapping_add(ms)))],
    );
    b.add(
        "TIMESTAMPSUB",
        CATEGORY,
        "a timestamp less a duration",
        vec![scalar!((unit: Unit, interval: Int, timestamp: Ts) -> Ts =>
            duration(unit, i64::from(interval)).map(|ms| timestamp.wrapping_sub(ms)))],
    );
    b.add("FROM_DAYS", CATEGORY, "the date so many days after 1970-01-01", vec![scalar!((days: Int) -> Dat => days)]);
    b.add(
        "FROM_UNIXTIME",
        CATEGORY,
        "the timestamp so many milliseconds after 1970-01-01",
        vec![scalar!((epoch_milli: Big) -> Ts => epoch_milli)],
    );
    b.add(
        "UNIX_DATE",
        CATEGORY,
        "days since 1970-01-01 of today or of a date",
        vec![
            Def::scalar(vec![], ResultType::Of(exact(SqlType::Integer)), same(today)),
            scalar!((date: Dat) -> Int => date),
        ],
    );
    b.add(
        "UNIX_TIMESTAMP",
        CATEGORY,
        "milliseconds since 1970-01-01 of now or of a timestamp",
        vec![
            Def::scalar(vec![], ResultType::Of(exact(SqlType::BigInt)), same(now)),
            scalar!((timestamp: Ts) -> Big => timestamp),
        ],
    );
}

fn today(args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
    let mut out = Int32Builder::with_capacity(args.rows);
    out.append_value_n(cx.now_ms().div_euclid(DAY_MS) as i32, args.rows);
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn now(args: &Args<'_>, cx: &mut EvalContext) -> Result<Returned> {
    let mut out = Int64Builder::with_capacity(args.rows);
    out.append_value_n(cx.now_ms(), args.rows);
    Ok(Returned::ok(Arc::new(out.finish())))
}

fn duration(unit: &str, interval: i64) -> Result<i64, String> {
    let ms = match unit.to_ascii_uppercase().trim_end_matches('S') {
        "DAY" => DAY_MS,
        "HOUR" => 3_600_000,
        "MINUTE" => 60_000,
        "SECOND" => 1000,
        "MILLISECOND" => 1,
        _ => return Err(format!("unit \"{unit}\" is not DAYS, HOURS, MINUTES, SECONDS or MILLISECONDS")),
    };
    // An INTEGER number of days fits.
    Ok(interval.wrapping_mul(ms))
}

fn add_to_date(unit: &str, interval: i64, date: i32) -> Result<i32, String> {
    Ok(((i64::from(date) * DAY_MS + duration(unit, interval)?) / DAY_MS) as i32)
}

fn add_to_time(unit: &str, interval: i64, time: i32) -> Result<i32, String> {
    Ok((i64::from(time) + duration(unit, interval)?).rem_euclid(DAY_MS) as i32)
}

/// The instant that the target zone shows as the wall clock of the source zone shows `ms`.
fn convert(zones: &mut Memo<Zone>, ms: i64, from: &str, to: &str) -> Result<i64, String> {
    let there = i64::from(zones.get(to, Zone::parse)?.offset_at(ms)) * 1000;
    let here = i64::from(zones.get(from, Zone::parse)?.offset_at(ms)) * 1000;
    Ok(ms.saturating_add(there - here))
}
