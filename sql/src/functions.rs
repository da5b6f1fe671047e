//! What the analyser must know of functions: names, kinds, overloads. The code behind them is the engine's (built-in)
//! or a guest's (WebAssembly); both describe themselves in these terms.

use std::fmt;
use std::sync::Arc;

use millpond_types::SqlType;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FunctionKind {
    Scalar,
    Aggregate,
    /// Gives zero or more rows for each input row (UDTF); its overloads' result is the item type.
    Table,
}

#[derive(Clone, Debug)]
pub struct Function {
    /// Upper case.
    pub name: String,
    pub kind: FunctionKind,
    pub description: String,
    /// Such as `Confluent`-style categories: MATHEMATICAL, STRING, AGGREGATE ...
    pub category: String,
    pub author: String,
    /// Digest of the WebAssembly module it comes from; `None` for built-in ones.
    pub module: Option<String>,
    pub overloads: Vec<Overload>,
}

#[derive(Clone, Debug)]
pub struct Overload {
    /// Unique within the function, stable for a version of Millpond.
    pub id: u32,
    pub params: Vec<Param>,
    /// Index into `params` of the one that may occur any number of times, zero included.
    pub variadic: Option<usize>,
    /// Aggregates: so many of the last parameters take literals only.
    pub init_params: usize,
    pub result: ResultType,
    /// Aggregates: has an undo, so it may be used on a TABLE.
    pub undo: bool,
    pub description: String,
}

/// Why a call with this text, whatever else it is given, can never give anything.
pub type CheckText = fn(&str) -> Result<(), String>;

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub ty: ParamType,
    /// What a literal is held to, such as a pattern.
    pub check: Option<CheckText>,
}

/// A parameter's type, possibly with holes that the arguments fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamType {
    Exact(SqlType),
    /// DECIMAL of any precision and scale.
    Decimal,
    /// A type variable such as `T`: the same type wherever it occurs in the overload.
    Generic(&'static str),
    /// Any type, each by itself.
    Any,
    /// STRUCT of any fields.
    AnyStruct,
    Array(Box<ParamType>),
    Map(Box<ParamType>, Box<ParamType>),
    /// `(params) => result`.
    Lambda(Vec<ParamType>, Box<ParamType>),
    /// DAYS, HOURS, ... as a bare word; reaches the function as a STRING literal.
    IntervalUnit,
}

/// A result type from the arguments' types, or why there is none.
pub type ComputeType = dyn Fn(&[ArgType]) -> Result<SqlType, String> + Send + Sync;

/// How an overload's result type follows from its arguments'.
#[derive(Clone)]
pub enum ResultType {
    /// With the type variables filled in. `ParamType::Decimal` here means: the first DECIMAL argument's type.
    Of(ParamType),
    /// Computed from the argument types (lambdas: their body's type) and, where an argument is a literal, its value.
    /// The error is a message for the user.
    Computed(Arc<ComputeType>),
}

#[derive(Clone, Debug)]
pub struct ArgType {
    pub ty: SqlType,
    /// The text or number of a literal argument.
    pub literal: Option<millpond_types::Value>,
}

impl fmt::Debug for ResultType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(ty) => f.debug_tuple("Of").field(ty).finish(),
            Self::Computed(_) => f.write_str("Computed"),
        }
    }
}

impl fmt::Display for ParamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(ty) => write!(f, "{ty}"),
            Self::Decimal => f.write_str("DECIMAL"),
            Self::Generic(name) => f.write_str(name),
            Self::Any => f.write_str("ANY"),
            Self::AnyStruct => f.write_str("STRUCT"),
            Self::Array(item) => write!(f, "ARRAY<{item}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Lambda(params, result) => {
                f.write_str("LAMBDA (")?;
                for (i, p) in params.iter().enumerate() {
                    write!(f, "{}{p}", if i == 0 { "" } else { ", " })?;
                }
                write!(f, ") => {result}")
            }
            Self::IntervalUnit => f.write_str("INTERVALUNIT"),
        }
    }
}

/// All functions that a statement may name.
pub trait FunctionCatalog {
    /// By upper-case name.
    fn function(&self, name: &str) -> Option<Arc<Function>>;

    /// All, by name.
    fn functions(&self) -> Vec<Arc<Function>>;
}
