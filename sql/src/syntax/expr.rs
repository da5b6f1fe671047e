//! Expressions.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::{Ident, Span, TypeName};

/// An expression and its place. Parentheses leave no node; the span of a parenthesised expression includes them.
#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Expr {}

impl Hash for Expr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExprKind {
    Literal(Literal),
    /// `col` or `source.col`. Also a lambda's parameter, and a bare interval unit as a function's argument
    /// (see [`Expr::interval_unit`]): which one it is, only the analyser can know.
    Column(ColumnRef),
    Unary {
        op: UnaryOp,
        operand: Box<Expr>,
    },
    /// Chains of AND and of OR are balanced, so that long ones stay low.
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    IsNull {
        operand: Box<Expr>,
        negated: bool,
    },
    Between {
        operand: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        negated: bool,
    },
    /// The list is not empty.
    In {
        operand: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
    Like {
        operand: Box<Expr>,
        pattern: Box<Expr>,
        escape: Option<char>,
        negated: bool,
    },
    AtTimeZone {
        operand: Box<Expr>,
        zone: Box<Expr>,
    },
    /// With an operand: `CASE operand WHEN value …`; without: `CASE WHEN condition …`. At least one branch.
    Case {
        operand: Option<Box<Expr>>,
        branches: Vec<CaseBranch>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        operand: Box<Expr>,
        ty: TypeName,
    },
    /// `ARRAY[…]`, may be empty (the analyser refuses that).
    Array(Vec<Expr>),
    /// `MAP(k := v, …)`, may be empty.
    Map(Vec<MapEntry>),
    /// `STRUCT(f := v, …)`, may be empty.
    Struct(Vec<StructField>),
    /// `base[index]`
    Subscript {
        base: Box<Expr>,
        index: Box<Expr>,
    },
    /// `base->field`
    Field {
        base: Box<Expr>,
        field: Ident,
    },
    Call(Call),
    /// `x => body`, `(x, y) => body`; only as a function's argument.
    Lambda {
        parameters: Vec<Ident>,
        body: Box<Expr>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnRef {
    pub qualifier: Option<Ident>,
    pub name: Ident,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CaseBranch {
    pub when: Expr,
    pub then: Expr,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MapEntry {
    pub key: Expr,
    pub value: Expr,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StructField {
    pub name: Ident,
    pub value: Expr,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub name: Ident,
    /// `f(*)`; then there are no arguments.
    pub star: bool,
    pub arguments: Vec<Expr>,
}

/// Signs in front of number literals are part of the literal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Literal {
    Null,
    Boolean(bool),
    Integer(i32),
    BigInt(i64),
    Decimal(DecimalLiteral),
    Double(DoubleLiteral),
    String(String),
}

/// A number with a dot and no exponent: `12.30` has precision 4 and scale 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DecimalLiteral {
    /// As written, with the sign.
    pub text: String,
    pub unscaled: i128,
    pub precision: u8,
    pub scale: u8,
}

/// A number with an exponent. Finite.
#[derive(Clone, Debug)]
pub struct DoubleLiteral {
    /// As written, with the sign.
    pub text: String,
    pub value: f64,
}

impl PartialEq for DoubleLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_bits() == other.value.to_bits()
    }
}

impl Eq for DoubleLiteral {}

impl Hash for DoubleLiteral {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.to_bits().hash(state);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    Not,
    Minus,
    Plus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    IsDistinctFrom,
    IsNotDistinctFrom,
    /// `||`
    Concat,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl BinaryOp {
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Or => "OR",
            Self::And => "AND",
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::IsDistinctFrom => "IS DISTINCT FROM",
            Self::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
            Self::Concat => "||",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }

    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessOrEqual
                | Self::Greater
                | Self::GreaterOrEqual
                | Self::IsDistinctFrom
                | Self::IsNotDistinctFrom
        )
    }

    pub fn is_arithmetic(self) -> bool {
        matches!(self, Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Modulo)
    }
}

impl fmt::Display for BinaryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntervalUnit {
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
    Days,
}

impl IntervalUnit {
    /// The unit that an upper-case word names, in singular or plural.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "MILLISECOND" | "MILLISECONDS" => Self::Milliseconds,
            "SECOND" | "SECONDS" => Self::Seconds,
            "MINUTE" | "MINUTES" => Self::Minutes,
            "HOUR" | "HOURS" => Self::Hours,
            "DAY" | "DAYS" => Self::Days,
            _ => return None,
        })
    }

    pub fn millis(self) -> i64 {
        match self {
            Self::Milliseconds => 1,
            Self::Seconds => 1_000,
            Self::Minutes => 60_000,
            Self::Hours => 3_600_000,
            Self::Days => 86_400_000,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Milliseconds => "MILLISECONDS",
            Self::Seconds => "SECONDS",
            Self::Minutes => "MINUTES",
            Self::Hours => "HOURS",
            Self::Days => "DAYS",
        }
    }
}

impl fmt::Display for IntervalUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Expr {
    pub fn new(kind: ExprKind, span: Span) -> Self {
        Self { kind, span }
    }

    /// The literal, if it is one.
    pub fn literal(&self) -> Option<&Literal> {
        match &self.kind {
            ExprKind::Literal(literal) => Some(literal),
            _ => None,
        }
    }

    /// The column reference, if it is one.
    pub fn column(&self) -> Option<&ColumnRef> {
        match &self.kind {
            ExprKind::Column(column) => Some(column),
            _ => None,
        }
    }

    /// The interval unit that this could mean as an argument of a function that wants one: a bare unquoted word.
    pub fn interval_unit(&self) -> Option<IntervalUnit> {
        match &self.kind {
            ExprKind::Column(ColumnRef { qualifier: None, name }) if !name.quoted => {
                IntervalUnit::from_word(&name.value)
            }
            _ => None,
        }
    }

    /// The direct parts, from left to right. A lambda's body is a part, its parameters are not.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Column(_) => vec![],
            ExprKind::Unary { operand, .. }
            | ExprKind::IsNull { operand, .. }
            | ExprKind::Cast { operand, .. }
            | ExprKind::Field { base: operand, .. }
            | ExprKind::Lambda { body: operand, .. } => vec![operand],
            ExprKind::Binary { left, right, .. } => vec![left, right],
            ExprKind::Between { operand, low, high, .. } => vec![operand, low, high],
            ExprKind::In { operand, list, .. } => std::iter::once(&**operand).chain(list).collect(),
            ExprKind::Like { operand, pattern, .. } => vec![operand, pattern],
            ExprKind::AtTimeZone { operand, zone } => vec![operand, zone],
            ExprKind::Case { operand, branches, otherwise } => {
                let branches = branches.iter().flat_map(|b| [&b.when, &b.then]);
                operand.as_deref().into_iter().chain(branches).chain(otherwise.as_deref()).collect()
            }
            ExprKind::Array(items) => items.iter().collect(),
            ExprKind::Map(entries) => entries.iter().flat_map(|e| [&e.key, &e.value]).collect(),
            ExprKind::Struct(fields) => fields.iter().map(|f| &f.value).collect(),
            ExprKind::Subscript { base, index } => vec![base, index],
            ExprKind::Call(call) => call.arguments.iter().collect(),
        }
    }

    /// Calls `visit` for this and everything in it, outside first; what `visit` returns false for is not entered.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Expr) -> bool) {
        if visit(self) {
            for child in self.children() {
                child.walk(visit);
            }
        }
    }
}
