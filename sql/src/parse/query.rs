//! Queries: SELECT … FROM … and the clauses behind it, in their fixed order.

use super::cursor::Cursor;
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::syntax::*;
use crate::token::{TokenKind, is_reserved};

/// What can stand behind a source and could be taken for its alias if misspelt.
const BEHIND_SOURCE: &[&str] = &[
    "WINDOW",
    "WHERE",
    "GROUP",
    "PARTITION",
    "HAVING",
    "ORDER",
    "EMIT",
    "LIMIT",
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "WITHIN",
    "ON",
];

impl Cursor<'_> {
    pub(super) fn query(&mut self) -> Result<Query> {
        self.expect("SELECT")?;
        if self.is_word_at(0, "DISTINCT") {
            let error = self.unexpected_instead_of(Some("an expression"));
            return Err(error.with_hint("rows that are equal are put together with GROUP BY"));
        }
        let mut select = vec![self.select_item()?];
        while self.eat_symbol(",").is_some() {
            select.push(self.select_item()?);
        }
        self.expect("FROM")?;
        let from = self.from()?;
        let window = match self.eat("WINDOW") {
            Some(_) => Some(self.window()?),
            None => None,
        };
        let filter = match self.eat("WHERE") {
            Some(_) => Some(self.expression()?),
            None => None,
        };
        let group_by = if self.eat("GROUP").is_some() { self.by()? } else { vec![] };
        let partition_by = if self.eat("PARTITION").is_some() { self.by()? } else { vec![] };
        let having = match self.eat("HAVING") {
            Some(_) => Some(self.expression()?),
            None => None,
        };
        let mut order_by = self.order_by()?;
        let emit = self.emit()?;
        if order_by.is_empty() {
            order_by = self.order_by()?;
        }
        let limit = match self.eat("LIMIT") {
            Some(_) => Some(self.limit(if emit.is_some() { "push" } else { "pull" })?),
            None => None,
        };
        if self.at_set_operation() || self.is_word_at(0, "UNION") {
            let message = "UNION, INTERSECT and EXCEPT are not part of the dialect";
            let error = Diagnostic::at(Code::Syntax, self.span(), message);
            return Err(error.with_hint("rows of several queries go into one stream with INSERT INTO ... SELECT"));
        }
        Ok(Query { select, from, window, filter, group_by, partition_by, having, order_by, emit, limit })
    }

    fn select_item(&mut self) -> Result<SelectItem> {
        if let Some(star) = self.eat_symbol("*") {
            return Ok(SelectItem::All { star: Spanned::new((), star) });
        }
        if self.is_symbol_at(1, ".") && self.is_symbol_at(2, "*") {
            let source = self.name("the name of a source")?;
            self.expect_symbol(".")?;
            return Ok(SelectItem::AllOf { source, star: Spanned::new((), self.expect_symbol("*")?) });
        }
        let expr = self.expression()?;
        if self.is_symbol_at(0, "->") && is_primary(&expr) {
            self.expect_symbol("->")?;
            return Ok(SelectItem::AllFields { base: expr, star: Spanned::new((), self.expect_symbol("*")?) });
        }
        let alias = if self.eat("AS").is_some() {
            Some(self.name("an alias")?)
        } else {
            let alias = self.eat_name();
            if alias.is_some() {
                self.doubt(&["FROM", "AS", "AND", "OR", "LIKE", "BETWEEN"]);
            }
            alias
        };
        Ok(SelectItem::Expr { expr, alias })
    }

    fn from(&mut self) -> Result<From> {
        let first = self.source_ref()?;
        let mut joins = Vec::new();
        while let Some(kind) = self.join_kind()? {
            joins.push(self.join(kind)?);
        }
        if self.is_symbol_at(0, ",") {
            let error = self.unexpected_instead_of(Some("JOIN or a clause"));
            return Err(error.with_hint("sources are combined with JOIN ... ON"));
        }
        Ok(From { first, joins })
    }

    fn source_ref(&mut self) -> Result<SourceRef> {
        if self.is_symbol_at(0, "(") {
            let error = self.expected("the name of a source");
            return Err(error.with_hint("a query cannot be a source; create a stream or table from it first"));
        }
        let name = self.name("the name of a source")?;
        let alias = if self.eat("AS").is_some() {
            Some(self.name("an alias")?)
        } else if self.at_clause() || self.at_set_operation() {
            None
        } else {
            let alias = self.eat_name();
            if alias.is_some() {
                self.doubt(BEHIND_SOURCE);
            }
            alias
        };
        Ok(SourceRef { name, alias })
    }

    /// UNION and its like stand between two queries; by themselves they are names like others.
    fn at_set_operation(&self) -> bool {
        ["UNION", "INTERSECT", "EXCEPT", "MINUS"].iter().any(|word| self.is_word_at(0, word))
            && ["SELECT", "ALL", "DISTINCT"].iter().any(|word| self.is_word_at(1, word))
    }

    /// Whether words that could be an alias begin a clause.
    fn at_clause(&self) -> bool {
        match self.kind(0) {
            Some(TokenKind::Word(word)) => match word.as_str() {
                "PARTITION" | "ORDER" => self.is_word_at(1, "BY"),
                // CHANGES or FINAL, perhaps misspelt.
                "EMIT" => matches!(self.kind(1), Some(TokenKind::Word(next)) if !is_reserved(next)),
                _ => false,
            },
            _ => false,
        }
    }

    fn join_kind(&mut self) -> Result<Option<Spanned<JoinKind>>> {
        let start = self.span();
        let kind = if self.eat("JOIN").is_some() {
            return Ok(Some(Spanned::new(JoinKind::Inner, start)));
        } else if self.eat("INNER").is_some() {
            JoinKind::Inner
        } else if self.eat("LEFT").is_some() {
            JoinKind::Left
        } else if self.eat("RIGHT").is_some() {
            JoinKind::Right
        } else if self.eat("FULL").is_some() {
            JoinKind::Full
        } else {
            return Ok(None);
        };
        if kind != JoinKind::Inner {
            self.eat("OUTER");
        }
        let end = self.expect("JOIN")?;
        Ok(Some(Spanned::new(kind, start.to(end))))
    }

    fn join(&mut self, kind: Spanned<JoinKind>) -> Result<Join> {
        let source = self.source_ref()?;
        let within = match self.eat("WITHIN") {
            Some(start) => {
                let node = self.within()?;
                Some(Spanned::new(node, start.to(self.last_span())))
            }
            None => None,
        };
        self.expect("ON")?;
        Ok(Join { kind, source, within, on: self.expression()? })
    }

    fn within(&mut self) -> Result<Within> {
        let (before, after) = if self.eat_symbol("(").is_some() {
            let before = self.interval()?;
            self.expect_symbol(",")?;
            let after = self.interval()?;
            self.expect_symbol(")")?;
            (before, after)
        } else {
            let both = self.interval()?;
            (both, both)
        };
        Ok(Within { before, after, grace: self.grace()? })
    }

    fn grace(&mut self) -> Result<Option<Interval>> {
        if self.eat("GRACE").is_none() {
            return Ok(None);
        }
        self.expect("PERIOD")?;
        self.interval().map(Some)
    }

    pub(super) fn interval(&mut self) -> Result<Interval> {
        let amount = self.count()?;
        let unit = match self.kind(0) {
            Some(TokenKind::Word(word)) => IntervalUnit::from_word(word),
            _ => None,
        };
        match unit {
            Some(unit) => Ok(Interval { amount, unit: Spanned::new(unit, self.advance()) }),
            None => Err(self.expected("DAYS, HOURS, MINUTES, SECONDS, MILLISECONDS")),
        }
    }

    fn window(&mut self) -> Result<Window> {
        let name = if self.is_symbol_at(1, "(") { None } else { self.eat_name() };
        let start = self.span();
        let mut retention = None;
        let mut grace = None;
        let kind = if self.eat("TUMBLING").is_some() {
            self.expect_symbol("(")?;
            self.expect("SIZE")?;
            WindowKind::Tumbling { size: self.interval()? }
        } else if self.eat("HOPPING").is_some() {
            self.expect_symbol("(")?;
            self.expect("SIZE")?;
            let size = self.interval()?;
            self.expect_symbol(",")?;
            self.expect("ADVANCE")?;
            self.expect("BY")?;
            WindowKind::Hopping { size, advance: self.interval()? }
        } else if self.eat("SESSION").is_some() {
            self.expect_symbol("(")?;
            WindowKind::Session { gap: self.interval()? }
        } else {
            return Err(self.unexpected());
        };
        while self.eat_symbol(",").is_some() {
            if retention.is_none() && grace.is_none() && self.eat("RETENTION").is_some() {
                retention = Some(self.interval()?);
            } else {
                grace = match self.grace()? {
                    Some(found) if grace.is_none() => Some(found),
                    _ => return Err(self.unexpected()),
                };
            }
        }
        let end = self.expect_symbol(")")?;
        Ok(Window { name, kind: Spanned::new(kind, start.to(end)), retention, grace })
    }

    /// What stands behind GROUP or PARTITION: `BY a, b` or `BY (a, b)`.
    fn by(&mut self) -> Result<Vec<Expr>> {
        self.expect("BY")?;
        if self.is_symbol_at(0, "(") {
            let mark = self.mark();
            if let Ok(list) = self.list()
                && (self.at_end() || self.at_list_end())
            {
                return Ok(list);
            }
            self.reset(mark);
        }
        let mut exprs = vec![self.value()?];
        while self.eat_symbol(",").is_some() {
            exprs.push(self.value()?);
        }
        if self.is_word_at(0, "AND") {
            return Err(self.unexpected().with_hint("several expressions are separated by commas"));
        }
        Ok(exprs)
    }

    fn list(&mut self) -> Result<Vec<Expr>> {
        self.expect_symbol("(")?;
        let mut exprs = vec![self.expression()?];
        while self.eat_symbol(",").is_some() {
            exprs.push(self.expression()?);
        }
        self.expect_symbol(")")?;
        Ok(exprs)
    }

    fn at_list_end(&self) -> bool {
        self.at_clause() || ["HAVING", "LIMIT"].iter().any(|word| self.is_word_at(0, word))
    }

    fn order_by(&mut self) -> Result<Vec<OrderItem>> {
        let mut items = Vec::new();
        if self.eat("ORDER").is_none() {
            return Ok(items);
        }
        self.expect("BY")?;
        loop {
            let expr = self.expression()?;
            let descending = self.eat("DESC").is_some();
            if !descending {
                self.eat("ASC");
            }
            items.push(OrderItem { expr, descending });
            if self.eat_symbol(",").is_none() {
                return Ok(items);
            }
        }
    }

    fn emit(&mut self) -> Result<Option<Spanned<Emit>>> {
        let Some(start) = self.eat("EMIT") else { return Ok(None) };
        if let Some(end) = self.eat("CHANGES") {
            return Ok(Some(Spanned::new(Emit::Changes, start.to(end))));
        }
        let end = self.expect("FINAL")?;
        Ok(Some(Spanned::new(Emit::Final, start.to(end))))
    }
}

/// Whether `->*` can stand behind an expression.
fn is_primary(expr: &Expr) -> bool {
    !matches!(
        expr.kind,
        ExprKind::Unary { .. }
            | ExprKind::Binary { .. }
            | ExprKind::IsNull { .. }
            | ExprKind::Between { .. }
            | ExprKind::In { .. }
            | ExprKind::Like { .. }
            | ExprKind::AtTimeZone { .. }
            | ExprKind::Literal(_)
    )
}

impl Cursor<'_> {
    /// The columns of `INSERT INTO t (…) VALUES`.
    pub(super) fn names(&mut self, what: &'static str) -> Result<Vec<Ident>> {
        self.expect_symbol("(")?;
        let mut names = vec![self.name(what)?];
        while self.eat_symbol(",").is_some() {
            names.push(self.name(what)?);
        }
        self.expect_symbol(")")?;
        Ok(names)
    }

    /// The parenthesised values behind VALUES, with their place.
    pub(super) fn values(&mut self) -> Result<(Vec<Expr>, Span)> {
        let start = self.span();
        let values = self.list()?;
        let span = start.to(self.last_span());
        if self.is_symbol_at(0, ",") {
            let diagnostic =
                Diagnostic::at(Code::Syntax, self.span(), "expected the end of the statement, found \",\"");
            return Err(diagnostic.with_hint("one statement inserts one row"));
        }
        Ok((values, span))
    }
}
