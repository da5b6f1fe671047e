//! The syntax tree of the SQL dialect: what the user wrote, nothing resolved.
//!
//! Owns the nodes, their spans and how they are written back as SQL (`Display`, always parsable again). Not here: reading
//! text (`parse`), names, types and meaning (the analyser).
//!
//! Invariants: unquoted identifiers are already in upper case; a tree is at most [`DEPTH_MAX`] levels high, so walking it
//! by recursion is safe; equality and hashing ignore spans and quoting, so two expressions are equal when they read the
//! same.

mod display;
mod expr;
mod query;
mod statement;
mod types;

pub use expr::*;
pub use query::*;
pub use statement::*;
pub use types::*;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// Highest tree of expressions or types that is accepted, hence the deepest recursion over one.
pub const DEPTH_MAX: usize = 200;

/// A part of the text as the user wrote it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// From the start of this to the end of the other.
    pub fn to(self, end: Span) -> Self {
        Self { start: self.start.min(end.start), end: self.end.max(end.end) }
    }

    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// The text that the span covers; empty if it does not lie within `text`.
    pub fn slice(self, text: &str) -> &str {
        text.get(self.start..self.end).unwrap_or("")
    }
}

/// Something with its place; the place does not take part in equality.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spanned<T> {
    pub node: T,
    pub span: Span,
}

impl<T> Spanned<T> {
    pub fn new(node: T, span: Span) -> Self {
        Self { node, span }
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T: Hash> Hash for Spanned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.node.hash(state);
    }
}

/// A name. `value` is what it means: in upper case unless it was quoted.
#[derive(Clone, Debug)]
pub struct Ident {
    pub value: String,
    pub quoted: bool,
    pub span: Span,
}

impl Ident {
    /// A name that means exactly `value`, of no place in a text.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), quoted: true, span: Span::default() }
    }

    pub fn as_str(&self) -> &str {
        &self.value
    }
}

impl PartialEq for Ident {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Ident {}

impl Hash for Ident {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl PartialEq<str> for Ident {
    fn eq(&self, other: &str) -> bool {
        self.value == other
    }
}

impl PartialEq<&str> for Ident {
    fn eq(&self, other: &&str) -> bool {
        self.value == *other
    }
}

impl AsRef<str> for Ident {
    fn as_ref(&self) -> &str {
        &self.value
    }
}

/// A name as it must be written to mean itself: in back-ticks unless it is a plain upper-case word that is not reserved.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Quoted(&self.value).fmt(f)
    }
}
