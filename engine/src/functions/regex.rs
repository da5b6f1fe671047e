//! REGULAR_EXPRESSION functions. Patterns are Java's as far as the `regex` crate has them (no look-around, no back
//! references), with Java's ASCII meaning of `\d`, `\w`, `\s`.

use regex::{Captures, Regex, RegexBuilder};

use super::typed::{Builtin, Int, List, Memo, Pat, Str, VALUE_BYTES_MAX, scalar};

const CATEGORY: &str = "REGULAR_EXPRESSION";
/// Memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub fn register(b: &mut Builtin) {
    b.add("REGEXP_EXTRACT", CATEGORY, "the first match of a pattern, or a group of it", vec![
        scalar!(memo: Memo<Regex>; (pattern: Pat, text: Str) -> Str => extract(memo, pattern, text, 0)),
        scalar!(memo: Memo<Regex>; (pattern: Pat, text: Str, group: Int) -> Str => extract(memo, pattern, text, group)),
    ]);
    b.add(
        "REGEXP_EXTRACT_ALL",
        CATEGORY,
        "all matches of a pattern, or a group of each",
        vec![
            scalar!(memo: Memo<Regex>; (pattern: Pat, text: Str) -> List<Str> => extract_all(memo, pattern, text, 0)),
            scalar!(memo: Memo<Regex>; (pattern: Pat, text: Str, group: Int) -> List<Str> =>
            extract_all(memo, pattern, text, group)),
        ],
    );
    b.add(
        "REGEXP_REPLACE",
        CATEGORY,
        "the text with all matches of a pattern replaced",
        vec![scalar!(memo: Memo<Regex>; (text: Str, pattern: Pat, replacement: Str) -> Str =>
            replace(memo, text, pattern, replacement))],
    );
    b.add(
        "REGEXP_SPLIT_TO_ARRAY",
        CATEGORY,
        "the parts of a text between the matches of a pattern",
        vec![scalar!(memo: Memo<Regex>; (text: Str, pattern: Pat) -> List<Str> => split(memo, text, pattern))],
    );
}

pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&ascii_classes(pattern)).size_limit(PATTERN_BYTES_MAX).build().map_err(|e| {
        let why = e.to_string();
        // Above it is the pattern, with a mark.
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").trim_end_matches('.');
        format!("pattern \"{pattern}\" cannot be used: {why}")
    })
}

/// `\d`, `\w`, `\s` and their opposites as the sets that Java means.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[a-zA-Z0-9_]"),
            Some('W') => out.push_str("[^a-zA-Z0-9_]"),
            Some('s') => out.push_str(r"[ \t\n\x0B\f\r]"),
            Some('S') => out.push_str(r"[^ \t\n\x0B\f\r]"),
            Some('Z') => out.push_str(r"(?:\n|\r\n)?\z"),
            Some('Q') => {
                // Literal up to \E.
                let rest = chars.as_str();
                let end = rest.find("\\E").unwrap_or(rest.len());
                out.push_str(&regex::escape(&rest[..end]));
                chars = rest.get(end + 2..).unwrap_or("").chars();
            }
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

fn extract(memo: &mut Memo<Regex>, pattern: &str, text: &str, group: i32) -> Result<Option<String>, String> {
    let regex = memo.get(pattern, compile)?;
    let Ok(group) = usize::try_from(group) else { return Ok(None) };
    Ok(regex.captures(text).and_then(|c| c.get(group)).map(|m| m.as_str().to_owned()))
}

fn extract_all(
    memo: &mut Memo<Regex>,
    pattern: &str,
    text: &str,
    group: i32,
) -> Result<Option<Vec<Option<String>>>, String> {
    let regex = memo.get(pattern, compile)?;
    match usize::try_from(group).ok().filter(|g| *g < regex.captures_len()) {
        None => Ok(None),
        Some(group) => {
            let all = regex.captures_iter(text).map(|c| c.get(group).map(|m| m.as_str().to_owned()));
            Ok(Some(all.collect()))
        }
    }
}

fn replace(memo: &mut Memo<Regex>, text: &str, pattern: &str, replacement: &str) -> Result<String, String> {
    let regex = memo.get(pattern, compile)?;
    let groups = regex.captures_len();
    // Checked once, so that a match cannot fail half way.
    let parts = parse_replacement(replacement, groups)?;
    let (mut out, mut done) = (String::new(), 0);
    for found in regex.captures_iter(text) {
        let Some(whole) = found.get(0) else { continue };
        out.push_str(&text[done..whole.start()]);
        out.push_str(&expand(&parts, &found));
        done = whole.end();
        if out.len() > VALUE_BYTES_MAX.max(text.len()) {
            return Err("the text with its replacements is too large".into());
        }
    }
    out.push_str(&text[done..]);
    Ok(out)
}

enum Part {
    Text(String),
    Group(usize),
    Name(String),
}

/// Java's form: `$1`, `${name}`, backslash before anything meant as itself.
fn parse_replacement(replacement: &str, groups: usize) -> Result<Vec<Part>, String> {
    let wrong = |why: &str| format!("replacement \"{replacement}\" {why}");
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut chars = replacement.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().ok_or_else(|| wrong("ends with a backslash"))?),
            '$' => {
                parts.push(Part::Text(std::mem::take(&mut text)));
                if chars.next_if_eq(&'{').is_some() {
                    let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '}')).collect();
                    chars.next_if_eq(&'}').ok_or_else(|| wrong("has an open {"))?;
                    parts.push(Part::Name(name));
                    continue;
                }
                let first =
                    chars.next().and_then(|c| c.to_digit(10)).ok_or_else(|| wrong("has a $ without a group"))?;
                let mut group = first as usize;
                if group >= groups {
                    return Err(wrong(&format!("names group {group}, which the pattern does not have")));
                }
                // As many digits as still name a group.
                while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                    let longer = group * 10 + digit as usize;
                    if longer >= groups {
                        break;
                    }
                    group = longer;
                    chars.next();
                }
                parts.push(Part::Group(group));
            }
            c => text.push(c),
        }
    }
    parts.push(Part::Text(text));
    Ok(parts)
}

fn expand(parts: &[Part], found: &Captures<'_>) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Group(group) => out.push_str(found.get(*group).map_or("", |m| m.as_str())),
            Part::Name(name) => out.push_str(found.name(name).map_or("", |m| m.as_str())),
        }
    }
    out
}

/// Parts between the matches, empty ones kept; an empty pattern gives the characters. With a pattern that takes an empty
/// text for a match there is no empty part at either end.
fn split(memo: &mut Memo<Regex>, text: &str, pattern: &str) -> Result<Vec<String>, String> {
    if pattern.is_empty() {
        return Ok(if text.is_empty() { vec![String::new()] } else { text.chars().map(String::from).collect() });
    }
    let regex = memo.get(pattern, compile)?;
    let whole = |m: regex::Match<'_>| m.is_empty();
    if !regex.find("").is_some_and(whole) {
        return Ok(regex.split(text).map(str::to_owned).collect());
    }
    let (mut parts, mut done) = (Vec::new(), 0);
    for found in regex.find_iter(text) {
        if found.end() == 0 {
            continue;
        }
        parts.push(text[done..found.start()].to_owned());
        done = found.end();
    }
    parts.push(text[done..].to_owned());
    while parts.len() > 1 && parts.last().is_some_and(String::is_empty) {
        parts.pop();
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_java_s() {
        let mut memo = Memo::default();
        let mut run = |text: &str, pattern: &str, with: &str| replace(&mut memo, text, pattern, with);
        assert_eq!(run("a1b2", r"([a-z])(\d)", "$2$1"), Ok("1a2b".into()));
        assert_eq!(run("aab", "a", r"\$"), Ok("$$b".into()));
        assert_eq!(run("ab", "(a)", "$12"), Ok("a2b".into()));
        assert!(run("ab", "a", "$3").is_err());
        assert!(run("ab", "(", "x").is_err());
        assert_eq!(run("a.b", r"\Q.\E", "-"), Ok("a-b".into()));
    }
}
