//! Typed expressions: what the analyser makes of syntax, and what the engine compiles to its nodes.
//!
//! Invariants: every node knows its type; operands have been cast explicitly wherever ksqlDB converts, so that the
//! engine finds the operand types it documents; a column is an index into the input node's schema.

use millpond_types::{SqlType, Value};

use crate::syntax::Span;

#[derive(Clone, Debug, PartialEq)]
pub struct TypedExpr {
    pub kind: ExprKind,
    pub ty: SqlType,
    /// Place in the statement, for processing-log lines and errors.
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// Column of the input by index.
    Column(usize),
    /// A literal of the node's type; `Value::Null` is a NULL of that type.
    Literal(Value),
    /// `-x`, for every numeric type.
    Negate(Box<TypedExpr>),
    /// Both operands are of one type (INTEGER, BIGINT, DOUBLE), or both are DECIMAL of any precision; the result type
    /// is the node's. `Add` of two STRINGs concatenates. Integers wrap; integer division by zero and inexact or
    /// overflowing DECIMAL results are row errors.
    Arithmetic {
        op: ArithmeticOp,
        left: Box<TypedExpr>,
        right: Box<TypedExpr>,
    },
    /// `a || b` over STRING or BYTES.
    Concat(Box<TypedExpr>, Box<TypedExpr>),
    /// Operands of one type (DECIMALs: any two). False where an operand is NULL, but for the DISTINCT pair.
    /// ARRAY, MAP and STRUCT only under `=`, `!=` and the DISTINCT pair.
    Compare {
        op: CompareOp,
        left: Box<TypedExpr>,
        right: Box<TypedExpr>,
    },
    And(Box<TypedExpr>, Box<TypedExpr>),
    Or(Box<TypedExpr>, Box<TypedExpr>),
    Not(Box<TypedExpr>),
    IsNull {
        operand: Box<TypedExpr>,
        negated: bool,
    },
    Between {
        operand: Box<TypedExpr>,
        low: Box<TypedExpr>,
        high: Box<TypedExpr>,
        negated: bool,
    },
    In {
        operand: Box<TypedExpr>,
        list: Vec<TypedExpr>,
        negated: bool,
    },
    Like {
        operand: Box<TypedExpr>,
        pattern: Box<TypedExpr>,
        escape: Option<char>,
        negated: bool,
    },
    /// Searched CASE (a simple CASE is rewritten to it). Branches are lazy. Without ELSE: NULL.
    Case {
        branches: Vec<(TypedExpr, TypedExpr)>,
        otherwise: Option<Box<TypedExpr>>,
    },
    /// `CAST(x AS t)`, and every implicit conversion.
    Cast(Box<TypedExpr>),
    /// `ts AT TIME ZONE 'z'` and the like are calls.
    Array(Vec<TypedExpr>),
    Map(Vec<(TypedExpr, TypedExpr)>),
    /// Fields in the order of the node's STRUCT type.
    Struct(Vec<TypedExpr>),
    /// `array[i]` (1-based, negative from the end, 0 and out of range NULL) and `map[k]`.
    Subscript {
        base: Box<TypedExpr>,
        index: Box<TypedExpr>,
    },
    /// `struct->field`; the index into the operand's STRUCT fields.
    Field {
        base: Box<TypedExpr>,
        index: usize,
    },
    /// Call of a scalar function (or, in `FlatMap`, a table function).
    Call(FunctionCall),
    /// A lambda, only as an argument of a call. The body sees the input's columns and its parameters.
    Lambda(Box<Lambda>),
    /// Parameter of an enclosing lambda; ids are unique within the whole expression.
    LambdaParam(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
    IsDistinct,
    IsNotDistinct,
}

/// A call with its overload chosen. The engine finds the code by name and overload.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionCall {
    pub name: String,
    /// Id of the chosen overload, as the function catalog gave it.
    pub overload: u32,
    /// Cast to the overload's parameter types.
    pub args: Vec<TypedExpr>,
}

/// `body` has its type in `body.ty`; the lambda node's own `ty` is the body's.
#[derive(Clone, Debug, PartialEq)]
pub struct Lambda {
    pub params: Vec<LambdaVar>,
    pub body: TypedExpr,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LambdaVar {
    pub id: u32,
    pub name: String,
    pub ty: SqlType,
}

impl TypedExpr {
    pub fn new(kind: ExprKind, ty: SqlType, span: Span) -> Self {
        Self { kind, ty, span }
    }

    /// Calls `f` on this node and every node below it, parents first.
    pub fn walk<'a>(&'a self, f: &mut impl FnMut(&'a TypedExpr)) {
        f(self);
        match &self.kind {
            ExprKind::Column(_) | ExprKind::Literal(_) | ExprKind::LambdaParam(_) => {}
            ExprKind::Negate(a) | ExprKind::Not(a) | ExprKind::Cast(a) => a.walk(f),
            ExprKind::IsNull { operand, .. } => operand.walk(f),
            ExprKind::Field { base, .. } => base.walk(f),
            ExprKind::Arithmetic { left, right, .. } | ExprKind::Compare { left, right, .. } => {
                left.walk(f);
                right.walk(f);
            }
            ExprKind::Concat(a, b) | ExprKind::And(a, b) | ExprKind::Or(a, b) => {
                a.walk(f);
                b.walk(f);
            }
            ExprKind::Between { operand, low, high, .. } => {
                operand.walk(f);
                low.walk(f);
                high.walk(f);
            }
            ExprKind::In { operand, list, .. } => {
                operand.walk(f);
                list.iter().for_each(|e| e.walk(f));
            }
            ExprKind::Like { operand, pattern, .. } => {
                operand.walk(f);
                pattern.walk(f);
            }
            ExprKind::Case { branches, otherwise } => {
                for (when, then) in branches {
                    when.walk(f);
                    then.walk(f);
                }
                if let Some(e) = otherwise {
                    e.walk(f);
                }
            }
            ExprKind::Array(items) | ExprKind::Struct(items) => items.iter().for_each(|e| e.walk(f)),
            ExprKind::Map(entries) => {
                for (k, v) in entries {
                    k.walk(f);
                    v.walk(f);
                }
            }
            ExprKind::Subscript { base, index } => {
                base.walk(f);
                index.walk(f);
            }
            ExprKind::Call(call) => call.args.iter().for_each(|e| e.walk(f)),
            ExprKind::Lambda(lambda) => lambda.body.walk(f),
        }
    }

    /// As `walk`, to change nodes in place.
    pub fn walk_mut(&mut self, f: &mut dyn FnMut(&mut TypedExpr)) {
        f(self);
        match &mut self.kind {
            ExprKind::Column(_) | ExprKind::Literal(_) | ExprKind::LambdaParam(_) => {}
            ExprKind::Negate(a) | ExprKind::Not(a) | ExprKind::Cast(a) => a.walk_mut(f),
            ExprKind::IsNull { operand, .. } => operand.walk_mut(f),
            ExprKind::Field { base, .. } => base.walk_mut(f),
            ExprKind::Arithmetic { left, right, .. } | ExprKind::Compare { left, right, .. } => {
                left.walk_mut(f);
                right.walk_mut(f);
            }
            ExprKind::Concat(a, b) | ExprKind::And(a, b) | ExprKind::Or(a, b) => {
                a.walk_mut(f);
                b.walk_mut(f);
            }
            ExprKind::Between { operand, low, high, .. } => {
                operand.walk_mut(f);
                low.walk_mut(f);
                high.walk_mut(f);
            }
            ExprKind::In { operand, list, .. } => {
                operand.walk_mut(f);
                list.iter_mut().for_each(|e| e.walk_mut(f));
            }
            ExprKind::Like { operand, pattern, .. } => {
                operand.walk_mut(f);
                pattern.walk_mut(f);
            }
            ExprKind::Case { branches, otherwise } => {
                for (when, then) in branches {
                    when.walk_mut(f);
                    then.walk_mut(f);
                }
                if let Some(e) = otherwise {
                    e.walk_mut(f);
                }
            }
            ExprKind::Array(items) | ExprKind::Struct(items) => items.iter_mut().for_each(|e| e.walk_mut(f)),
            ExprKind::Map(entries) => {
                for (k, v) in entries {
                    k.walk_mut(f);
                    v.walk_mut(f);
                }
            }
            ExprKind::Subscript { base, index } => {
                base.walk_mut(f);
                index.walk_mut(f);
            }
            ExprKind::Call(call) => call.args.iter_mut().for_each(|e| e.walk_mut(f)),
            ExprKind::Lambda(lambda) => lambda.body.walk_mut(f),
        }
    }

    /// Indexes of the input columns it reads, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        self.walk(&mut |e| {
            if let ExprKind::Column(i) = e.kind {
                columns.push(i);
            }
        });
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// Why a pattern of LIKE cannot be used, if it ends with an escape character that escapes nothing.
pub fn escape_at_end(pattern: &str, escape: char) -> Option<String> {
    let count = pattern.chars().rev().take_while(|c| *c == escape).count();
    (count % 2 == 1).then(|| format!("the LIKE pattern \"{pattern}\" ends with its escape character \"{escape}\""))
}
