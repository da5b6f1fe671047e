//! Types expressions: qualified syntax in, typed expressions with explicit conversions out.
//!
//! Not here: resolving names (`scope`), choosing overloads (`call`), what converts to what (`coerce`).
//! Invariant: the expressions that come out keep the promises of `crate::expr`.

use millpond_types::{Field, SqlType, Value};

use super::coerce::{self, arithmetic_type, can_cast, coerce, common_type, merge, reads_text};
use super::scope::{ROWTIME, is_window_bound};
use super::shown::shown;
use super::timestamp::parse_partial_timestamp;
use super::types::resolve_type;
use crate::diagnostic::{Code, Diagnostic, suggest};
use crate::expr::{ArithmeticOp, CompareOp, ExprKind, TypedExpr, escape_at_end};
use crate::functions::FunctionKind;
use crate::plan::{AnalysisResult, Environment};
use crate::syntax::{self, BinaryOp, Expr, Literal, Span, UnaryOp};

/// A column of the input as an expression names it.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// The qualified column, or a whole expression that the input has computed already.
    pub expr: Expr,
    pub index: usize,
    pub ty: SqlType,
}

/// An expression, or a NULL that has no type yet.
#[derive(Clone, Debug)]
pub(super) enum Typed {
    Null(Span),
    Expr(TypedExpr),
}

impl Typed {
    pub fn ty(&self) -> Option<&SqlType> {
        match self {
            Self::Null(_) => None,
            Self::Expr(e) => Some(&e.ty),
        }
    }

    /// As an error message names the type.
    pub fn type_text(&self) -> String {
        self.ty().map_or_else(|| "null".to_owned(), SqlType::to_string)
    }

    /// As an expression of type `ty` if it is an untyped NULL.
    pub fn or_null_of(self, ty: &SqlType) -> TypedExpr {
        match self {
            Self::Null(span) => null(ty, span),
            Self::Expr(e) => e,
        }
    }
}

pub(super) fn null(ty: &SqlType, span: Span) -> TypedExpr {
    TypedExpr::new(ExprKind::Literal(Value::Null), ty.clone(), span)
}

/// A parameter of an enclosing lambda.
#[derive(Clone, Debug)]
pub(super) struct LambdaBinding {
    pub name: String,
    pub id: u32,
    pub ty: SqlType,
}

pub(super) struct Typer<'a> {
    pub env: &'a dyn Environment,
    /// What the input has. Whole expressions come before the columns in them.
    pub bindings: &'a [Binding],
    /// Clause being typed, for messages: SELECT, WHERE ...
    pub clause: &'static str,
    /// The query has one source, so that messages need not repeat it.
    pub single: bool,
    pub lambdas: Vec<LambdaBinding>,
    pub next_lambda: u32,
    /// Expressions typed so far.
    steps: u32,
}

/// Most expressions that one clause is typed in: a simple CASE types its operand for each branch, so that nested ones
/// would grow beyond bounds.
const STEPS_MAX: u32 = 200_000;

impl<'a> Typer<'a> {
    pub fn new(env: &'a dyn Environment, bindings: &'a [Binding], clause: &'static str, single: bool) -> Self {
        Self { env, bindings, clause, single, lambdas: Vec::new(), next_lambda: 0, steps: 0 }
    }

    /// An expression whose type is known.
    pub fn expr(&mut self, expr: &Expr) -> AnalysisResult<TypedExpr> {
        match self.typed(expr)? {
            Typed::Expr(e) => Ok(e),
            Typed::Null(span) => Err(Diagnostic::at(
                Code::Type,
                span,
                "can't infer a type of null. Please explicitly cast it to a required type, e.g. CAST(null AS VARCHAR)",
            )),
        }
    }

    /// A condition.
    pub fn condition(&mut self, expr: &Expr) -> AnalysisResult<TypedExpr> {
        let typed = self.typed(expr)?;
        match typed {
            Typed::Expr(e) if e.ty == SqlType::Boolean => Ok(e),
            other => Err(Diagnostic::at(
                Code::Type,
                expr.span,
                format!(
                    "type error in {} expression: Should evaluate to boolean but is {} ({}) instead",
                    self.clause,
                    self.show(expr),
                    other.type_text()
                ),
            )),
        }
    }

    pub fn show(&self, expr: &Expr) -> String {
        shown(expr, self.single)
    }

    fn type_error(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Code::Type, span, message)
    }

    fn misfit(&self, expr: &Expr, misfit: &coerce::Misfit) -> Diagnostic {
        let what = if matches!(self.clause, "WHERE" | "HAVING") { "predicate" } else { "expression" };
        self.type_error(expr.span, format!("invalid {what}: {}", misfit.message(&self.show(expr))))
            .with_hint("you might need to add explicit type casts")
    }

    /// As type `ty`, or an error that names both.
    pub fn coerced(&self, typed: TypedExpr, ty: &SqlType, expr: &Expr) -> AnalysisResult<TypedExpr> {
        coerce(typed, ty).map_err(|m| self.misfit(expr, &m))
    }

    pub fn typed(&mut self, expr: &Expr) -> AnalysisResult<Typed> {
        use syntax::ExprKind as S;
        let span = expr.span;
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Diagnostic::at(Code::TooLarge, span, "the expression is too large when it is written out"));
        }
        if let Some(binding) = self.bindings.iter().find(|b| b.expr == *expr) {
            return Ok(Typed::Expr(TypedExpr::new(ExprKind::Column(binding.index), binding.ty.clone(), span)));
        }
        let make = |kind: ExprKind, ty: SqlType| Ok(Typed::Expr(TypedExpr::new(kind, ty, span)));
        match &expr.kind {
            S::Literal(literal) => match literal_value(literal) {
                (Value::Null, _) => Ok(Typed::Null(span)),
                (value, ty) => make(ExprKind::Literal(value), ty),
            },
            S::Column(column) => self.column(column, span),
            S::Unary { op, operand } => self.unary(*op, operand, span),
            S::Binary { op, left, right } => self.binary(expr, *op, left, right),
            S::IsNull { operand, negated } => {
                let operand = self.typed(operand)?.or_null_of(&SqlType::String);
                make(ExprKind::IsNull { operand: Box::new(operand), negated: *negated }, SqlType::Boolean)
            }
            S::Between { operand, low, high, negated } => self.between(expr, operand, low, high, *negated),
            S::In { operand, list, negated } => self.in_list(operand, list, *negated, span),
            S::Like { operand, pattern, escape, negated } => {
                let operand = self.typed(operand)?.or_null_of(&SqlType::String);
                let pattern = self.typed(pattern)?.or_null_of(&SqlType::String);
                if operand.ty != SqlType::String || pattern.ty != SqlType::String {
                    return Err(self.type_error(
                        span,
                        format!("like condition must be between strings, not {} and {}", operand.ty, pattern.ty),
                    ));
                }
                if let (ExprKind::Literal(Value::String(text)), Some(escape)) = (&pattern.kind, escape)
                    && let Some(why) = escape_at_end(text, *escape)
                    && self.env.refuses_constant(&why)
                {
                    return Err(Diagnostic::at(Code::Invalid, pattern.span, why));
                }
                let (operand, pattern) = (Box::new(operand), Box::new(pattern));
                make(ExprKind::Like { operand, pattern, escape: *escape, negated: *negated }, SqlType::Boolean)
            }
            S::AtTimeZone { operand, zone } => {
                let (written, written_zone) = (&**operand, &**zone);
                let operand = self.expr(operand)?;
                let operand = match operand.ty {
                    SqlType::Timestamp => operand,
                    SqlType::String => TypedExpr::new(ExprKind::Cast(Box::new(operand)), SqlType::Timestamp, span),
                    ref other => {
                        return Err(self.type_error(span, format!("AT TIME ZONE needs a TIMESTAMP, not {other}")));
                    }
                };
                let zone = self.expr(zone)?;
                if zone.ty != SqlType::String {
                    return Err(self.type_error(zone.span, format!("a time zone is a STRING, not {}", zone.ty)));
                }
                let utc = TypedExpr::new(ExprKind::Literal(Value::String("UTC".into())), SqlType::String, span);
                let args =
                    vec![(Typed::Expr(operand), written), (Typed::Expr(utc), expr), (Typed::Expr(zone), written_zone)];
                self.call_typed("CONVERT_TZ", args, span).map(Typed::Expr)
            }
            S::Case { operand, branches, otherwise } => {
                self.case(operand.as_deref(), branches, otherwise.as_deref(), span)
            }
            S::Cast { operand, ty } => {
                let to = resolve_type(ty, self.env)?;
                let operand = match self.typed(operand)? {
                    Typed::Null(_) => return Ok(Typed::Expr(null(&to, span))),
                    Typed::Expr(e) => e,
                };
                if !can_cast(&operand.ty, &to) {
                    return Err(self
                        .type_error(span, format!("cast of {} to {to} is not supported", operand.ty))
                        .with_detail(format!("in {}", self.clause)));
                }
                if operand.ty == to {
                    return Ok(Typed::Expr(operand));
                }
                make(ExprKind::Cast(Box::new(operand)), to)
            }
            S::Array(items) => self.array(items, span),
            S::Map(entries) => self.map(entries, span),
            S::Struct(fields) => self.structure(fields, span),
            S::Subscript { base, index } => self.subscript(base, index, span),
            S::Field { base, field } => {
                let base = self.expr(base)?;
                let SqlType::Struct(fields) = &base.ty else {
                    return Err(
                        self.type_error(span, format!("expected a STRUCT in front of ->{field}, got {}", base.ty))
                    );
                };
                let Some(index) = fields.iter().position(|f| f.name == field.value) else {
                    let names: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
                    let diagnostic = Diagnostic::at(
                        Code::UnknownName,
                        field.span,
                        format!("could not find field '{}' in {}", field.value, base.ty),
                    );
                    let near = names.iter().copied().find(|n| n.eq_ignore_ascii_case(&field.value));
                    return Err(match near.or_else(|| suggest(&field.value, names.iter().copied())) {
                        Some(other) => diagnostic.with_hint(format!("did you mean `{other}`?")),
                        None => diagnostic,
                    });
                };
                let ty = fields.get(index).map_or(SqlType::String, |f| f.ty.clone());
                make(ExprKind::Field { base: Box::new(base), index }, ty)
            }
            S::Call(call) => self.call(call, span).map(Typed::Expr),
            S::Lambda { .. } => {
                Err(Diagnostic::at(Code::Invalid, span, "a lambda can only be an argument of a function"))
            }
        }
    }

    fn column(&mut self, column: &syntax::ColumnRef, span: Span) -> AnalysisResult<Typed> {
        if column.qualifier.is_none()
            && let Some(param) = self.lambdas.iter().rev().find(|p| p.name == column.name.value)
        {
            let kind = ExprKind::LambdaParam(param.id);
            return Ok(Typed::Expr(TypedExpr::new(kind, param.ty.clone(), span)));
        }
        let name = &column.name.value;
        Err(Diagnostic::at(
            Code::UnknownName,
            span,
            format!("error in {} expression: Unknown column {name}", self.clause),
        ))
    }

    fn unary(&mut self, op: UnaryOp, operand: &Expr, span: Span) -> AnalysisResult<Typed> {
        if op == UnaryOp::Not {
            let operand = self.typed(operand)?.or_null_of(&SqlType::Boolean);
            if operand.ty != SqlType::Boolean {
                return Err(self.type_error(operand.span, format!("NOT needs a BOOLEAN, not {}", operand.ty)));
            }
            return Ok(Typed::Expr(TypedExpr::new(ExprKind::Not(Box::new(operand)), SqlType::Boolean, span)));
        }
        let operand = self.expr(operand)?;
        if !operand.ty.is_numeric() {
            return Err(self.type_error(
                span,
                format!("unsupported arithmetic types. A sign in front of {} is not supported", operand.ty),
            ));
        }
        if op == UnaryOp::Plus {
            return Ok(Typed::Expr(operand));
        }
        let ty = operand.ty.clone();
        Ok(Typed::Expr(TypedExpr::new(ExprKind::Negate(Box::new(operand)), ty, span)))
    }

    fn binary(&mut self, whole: &Expr, op: BinaryOp, left: &Expr, right: &Expr) -> AnalysisResult<Typed> {
        let span = whole.span;
        if matches!(op, BinaryOp::And | BinaryOp::Or) {
            let mut sides = Vec::with_capacity(2);
            for side in [left, right] {
                let typed = self.typed(side)?.or_null_of(&SqlType::Boolean);
                if typed.ty != SqlType::Boolean {
                    return Err(self.type_error(
                        side.span,
                        format!("{op} needs BOOLEAN operands, but {} is {}", self.show(side), typed.ty),
                    ));
                }
                sides.push(Box::new(typed));
            }
            let (Some(right), Some(left)) = (sides.pop(), sides.pop()) else { return Err(Diagnostic::bug("operands")) };
            let kind = if op == BinaryOp::And { ExprKind::And(left, right) } else { ExprKind::Or(left, right) };
            return Ok(Typed::Expr(TypedExpr::new(kind, SqlType::Boolean, span)));
        }
        if let Some(op) = compare_op(op) {
            return self.comparison(op, left, right, span).map(Typed::Expr);
        }
        let (l, r) = (self.typed(left)?, self.typed(right)?);
        let (Typed::Expr(l), Typed::Expr(r)) = (&l, &r) else {
            return Err(self.type_error(
                span,
                format!(
                    "error processing expression: {}. Arithmetic on types {} and {} are not supported",
                    self.show(whole),
                    l.type_text(),
                    r.type_text()
                ),
            ));
        };
        let (l, r) = (l.clone(), r.clone());
        let unsupported = |l: &TypedExpr, r: &TypedExpr| {
            self.type_error(
                span,
                format!(
                    "error in {} expression: Error processing expression: {}. Unsupported arithmetic types. {} {}",
                    self.clause,
                    self.show(whole),
                    base_name(&l.ty),
                    base_name(&r.ty)
                ),
            )
        };
        let texts = l.ty == SqlType::String && r.ty == SqlType::String;
        if op == BinaryOp::Concat {
            if texts || (l.ty == SqlType::Bytes && r.ty == SqlType::Bytes) {
                let ty = l.ty.clone();
                return Ok(Typed::Expr(TypedExpr::new(ExprKind::Concat(Box::new(l), Box::new(r)), ty, span)));
            }
            return Err(unsupported(&l, &r));
        }
        let Some(op) = arithmetic_op(op) else { return Err(unsupported(&l, &r)) };
        if texts && op == ArithmeticOp::Add {
            let kind = ExprKind::Arithmetic { op, left: Box::new(l), right: Box::new(r) };
            return Ok(Typed::Expr(TypedExpr::new(kind, SqlType::String, span)));
        }
        let Some(ty) = arithmetic_type(op, &l.ty, &r.ty).filter(|_| l.ty.is_numeric() && r.ty.is_numeric()) else {
            return Err(unsupported(&l, &r));
        };
        let (l, r) = (as_operand(l, &ty), as_operand(r, &ty));
        let kind = ExprKind::Arithmetic { op, left: Box::new(l), right: Box::new(r) };
        Ok(Typed::Expr(TypedExpr::new(kind, ty, span)))
    }

    fn comparison(&mut self, op: CompareOp, left: &Expr, right: &Expr, span: Span) -> AnalysisResult<TypedExpr> {
        let (l, r) = (self.typed(left)?, self.typed(right)?);
        let null_safe = matches!(op, CompareOp::IsDistinct | CompareOp::IsNotDistinct);
        let (l, r) = match (l, r) {
            (Typed::Expr(l), Typed::Expr(r)) => (l, r),
            (Typed::Expr(e), Typed::Null(at)) if null_safe => {
                let other = null(&e.ty, at);
                (e, other)
            }
            (Typed::Null(at), Typed::Expr(e)) if null_safe => (null(&e.ty, at), e),
            (Typed::Null(a), Typed::Null(b)) if null_safe => (null(&SqlType::String, a), null(&SqlType::String, b)),
            (l, r) => {
                let side = |t: &Typed| t.ty().map_or_else(|| "NULL".to_owned(), SqlType::to_string);
                let statement = format!("({} {} {})", self.show(left), op_symbol(op), self.show(right));
                let message = format!(
                    "error in {} expression: Comparison with NULL not supported: {} {} {}\n\
                     Use 'IS NULL' or 'IS NOT NULL' instead.\nStatement: {statement}",
                    self.clause,
                    side(&l),
                    op_symbol(op),
                    side(&r)
                );
                return Err(self.type_error(span, message));
            }
        };
        let (l, r) = self.comparable(l, r, left, right, op, &format!("error in {} expression", self.clause))?;
        let kind = ExprKind::Compare { op, left: Box::new(l), right: Box::new(r) };
        Ok(TypedExpr::new(kind, SqlType::Boolean, span))
    }

    /// Both operands as one type (DECIMALs may differ), or the error that they have none.
    fn comparable(
        &self,
        l: TypedExpr,
        r: TypedExpr,
        left: &Expr,
        right: &Expr,
        op: CompareOp,
        prefix: &str,
    ) -> AnalysisResult<(TypedExpr, TypedExpr)> {
        let l = self.magic_timestamp(l, is_time_column(right))?;
        let r = self.magic_timestamp(r, is_time_column(left))?;
        let cannot = |l: &TypedExpr, r: &TypedExpr| {
            self.type_error(
                left.span.to(right.span),
                format!(
                    "{prefix}: Cannot compare {} ({}) to {} ({}) with {}",
                    self.show(left),
                    l.ty,
                    self.show(right),
                    r.ty,
                    op_name(op)
                ),
            )
        };
        let equality =
            matches!(op, CompareOp::Eq | CompareOp::NotEq | CompareOp::IsDistinct | CompareOp::IsNotDistinct);
        let has_order = |ty: &SqlType| ty.is_primitive() && *ty != SqlType::Boolean;
        let ordered = has_order(&l.ty) && has_order(&r.ty);
        if !(equality || ordered) {
            return Err(cannot(&l, &r));
        }
        if l.ty == r.ty {
            return Ok((l, r));
        }
        let ty = match (&l.ty, &r.ty) {
            (SqlType::Decimal { .. }, SqlType::Decimal { .. }) => return Ok((l, r)),
            (SqlType::String, ty) | (ty, SqlType::String) if reads_text(ty) => ty.clone(),
            (SqlType::Date | SqlType::Timestamp, SqlType::Date | SqlType::Timestamp) => SqlType::Timestamp,
            (a, b) => match common_type(a, b) {
                Some(ty) => ty,
                None => return Err(cannot(&l, &r)),
            },
        };
        let (l, r) = (as_operand(l, &ty), as_operand(r, &ty));
        Ok((l, r))
    }

    /// A text literal beside ROWTIME or a window bound is the time it names.
    fn magic_timestamp(&self, expr: TypedExpr, beside_time: bool) -> AnalysisResult<TypedExpr> {
        match (&expr.kind, beside_time) {
            (ExprKind::Literal(Value::String(text)), true) => {
                let ms = parse_partial_timestamp(text).map_err(|m| self.type_error(expr.span, m))?;
                Ok(TypedExpr::new(ExprKind::Literal(Value::BigInt(ms)), SqlType::BigInt, expr.span))
            }
            _ => Ok(expr),
        }
    }

    fn between(
        &mut self,
        whole: &Expr,
        operand: &Expr,
        low: &Expr,
        high: &Expr,
        negated: bool,
    ) -> AnalysisResult<Typed> {
        let span = whole.span;
        let mut sides = Vec::with_capacity(3);
        for side in [operand, low, high] {
            match self.typed(side)? {
                Typed::Expr(e) => sides.push(e),
                Typed::Null(at) => {
                    return Err(self
                        .type_error(at, format!("comparison with NULL not supported: {whole}"))
                        .with_hint("use 'IS NULL' or 'IS NOT NULL' instead"));
                }
            }
        }
        let (Some(h), Some(l), Some(o)) = (sides.pop(), sides.pop(), sides.pop()) else {
            return Err(Diagnostic::bug("operands"));
        };
        let (o1, l) = self.comparable(o.clone(), l, operand, low, CompareOp::GreaterEq, "invalid expression")?;
        let (o2, h) = self.comparable(o, h, operand, high, CompareOp::LessEq, "invalid expression")?;
        // Two bounds can want two widenings of the operand; the wider one serves both.
        let ty = if widest(&o1.ty, &o2.ty) { o2.ty.clone() } else { o1.ty.clone() };
        let o = if o1.ty == ty { o1 } else { o2 };
        let (l, h) = (as_operand(l, &ty), as_operand(h, &ty));
        let kind = ExprKind::Between { operand: Box::new(o), low: Box::new(l), high: Box::new(h), negated };
        Ok(Typed::Expr(TypedExpr::new(kind, SqlType::Boolean, span)))
    }

    fn in_list(&mut self, operand: &Expr, list: &[Expr], negated: bool, span: Span) -> AnalysisResult<Typed> {
        let mut items = vec![self.typed(operand)?];
        for item in list {
            let beside_time = is_time_column(operand);
            items.push(match self.typed(item)? {
                Typed::Expr(e) => Typed::Expr(self.magic_timestamp(e, beside_time)?),
                null => null,
            });
        }
        let exprs: Vec<&Expr> = std::iter::once(operand).chain(list).collect();
        let mut items = self.unified(items, &exprs, span)?.into_iter();
        let Some(operand) = items.next() else { return Err(Diagnostic::bug("operand")) };
        let kind = ExprKind::In { operand: Box::new(operand), list: items.collect(), negated };
        Ok(Typed::Expr(TypedExpr::new(kind, SqlType::Boolean, span)))
    }

    /// All as their common type: lax for literals, seeded by the first that is not NULL.
    fn unified(&self, items: Vec<Typed>, exprs: &[&Expr], span: Span) -> AnalysisResult<Vec<TypedExpr>> {
        let mut common: Option<SqlType> = None;
        for (item, expr) in items.iter().zip(exprs) {
            let Typed::Expr(e) = item else { continue };
            common = Some(match &common {
                None => e.ty.clone(),
                Some(ty) => merge(ty, e).map_err(|m| self.misfit(expr, &m))?,
            });
        }
        let Some(ty) = common else {
            return Err(self.type_error(
                span,
                "cannot infer a type from NULL elements only: please cast one of them, e.g. CAST(NULL AS STRING)",
            ));
        };
        items.into_iter().zip(exprs).map(|(item, expr)| self.coerced(item.or_null_of(&ty), &ty, expr)).collect()
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        branches: &[syntax::CaseBranch],
        otherwise: Option<&Expr>,
        span: Span,
    ) -> AnalysisResult<Typed> {
        let mut conditions = Vec::with_capacity(branches.len());
        let mut results = Vec::with_capacity(branches.len() + 1);
        let exprs: Vec<&Expr> = branches.iter().map(|b| &b.then).chain(otherwise).collect();
        for branch in branches {
            conditions.push(match operand {
                Some(operand) => {
                    self.comparison(CompareOp::Eq, operand, &branch.when, operand.span.to(branch.when.span))?
                }
                None => {
                    let when = self.typed(&branch.when)?.or_null_of(&SqlType::Boolean);
                    if when.ty != SqlType::Boolean {
                        return Err(self.type_error(
                            branch.when.span,
                            format!(
                                "WHEN operand type should be boolean. Type for '{}' is {}",
                                self.show(&branch.when),
                                when.ty
                            ),
                        ));
                    }
                    when
                }
            });
            results.push(self.typed(&branch.then)?);
        }
        let has_otherwise = otherwise.is_some();
        if let Some(e) = otherwise {
            results.push(self.typed(e)?);
        }
        if results.iter().all(|r| r.ty().is_none()) {
            return Err(self.type_error(span, "invalid Case expression. All case branches have a NULL type"));
        }
        let mut results = self.unified(results, &exprs, span).map_err(|d| Diagnostic {
            message: format!("invalid Case expression. Type for all branches should be the same: {}", d.message),
            ..d
        })?;
        let otherwise = if has_otherwise { results.pop().map(Box::new) } else { None };
        let ty = results.first().map_or(SqlType::String, |e| e.ty.clone());
        let branches = conditions.into_iter().zip(results).collect();
        Ok(Typed::Expr(TypedExpr::new(ExprKind::Case { branches, otherwise }, ty, span)))
    }

    fn array(&mut self, items: &[Expr], span: Span) -> AnalysisResult<Typed> {
        if items.is_empty() {
            return Err(self.type_error(span, "array constructor cannot be empty. Please supply at least one element"));
        }
        let exprs: Vec<&Expr> = items.iter().collect();
        let items = items.iter().map(|e| self.typed(e)).collect::<AnalysisResult<Vec<_>>>()?;
        if items.iter().all(|i| i.ty().is_none()) {
            return Err(self
                .type_error(span, "cannot construct an array with all NULL elements")
                .with_hint("cast one element: ARRAY[CAST(NULL AS STRING)]"));
        }
        let items = self.unified(items, &exprs, span)?;
        let item = items.first().map_or(SqlType::String, |e| e.ty.clone());
        Ok(Typed::Expr(TypedExpr::new(ExprKind::Array(items), SqlType::array(item), span)))
    }

    fn map(&mut self, entries: &[syntax::MapEntry], span: Span) -> AnalysisResult<Typed> {
        if entries.is_empty() {
            return Err(
                self.type_error(span, "map constructor cannot be empty. Please supply at least one key value pair")
            );
        }
        let keys = entries.iter().map(|e| self.typed(&e.key)).collect::<AnalysisResult<Vec<_>>>()?;
        let values = entries.iter().map(|e| self.typed(&e.value)).collect::<AnalysisResult<Vec<_>>>()?;
        for (what, side) in [("keys", &keys), ("values", &values)] {
            if side.iter().all(|i| i.ty().is_none()) {
                return Err(self
                    .type_error(span, format!("cannot construct a map with all NULL {what}"))
                    .with_hint("cast one of them to the wanted type"));
            }
        }
        let (of_keys, of_values): (Vec<&Expr>, Vec<&Expr>) = entries.iter().map(|e| (&e.key, &e.value)).unzip();
        let (keys, values) = (self.unified(keys, &of_keys, span)?, self.unified(values, &of_values, span)?);
        let key = keys.first().map_or(SqlType::String, |e| e.ty.clone());
        let value = values.first().map_or(SqlType::String, |e| e.ty.clone());
        let kind = ExprKind::Map(keys.into_iter().zip(values).collect());
        Ok(Typed::Expr(TypedExpr::new(kind, SqlType::map(key, value), span)))
    }

    fn structure(&mut self, fields: &[syntax::StructField], span: Span) -> AnalysisResult<Typed> {
        let mut names: Vec<Field> = Vec::with_capacity(fields.len());
        let mut values = Vec::with_capacity(fields.len());
        for field in fields {
            if names.iter().any(|f| f.name == field.name.value) {
                return Err(Diagnostic::at(
                    Code::DuplicateName,
                    field.name.span,
                    format!("duplicate field names found in STRUCT: '{}'", field.name.value),
                ));
            }
            let value = self.expr(&field.value)?;
            names.push(Field::new(field.name.value.clone(), value.ty.clone()));
            values.push(value);
        }
        Ok(Typed::Expr(TypedExpr::new(ExprKind::Struct(values), SqlType::Struct(names), span)))
    }

    fn subscript(&mut self, base: &Expr, index: &Expr, span: Span) -> AnalysisResult<Typed> {
        let base = self.expr(base)?;
        let written = index;
        let index = self.expr(index)?;
        let (wanted, item) = match &base.ty {
            SqlType::Array(item) => (SqlType::Integer, (**item).clone()),
            SqlType::Map(key, value) => ((**key).clone(), (**value).clone()),
            other => {
                return Err(self.type_error(span, format!("subscript needs an ARRAY or a MAP, not {other}")));
            }
        };
        let index = if index.ty == wanted {
            index
        } else if wanted == SqlType::Integer && index.ty == SqlType::BigInt && matches!(base.ty, SqlType::Array(_)) {
            TypedExpr { span: index.span, kind: ExprKind::Cast(Box::new(index)), ty: SqlType::Integer }
        } else {
            self.coerced(index, &wanted, written)?
        };
        let kind = ExprKind::Subscript { base: Box::new(base), index: Box::new(index) };
        Ok(Typed::Expr(TypedExpr::new(kind, item, span)))
    }

    fn call(&mut self, call: &syntax::Call, span: Span) -> AnalysisResult<TypedExpr> {
        let function = self.function(&call.name)?;
        match function.kind {
            FunctionKind::Scalar => {}
            FunctionKind::Aggregate => {
                return Err(Diagnostic::at(
                    Code::Aggregate,
                    span,
                    format!("aggregate function {} is not supported in {}", function.name, self.clause),
                ));
            }
            FunctionKind::Table => {
                return Err(Diagnostic::at(
                    Code::Invalid,
                    span,
                    format!("table function {} is not supported in {} here", function.name, self.clause),
                )
                .with_detail("table functions can only be used in the SELECT clause, and not within each other"));
            }
        }
        self.resolve_call(&function, call, span)
    }
}

/// ROWTIME or a window bound of a source.
fn is_time_column(expr: &Expr) -> bool {
    expr.column().is_some_and(|c| c.name.value == ROWTIME || is_window_bound(&c.name.value))
}

fn widest(a: &SqlType, b: &SqlType) -> bool {
    common_type(a, b).is_some_and(|c| c == *b)
}

/// An operand as the type of the operation; DECIMAL operations take every DECIMAL.
fn as_operand(expr: TypedExpr, ty: &SqlType) -> TypedExpr {
    let to = match (&expr.ty, ty) {
        (SqlType::Decimal { .. }, SqlType::Decimal { .. }) => return expr,
        (SqlType::Integer, SqlType::Decimal { .. }) => SqlType::decimal(10, 0),
        (SqlType::BigInt, SqlType::Decimal { .. }) => SqlType::decimal(19, 0),
        (_, ty) => ty.clone(),
    };
    if expr.ty == to {
        return expr;
    }
    let span = expr.span;
    match coerce(expr.clone(), &to) {
        Ok(coerced) => coerced,
        Err(_) => TypedExpr::new(ExprKind::Cast(Box::new(expr)), to, span),
    }
}

fn compare_op(op: BinaryOp) -> Option<CompareOp> {
    Some(match op {
        BinaryOp::Equal => CompareOp::Eq,
        BinaryOp::NotEqual => CompareOp::NotEq,
        BinaryOp::Less => CompareOp::Less,
        BinaryOp::LessOrEqual => CompareOp::LessEq,
        BinaryOp::Greater => CompareOp::Greater,
        BinaryOp::GreaterOrEqual => CompareOp::GreaterEq,
        BinaryOp::IsDistinctFrom => CompareOp::IsDistinct,
        BinaryOp::IsNotDistinctFrom => CompareOp::IsNotDistinct,
        _ => return None,
    })
}

fn arithmetic_op(op: BinaryOp) -> Option<ArithmeticOp> {
    Some(match op {
        BinaryOp::Add => ArithmeticOp::Add,
        BinaryOp::Subtract => ArithmeticOp::Subtract,
        BinaryOp::Multiply => ArithmeticOp::Multiply,
        BinaryOp::Divide => ArithmeticOp::Divide,
        BinaryOp::Modulo => ArithmeticOp::Modulo,
        _ => return None,
    })
}

fn op_symbol(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Eq => "=",
        CompareOp::NotEq => "<>",
        CompareOp::Less => "<",
        CompareOp::LessEq => "<=",
        CompareOp::Greater => ">",
        CompareOp::GreaterEq => ">=",
        CompareOp::IsDistinct => "IS DISTINCT FROM",
        CompareOp::IsNotDistinct => "IS NOT DISTINCT FROM",
    }
}

fn op_name(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Eq => "EQUAL",
        CompareOp::NotEq => "NOT_EQUAL",
        CompareOp::Less => "LESS_THAN",
        CompareOp::LessEq => "LESS_THAN_OR_EQUAL",
        CompareOp::Greater => "GREATER_THAN",
        CompareOp::GreaterEq => "GREATER_THAN_OR_EQUAL",
        CompareOp::IsDistinct => "IS_DISTINCT_FROM",
        CompareOp::IsNotDistinct => "IS_NOT_DISTINCT_FROM",
    }
}

/// The type without its parts.
pub(super) fn base_name(ty: &SqlType) -> &'static str {
    match ty {
        SqlType::Boolean => "BOOLEAN",
        SqlType::Integer => "INTEGER",
        SqlType::BigInt => "BIGINT",
        SqlType::Double => "DOUBLE",
        SqlType::Decimal { .. } => "DECIMAL",
        SqlType::String => "STRING",
        SqlType::Bytes => "BYTES",
        SqlType::Date => "DATE",
        SqlType::Time => "TIME",
        SqlType::Timestamp => "TIMESTAMP",
        SqlType::Array(_) => "ARRAY",
        SqlType::Map(..) => "MAP",
        SqlType::Struct(_) => "STRUCT",
    }
}

/// The value of a literal; NULL has no type of its own.
pub(super) fn literal_value(literal: &Literal) -> (Value, SqlType) {
    match literal {
        Literal::Null => (Value::Null, SqlType::String),
        Literal::Boolean(b) => (Value::Boolean(*b), SqlType::Boolean),
        Literal::Integer(i) => (Value::Integer(*i), SqlType::Integer),
        Literal::BigInt(i) => (Value::BigInt(*i), SqlType::BigInt),
        Literal::Decimal(d) => (
            Value::Decimal { unscaled: d.unscaled, precision: d.precision, scale: d.scale },
            SqlType::decimal(d.precision, d.scale),
        ),
        Literal::Double(d) => (Value::Double(d.value), SqlType::Double),
        Literal::String(s) => (Value::String(s.clone()), SqlType::String),
    }
}
