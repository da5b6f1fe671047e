//! Queries: everything between SELECT and LIMIT.

use super::{Expr, Ident, IntervalUnit, Span, Spanned};

/// One SELECT. Clauses that were not given are empty or `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// Not empty.
    pub select: Vec<SelectItem>,
    pub from: From,
    pub window: Option<Window>,
    pub filter: Option<Expr>,
    pub group_by: Vec<Expr>,
    pub partition_by: Vec<Expr>,
    pub having: Option<Expr>,
    /// Beyond ksqlDB: pull queries only, the analyser refuses it elsewhere.
    pub order_by: Vec<OrderItem>,
    pub emit: Option<Spanned<Emit>>,
    pub limit: Option<Spanned<u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SelectItem {
    /// `*`
    All { star: Spanned<()> },
    /// `source.*`
    AllOf { source: Ident, star: Spanned<()> },
    /// `struct->*`: every field of a struct.
    AllFields { base: Expr, star: Spanned<()> },
    /// `expression [[AS] alias]`
    Expr { expr: Expr, alias: Option<Ident> },
}

/// `first` joined with each of `joins`, from left to right.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct From {
    pub first: SourceRef,
    pub joins: Vec<Join>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceRef {
    pub name: Ident,
    pub alias: Option<Ident>,
}

impl SourceRef {
    /// What columns are qualified with.
    pub fn reference(&self) -> &Ident {
        self.alias.as_ref().unwrap_or(&self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Join {
    /// With the words of the kind, for messages about it.
    pub kind: Spanned<JoinKind>,
    pub source: SourceRef,
    pub within: Option<Spanned<Within>>,
    pub on: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// `WITHIN 1 HOUR` (then before = after) or `WITHIN (1 HOUR, 2 HOURS)`, with `GRACE PERIOD 5 MINUTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Within {
    pub before: Interval,
    pub after: Interval,
    pub grace: Option<Interval>,
}

/// `10 SECONDS`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interval {
    pub amount: Spanned<u64>,
    pub unit: Spanned<IntervalUnit>,
}

impl Interval {
    /// `None` if it is longer than can be counted.
    pub fn millis(&self) -> Option<i64> {
        i64::try_from(self.amount.node).ok()?.checked_mul(self.unit.node.millis())
    }

    pub fn span(&self) -> Span {
        self.amount.span.to(self.unit.span)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// `WINDOW name TUMBLING (…)`; means nothing.
    pub name: Option<Ident>,
    pub kind: Spanned<WindowKind>,
    pub retention: Option<Interval>,
    pub grace: Option<Interval>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    Tumbling { size: Interval },
    Hopping { size: Interval, advance: Interval },
    Session { gap: Interval },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Emit {
    Changes,
    Final,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderItem {
    pub expr: Expr,
    pub descending: bool,
}

impl Query {
    /// The place of the whole list of selected items.
    pub fn select_span(&self) -> Span {
        let mut spans = self.select.iter().map(SelectItem::span);
        let first = spans.next().unwrap_or_default();
        spans.fold(first, Span::to)
    }

    /// All sources in the order of their mention.
    pub fn sources(&self) -> impl Iterator<Item = &SourceRef> {
        std::iter::once(&self.from.first).chain(self.from.joins.iter().map(|j| &j.source))
    }
}

impl SelectItem {
    pub fn span(&self) -> Span {
        match self {
            Self::All { star } => star.span,
            Self::AllOf { source, star } => source.span.to(star.span),
            Self::AllFields { base, star } => base.span.to(star.span),
            Self::Expr { expr, alias } => alias.as_ref().map_or(expr.span, |a| expr.span.to(a.span)),
        }
    }
}
