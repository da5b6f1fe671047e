//! MASK and its kin: characters replaced by class. A NULL mask leaves its class as it is; one that is not one
//! character is an error.

use super::typed::{Builtin, Def, Int, Opt, Str, scalar};

const CATEGORY: &str = "STRING";

pub fn register(b: &mut Builtin) {
    b.add(
        "MASK",
        CATEGORY,
        "the text with every character masked",
        vec![
            scalar!((text: Str) -> Str => mask(text, Masks::DEFAULT, |_, _| true)),
            scalar!((text: Str, upper: Opt<Str>, lower: Opt<Str>, digit: Opt<Str>, other: Opt<Str>) -> Str =>
            Masks::new(upper, lower, digit, other).map(|m| mask(text, m, |_, _| true))),
        ],
    );
    b.add("MASK_LEFT", CATEGORY, "the text with the first characters masked", counted(|i, n, _| i < n));
    b.add("MASK_RIGHT", CATEGORY, "the text with the last characters masked", counted(|i, n, length| i + n >= length));
    b.add("MASK_KEEP_LEFT", CATEGORY, "the text with all but the first characters masked", counted(|i, n, _| i >= n));
    b.add(
        "MASK_KEEP_RIGHT",
        CATEGORY,
        "the text with all but the last characters masked",
        counted(|i, n, length| i + n < length),
    );
}

/// The overloads with a count; `wanted` says of a position, the count and the length whether to mask.
fn counted(wanted: fn(usize, usize, usize) -> bool) -> Vec<Def> {
    let run = move |text: &str, count: i32, masks: Masks| {
        let count = usize::try_from(count).map_err(|_| format!("the count {count} is negative"))?;
        Ok::<_, String>(mask(text, masks, |i, length| wanted(i, count, length)))
    };
    vec![
        scalar!((text: Str, count: Int) -> Str => run(text, count, Masks::DEFAULT)),
        scalar!((text: Str, count: Int, upper: Opt<Str>, lower: Opt<Str>, digit: Opt<Str>, other: Opt<Str>) -> Str =>
            Masks::new(upper, lower, digit, other).and_then(|m| run(text, count, m))),
    ]
}

#[derive(Clone, Copy)]
struct Masks {
    upper: Option<char>,
    lower: Option<char>,
    digit: Option<char>,
    other: Option<char>,
}

impl Masks {
    const DEFAULT: Self = Self { upper: Some('X'), lower: Some('x'), digit: Some('n'), other: Some('-') };

    fn new(upper: Option<&str>, lower: Option<&str>, digit: Option<&str>, other: Option<&str>) -> Result<Self, String> {
        let first = |mask: Option<&str>| {
            let Some(mask) = mask else { return Ok(None) };
            let mut chars = mask.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Ok(Some(c)),
                _ => Err(format!("a mask is one character, not \"{mask}\"")),
            }
        };
        Ok(Self { upper: first(upper)?, lower: first(lower)?, digit: first(digit)?, other: first(other)? })
    }
}

fn mask(text: &str, masks: Masks, wanted: impl Fn(usize, usize) -> bool) -> String {
    let length = text.chars().count();
    text.chars()
        .enumerate()
        .map(|(i, c)| {
            let by = match c {
                _ if !wanted(i, length) => None,
                c if c.is_uppercase() => masks.upper,
                c if c.is_lowercase() => masks.lower,
                c if c.is_numeric() => masks.digit,
                _ => masks.other,
            };
            by.unwrap_or(c)
        })
        .collect()
}
