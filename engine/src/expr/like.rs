//! LIKE: `%` is any run, `_` one character; neither matches a line terminator. A NULL operand is a row error,
//! and so is a pattern that ends with its escape character, which escapes nothing then.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::buffer::BooleanBuffer;
use millpond_sql::diagnostic::Span;
use millpond_sql::expr::escape_at_end;
use millpond_types::{Error, Result};

use super::arithmetic::{Operands, operands};
use super::compare::boolean;
use super::{EvalContext, EvalInput, Evaluated, Node, NodeRef, union_errors};

struct Like {
    operand: NodeRef,
    pattern: NodeRef,
    escape: Option<char>,
    negated: bool,
    span: Span,
}

pub fn like(operand: NodeRef, pattern: NodeRef, escape: Option<char>, negated: bool, span: Span) -> NodeRef {
    Arc::new(Like { operand, pattern, escape, negated, span })
}

impl Node for Like {
    fn eval(&self, input: &EvalInput<'_>, cx: &mut EvalContext) -> Result<Evaluated> {
        let Operands { left, right, errors } = operands((&self.operand, &self.pattern), "LIKE", self.span, input, cx)?;
        let wrong = || Error::bug("LIKE on columns that are not STRING");
        let texts = left.array().as_string_opt::<i32>().ok_or_else(wrong)?;
        let patterns = right.array().as_string_opt::<i32>().ok_or_else(wrong)?;
        let mut compiled: Option<(usize, Result<Pattern, String>)> = None;
        let mut failed = Vec::new();
        let bits = BooleanBuffer::collect_bool(input.rows(), |row| {
            if errors.as_ref().is_some_and(|e| e.value(row)) {
                return false;
            }
            let at = right.index(row);
            if compiled.as_ref().is_none_or(|(i, _)| *i != at) {
                compiled = Some((at, Pattern::compile(patterns.value(at), self.escape)));
            }
            match &compiled {
                Some((_, Ok(pattern))) => pattern.matches(texts.value(left.index(row))) != self.negated,
                Some((_, Err(why))) => {
                    cx.log(input.row(row), self.span, || why.clone());
                    failed.push(row);
                    false
                }
                None => false,
            }
        });
        let failed = (!failed.is_empty())
            .then(|| BooleanBuffer::collect_bool(input.rows(), |row| failed.binary_search(&row).is_ok()));
        Ok(boolean(bits, union_errors(errors, failed)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Run,
}

/// A pattern as text between runs where that is all there is, else as tokens.
#[derive(Debug)]
enum Pattern {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Tokens(Vec<Token>),
}

fn ends_line(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn one_line(text: &str) -> bool {
    !text.contains(ends_line)
}

impl Pattern {
    fn compile(pattern: &str, escape: Option<char>) -> Result<Self, String> {
        if let Some(why) = escape.and_then(|escape| escape_at_end(pattern, escape)) {
            return Err(why);
        }
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                c if Some(c) == escape => Token::Literal(chars.next().unwrap_or(c)),
                '%' => Token::Run,
                '_' => Token::One,
                c => Token::Literal(c),
            });
        }
        tokens.dedup_by(|b, a| *a == Token::Run && *b == Token::Run);
        let text = |tokens: &[Token]| {
            tokens.iter().map(|t| if let Token::Literal(c) = t { Some(*c) } else { None }).collect::<Option<String>>()
        };
        Ok(match tokens.as_slice() {
            [Token::Run, middle @ .., Token::Run] if text(middle).is_some() => {
                Self::Contains(text(middle).unwrap_or_default())
            }
            [Token::Run, rest @ ..] if text(rest).is_some() => Self::Suffix(text(rest).unwrap_or_default()),
            [rest @ .., Token::Run] if text(rest).is_some() => Self::Prefix(text(rest).unwrap_or_default()),
            all => text(all).map_or_else(|| Self::Tokens(all.to_vec()), Self::Exact),
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.strip_prefix(prefix.as_str()).is_some_and(one_line),
            Self::Suffix(suffix) => text.strip_suffix(suffix.as_str()).is_some_and(one_line),
            Self::Contains(part) if one_line(text) => text.contains(part.as_str()),
            Self::Contains(part) => text
                .match_indices(part.as_str())
                .any(|(at, _)| one_line(&text[..at]) && one_line(&text[at + part.len()..])),
            Self::Tokens(tokens) => matches_tokens(tokens, text),
        }
    }
}

/// Greedy with one point to go back to: the last run. Time is the product of the lengths at worst.
fn matches_tokens(tokens: &[Token], text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let (mut t, mut c) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while c < chars.len() {
        let here = chars[c];
        let fits = match tokens.get(t) {
            Some(Token::Run) => {
                back = Some((t, c));
                t += 1;
                continue;
            }
            Some(Token::Literal(l)) => *l == here,
            Some(Token::One) => !ends_line(here),
            None => false,
        };
        if fits {
            t += 1;
            c += 1;
            continue;
        }
        match back {
            Some((run, from)) if !ends_line(chars[from]) => {
                back = Some((run, from + 1));
                t = run + 1;
                c = from + 1;
            }
            _ => return false,
        }
    }
    tokens[t.min(tokens.len())..].iter().all(|t| *t == Token::Run)
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a%", "abc", true),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("a_c", "abc", true),
            ("a_c", "a\nc", false),
            ("a%c", "a\nc", false),
            ("a!%", "a%", true),
            ("a!%", "ab", false),
            ("a!!", "a!", true),
            ("%a%b%c%", "xxaxxbxxc", true),
            ("%a%b%c%", "xxaxxcxxb", false),
            ("%", "", true),
            ("_", "", false),
            ("", "", true),
            ("a%_", "ab", true),
            ("a%_", "a", false),
        ] {
            assert_eq!(Pattern::compile(pattern, Some('!')).unwrap().matches(text), expected, "{pattern} on {text:?}");
        }
        for pattern in ["!", "a!", "a!!!", "%!"] {
            assert!(Pattern::compile(pattern, Some('!')).unwrap_err().contains("escape character"), "{pattern}");
        }
        assert!(Pattern::compile("a!", None).unwrap().matches("a!"));
    }
}
