//! Patterns of letters, compiled to items.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub(super) items: Vec<Item>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Year,
    YearOfEra,
    Quarter,
    Month,
    Day,
    DayOfYear,
    DayOfWeek,
    /// 0–23, 1–24, 0–11, 1–12.
    Hour,
    ClockHour,
    HourOfAmPm,
    ClockHourOfAmPm,
    Minute,
    Second,
    Nano,
    MilliOfDay,
    NanoOfDay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Fixed width, or no sign at all.
    Never,
    /// A minus is accepted.
    Normal,
    /// A plus is needed (and written) beyond the width.
    ExceedsPad,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Literal(String),
    Number {
        field: Field,
        min: usize,
        max: usize,
        sign: Sign,
    },
    /// Two digits of a year from 2000 to 2099.
    ReducedYear(Field),
    Fraction(usize),
    MonthText(TextStyle),
    DayText(TextStyle),
    AmPm,
    Era(TextStyle),
    ZoneId,
    ZoneName,
    /// `+HHmm`-like: the text for zero, whether minutes may be left out, colons, seconds.
    Offset {
        zero: &'static str,
        short: bool,
        colons: bool,
        seconds: bool,
    },
    /// `GMT+8`; full: `GMT+08:00`.
    LocalisedOffset {
        full: bool,
    },
    Optional(Vec<Item>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextStyle {
    Short,
    Full,
    Narrow,
}

/// Nested brackets that a pattern may have.
const OPTIONAL_DEPTH_MAX: usize = 16;

impl Pattern {
    /// Compiles a pattern of Java's `DateTimeFormatter`.
    pub fn compile(pattern: &str) -> Result<Self, String> {
        let chars: Vec<char> = pattern.chars().collect();
        let mut stack: Vec<Vec<Item>> = vec![Vec::new()];
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            let count = chars[at..].iter().take_while(|x| **x == c).count();
            match c {
                '\'' => {
                    let (text, next) =
                        quoted(&chars, at).ok_or_else(|| format!("pattern \"{pattern}\" ends with an open quote"))?;
                    literal(&mut stack, &text);
                    at = next;
                }
                '[' => {
                    if stack.len() > OPTIONAL_DEPTH_MAX {
                        return Err(format!("pattern \"{pattern}\" has too many nested brackets"));
                    }
                    stack.push(Vec::new());
                    at += 1;
                }
                ']' => {
                    let inner = stack.pop().filter(|_| !stack.is_empty());
                    let inner = inner.ok_or_else(|| format!("pattern \"{pattern}\" has a ] without a ["))?;
                    push(&mut stack, Item::Optional(inner));
                    at += 1;
                }
                '{' | '}' | '#' => return Err(format!("pattern \"{pattern}\" has the reserved character \"{c}\"")),
                c if c.is_ascii_alphabetic() => {
                    let item = item(c, count).ok_or_else(|| {
                        format!("pattern \"{pattern}\" has \"{}\", which is not supported", c.to_string().repeat(count))
                    })?;
                    push(&mut stack, item);
                    at += count;
                }
                c => {
                    literal(&mut stack, &c.to_string());
                    at += 1;
                }
            }
        }
        // Brackets left open are closed at the end, as Java does it.
        while stack.len() > 1 {
            let inner = stack.pop().unwrap_or_default();
            push(&mut stack, Item::Optional(inner));
        }
        Ok(Self { items: stack.pop().unwrap_or_default() })
    }
}

fn push(stack: &mut [Vec<Item>], item: Item) {
    if let Some(top) = stack.last_mut() {
        top.push(item);
    }
}

fn literal(stack: &mut [Vec<Item>], text: &str) {
    let Some(top) = stack.last_mut() else { return };
    if let Some(Item::Literal(before)) = top.last_mut() {
        before.push_str(text);
    } else {
        top.push(Item::Literal(text.to_owned()));
    }
}

/// The text of the quotes that open at `at`, and what follows them.
fn quoted(chars: &[char], at: usize) -> Option<(String, usize)> {
    if chars.get(at + 1) == Some(&'\'') {
        return Some(("'".into(), at + 2));
    }
    let mut text = String::new();
    let mut i = at + 1;
    loop {
        match (chars.get(i)?, chars.get(i + 1)) {
            ('\'', Some('\'')) => {
                text.push('\'');
                i += 2;
            }
            ('\'', _) => return Some((text, i + 1)),
            (c, _) => {
                text.push(*c);
                i += 1;
            }
        }
    }
}

/// Widest that a number may be.
const DIGITS_MAX: usize = 19;

fn item(letter: char, count: usize) -> Option<Item> {
    let number = |field, min, max, sign| Some(Item::Number { field, min, max, sign });
    let two = |field| match count {
        1 => number(field, 1, DIGITS_MAX, Sign::Normal),
        2 => number(field, 2, 2, Sign::Never),
        _ => None,
    };
    let style = || match count {
        4 => Some(TextStyle::Full),
        5 => Some(TextStyle::Narrow),
        _ => Some(TextStyle::Short),
    };
    match letter {
        'u' | 'y' => {
            let field = if letter == 'u' { Field::Year } else { Field::YearOfEra };
            match count {
                2 => Some(Item::ReducedYear(field)),
                1 | 3 => number(field, count, DIGITS_MAX, Sign::Normal),
                n if n <= DIGITS_MAX => number(field, n, DIGITS_MAX, Sign::ExceedsPad),
                _ => None,
            }
        }
        'Q' | 'q' if count <= 2 => two(Field::Quarter),
        'M' | 'L' => match count {
            1 | 2 => two(Field::Month),
            3..=5 => style().map(Item::MonthText),
            _ => None,
        },
        'd' => two(Field::Day),
        'D' => match count {
            1 => number(Field::DayOfYear, 1, DIGITS_MAX, Sign::Normal),
            2 => number(Field::DayOfYear, 2, 3, Sign::Never),
            3 => number(Field::DayOfYear, 3, 3, Sign::Never),
            _ => None,
        },
        'E' if count <= 5 => style().map(Item::DayText),
        'e' | 'c' => match count {
            1 | 2 => two(Field::DayOfWeek),
            3..=5 => style().map(Item::DayText),
            _ => None,
        },
        'a' if count == 1 => Some(Item::AmPm),
        'H' => two(Field::Hour),
        'k' => two(Field::ClockHour),
        'K' => two(Field::HourOfAmPm),
        'h' => two(Field::ClockHourOfAmPm),
        'm' => two(Field::Minute),
        's' => two(Field::Second),
        'S' if count <= 9 => Some(Item::Fraction(count)),
        'n' if count <= DIGITS_MAX => number(Field::Nano, count, DIGITS_MAX, Sign::Normal),
        'A' if count <= DIGITS_MAX => number(Field::MilliOfDay, count, DIGITS_MAX, Sign::Normal),
        'N' if count <= DIGITS_MAX => number(Field::NanoOfDay, count, DIGITS_MAX, Sign::Normal),
        'G' if count <= 5 => style().map(Item::Era),
        'V' if count == 2 => Some(Item::ZoneId),
        'z' if count <= 4 => Some(Item::ZoneName),
        'O' if count == 1 || count == 4 => Some(Item::LocalisedOffset { full: count == 4 }),
        'X' | 'x' => {
            let zero = match (letter, count) {
                ('X', 1..=5) => "Z",
                (_, 1) => "+00",
                (_, 2 | 4) => "+0000",
                (_, 3 | 5) => "+00:00",
                _ => return None,
            };
            let colons = count == 3 || count == 5;
            Some(Item::Offset { zero, short: count == 1, colons, seconds: count > 3 })
        }
        'Z' => match count {
            1..=3 => Some(Item::Offset { zero: "+0000", short: false, colons: false, seconds: false }),
            4 => Some(Item::LocalisedOffset { full: true }),
            5 => Some(Item::Offset { zero: "Z", short: false, colons: true, seconds: true }),
            _ => None,
        },
        _ => None,
    }
}
