//! Dates and times as text, the way Java's `DateTimeFormatter` patterns and ISO 8601 have it.
//!
//! Owns patterns (compile once, then parse and format), partial ISO texts and time zones by name or offset. Not here:
//! the SQL functions above it (`functions::date_time`). Locale: English. Resolution: SMART (31 April is 30 April).

mod format;
mod iso;
mod parse;
mod pattern;
mod zone;

pub use iso::{parse_iso_date, parse_iso_time, parse_iso_timestamp};
pub use pattern::Pattern;
pub use zone::Zone;

pub(crate) const DAY_MS: i64 = 86_400_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// From Monday.
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Days since the epoch of a proleptic Gregorian date.
pub(crate) fn days_of(year: i64, month: u32, day: u32) -> i64 {
    // Years begin in March, so that the leap day is a year's last.
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since the epoch.
pub(crate) fn date_of(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month as u32, day as u32)
}

pub(crate) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

pub(crate) fn month_length(year: i64, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_are_inverse() {
        for days in (-1_000_000..1_000_000).step_by(997) {
            let (y, m, d) = date_of(days);
            assert_eq!(days_of(y, m, d), days);
        }
        assert_eq!(days_of(1970, 1, 1), 0);
        assert_eq!(date_of(19_782), (2024, 2, 29));
    }

    fn utc() -> Zone {
        Zone::parse("UTC").unwrap()
    }

    #[test]
    fn patterns_parse_and_format() {
        for (pattern, text, ms) in [
            ("yyyy-MM-dd'T'HH:mm:ss.SSS", "2021-03-04T05:06:07.089", 1_614_834_367_089),
            ("yyyy-MM-dd'T'HH:mm:ssX", "2021-03-04T05:06:07Z", 1_614_834_367_000),
            ("yyyy-MM-dd HH:mm:ss XXX", "2021-03-04 05:06:07 +02:00", 1_614_827_167_000),
            ("yyyyMMddHHmmssSSS", "20210304050607089", 1_614_834_367_089),
            ("d MMM yyyy", "4 Mar 2021", 1_614_816_000_000),
            ("EEEE, d MMMM yyyy hh:mm a", "Thursday, 4 March 2021 05:06 PM", 1_614_877_560_000),
            ("yyyy-MM-dd HH:mm VV", "2021-07-04 05:06 Europe/Berlin", 1_625_367_960_000),
        ] {
            let compiled = Pattern::compile(pattern).unwrap();
            assert_eq!(compiled.parse_timestamp_ms(text, utc()), Ok(ms), "{pattern}");
        }
        let formatted = |pattern: &str, ms, zone: &str| {
            Pattern::compile(pattern).unwrap().format_timestamp(ms, Zone::parse(zone).unwrap()).unwrap()
        };
        assert_eq!(formatted("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", 1_614_834_367_089, "UTC"), "2021-03-04T05:06:07.089Z");
        assert_eq!(formatted("yyyy-MM-dd HH:mm:ss Z", 1_614_834_367_089, "+02:00"), "2021-03-04 07:06:07 +0200");
        assert_eq!(formatted("EEE d MMM yy h:mm a", 1_614_834_367_089, "America/New_York"), "Thu 4 Mar 21 12:06 AM");
    }

    #[test]
    fn what_is_missing_or_wrong_is_refused() {
        let p = Pattern::compile("yyyy-MM-dd").unwrap();
        assert!(p.parse_timestamp_ms("2021-03", utc()).is_err());
        assert!(p.parse_timestamp_ms("2021-03-04x", utc()).is_err());
        assert!(p.parse_timestamp_ms("2021-13-04", utc()).is_err());
        assert_eq!(p.parse_date("1970-01-02-01-01"), Ok(1));
        assert_eq!(p.parse_date("2021-02-31"), Ok(days_of(2021, 2, 28) as i32));
        assert!(Pattern::compile("'open").is_err());
        assert!(Pattern::compile("bogus").is_err());
        assert_eq!(Pattern::compile("yyyy").unwrap().parse_timestamp_ms("1971", utc()), Ok(365 * DAY_MS));
    }

    #[test]
    fn partial_iso_texts() {
        for (text, ms) in [
            ("1970", 0),
            ("1970-02", 31 * DAY_MS),
            ("1970-01-02", DAY_MS),
            ("1970-01-01T01", 3_600_000),
            ("1970-01-01T00:01", 60_000),
            ("1970-01-01T00:00:01", 1_000),
            ("1970-01-01T00:00:00.5", 500),
            ("1970-01-01T01:00:00+0100", 0),
            ("1970-01-01T00:00:00.000Z", 0),
        ] {
            assert_eq!(parse_iso_timestamp(text), Ok(ms), "{text}");
        }
        for text in ["", "x", "1970-1-1T", "1970-01-01T00:00:00:00", "1970-01-01 00:00", "1970-01-01T25"] {
            assert!(parse_iso_timestamp(text).is_err(), "{text}");
        }
        assert_eq!(parse_iso_time("10:00"), Ok(36_000_000));
        assert_eq!(parse_iso_time("10:00:01.5"), Ok(36_001_500));
        assert_eq!(parse_iso_date("1970-01-03"), Ok(2));
    }
}
