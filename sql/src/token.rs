//! Text to tokens, on sqlparser's tokenizer.
//!
//! Owns the words of the dialect, and what the tokenizer reads differently: places in bytes, numbers, names that begin with
//! a digit, undefined variables. Not here: grammar (`parse`), replacing variables (`substitute`).
//!
//! Invariants: every text has tokens, damaged parts become `Unknown`; tokens are in order and do not overlap; the time is
//! linear in the text.

mod keyword;

pub use keyword::*;

use sqlparser::dialect::Dialect;
use sqlparser::tokenizer::{Location, Token as Raw, TokenWithSpan, Tokenizer, Whitespace};

use crate::syntax::Span;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    /// In the tokenized text.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an unquoted name, in upper case.
    Word(String),
    /// A quoted name, without its quotes.
    Quoted(String),
    /// A string literal, without its quotes.
    Text(String),
    /// Digits only.
    Integer(String),
    /// With a dot.
    Decimal(String),
    /// With an exponent.
    Double(String),
    Symbol(&'static str),
    /// `${name}`, with the name as written.
    Variable(String),
    Comment,
    /// Something that is no token of the dialect.
    Unknown,
    /// A string, quoted name or comment without an end; always the last token.
    Unterminated(Unterminated),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unterminated {
    Text,
    Quoted,
    Comment,
}

impl TokenKind {
    pub fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(s) if *s == symbol)
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w == word)
    }
}

/// The dialect as the tokenizer must know it.
#[derive(Debug)]
struct Ksql;

impl Dialect for Ksql {
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        matches!(ch, '`' | '"')
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_ascii_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_ascii_alphanumeric() || ch == '_'
    }

    fn supports_numeric_prefix(&self) -> bool {
        true
    }

    // Else `$$` would begin a string.
    fn supports_dollar_placeholder(&self) -> bool {
        true
    }
}

/// All tokens of a text, with comments, without white space.
pub fn tokenize(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while start < text.len() {
        start = tokenize_from(text, start, &mut tokens);
    }
    tokens
}

/// Reads tokens from a place on, until the tokenizer gives up; returns the place to go on from.
fn tokenize_from(text: &str, start: usize, tokens: &mut Vec<Token>) -> usize {
    let Some(rest) = text.get(start..) else { return text.len() };
    let mut raw = Vec::new();
    let failed = Tokenizer::new(&Ksql, rest).tokenize_with_location_into_buf(&mut raw).is_err();
    let mut cursor = Cursor { text: rest, byte: 0, line: 1, column: 1 };
    let mut end = start;
    for TokenWithSpan { token, span: place } in raw {
        let span = Span::new(start + cursor.byte_of(place.start), start + cursor.byte_of(place.end));
        // The parts of a variable come as several tokens.
        let in_variable = span.start < end;
        end = end.max(span.end);
        if in_variable {
            continue;
        }
        let source = span.slice(text);
        if source.starts_with('$')
            && let Some(name) = variable_at(text, span.start)
        {
            end = span.start + name.len() + "${}".len();
            let kind = TokenKind::Variable(name.to_string());
            tokens.push(Token { kind, span: Span::new(span.start, end) });
        } else if token == Raw::ShiftRight {
            // The ends of two types.
            for at in [span.start, span.start + 1] {
                tokens.push(Token { kind: TokenKind::Symbol(">"), span: Span::new(at, at + 1) });
            }
        } else if let Some(kind) = kind_of(token, source) {
            push(tokens, Token { kind, span }, text);
        }
    }
    if !failed {
        return text.len();
    }
    let rest = text.get(end..).unwrap_or("");
    let unterminated = match rest.as_bytes() {
        [b'/', b'*', ..] => Some(Unterminated::Comment),
        [b'`' | b'"', ..] => Some(Unterminated::Quoted),
        // Also with a letter in front, which would be no token of the dialect even with an end.
        [b'\'', ..] | [_, b'\'', ..] => Some(Unterminated::Text),
        _ => None,
    };
    if let Some(unterminated) = unterminated {
        let kind = TokenKind::Unterminated(unterminated);
        tokens.push(Token { kind, span: Span::new(end, text.len()) });
        return text.len();
    }
    // What else the tokenizer does not like is a dot with an underscore behind it.
    let next = end + rest.chars().next().map_or(rest.len(), char::len_utf8);
    let kind = if rest.starts_with('.') { TokenKind::Symbol(".") } else { TokenKind::Unknown };
    tokens.push(Token { kind, span: Span::new(end, next) });
    next
}

/// Adds a token; a word that begins with a number comes in two parts that are put together here.
fn push(tokens: &mut Vec<Token>, token: Token, text: &str) {
    if let (TokenKind::Word(_), Some(last)) = (&token.kind, tokens.last_mut())
        && last.span.end == token.span.start
        && matches!(last.kind, TokenKind::Integer(_) | TokenKind::Decimal(_) | TokenKind::Double(_))
    {
        last.span = last.span.to(token.span);
        last.kind = word(last.span.slice(text));
        return;
    }
    tokens.push(token);
}

fn word(source: &str) -> TokenKind {
    if source.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        TokenKind::Word(source.to_ascii_uppercase())
    } else {
        TokenKind::Unknown
    }
}

/// `None` for white space.
fn kind_of(token: Raw, source: &str) -> Option<TokenKind> {
    Some(match token {
        Raw::EOF => return None,
        Raw::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)) => TokenKind::Comment,
        Raw::Whitespace(_) => return None,
        Raw::Word(raw) if raw.quote_style.is_some() => TokenKind::Quoted(raw.value),
        Raw::Word(_) => word(source),
        Raw::SingleQuotedString(value) => TokenKind::Text(value),
        Raw::Number(number, false) if number.bytes().any(|b| b.eq_ignore_ascii_case(&b'e')) => {
            TokenKind::Double(number)
        }
        Raw::Number(number, false) if number.contains('.') => TokenKind::Decimal(number),
        Raw::Number(number, false) => TokenKind::Integer(number),
        Raw::Comma => TokenKind::Symbol(","),
        Raw::Eq => TokenKind::Symbol("="),
        Raw::Neq if source == "!=" => TokenKind::Symbol("!="),
        Raw::Neq => TokenKind::Symbol("<>"),
        Raw::Lt => TokenKind::Symbol("<"),
        Raw::Gt => TokenKind::Symbol(">"),
        Raw::LtEq => TokenKind::Symbol("<="),
        Raw::GtEq => TokenKind::Symbol(">="),
        Raw::Plus => TokenKind::Symbol("+"),
        Raw::Minus => TokenKind::Symbol("-"),
        Raw::Mul => TokenKind::Symbol("*"),
        Raw::Div => TokenKind::Symbol("/"),
        Raw::Mod => TokenKind::Symbol("%"),
        Raw::StringConcat => TokenKind::Symbol("||"),
        Raw::LParen => TokenKind::Symbol("("),
        Raw::RParen => TokenKind::Symbol(")"),
        Raw::LBracket => TokenKind::Symbol("["),
        Raw::RBracket => TokenKind::Symbol("]"),
        Raw::Period => TokenKind::Symbol("."),
        Raw::Assignment => TokenKind::Symbol(":="),
        Raw::SemiColon => TokenKind::Symbol(";"),
        Raw::RArrow => TokenKind::Symbol("=>"),
        Raw::Arrow => TokenKind::Symbol("->"),
        _ => TokenKind::Unknown,
    })
}

/// The name of the variable whose reference `${name}` begins at a byte.
pub(crate) fn variable_at(text: &str, start: usize) -> Option<&str> {
    let rest = text.get(start..)?.strip_prefix("${")?;
    let length = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, behind) = rest.split_at_checked(length)?;
    let valid = name.bytes().next().is_some_and(|b| !b.is_ascii_digit()) && behind.starts_with('}');
    valid.then_some(name)
}

/// Follows the tokenizer's count of lines and characters, in bytes.
struct Cursor<'a> {
    text: &'a str,
    byte: usize,
    line: u64,
    column: u64,
}

impl Cursor<'_> {
    /// Places must be asked for in their order.
    fn byte_of(&mut self, place: Location) -> usize {
        let mut chars = self.text.get(self.byte..).unwrap_or("").chars();
        while (self.line, self.column) < (place.line, place.column) {
            let Some(c) = chars.next() else { break };
            self.byte += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, TokenKind)]) {
        let found: Vec<_> = tokenize(text).into_iter().map(|t| (t.span.slice(text).to_string(), t.kind)).collect();
        let expected: Vec<_> = expected.iter().map(|(s, k)| (s.to_string(), k.clone())).collect();
        assert_eq!(found, expected, "{text}");
    }

    fn word(text: &str) -> TokenKind {
        TokenKind::Word(text.to_string())
    }

    #[test]
    fn places_are_in_bytes() {
        let text = TokenKind::Text("ä'ö".into());
        check("'ä''ö'\r\n -- x\n a", &[("'ä''ö'", text), ("-- x\n", TokenKind::Comment), ("a", word("A"))]);
        check("`a``B` \"c\"", &[("`a``B`", TokenKind::Quoted("a`B".into())), ("\"c\"", TokenKind::Quoted("c".into()))]);
    }

    #[test]
    fn numbers_and_words_that_begin_like_numbers() {
        check("12.30", &[("12.30", TokenKind::Decimal("12.30".into()))]);
        check(".5 1E-3", &[(".5", TokenKind::Decimal(".5".into())), ("1E-3", TokenKind::Double("1E-3".into()))]);
        check("5_x", &[("5_x", word("5_X"))]);
        check("1e_x", &[("1e_x", word("1E_X"))]);
        check("1e5x", &[("1e5x", word("1E5X"))]);
        check("1.5x", &[("1.5x", TokenKind::Unknown)]);
        check("a._b", &[("a", word("A")), (".", TokenKind::Symbol(".")), ("_b", word("_B"))]);
        check("]._b", &[("]", TokenKind::Symbol("]")), (".", TokenKind::Symbol(".")), ("_b", word("_B"))]);
    }

    #[test]
    fn symbols() {
        let symbols = |text: &str| -> Vec<String> {
            tokenize(text)
                .iter()
                .map(|t| format!("{}{}", t.span.slice(text), t.kind.is_symbol(t.span.slice(text))))
                .collect()
        };
        assert_eq!(
            symbols("->* := => >> <>!="),
            ["->true", "*true", ":=true", "=>true", ">true", ">true", "<>true", "!=true"]
        );
    }

    #[test]
    fn variables_and_damage() {
        check("${a_1}x", &[("${a_1}", TokenKind::Variable("a_1".into())), ("x", word("X"))]);
        check("a 'b", &[("a", word("A")), ("'b", TokenKind::Unterminated(Unterminated::Text))]);
        check("/* b", &[("/* b", TokenKind::Unterminated(Unterminated::Comment))]);
        check("é#", &[("é", TokenKind::Unknown), ("#", TokenKind::Unknown)]);
        check("$$", &[("$$", TokenKind::Unknown)]);
    }
}
