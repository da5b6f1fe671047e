//! Text to syntax trees: the statements, queries, types and expressions of the ksqlDB dialect.
//!
//! Owns the grammar, the splitting of text into statements, and what is said about text that does not follow the grammar.
//! Not here: what names and types mean (the analyser), replacing variables (`substitute`).
//!
//! Invariants: no text can make it panic, overflow the stack or need more than linear time; all places are in the text that
//! was given, also when variables were replaced in it.

mod cursor;
mod expr;
mod query;
mod statement;
mod types;

use crate::diagnostic::{Code, Diagnostic, Result};
use crate::substitute::{Substituted, Variables, substitute};
use crate::syntax::{ClientCommand, Expr, Parsed, Span, Statement, TypeName};
use crate::token::{Token, TokenKind, tokenize};

use cursor::Cursor;

/// All statements of a text. The last one may lack its semicolon.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    let tokens = significant(tokenize(text));
    statements(&tokens).map(|part| parse_part(text, part, Span::new)).collect()
}

/// As [`parse`], with `${name}` replaced in each statement before it is read; DEFINE and UNDEFINE are in effect for the
/// statements behind them.
pub fn parse_with_variables(text: &str, variables: &Variables) -> Result<Vec<Parsed>> {
    let mut variables = variables.clone();
    let mut parsed = Vec::new();
    for span in split(text) {
        let piece = span.slice(text);
        let back = |start, end| Span::new(span.start + start, span.start + end);
        let moved = |d: Diagnostic| match d.span {
            Some(at) => d.with_span(back(at.start, at.end)),
            None => d,
        };
        let piece = substitute(piece, &variables).map_err(moved)?;
        for statement in parse_substituted(&piece, span.start)? {
            match &statement.statement {
                Statement::Define(define) => {
                    variables.define(&define.name.value, define.value.node.as_str());
                }
                Statement::Undefine { name } => {
                    variables.undefine(&name.value);
                }
                _ => {}
            }
            parsed.push(statement);
        }
    }
    Ok(parsed)
}

fn parse_substituted(piece: &Substituted<'_>, offset: usize) -> Result<Vec<Parsed>> {
    let tokens = significant(tokenize(&piece.text));
    let source = |start, end| {
        let span = piece.source(Span::new(start, end));
        Span::new(offset + span.start, offset + span.end)
    };
    // A value may contain semicolons.
    statements(&tokens).map(|part| parse_part(&piece.text, part, source)).collect()
}

/// The one statement of a text.
pub fn parse_statement(text: &str) -> Result<Parsed> {
    let mut parsed = parse(text)?;
    let last = parsed.pop();
    match (last, parsed.first()) {
        (Some(only), None) => Ok(only),
        (Some(last), Some(_)) => Err(Diagnostic::at(Code::Syntax, last.span, "expected one statement, found several")),
        (None, _) => Err(Diagnostic::at(Code::Syntax, Span::default(), "expected a statement, found nothing")),
    }
}

/// The one expression of a text.
pub fn parse_expression(text: &str) -> Result<Expr> {
    whole(text, |cursor| cursor.expression())
}

/// The one type of a text.
pub fn parse_type(text: &str) -> Result<TypeName> {
    whole(text, |cursor| cursor.type_name())
}

/// A command for the client alone; `None` if the text does not begin like one.
pub fn parse_client_command(text: &str) -> Option<Result<ClientCommand>> {
    let mut tokens = significant(tokenize(text));
    match tokens.as_slice() {
        [first, second, ..] if first.kind.is_word("RUN") && second.kind.is_word("SCRIPT") => {}
        _ => return None,
    }
    tokens.pop_if(|last| last.kind.is_symbol(";"));
    let mut cursor = Cursor::new(text, &tokens, Span::new);
    Some(cursor.client_command().and_then(|command| cursor.end().map(|()| command)))
}

/// The places of the statements of a text, each without its semicolon; the last one may be incomplete.
pub fn split(text: &str) -> Vec<Span> {
    let tokens = significant(tokenize(text));
    statements(&tokens).filter_map(span_of).collect()
}

/// Whether a text can be executed as it is: it is empty, or ends with the semicolon of its last statement.
pub fn is_complete(text: &str) -> bool {
    let tokens = tokenize(text);
    let open = tokens.last().is_some_and(|t| matches!(t.kind, TokenKind::Unterminated(_)));
    let tokens = significant(tokens);
    !open && tokens.last().is_none_or(|t| t.kind.is_symbol(";"))
}

/// What can stand at the end of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completions {
    /// Where the word begins that is to be completed; the length of the text if a new one begins.
    pub start: usize,
    /// The keywords that go on with what is there.
    pub words: Vec<&'static str>,
    /// The class of names that can stand here: "the name of a source", "an expression", "a type" ...
    pub name: Option<&'static str>,
}

/// What can stand at the end of a text; nothing if the text in front of it is already wrong.
pub fn complete(text: &str) -> Completions {
    let mut tokens = tokenize(text);
    let word = tokens.pop_if(|last| matches!(last.kind, TokenKind::Word(_)) && last.span.end == text.len());
    let start = word.as_ref().map_or(text.len(), |w| w.span.start);
    let prefix = match word.map(|w| w.kind) {
        Some(TokenKind::Word(word)) => word,
        _ => String::new(),
    };
    // Within a comment or string nothing is completed.
    let closed = tokens.last().is_none_or(|t| match t.kind {
        TokenKind::Unterminated(_) => false,
        TokenKind::Comment => t.span.end < text.len() || text.ends_with("*/"),
        _ => true,
    });
    if !closed {
        return Completions { start, ..Completions::default() };
    }
    let tokens = significant(tokens);
    let last = tokens.rsplit(|t| t.kind.is_symbol(";")).next().unwrap_or(&[]);
    let mut cursor = Cursor::new(text, last, Span::new);
    // Right or wrong, what counts is how far it got.
    let _ = cursor.statement();
    let (mut words, name) = cursor.expected_at_end();
    words.retain(|w| w.starts_with(&prefix));
    words.sort_unstable();
    words.dedup();
    Completions { start, words, name }
}

fn significant(mut tokens: Vec<Token>) -> Vec<Token> {
    tokens.retain(|t| t.kind != TokenKind::Comment);
    tokens
}

fn statements(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    tokens.split(|t| t.kind.is_symbol(";")).filter(|part| !part.is_empty())
}

fn span_of(tokens: &[Token]) -> Option<Span> {
    Some(tokens.first()?.span.to(tokens.last()?.span))
}

fn parse_part(text: &str, tokens: &[Token], source: impl Fn(usize, usize) -> Span) -> Result<Parsed> {
    let mut cursor = Cursor::new(text, tokens, &source);
    let statement = cursor.statement()?;
    cursor.end()?;
    let span = span_of(tokens).unwrap_or_default();
    Ok(Parsed { statement, text: span.slice(text).to_string(), span: source(span.start, span.end) })
}

fn whole<T>(text: &str, read: impl FnOnce(&mut Cursor<'_>) -> Result<T>) -> Result<T> {
    let tokens = significant(tokenize(text));
    let mut cursor = Cursor::new(text, &tokens, Span::new);
    let value = read(&mut cursor)?;
    cursor.end()?;
    Ok(value)
}
