//! Replaces `${name}` by the value of a session variable, as text, before anything is parsed.
//!
//! Owns the variables and the map from the new text back to the user's. It also replaces inside strings and comments;
//! `$${name}` stands for the text `${name}`; a name that is not defined stays as it is, and is refused by the parser unless
//! it stands in a string.
//!
//! Invariants: values are not looked at again, so nothing grows but by the given text; the result is at most
//! [`SUBSTITUTED_LEN_MAX`] long.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::syntax::Span;
use crate::token::variable_at;

/// Most bytes that a text can have after substitution.
pub const SUBSTITUTED_LEN_MAX: usize = 4 << 20;

/// Session variables. Names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    values: BTreeMap<String, String>,
}

impl Variables {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; returns the value that it had.
    pub fn define(&mut self, name: &str, value: impl Into<String>) -> Option<String> {
        self.values.insert(name.to_ascii_uppercase(), value.into())
    }

    /// Removes a variable; returns the value that it had.
    pub fn undefine(&mut self, name: &str) -> Option<String> {
        self.values.remove(&name.to_ascii_uppercase())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&name.to_ascii_uppercase()).map(String::as_str)
    }

    /// Upper-case names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: AsRef<str>, V: Into<String>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut variables = Self::new();
        for (name, value) in pairs {
            variables.define(name.as_ref(), value);
        }
        variables
    }
}

/// A text after substitution.
#[derive(Clone, Debug)]
pub struct Substituted<'a> {
    pub text: Cow<'a, str>,
    map: SpanMap,
}

impl Substituted<'_> {
    /// The place in the user's text. What comes from a variable has the place of its reference.
    pub fn source(&self, span: Span) -> Span {
        self.map.source(span)
    }
}

/// Replaces the variables of a text.
pub fn substitute<'a>(text: &'a str, variables: &Variables) -> Result<Substituted<'a>> {
    let mut out = String::new();
    let mut map = SpanMap::default();
    // Up to here the text is in `out`.
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('$')) {
        let start = at + found;
        let (end, value) = if let Some(name) = variable_at(text, start + 1) {
            let end = start + "$${}".len() + name.len();
            (end, &text[start + 1..end])
        } else if let Some(name) = variable_at(text, start) {
            let end = start + "${}".len() + name.len();
            match variables.get(name) {
                Some(value) => (end, value),
                None => {
                    at = end;
                    continue;
                }
            }
        } else {
            at = start + 1;
            continue;
        };
        out.push_str(&text[copied..start]);
        if out.len() + value.len() + (text.len() - end) > SUBSTITUTED_LEN_MAX {
            let message =
                format!("the text is longer than {SUBSTITUTED_LEN_MAX} bytes with the values of its variables");
            return Err(Diagnostic::at(Code::TooLarge, Span::new(start, end), message));
        }
        map.pieces.push(Piece { target: out.len()..out.len() + value.len(), source: Span::new(start, end) });
        out.push_str(value);
        copied = end;
        at = end;
    }
    if map.pieces.is_empty() {
        return Ok(Substituted { text: Cow::Borrowed(text), map });
    }
    out.push_str(&text[copied..]);
    Ok(Substituted { text: Cow::Owned(out), map })
}

/// The replaced pieces, in their order; between them both texts are the same.
#[derive(Clone, Debug, Default)]
struct SpanMap {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    target: std::ops::Range<usize>,
    source: Span,
}

impl SpanMap {
    fn source(&self, span: Span) -> Span {
        let start = self.place(span.start, false);
        Span::new(start, self.place(span.end, true).max(start))
    }

    /// An end that lies at the border of a piece belongs to what is in front of it, a start to what is behind.
    fn place(&self, byte: usize, is_end: bool) -> usize {
        let before = |p: &Piece| if is_end { p.target.start < byte } else { p.target.start <= byte };
        let Some(piece) = self.pieces.partition_point(before).checked_sub(1).and_then(|i| self.pieces.get(i)) else {
            return byte;
        };
        let within = if is_end { byte <= piece.target.end } else { byte < piece.target.end };
        match (within, is_end) {
            (true, false) => piece.source.start,
            (true, true) => piece.source.end,
            (false, _) => piece.source.end + (byte - piece.target.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("a", "xyz"), ("empty", ""), ("ref", "${a}")].into_iter().collect()
    }

    #[test]
    fn values_are_not_looked_at_again() -> Result<()> {
        let out = |text| substitute(text, &variables()).map(|s| s.text.into_owned());
        assert_eq!(out("1 ${A} '${a}' ${ref} ${empty}|")?, "1 xyz 'xyz' ${a} |");
        assert_eq!(out("$${a} $$${a} ${b} ${a ${1} $")?, "${a} $${a} ${b} ${a ${1} $");
        Ok(())
    }

    #[test]
    fn places_go_back() -> Result<()> {
        let text = "ab ${a} cd ${empty}e";
        let new = substitute(text, &variables())?;
        for word in ["ab", "cd", "e"] {
            let start = new.text.find(word).unwrap_or_default();
            assert_eq!(new.source(Span::new(start, start + word.len())).slice(text), word);
        }
        let start = new.text.find("yz").unwrap_or_default();
        assert_eq!(new.source(Span::new(start, start + 2)).slice(text), "${a}");
        assert_eq!(new.source(Span::new(0, start)).slice(text), "ab ${a}");
        Ok(())
    }

    #[test]
    fn growth_is_limited() {
        let mut variables = Variables::new();
        variables.define("v", "x".repeat(1 << 20));
        assert!(substitute(&"${v}".repeat(3), &variables).is_ok());
        let refused = substitute(&"${v}".repeat(5), &variables).err();
        assert_eq!(refused.map(|d| d.code), Some(Code::TooLarge));
    }
}
