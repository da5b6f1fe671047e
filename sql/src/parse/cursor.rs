//! A place among the tokens of one statement, with what could have stood there.
//!
//! Every question that is answered with no is remembered until the cursor moves on; so the error at a place can name all
//! that was possible there.

use crate::diagnostic::{Code, Diagnostic, Result, suggest};
use crate::syntax::{DEPTH_MAX, Ident, Literal, Span, Spanned};
use crate::token::{Token, TokenKind, Unterminated, is_reserved};

/// Most alternatives that a message lists.
const EXPECTED_MAX: usize = 16;

pub(super) struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [Token],
    /// From a place in the tokens' text to one in the user's.
    source: Box<dyn Fn(usize, usize) -> Span + 'a>,
    index: usize,
    depth: usize,
    expected: Vec<Expected>,
    /// The token that was last taken for a name where it could have been a misspelt keyword.
    doubtful: Option<Doubt>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Word(&'static str),
    Symbol(&'static str),
    /// A class of tokens: "a name".
    Some(&'static str),
    Operator,
}

/// The words among the operators.
const OPERATOR_WORDS: [&str; 7] = ["AND", "OR", "BETWEEN", "LIKE", "IS", "IN", "NOT"];

#[derive(Clone, Copy)]
pub(super) struct Mark {
    index: usize,
    depth: usize,
}

struct Doubt {
    index: usize,
    instead: Vec<&'static str>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str, tokens: &'a [Token], source: impl Fn(usize, usize) -> Span + 'a) -> Self {
        Self { text, tokens, source: Box::new(source), index: 0, depth: 0, expected: Vec::new(), doubtful: None }
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.index)
    }

    /// The kind of the token `ahead` of the next one.
    pub(super) fn kind(&self, ahead: usize) -> Option<&'a TokenKind> {
        self.tokens.get(self.index + ahead).map(|t| &t.kind)
    }

    fn span_at(&self, index: usize) -> Span {
        match self.tokens.get(index) {
            Some(token) => (self.source)(token.span.start, token.span.end),
            // Behind the last token.
            None => self.tokens.last().map_or(Span::default(), |t| {
                let last = (self.source)(t.span.start, t.span.end);
                Span::new(last.end, last.end)
            }),
        }
    }

    /// The place of the next token.
    pub(super) fn span(&self) -> Span {
        self.span_at(self.index)
    }

    /// The place of the token that was taken last.
    pub(super) fn last_span(&self) -> Span {
        self.span_at(self.index.saturating_sub(1))
    }

    pub(super) fn advance(&mut self) -> Span {
        let span = self.span();
        self.index += 1;
        self.expected.clear();
        span
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { index: self.index, depth: self.depth }
    }

    /// Back to a mark, to read the same again in another way.
    pub(super) fn reset(&mut self, mark: Mark) {
        self.index = mark.index;
        self.depth = mark.depth;
        self.expected.clear();
    }

    /// The keywords, and the class of names, that could stand behind the last token.
    pub(super) fn expected_at_end(&self) -> (Vec<&'static str>, Option<&'static str>) {
        if !self.at_end() {
            return (vec![], None);
        }
        let name = self.expected.iter().find_map(|e| if let Expected::Some(what) = e { Some(*what) } else { None });
        (self.expected_words().collect(), name)
    }

    fn expected_words(&self) -> impl Iterator<Item = &'static str> {
        self.expected
            .iter()
            .flat_map(|e| match e {
                Expected::Word(word) => std::slice::from_ref(word),
                Expected::Operator => &OPERATOR_WORDS,
                _ => &[],
            })
            .copied()
    }

    pub(super) fn at_end(&self) -> bool {
        self.index >= self.tokens.len()
    }

    /// One level down; every call needs its [`Self::leave`].
    pub(super) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(too_deep(self.span())) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    pub(super) fn is_word_at(&self, ahead: usize, word: &str) -> bool {
        self.kind(ahead).is_some_and(|k| k.is_word(word))
    }

    pub(super) fn is_symbol_at(&self, ahead: usize, symbol: &str) -> bool {
        self.kind(ahead).is_some_and(|k| k.is_symbol(symbol))
    }

    fn missing(&mut self, expected: Expected) {
        if !self.expected.contains(&expected) {
            self.expected.push(expected);
        }
    }

    /// Notes that an operator could stand here.
    pub(super) fn no_operator(&mut self) {
        self.missing(Expected::Operator);
    }

    /// Whether a keyword is next.
    pub(super) fn is_word(&mut self, word: &'static str) -> bool {
        let found = self.is_word_at(0, word);
        if !found {
            self.missing(Expected::Word(word));
        }
        found
    }

    pub(super) fn is_symbol(&mut self, symbol: &'static str) -> bool {
        let found = self.is_symbol_at(0, symbol);
        if !found {
            self.missing(Expected::Symbol(symbol));
        }
        found
    }

    /// Takes a keyword if it is next.
    pub(super) fn eat(&mut self, word: &'static str) -> Option<Span> {
        self.is_word(word).then(|| self.advance())
    }

    /// Takes keywords if all of them are next.
    pub(super) fn eat_all(&mut self, words: &[&'static str]) -> Option<Span> {
        let first = *words.first()?;
        if !self.is_word(first) || !words.iter().enumerate().all(|(i, word)| self.is_word_at(i, word)) {
            return None;
        }
        let start = self.span();
        for _ in words {
            self.advance();
        }
        Some(start.to(self.last_span()))
    }

    pub(super) fn eat_symbol(&mut self, symbol: &'static str) -> Option<Span> {
        self.is_symbol(symbol).then(|| self.advance())
    }

    pub(super) fn expect(&mut self, word: &'static str) -> Result<Span> {
        self.eat(word).ok_or_else(|| self.unexpected())
    }

    pub(super) fn expect_symbol(&mut self, symbol: &'static str) -> Result<Span> {
        self.eat_symbol(symbol).ok_or_else(|| self.unexpected())
    }

    /// Nothing may be left.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.at_end() {
            return Ok(());
        }
        self.missing(Expected::Symbol(";"));
        Err(self.unexpected())
    }

    /// Takes a name if one is next: quoted, or a word that is not reserved.
    pub(super) fn eat_name(&mut self) -> Option<Ident> {
        let (value, quoted) = match self.kind(0)? {
            TokenKind::Word(word) if !is_reserved(word) => (word, false),
            TokenKind::Quoted(name) if !name.is_empty() => (name, true),
            _ => return None,
        };
        Some(Ident { value: value.clone(), quoted, span: self.advance() })
    }

    pub(super) fn name(&mut self, what: &'static str) -> Result<Ident> {
        if let Some(name) = self.eat_name() {
            return Ok(name);
        }
        let hint = match self.kind(0) {
            Some(TokenKind::Word(word)) if word == "SELECT" => Some("there are no queries within queries".to_string()),
            Some(TokenKind::Word(word)) if !matches!(word.as_str(), "FROM" | "NULL") => {
                Some(format!("\"{word}\" is a reserved word; as a name it is written `{word}`"))
            }
            Some(TokenKind::Quoted(_)) => Some("a name has at least one character".to_string()),
            Some(TokenKind::Text(text)) => Some(format!("names are written without quotes or as `{text}`")),
            _ => None,
        };
        let error = self.expected(what);
        Err(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }

    /// Notes that the name which was just taken may be one of these keywords, misspelt.
    pub(super) fn doubt(&mut self, instead: &[&'static str]) {
        self.doubtful = Some(Doubt { index: self.index.saturating_sub(1), instead: instead.to_vec() });
    }

    pub(super) fn eat_text(&mut self) -> Option<Spanned<String>> {
        match self.kind(0) {
            Some(TokenKind::Text(text)) => Some(Spanned::new(text.clone(), self.advance())),
            _ => {
                self.missing(Expected::Some("a string"));
                None
            }
        }
    }

    pub(super) fn text(&mut self) -> Result<Spanned<String>> {
        if let Some(text) = self.eat_text() {
            return Ok(text);
        }
        let hint = match self.kind(0) {
            Some(TokenKind::Quoted(name)) => Some(format!("strings are written in single quotes: '{name}'")),
            _ => None,
        };
        let error = self.unexpected();
        Err(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }

    /// A topic or subject: a name in the case in which it was written, or a string.
    pub(super) fn outside_name(&mut self, what: &'static str) -> Result<Spanned<String>> {
        let written = self.peek().map(|t| t.span.slice(self.text));
        if let Some(name) = self.eat_name() {
            let value = if name.quoted { name.value } else { written.unwrap_or_default().to_string() };
            return Ok(Spanned::new(value, name.span));
        }
        match self.eat_text() {
            Some(text) => Ok(text),
            None => Err(self.expected(what)),
        }
    }

    /// A number without dot, exponent and sign.
    pub(super) fn count(&mut self) -> Result<Spanned<u64>> {
        if let Some(TokenKind::Integer(digits)) = self.kind(0) {
            let span = self.advance();
            return match digits.parse() {
                Ok(number) => Ok(Spanned::new(number, span)),
                Err(_) => Err(Diagnostic::at(Code::Literal, span, format!("the number {digits} is too large"))),
            };
        }
        Err(self.expected("a whole number"))
    }

    /// The number after LIMIT. What is no count of rows is told as ksqlDB tells it; `kind` is pull or push.
    pub(super) fn limit(&mut self, kind: &str) -> Result<Spanned<u64>> {
        let is_number = |token: Option<&TokenKind>| {
            matches!(token, Some(TokenKind::Integer(_) | TokenKind::Decimal(_) | TokenKind::Double(_)))
        };
        if self.is_symbol_at(0, "-") && is_number(self.kind(1)) {
            let message = format!("{kind} queries don't support negative integers in the LIMIT clause");
            let error = Diagnostic::at(Code::Invalid, self.span(), message);
            return Err(error.with_detail("see https://cnfl.io/queries for more info"));
        }
        if is_number(self.kind(0)) && !matches!(self.kind(0), Some(TokenKind::Integer(_))) {
            let message = "failed to prepare statement: Value must be integer for command: LIMIT";
            return Err(Diagnostic::at(Code::Invalid, self.span(), message));
        }
        self.count()
    }

    /// A string, number, boolean or NULL.
    pub(super) fn literal(&mut self) -> Result<Spanned<Literal>> {
        if let Some(literal) = self.eat_literal()? {
            return Ok(literal);
        }
        let hint = match self.kind(0) {
            Some(TokenKind::Word(_) | TokenKind::Quoted(_)) => {
                Some(format!("strings are written in single quotes: '{}'", self.next_text().trim_matches(['"', '`'])))
            }
            _ => None,
        };
        let error = self.expected("a literal");
        Err(match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        })
    }

    fn next_text(&self) -> &'a str {
        self.peek().map_or("", |t| t.span.slice(self.text))
    }

    /// As [`Self::unexpected`], where a class of tokens was expected too.
    pub(super) fn expected(&mut self, what: &'static str) -> Diagnostic {
        self.missing(Expected::Some(what));
        self.unexpected()
    }

    /// The error that the next token is none of what could stand here.
    pub(super) fn unexpected(&self) -> Diagnostic {
        self.unexpected_instead_of(None)
    }

    /// As [`Self::unexpected`], with one name for all that could stand here.
    pub(super) fn unexpected_instead_of(&self, what: Option<&str>) -> Diagnostic {
        let span = self.span();
        if let Some(diagnostic) = self.damage(span) {
            return diagnostic;
        }
        let found = match self.peek() {
            Some(token) if matches!(token.kind, TokenKind::Text(_) | TokenKind::Quoted(_)) => {
                shorten(token.span.slice(self.text))
            }
            Some(token) => format!("\"{}\"", shorten(token.span.slice(self.text))),
            None => "the end of the statement".to_string(),
        };
        let message = match what.map(str::to_string).or_else(|| self.expected_list()) {
            Some(list) => format!("expected {list}, found {found}"),
            None => format!("unexpected {found}"),
        };
        let diagnostic = Diagnostic::at(Code::Syntax, span, message);
        if let Some(TokenKind::Word(word)) = self.kind(0)
            && let Some(meant) = suggest(word, self.expected_words())
        {
            return diagnostic.with_hint(format!("did you mean {meant}?"));
        }
        if let Some((span, word, meant)) = self.doubt_before() {
            let message = format!("expected {meant}, found \"{word}\"");
            return Diagnostic::at(Code::Syntax, span, message).with_hint(format!("did you mean {meant}?"));
        }
        match self.kind(0) {
            Some(TokenKind::Unknown) if self.next_text() == "==" => diagnostic.with_hint("equality is written ="),
            _ => diagnostic,
        }
    }

    /// The word in front of the next token that was taken for a name and is rather a misspelt keyword; with the keyword.
    fn doubt_before(&self) -> Option<(Span, &'a str, &'static str)> {
        let doubt = self.doubtful.as_ref().filter(|d| d.index + 1 == self.index)?;
        let token = self.tokens.get(doubt.index)?;
        let TokenKind::Word(word) = &token.kind else { return None };
        let meant = suggest(word, doubt.instead.iter().copied()).filter(|meant| meant != word)?;
        Some((self.span_at(doubt.index), token.span.slice(self.text), meant))
    }

    /// "FROM, WHERE or a name"; `None` if nothing was asked for.
    fn expected_list(&self) -> Option<String> {
        let mut items: Vec<String> = self
            .expected
            .iter()
            .map(|e| match e {
                Expected::Word(word) => (*word).to_string(),
                Expected::Symbol(symbol) => format!("\"{symbol}\""),
                Expected::Some(what) => (*what).to_string(),
                Expected::Operator => "an operator".to_string(),
            })
            .collect();
        if items.len() > EXPECTED_MAX {
            items.truncate(EXPECTED_MAX);
            items.push("others".to_string());
        }
        let last = items.pop()?;
        Some(if items.is_empty() { last } else { format!("{} or {last}", items.join(", ")) })
    }

    /// What is wrong with the next token as such.
    fn damage(&self, span: Span) -> Option<Diagnostic> {
        let token = self.peek()?;
        // Only the beginning of what has no end is of interest.
        let start = Span::new(span.start, span.start + 1);
        Some(match &token.kind {
            TokenKind::Unterminated(Unterminated::Text) => {
                Diagnostic::at(Code::Syntax, start, "the string that begins here has no end")
                    .with_hint("a single quote within a string is written twice")
            }
            TokenKind::Unterminated(Unterminated::Quoted) => {
                Diagnostic::at(Code::Syntax, start, "the quoted name that begins here has no end")
            }
            TokenKind::Unterminated(Unterminated::Comment) => {
                Diagnostic::at(Code::Syntax, start, "the comment that begins here has no end")
            }
            TokenKind::Variable(name) => {
                Diagnostic::at(Code::UndefinedVariable, span, format!("the variable \"{name}\" is not defined"))
                    .with_hint(format!("define it with DEFINE {name} = '...';"))
            }
            _ => return None,
        })
    }
}

pub(super) fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::at(Code::TooLarge, span, format!("nested more than {DEPTH_MAX} levels deep"))
}

/// A token's text for a message.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    if text.chars().nth(CHARS_MAX).is_some() {
        text.chars().take(CHARS_MAX).chain("...".chars()).collect()
    } else {
        text.to_string()
    }
}
