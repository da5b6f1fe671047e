//! Time zones: an offset, or a region of the IANA database.

use std::str::FromStr;

use chrono::{NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use super::DAY_MS;

const OFFSET_SECONDS_MAX: i32 = 18 * 3600;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Seconds east of UTC.
    Offset(i32),
    Region(Tz),
}

/// Abbreviations that Java's formatter reads, with the regions it means.
const ABBREVIATIONS: [(&str, &str); 15] = [
    ("PST", "America/Los_Angeles"),
    ("PDT", "America/Los_Angeles"),
    ("MST", "America/Denver"),
    ("MDT", "America/Denver"),
    ("CST", "America/Chicago"),
    ("CDT", "America/Chicago"),
    ("EST", "America/New_York"),
    ("EDT", "America/New_York"),
    ("CET", "Europe/Paris"),
    ("CEST", "Europe/Paris"),
    ("EET", "Europe/Bucharest"),
    ("EEST", "Europe/Bucharest"),
    ("BST", "Europe/London"),
    ("JST", "Asia/Tokyo"),
    ("IST", "Asia/Kolkata"),
];

impl From<Tz> for Zone {
    fn from(tz: Tz) -> Self {
        Self::Region(tz)
    }
}

impl From<&Zone> for Zone {
    fn from(zone: &Zone) -> Self {
        zone.clone()
    }
}

impl Zone {
    pub const UTC: Self = Self::Offset(0);

    /// A zone as Java's `ZoneId.of` reads it: `Z`, `+02:00`, `+0200`, `UTC+2`, `GMT`, `Europe/Berlin`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown time zone \"{text}\"");
        if matches!(text, "Z" | "UTC" | "GMT" | "UT") {
            return Ok(Self::UTC);
        }
        let offset = ["UTC", "GMT", "UT"].iter().find_map(|p| text.strip_prefix(p)).unwrap_or(text);
        if offset.starts_with(['+', '-']) {
            return parse_offset(offset).map(Self::Offset).ok_or_else(unknown);
        }
        Tz::from_str(text).map(Self::Region).map_err(|_| unknown())
    }

    pub(crate) fn by_abbreviation(text: &str) -> Option<Self> {
        let found = ABBREVIATIONS.iter().find(|(short, _)| short.eq_ignore_ascii_case(text));
        found.and_then(|(_, region)| Tz::from_str(region).ok()).map(Self::Region)
    }

    /// Offset in seconds at an instant.
    pub fn offset_at(&self, ms: i64) -> i32 {
        match self {
            Self::Offset(seconds) => *seconds,
            Self::Region(tz) => utc(ms).map_or(0, |at| tz.offset_from_utc_datetime(&at).fix().local_minus_utc()),
        }
    }

    /// Local milliseconds to the instant: in an overlap the earlier offset, in a gap moved on by the gap's length.
    pub fn to_instant(&self, local_ms: i64) -> i64 {
        let seconds = match self {
            Self::Offset(seconds) => *seconds,
            Self::Region(tz) => {
                let before = || self.offset_at(local_ms - DAY_MS);
                utc(local_ms).map_or(0, |local| match tz.offset_from_local_datetime(&local) {
                    chrono::LocalResult::Single(offset) => offset.fix().local_minus_utc(),
                    chrono::LocalResult::Ambiguous(a, b) => a.fix().local_minus_utc().max(b.fix().local_minus_utc()),
                    chrono::LocalResult::None => before(),
                })
            }
        };
        local_ms.saturating_sub(i64::from(seconds) * 1000)
    }

    /// `Europe/Berlin`, `+02:00`, `Z`.
    pub fn id(&self) -> String {
        match self {
            Self::Offset(0) => "Z".into(),
            Self::Offset(seconds) => offset_text(*seconds, true),
            Self::Region(tz) => tz.name().into(),
        }
    }

    /// `CET`, `UTC` or the offset.
    pub fn short_name(&self, ms: i64) -> String {
        match self {
            Self::Offset(0) => "UTC".into(),
            Self::Offset(_) => self.id(),
            Self::Region(tz) => match utc(ms) {
                Some(at) => tz.from_utc_datetime(&at).format("%Z").to_string(),
                None => self.id(),
            },
        }
    }
}

fn utc(ms: i64) -> Option<NaiveDateTime> {
    chrono::DateTime::from_timestamp_millis(ms).map(|d| d.naive_utc())
}

/// `+2`, `+02`, `+02:30`, `+0230`, `+02:30:15`.
pub(crate) fn parse_offset(text: &str) -> Option<i32> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['+', '-'])?;
    let (hours, minutes, seconds) = match digits.split(':').collect::<Vec<_>>().as_slice() {
        [h] if h.len() <= 2 => (*h, "0", "0"),
        [h, m] if h.len() == 2 && m.len() == 2 => (*h, *m, "0"),
        [h, m, s] if h.len() == 2 && m.len() == 2 && s.len() == 2 => (*h, *m, *s),
        [all] if all.len() == 4 && all.is_ascii() => (&all[..2], &all[2..], "0"),
        [all] if all.len() == 6 && all.is_ascii() => (&all[..2], &all[2..4], &all[4..]),
        _ => return None,
    };
    let number = |t: &str| if t.bytes().all(|b| b.is_ascii_digit()) { t.parse::<i32>().ok() } else { None };
    let (hours, minutes, seconds) = (number(hours)?, number(minutes)?, number(seconds)?);
    if minutes > 59 || seconds > 59 {
        return None;
    }
    let total = hours * 3600 + minutes * 60 + seconds;
    (total <= OFFSET_SECONDS_MAX).then_some(if negative { -total } else { total })
}

/// `+02:30` or `+0230`, with seconds where there are any.
pub(crate) fn offset_text(seconds: i32, colons: bool) -> String {
    let (sign, total) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    let colon = if colons { ":" } else { "" };
    let mut text = format!("{sign}{:02}{colon}{:02}", total / 3600, total / 60 % 60);
    if total % 60 != 0 {
        text += &format!("{colon}{:02}", total % 60);
    }
    text
}
