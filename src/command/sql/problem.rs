//! Shows what is wrong with a statement, with a mark under the place.
//!
//! Problems found here and problems that the server found look the same. Places are in the whole text that the user gave
//! (a script, say), not in the one statement that was sent.

use millpond_sql::diagnostic::{Code, Diagnostic};
use millpond_sql::syntax::Span;

use super::client::Refusal;
use super::table::printable;

/// A text that statements come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The file, if it is one.
    pub name: Option<&'a str>,
    pub text: &'a str,
}

impl<'a> Source<'a> {
    pub fn typed(text: &'a str) -> Self {
        Self { name: None, text }
    }

    /// A diagnostic about the statement that starts at `offset`.
    pub fn render(&self, diagnostic: Diagnostic, offset: usize) -> String {
        let diagnostic = match diagnostic.span {
            Some(span) => diagnostic.with_span(Span::new(span.start + offset, span.end + offset)),
            None => diagnostic,
        };
        self.named(diagnostic.render(self.text).trim_end())
    }

    /// What the server says about the statement at `span`.
    pub fn refusal(&self, refusal: &Refusal, span: Span) -> String {
        let code = refusal.sql_code.as_deref().and_then(code);
        let Some(code) = code else {
            return self.named(&format!("error: {}", lines(&refusal.message)));
        };
        let mut message = refusal.message.as_str();
        let mut diagnostic = Diagnostic::new(code, "");
        if let Some(position) = refusal.position {
            message = without_place(message);
            message = message.strip_prefix("Syntax Error\n").unwrap_or(message);
            diagnostic = diagnostic.with_span(Span::new(position.start, position.end));
        }
        if let Some(hint) = &refusal.hint {
            message = without_end(message, hint);
            diagnostic = diagnostic.with_hint(lines(hint));
        }
        diagnostic.message = lines(message);
        self.render(diagnostic, span.start)
    }

    fn named(&self, text: &str) -> String {
        match self.name {
            Some(name) => format!("{name}: {text}"),
            None => text.to_string(),
        }
    }
}

/// Line by line without control characters.
fn lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Without the `line 1:2: ` that the mark under the place makes superfluous.
fn without_place(message: &str) -> &str {
    let place = |rest: &str| -> Option<usize> {
        let (line, rest) = rest.strip_prefix("line ")?.split_once(':')?;
        let (column, rest) = rest.split_once(": ")?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        (digits(line) && digits(column)).then(|| message.len() - rest.len())
    };
    place(message).and_then(|start| message.get(start..)).unwrap_or(message)
}

/// Without the hint that ends it as a sentence of its own.
fn without_end<'a>(message: &'a str, hint: &str) -> &'a str {
    let (said, hint) = (message.trim_end_matches('.'), hint.trim_end_matches('.'));
    let start = said.len().saturating_sub(hint.len());
    match (said.get(..start), said.get(start..)) {
        (Some(before), Some(end)) if end.eq_ignore_ascii_case(hint) => before.trim_end().trim_end_matches(';'),
        _ => message,
    }
}

fn code(text: &str) -> Option<Code> {
    const CODES: [Code; 18] = [
        Code::Syntax,
        Code::Literal,
        Code::TooLarge,
        Code::UndefinedVariable,
        Code::UnknownName,
        Code::AmbiguousName,
        Code::DuplicateName,
        Code::Type,
        Code::Property,
        Code::Format,
        Code::Key,
        Code::Join,
        Code::Window,
        Code::Aggregate,
        Code::Conflict,
        Code::Invalid,
        Code::Unsupported,
        Code::Bug,
    ];
    CODES.into_iter().find(|code| code.as_str() == text)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::client::Position;
    use super::*;

    const SCRIPT: &str = "SHOW STREAMS;\nSELECT ID,\n  VV FROM S;\n";

    #[test]
    fn the_place_of_a_refusal_is_in_the_script() {
        let start = SCRIPT.find("SELECT").expect("it is there");
        let at = SCRIPT.find("VV").expect("it is there") - start;
        let refusal = Refusal {
            message: "line 2:3: there is no column \"VV\"; did you mean \"V\"?".into(),
            sql_code: Some("SQL010".into()),
            hint: Some("did you mean \"V\"?".into()),
            position: Some(Position { start: at, end: at + 2 }),
            ..Refusal::default()
        };
        let source = Source { name: Some("script.sql"), text: SCRIPT };
        expect![[r#"
            script.sql: error[SQL010]: there is no column "VV"
             --> line 3, column 3
              |
            3 |   VV FROM S;
              |   ^^
              = hint: did you mean "V"?"#]]
        .assert_eq(&source.refusal(&refusal, Span::new(start, SCRIPT.len() - 2)));
    }

    #[test]
    fn a_refusal_without_a_place_is_one_line() {
        let refusal = Refusal { message: "no\u{1b}[2J such query".into(), ..Refusal::default() };
        expect![[r#"error: no\u{1b}[2J such query"#]]
            .assert_eq(&Source::typed("TERMINATE x").refusal(&refusal, Span::new(0, 11)));
    }

    #[test]
    fn a_syntax_error_is_marked() {
        let text = "SHOW STREAMS; SELECT * FORM S;";
        let statement = text.get(14..29).expect("it is there");
        let error = millpond_sql::parse(statement).expect_err("it is wrong");
        let shown = Source::typed(text).render(error, 14);
        let marked = shown.lines().find(|line| line.contains('^')).expect("a mark");
        assert_eq!(marked.find('^'), Some("1 | ".len() + 23), "{shown}");
    }
}
