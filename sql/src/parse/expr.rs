//! Expressions, by precedence climbing.
//!
//! From loose to tight: OR, AND, NOT, predicates (which do not chain), `||`, `+ -`, `* / %`, AT TIME ZONE, signs, and
//! `[…]` and `->` behind a primary expression.

use millpond_types::sql_type::DECIMAL_PRECISION_MAX;

use super::cursor::{Cursor, too_deep};
use crate::diagnostic::{Code, Diagnostic, Result};
use crate::syntax::*;
use crate::token::TokenKind;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Not,
    Predicate,
    Concat,
    Sum,
    Product,
    Zone,
    Sign,
}

/// An expression and how high it is.
struct Tree {
    expr: Expr,
    height: usize,
}

impl Tree {
    /// A node over parts of which the highest is this high.
    fn over(height: usize, kind: ExprKind, span: Span) -> Result<Self> {
        let height = height + 1;
        if height > DEPTH_MAX { Err(too_deep(span)) } else { Ok(Self { expr: Expr::new(kind, span), height }) }
    }

    fn leaf(kind: ExprKind, span: Span) -> Self {
        Self { expr: Expr::new(kind, span), height: 1 }
    }

    fn binary(op: BinaryOp, left: Tree, right: Tree) -> Result<Self> {
        let (height, span) = (left.height.max(right.height), left.expr.span.to(right.expr.span));
        Self::over(height, ExprKind::Binary { op, left: left.boxed(), right: right.boxed() }, span)
    }

    fn boxed(self) -> Box<Expr> {
        Box::new(self.expr)
    }
}

/// What stands behind an expression.
enum Infix {
    Binary(BinaryOp),
    Is,
    Between,
    In,
    Like,
    /// NOT in front of BETWEEN, IN or LIKE.
    Not,
    AtTimeZone,
}

impl Cursor<'_> {
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.tree(Level::Or).map(|t| t.expr)
    }

    /// An expression without AND, OR, NOT and predicates on its outermost level.
    pub(super) fn value(&mut self) -> Result<Expr> {
        self.tree(Level::Concat).map(|t| t.expr)
    }

    /// An expression that holds together at least as tightly as `min`.
    fn tree(&mut self, min: Level) -> Result<Tree> {
        self.enter()?;
        let (mut left, mut ceiling) = self.prefix(min)?;
        while let Some((infix, level)) = self.infix() {
            if level == Level::Predicate && ceiling < level && min <= Level::Not {
                let error = self.unexpected_instead_of(Some("the end of the expression, AND or OR"));
                return Err(error.with_hint("comparisons do not chain; put one of them in parentheses"));
            }
            if level < min || level > ceiling {
                break;
            }
            left = match infix {
                Infix::Binary(op @ (BinaryOp::Or | BinaryOp::And)) => self.chain(op, left)?,
                Infix::Binary(op) if level == Level::Predicate => {
                    self.advance();
                    Tree::binary(op, left, self.tree(Level::Concat)?)?
                }
                Infix::Binary(op) => {
                    self.advance();
                    let tighter = match level {
                        Level::Concat => Level::Sum,
                        Level::Sum => Level::Product,
                        _ => Level::Zone,
                    };
                    Tree::binary(op, left, self.tree(tighter)?)?
                }
                Infix::AtTimeZone => self.at_time_zone(left)?,
                Infix::Is => self.is(left)?,
                Infix::Between | Infix::In | Infix::Like | Infix::Not => self.predicate(left)?,
            };
            if level == Level::Predicate {
                ceiling = Level::And;
            }
        }
        self.leave();
        Ok(left)
    }

    fn infix(&mut self) -> Option<(Infix, Level)> {
        let binary = |op, level| Some((Infix::Binary(op), level));
        let found = match self.kind(0) {
            Some(TokenKind::Symbol(symbol)) => match *symbol {
                "=" => binary(BinaryOp::Equal, Level::Predicate),
                "!=" | "<>" => binary(BinaryOp::NotEqual, Level::Predicate),
                "<" => binary(BinaryOp::Less, Level::Predicate),
                "<=" => binary(BinaryOp::LessOrEqual, Level::Predicate),
                ">" => binary(BinaryOp::Greater, Level::Predicate),
                ">=" => binary(BinaryOp::GreaterOrEqual, Level::Predicate),
                "||" => binary(BinaryOp::Concat, Level::Concat),
                "+" => binary(BinaryOp::Add, Level::Sum),
                "-" => binary(BinaryOp::Subtract, Level::Sum),
                "*" => binary(BinaryOp::Multiply, Level::Product),
                "/" => binary(BinaryOp::Divide, Level::Product),
                "%" => binary(BinaryOp::Modulo, Level::Product),
                _ => None,
            },
            Some(TokenKind::Word(word)) => match word.as_str() {
                "OR" => binary(BinaryOp::Or, Level::Or),
                "AND" => binary(BinaryOp::And, Level::And),
                "IS" => Some((Infix::Is, Level::Predicate)),
                "BETWEEN" => Some((Infix::Between, Level::Predicate)),
                "IN" => Some((Infix::In, Level::Predicate)),
                "LIKE" => Some((Infix::Like, Level::Predicate)),
                "NOT" => Some((Infix::Not, Level::Predicate)),
                "AT" if self.is_word_at(1, "TIME") => Some((Infix::AtTimeZone, Level::Zone)),
                _ => None,
            },
            _ => None,
        };
        if found.is_none() {
            self.no_operator();
        }
        found
    }

    /// The first part of an expression, and the tightest level of what may stand behind it.
    fn prefix(&mut self, min: Level) -> Result<(Tree, Level)> {
        if self.is_word_at(0, "NOT") {
            if min > Level::Not {
                let hint = "put NOT and what it negates in parentheses";
                return Err(self.expected("an expression").with_hint(hint));
            }
            let start = self.advance();
            let operand = self.tree(Level::Not)?;
            let (height, span) = (operand.height, start.to(operand.expr.span));
            let kind = ExprKind::Unary { op: UnaryOp::Not, operand: operand.boxed() };
            return Ok((Tree::over(height, kind, span)?, Level::And));
        }
        if let Some(literal) = self.eat_literal()? {
            let tree = Tree::leaf(ExprKind::Literal(literal.node), literal.span);
            return Ok((self.postfix(tree)?, Level::Sign));
        }
        for (symbol, op) in [("-", UnaryOp::Minus), ("+", UnaryOp::Plus)] {
            if self.is_symbol_at(0, symbol) {
                let start = self.advance();
                let operand = self.tree(Level::Sign)?;
                let (height, span) = (operand.height, start.to(operand.expr.span));
                let kind = ExprKind::Unary { op, operand: operand.boxed() };
                return Ok((Tree::over(height, kind, span)?, Level::Sign));
            }
        }
        let tree = self.primary()?;
        Ok((self.postfix(tree)?, Level::Sign))
    }

    /// Subscripts and fields behind a primary expression.
    fn postfix(&mut self, mut tree: Tree) -> Result<Tree> {
        loop {
            let start = tree.expr.span;
            if self.is_symbol_at(0, "[") {
                self.advance();
                let index = self.tree(Level::Or)?;
                let end = self.expect_symbol("]")?;
                let height = tree.height.max(index.height);
                let kind = ExprKind::Subscript { base: tree.boxed(), index: index.boxed() };
                tree = Tree::over(height, kind, start.to(end))?;
            } else if self.is_symbol_at(0, "->") && !self.is_symbol_at(1, "*") {
                self.advance();
                let field = self.name("the name of a field")?;
                let (height, span) = (tree.height, start.to(field.span));
                tree = Tree::over(height, ExprKind::Field { base: tree.boxed(), field }, span)?;
            } else {
                return Ok(tree);
            }
        }
    }

    fn primary(&mut self) -> Result<Tree> {
        match self.kind(0) {
            Some(TokenKind::Symbol("(")) => {
                let start = self.advance();
                let mut tree = self.tree(Level::Or)?;
                tree.expr.span = start.to(self.expect_symbol(")")?);
                Ok(tree)
            }
            Some(TokenKind::Word(word)) => match word.as_str() {
                "CASE" => self.case(),
                "CAST" => self.cast(),
                "ARRAY" if self.is_symbol_at(1, "[") => self.array(),
                "MAP" if self.is_symbol_at(1, "(") => self.map(),
                "STRUCT" if self.is_symbol_at(1, "(") => self.structure(),
                _ => self.name_or_call(),
            },
            _ => self.name_or_call(),
        }
    }

    fn name_or_call(&mut self) -> Result<Tree> {
        let name = self.name("an expression")?;
        if self.is_symbol_at(0, "(") {
            return self.call(name);
        }
        let start = name.span;
        let column = if self.is_symbol_at(0, ".") {
            self.advance();
            ColumnRef { qualifier: Some(name), name: self.name("the name of a column")? }
        } else {
            ColumnRef { qualifier: None, name }
        };
        let span = start.to(column.name.span);
        Ok(Tree::leaf(ExprKind::Column(column), span))
    }

    fn call(&mut self, name: Ident) -> Result<Tree> {
        let start = name.span;
        self.expect_symbol("(")?;
        let star = self.eat_symbol("*").is_some();
        let mut arguments = Vec::new();
        let mut height = 0;
        if !star && !self.is_symbol(")") {
            loop {
                let argument = self.argument()?;
                height = height.max(argument.height);
                arguments.push(argument.expr);
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
        }
        let end = self.expect_symbol(")")?;
        Tree::over(height, ExprKind::Call(Call { name, star, arguments }), start.to(end))
    }

    fn argument(&mut self) -> Result<Tree> {
        if !self.at_lambda() {
            return self.tree(Level::Or);
        }
        let start = self.span();
        let mut parameters = Vec::new();
        if self.eat_symbol("(").is_some() {
            loop {
                parameters.push(self.name("the name of a parameter")?);
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
            self.expect_symbol(")")?;
        } else {
            parameters.push(self.name("the name of a parameter")?);
        }
        self.expect_symbol("=>")?;
        let body = self.tree(Level::Or)?;
        let (height, span) = (body.height, start.to(body.expr.span));
        Tree::over(height, ExprKind::Lambda { parameters, body: body.boxed() }, span)
    }

    /// Whether `x =>` or `(x, y) =>` is next.
    fn at_lambda(&self) -> bool {
        let is_name = |ahead| matches!(self.kind(ahead), Some(TokenKind::Word(_) | TokenKind::Quoted(_)));
        if is_name(0) {
            return self.is_symbol_at(1, "=>");
        }
        if !self.is_symbol_at(0, "(") {
            return false;
        }
        let mut ahead = 1;
        while is_name(ahead) && self.is_symbol_at(ahead + 1, ",") {
            ahead += 2;
        }
        is_name(ahead) && self.is_symbol_at(ahead + 1, ")") && self.is_symbol_at(ahead + 2, "=>")
    }

    fn case(&mut self) -> Result<Tree> {
        let start = self.expect("CASE")?;
        let mut height = 0;
        let mut part = |tree: Tree| {
            height = height.max(tree.height);
            tree.expr
        };
        let operand = if self.is_word("WHEN") { None } else { Some(Box::new(part(self.tree(Level::Or)?))) };
        let mut branches = Vec::new();
        while branches.is_empty() || self.is_word("WHEN") {
            self.expect("WHEN")?;
            let when = part(self.tree(Level::Or)?);
            self.expect("THEN")?;
            branches.push(CaseBranch { when, then: part(self.tree(Level::Or)?) });
        }
        let otherwise = match self.eat("ELSE") {
            Some(_) => Some(Box::new(part(self.tree(Level::Or)?))),
            None => None,
        };
        let end = self.expect("END")?;
        Tree::over(height, ExprKind::Case { operand, branches, otherwise }, start.to(end))
    }

    fn cast(&mut self) -> Result<Tree> {
        let start = self.expect("CAST")?;
        self.expect_symbol("(")?;
        let operand = self.tree(Level::Or)?;
        self.expect("AS")?;
        let ty = self.type_name()?;
        let end = self.expect_symbol(")")?;
        let height = operand.height;
        Tree::over(height, ExprKind::Cast { operand: operand.boxed(), ty }, start.to(end))
    }

    fn array(&mut self) -> Result<Tree> {
        let start = self.advance();
        self.expect_symbol("[")?;
        let mut items = Vec::new();
        let mut height = 0;
        if !self.is_symbol("]") {
            loop {
                let item = self.tree(Level::Or)?;
                height = height.max(item.height);
                items.push(item.expr);
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
        }
        let end = self.expect_symbol("]")?;
        Tree::over(height, ExprKind::Array(items), start.to(end))
    }

    fn map(&mut self) -> Result<Tree> {
        let start = self.advance();
        self.expect_symbol("(")?;
        let mut entries = Vec::new();
        let mut height = 0;
        if !self.is_symbol(")") {
            loop {
                let key = self.tree(Level::Or)?;
                self.expect_symbol(":=")?;
                let value = self.tree(Level::Or)?;
                height = height.max(key.height).max(value.height);
                entries.push(MapEntry { key: key.expr, value: value.expr });
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
        }
        let end = self.expect_symbol(")")?;
        Tree::over(height, ExprKind::Map(entries), start.to(end))
    }

    fn structure(&mut self) -> Result<Tree> {
        let start = self.advance();
        self.expect_symbol("(")?;
        let mut fields = Vec::new();
        let mut height = 0;
        if !self.is_symbol(")") {
            loop {
                let name = self.name("the name of a field")?;
                self.expect_symbol(":=")?;
                let value = self.tree(Level::Or)?;
                height = height.max(value.height);
                fields.push(StructField { name, value: value.expr });
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
        }
        let end = self.expect_symbol(")")?;
        Tree::over(height, ExprKind::Struct(fields), start.to(end))
    }

    fn at_time_zone(&mut self, operand: Tree) -> Result<Tree> {
        self.advance();
        self.expect("TIME")?;
        self.expect("ZONE")?;
        let zone = self.text()?;
        let (height, span) = (operand.height, operand.expr.span.to(zone.span));
        let zone = Expr::new(ExprKind::Literal(Literal::String(zone.node)), zone.span);
        Tree::over(height, ExprKind::AtTimeZone { operand: operand.boxed(), zone: Box::new(zone) }, span)
    }

    /// `IS [NOT] NULL` and `IS [NOT] DISTINCT FROM`
    fn is(&mut self, left: Tree) -> Result<Tree> {
        self.advance();
        let negated = self.eat("NOT").is_some();
        if let Some(end) = self.eat("NULL") {
            let (height, span) = (left.height, left.expr.span.to(end));
            return Tree::over(height, ExprKind::IsNull { operand: left.boxed(), negated }, span);
        }
        self.expect("DISTINCT")?;
        self.expect("FROM")?;
        let op = if negated { BinaryOp::IsNotDistinctFrom } else { BinaryOp::IsDistinctFrom };
        Tree::binary(op, left, self.tree(Level::Concat)?)
    }

    /// `[NOT] BETWEEN`, `[NOT] IN`, `[NOT] LIKE`
    fn predicate(&mut self, left: Tree) -> Result<Tree> {
        let negated = self.eat("NOT").is_some();
        let start = left.expr.span;
        if self.eat("BETWEEN").is_some() {
            let low = self.tree(Level::Concat)?;
            self.expect("AND")?;
            let high = self.tree(Level::Concat)?;
            let height = left.height.max(low.height).max(high.height);
            let span = start.to(high.expr.span);
            let (operand, low, high) = (left.boxed(), low.boxed(), high.boxed());
            return Tree::over(height, ExprKind::Between { operand, low, high, negated }, span);
        }
        if self.eat("IN").is_some() {
            self.expect_symbol("(")?;
            let mut list = Vec::new();
            let mut height = left.height;
            loop {
                let item = self.tree(Level::Or)?;
                height = height.max(item.height);
                list.push(item.expr);
                if self.eat_symbol(",").is_none() {
                    break;
                }
            }
            let span = start.to(self.expect_symbol(")")?);
            return Tree::over(height, ExprKind::In { operand: left.boxed(), list, negated }, span);
        }
        self.expect("LIKE")?;
        let pattern = self.tree(Level::Concat)?;
        let escape = match self.eat("ESCAPE") {
            Some(_) => Some(self.escape()?),
            None => None,
        };
        let (height, span) = (left.height.max(pattern.height), start.to(self.last_span()));
        let kind = ExprKind::Like { operand: left.boxed(), pattern: pattern.boxed(), escape, negated };
        Tree::over(height, kind, span)
    }

    fn escape(&mut self) -> Result<char> {
        let text = self.text()?;
        let mut chars = text.node.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok(c),
            _ => {
                let message = format!("the escape character must be one character, found '{}'", text.node);
                Err(Diagnostic::at(Code::Literal, text.span, message))
            }
        }
    }

    /// The rest of `left AND … AND …` or of `left OR … OR …`, balanced.
    fn chain(&mut self, op: BinaryOp, left: Tree) -> Result<Tree> {
        let (word, tighter) = if op == BinaryOp::Or { ("OR", Level::And) } else { ("AND", Level::Not) };
        let mut operands = Vec::new();
        flatten(op, left, &mut operands);
        while self.eat(word).is_some() {
            flatten(op, self.tree(tighter)?, &mut operands);
        }
        while operands.len() > 1 {
            let mut pairs = Vec::with_capacity(operands.len().div_ceil(2));
            let mut rest = operands.into_iter();
            while let Some(left) = rest.next() {
                pairs.push(match rest.next() {
                    Some(right) => Tree::binary(op, left, right)?,
                    None => left,
                });
            }
            operands = pairs;
        }
        operands.pop().ok_or_else(|| self.unexpected())
    }

    /// A literal if one is next, with the sign in front of a number.
    pub(super) fn eat_literal(&mut self) -> Result<Option<Spanned<Literal>>> {
        let negative = self.is_symbol_at(0, "-");
        let literal = match self.kind(usize::from(negative)) {
            Some(TokenKind::Text(text)) if !negative => Literal::String(text.clone()),
            Some(TokenKind::Word(word)) if !negative => match word.as_str() {
                "TRUE" => Literal::Boolean(true),
                "FALSE" => Literal::Boolean(false),
                "NULL" => Literal::Null,
                _ => return Ok(None),
            },
            Some(kind @ (TokenKind::Integer(digits) | TokenKind::Decimal(digits) | TokenKind::Double(digits))) => {
                let sign = if negative { "-" } else { "" };
                let start = self.span();
                if negative {
                    self.advance();
                }
                let span = start.to(self.advance());
                return number(kind, format!("{sign}{digits}"), span).map(|n| Some(Spanned::new(n, span)));
            }
            _ => return Ok(None),
        };
        Ok(Some(Spanned::new(literal, self.advance())))
    }
}

/// Adds the operands of a chain of `op` that a tree is, or the tree itself.
fn flatten(op: BinaryOp, tree: Tree, operands: &mut Vec<Tree>) {
    match tree.expr.kind {
        ExprKind::Binary { op: same, left, right } if same == op => {
            // How high the parts are is not known any more; they are lower than the whole.
            let height = tree.height - 1;
            flatten(op, Tree { expr: *left, height }, operands);
            flatten(op, Tree { expr: *right, height }, operands);
        }
        kind => operands.push(Tree { expr: Expr::new(kind, tree.expr.span), height: tree.height }),
    }
}

fn number(kind: &TokenKind, text: String, span: Span) -> Result<Literal> {
    let too_large =
        |what: &str| Diagnostic::at(Code::Literal, span, format!("the number {text} is too large for {what}"));
    match kind {
        TokenKind::Double(_) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Literal::Double(DoubleLiteral { text, value })),
            _ => Err(too_large("a DOUBLE")),
        },
        TokenKind::Decimal(_) => decimal(&text)
            .map(|(unscaled, precision, scale)| {
                Literal::Decimal(DecimalLiteral { text: text.clone(), unscaled, precision, scale })
            })
            .ok_or_else(|| too_large("a DECIMAL")),
        _ => match text.parse::<i64>() {
            Ok(number) => Ok(i32::try_from(number).map_or(Literal::BigInt(number), Literal::Integer)),
            Err(_) => {
                Err(too_large("a BIGINT").with_hint("a number with a dot is a DECIMAL, one with an exponent a DOUBLE"))
            }
        },
    }
}

/// Unscaled value, precision and scale of a number with a dot.
fn decimal(text: &str) -> Option<(i128, u8, u8)> {
    let (whole, fraction) = text.split_once('.')?;
    let (sign, whole) = match whole.strip_prefix('-') {
        Some(whole) => ("-", whole),
        None => ("", whole),
    };
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let scale = u8::try_from(fraction.len()).ok()?;
    let precision = u8::try_from(digits.len()).ok()?.max(scale).max(1);
    if precision > DECIMAL_PRECISION_MAX {
        return None;
    }
    let unscaled = if digits.is_empty() { 0 } else { format!("{sign}{digits}").parse().ok()? };
    Some((unscaled, precision, scale))
}
