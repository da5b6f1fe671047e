//! What is wrong with a statement: a code, a sentence, the place, and what would be right.
//!
//! Owns how a diagnostic is shown to a person. Messages are lower case, without a full stop, names in double quotes.

use std::fmt;

use millpond_types::{Error, ErrorKind};

pub use crate::syntax::Span;

pub type Result<T, E = Diagnostic> = std::result::Result<T, E>;

/// The classes of problems. Each has a stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The text is not a statement of the dialect.
    Syntax,
    /// A literal that no type can hold.
    Literal,
    /// Nested too deeply, too long, expanded too often.
    TooLarge,
    /// A `${variable}` that is not defined.
    UndefinedVariable,
    /// A source, column, function, type or query that does not exist.
    UnknownName,
    /// A name that could mean several things.
    AmbiguousName,
    /// A name that is taken.
    DuplicateName,
    /// Types that do not fit.
    Type,
    /// A WITH property: unknown, missing, or with a wrong value.
    Property,
    /// A format that cannot hold what it should.
    Format,
    /// About keys: missing in the projection, of a wrong type, named twice.
    Key,
    /// About joins.
    Join,
    /// About windows.
    Window,
    /// About GROUP BY, HAVING and aggregate functions.
    Aggregate,
    /// A statement that contradicts what there is: still in use, read-only, not compatible.
    Conflict,
    /// Well formed and wrong for another reason.
    Invalid,
    /// Right, but this version cannot do it.
    Unsupported,
    /// A defect of Millpond.
    Bug,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "SQL001",
            Self::Literal => "SQL002",
            Self::TooLarge => "SQL003",
            Self::UndefinedVariable => "SQL004",
            Self::UnknownName => "SQL010",
            Self::AmbiguousName => "SQL011",
            Self::DuplicateName => "SQL012",
            Self::Type => "SQL020",
            Self::Property => "SQL030",
            Self::Format => "SQL031",
            Self::Key => "SQL040",
            Self::Join => "SQL041",
            Self::Window => "SQL042",
            Self::Aggregate => "SQL043",
            Self::Conflict => "SQL050",
            Self::Invalid => "SQL060",
            Self::Unsupported => "SQL900",
            Self::Bug => "SQL999",
        }
    }

    /// Whether the text could not even be read, so that no statement of it was understood.
    pub fn is_syntax(self) -> bool {
        matches!(self, Self::Syntax | Self::Literal | Self::TooLarge | Self::UndefinedVariable)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// Why, if the message does not say it.
    pub detail: Option<String>,
    /// What would be right.
    pub hint: Option<String>,
    /// Where, in the text that the user gave.
    pub span: Option<Span>,
}

impl Diagnostic {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None, span: None }
    }

    /// A problem at a place.
    pub fn at(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self::new(code, message).with_span(span)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::Unsupported, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Code::Bug, message)
    }

    #[must_use]
    pub fn with_span(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// Sets the place unless there is one already.
    #[must_use]
    pub fn or_span(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn kind(&self) -> ErrorKind {
        match self.code {
            Code::Unsupported => ErrorKind::Unsupported,
            Code::Bug => ErrorKind::Bug,
            Code::Conflict => ErrorKind::Conflict,
            Code::UnknownName => ErrorKind::NotFound,
            _ => ErrorKind::BadRequest,
        }
    }

    /// In one line, without the place: message, detail and hint.
    pub fn sentence(&self) -> String {
        let mut sentence = self.message.clone();
        for (mark, part) in [(": ", &self.detail), ("; ", &self.hint)] {
            if let Some(part) = part {
                sentence.push_str(mark);
                sentence.push_str(part);
            }
        }
        sentence
    }

    /// In one line as ksqlDB's clients know it: `line 1:32: Syntax Error: ` and the sentence. Lines and columns count
    /// from 1.
    pub fn with_position(&self, text: &str) -> String {
        match self.span {
            Some(span) => {
                let place = Place::of(text, span.start);
                let class = if self.code == Code::Syntax { "Syntax Error: " } else { "" };
                format!("line {}:{}: {class}{}", place.line, place.column + 1, self.sentence())
            }
            None => self.sentence(),
        }
    }

    /// For a terminal: message, the line with a mark under the place, detail and hint.
    pub fn render(&self, text: &str) -> String {
        let mut out = format!("error[{}]: {}\n", self.code, self.message);
        if let Some(span) = self.span {
            let place = Place::of(text, span.start);
            let number = place.line.to_string();
            let gutter = " ".repeat(number.len());
            // Tabs have no fixed width, so a tab in front of the mark stays a tab.
            let indent: String = place.before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let here = Span::new(span.start, span.end.min(place.line_end)).slice(text);
            let mark = "^".repeat(here.chars().count().max(1));
            out.push_str(&format!("{gutter}--> line {}, column {}\n", place.line, place.column + 1));
            out.push_str(&format!("{gutter} |\n{number} | {}\n{gutter} | {indent}{mark}\n", place.text));
        }
        if let Some(detail) = &self.detail {
            out.push_str(&format!("  = detail: {detail}\n"));
        }
        if let Some(hint) = &self.hint {
            out.push_str(&format!("  = hint: {hint}\n"));
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl std::error::Error for Diagnostic {}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Self {
        Error::new(diagnostic.kind(), diagnostic.sentence())
    }
}

/// A byte of a text as a person finds it.
struct Place<'a> {
    /// From 1.
    line: usize,
    /// In characters, from 0.
    column: usize,
    /// The whole line.
    text: &'a str,
    /// The part of the line in front of the place.
    before: &'a str,
    line_end: usize,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let (head, tail) = text.split_at(byte);
        let start = head.rfind('\n').map_or(0, |i| i + 1);
        let end = byte + tail.find('\n').unwrap_or(tail.len());
        let before = head.get(start..).unwrap_or("");
        Self {
            line: head.matches('\n').count() + 1,
            column: before.chars().count(),
            text: text.get(start..end).unwrap_or("").trim_end_matches('\r'),
            before,
            line_end: end,
        }
    }
}

/// The candidate that was most likely meant by a misspelt name: few edits away, ties go to the first.
pub fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LENGTH_MAX: usize = 64;
    let name: Vec<char> = name.chars().map(|c| c.to_ascii_uppercase()).take(LENGTH_MAX + 1).collect();
    if name.len() < 2 || name.len() > LENGTH_MAX {
        return None;
    }
    let edits_max = 1 + name.len() / 5;
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other: Vec<char> = candidate.chars().map(|c| c.to_ascii_uppercase()).collect();
            if other.len().abs_diff(name.len()) > edits_max {
                return None;
            }
            let edits = edit_distance(&name, &other);
            (edits <= edits_max && edits < name.len()).then_some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `a` into `b`.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestion_is_near_or_none() {
        let words = ["SELECT", "STREAM", "TABLE"];
        assert_eq!(suggest("selcet", words), Some("SELECT"));
        assert_eq!(suggest("STREM", words), Some("STREAM"));
        assert_eq!(suggest("ORANGE", words), None);
    }

    #[test]
    fn place_counts_characters() {
        let text = "SELECT 'ä'\n  FORM x;";
        let at = text.find("FORM").unwrap_or_default();
        let diagnostic = Diagnostic::at(Code::Syntax, Span::new(at, at + 4), "expected FROM");
        assert_eq!(diagnostic.with_position(text), "line 2:3: Syntax Error: expected FROM");
        assert!(diagnostic.render(text).contains("2 |   FORM x;\n  |   ^^^^\n"), "{}", diagnostic.render(text));
    }
}
