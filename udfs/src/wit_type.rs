//! The types of a guest's functions as WIT gives them, and the SQL types they stand for.
//!
//! Kept with a module's catalog entry (as JSON), so variants are only ever added.

use serde::{Deserialize, Serialize};
use wit_parser::{Resolve, Type, TypeDef, TypeDefKind, TypeOwner};

use millpond_types::{Field, SqlType};

use crate::Limits;

/// A WIT type that has a SQL type. Alias chains are gone; the names of `millpond:udf/sql-types` have variants of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WitType {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F32,
    F64,
    Char,
    String,
    /// `list<u8>`.
    Bytes,
    /// Milliseconds since the epoch, as s64.
    Timestamp,
    /// Days since the epoch, as s32.
    Date,
    /// Milliseconds of the day, as s32.
    Time,
    /// Digits, as string.
    Decimal,
    Enum(Vec<String>),
    List(Box<WitType>),
    /// `list<tuple<string, T>>`.
    Pairs(Box<WitType>),
    /// `map<string, T>`.
    Map(Box<WitType>),
    Record(Vec<(String, WitType)>),
    Tuple(Vec<WitType>),
    Option(Box<WitType>),
}

/// A parameter's type with a hole where WIT says less than SQL: the precision of a DECIMAL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ParamType {
    Exact(SqlType),
    /// DECIMAL of any precision and scale.
    Decimal,
    Array(Box<ParamType>),
    /// MAP<STRING, ...>.
    Map(Box<ParamType>),
}

impl std::fmt::Display for ParamType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(ty) => write!(f, "{ty}"),
            Self::Decimal => f.write_str("DECIMAL"),
            Self::Array(item) => write!(f, "ARRAY<{item}>"),
            Self::Map(value) => write!(f, "MAP<STRING, {value}>"),
        }
    }
}

impl WitType {
    /// The SQL type, where it is fully known: `None` where a DECIMAL is in it.
    pub fn sql_type(&self) -> Option<SqlType> {
        Some(match self {
            Self::Bool => SqlType::Boolean,
            Self::U8 | Self::U16 | Self::S8 | Self::S16 | Self::S32 => SqlType::Integer,
            Self::U32 | Self::U64 | Self::S64 => SqlType::BigInt,
            Self::F32 | Self::F64 => SqlType::Double,
            Self::Char | Self::String | Self::Enum(_) => SqlType::String,
            Self::Bytes => SqlType::Bytes,
            Self::Timestamp => SqlType::Timestamp,
            Self::Date => SqlType::Date,
            Self::Time => SqlType::Time,
            Self::Decimal => return None,
            Self::List(item) => SqlType::array(item.sql_type()?),
            Self::Pairs(value) | Self::Map(value) => SqlType::map(SqlType::String, value.sql_type()?),
            Self::Record(fields) => SqlType::Struct(
                fields
                    .iter()
                    .map(|(name, ty)| Some(Field::new(sql_name(name), ty.sql_type()?)))
                    .collect::<Option<_>>()?,
            ),
            Self::Tuple(types) => SqlType::Struct(
                types
                    .iter()
                    .enumerate()
                    .map(|(i, ty)| Some(Field::new(format!("F{i}"), ty.sql_type()?)))
                    .collect::<Option<_>>()?,
            ),
            Self::Option(inner) => return inner.sql_type(),
        })
    }

    /// The type a parameter asks for. A DECIMAL within a STRUCT has none.
    pub fn param_type(&self) -> Option<ParamType> {
        match self {
            Self::Decimal => Some(ParamType::Decimal),
            Self::Option(inner) => inner.param_type(),
            _ => match (self.sql_type(), self) {
                (Some(ty), _) => Some(ParamType::Exact(ty)),
                (None, Self::List(item)) => Some(ParamType::Array(Box::new(item.param_type()?))),
                (None, Self::Pairs(value) | Self::Map(value)) => Some(ParamType::Map(Box::new(value.param_type()?))),
                (None, _) => None,
            },
        }
    }

    pub fn is_option(&self) -> bool {
        matches!(self, Self::Option(_))
    }
}

/// A WIT name as SQL has it: upper case, `-` to `_`.
pub(crate) fn sql_name(wit_name: &str) -> String {
    wit_name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect()
}

/// Maps the types of one function; the limit on nodes holds for all of them together.
pub(crate) struct TypeMapper<'a> {
    resolve: &'a Resolve,
    limits: &'a Limits,
    nodes: usize,
}

impl<'a> TypeMapper<'a> {
    pub(crate) fn new(resolve: &'a Resolve, limits: &'a Limits) -> Self {
        Self { resolve, limits, nodes: 0 }
    }

    /// The error is the reason why there is no SQL type.
    pub(crate) fn map(&mut self, ty: &Type) -> Result<WitType, String> {
        self.map_at(ty, 0)
    }

    /// `result<T, string>`, allowed as a function's result only: T.
    pub(crate) fn map_result(&mut self, ty: &Type) -> Result<(WitType, bool), String> {
        match self.follow(ty) {
            Some(TypeDefKind::Result(result)) => {
                let Some(ok) = &result.ok else {
                    return Err("its result carries no value".to_string());
                };
                match &result.err {
                    None => {}
                    Some(err) if matches!(self.map(err), Ok(WitType::String)) => {}
                    Some(_) => return Err("the error of its result is not a string".to_string()),
                }
                Ok((self.map(ok)?, true))
            }
            _ => Ok((self.map(ty)?, false)),
        }
    }

    /// The definition at the end of a chain of aliases; `None` for the built-in types.
    fn follow(&self, ty: &Type) -> Option<&'a TypeDefKind> {
        let mut at = *ty;
        loop {
            let Type::Id(id) = at else { return None };
            match &self.resolve.types.get(id)?.kind {
                TypeDefKind::Type(next) => at = *next,
                kind => return Some(kind),
            }
        }
    }

    fn map_at(&mut self, ty: &Type, depth: usize) -> Result<WitType, String> {
        self.nodes += 1;
        if self.nodes > self.limits.type_nodes_max {
            return Err(format!("its signature has more than {} types", self.limits.type_nodes_max));
        }
        if depth > self.limits.type_depth_max {
            return Err(format!("its types are nested more than {} deep", self.limits.type_depth_max));
        }
        Ok(match ty {
            Type::Bool => WitType::Bool,
            Type::U8 => WitType::U8,
            Type::U16 => WitType::U16,
            Type::U32 => WitType::U32,
            Type::U64 => WitType::U64,
            Type::S8 => WitType::S8,
            Type::S16 => WitType::S16,
            Type::S32 => WitType::S32,
            Type::S64 => WitType::S64,
            Type::F32 => WitType::F32,
            Type::F64 => WitType::F64,
            Type::Char => WitType::Char,
            Type::String => WitType::String,
            Type::ErrorContext => return Err(no_sql_type("error-context")),
            Type::Id(id) => {
                let def = self.resolve.types.get(*id).ok_or_else(|| "a type is missing".to_string())?;
                return self.map_definition(def, depth);
            }
        })
    }

    fn map_definition(&mut self, def: &TypeDef, depth: usize) -> Result<WitType, String> {
        let next = depth + 1;
        Ok(match &def.kind {
            TypeDefKind::Type(inner) => {
                if let Some(ty) = self.sql_alias(def, inner) {
                    return Ok(ty);
                }
                self.map_at(inner, next)?
            }
            TypeDefKind::Enum(def) => WitType::Enum(def.cases.iter().map(|case| case.name.clone()).collect()),
            TypeDefKind::List(item) => match self.map_at(item, next)? {
                WitType::U8 => WitType::Bytes,
                WitType::Tuple(pair) if matches!(pair.as_slice(), [WitType::String, _]) => {
                    let value = pair.into_iter().nth(1).ok_or_else(|| no_sql_type("tuple"))?;
                    WitType::Pairs(Box::new(value))
                }
                item => WitType::List(Box::new(item)),
            },
            TypeDefKind::Map(key, value) => {
                if self.map_at(key, next)? != WitType::String {
                    return Err("the keys of a MAP are strings".to_string());
                }
                WitType::Map(Box::new(self.map_at(value, next)?))
            }
            TypeDefKind::Record(record) if !record.fields.is_empty() => {
                let mut fields: Vec<(String, WitType)> = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    let name = sql_name(&field.name);
                    if fields.iter().any(|(known, _)| sql_name(known) == name) {
                        return Err(format!("two fields of a record are \"{name}\" in SQL"));
                    }
                    fields.push((field.name.clone(), self.map_at(&field.ty, next)?));
                }
                WitType::Record(fields)
            }
            TypeDefKind::Tuple(tuple) if !tuple.types.is_empty() => {
                WitType::Tuple(tuple.types.iter().map(|ty| self.map_at(ty, next)).collect::<Result<_, _>>()?)
            }
            TypeDefKind::Option(inner) => match self.map_at(inner, next)? {
                WitType::Option(_) => return Err("an option within an option has no SQL type".to_string()),
                inner => WitType::Option(Box::new(inner)),
            },
            TypeDefKind::Result(_) => return Err("a result within another type has no SQL type".to_string()),
            TypeDefKind::Handle(_) | TypeDefKind::Resource => return Err(no_sql_type("resource")),
            kind => return Err(no_sql_type(kind.as_str())),
        })
    }

    /// A type of `millpond:udf/sql-types`, known by interface and name.
    fn sql_alias(&self, def: &TypeDef, inner: &Type) -> Option<WitType> {
        let TypeOwner::Interface(owner) = def.owner else { return None };
        let interface = self.resolve.interfaces.get(owner)?;
        let package = self.resolve.packages.get(interface.package?)?;
        if interface.name.as_deref() != Some("sql-types")
            || package.name.namespace != "millpond"
            || package.name.name != "udf"
        {
            return None;
        }
        match (def.name.as_deref()?, inner) {
            ("timestamp", Type::S64) => Some(WitType::Timestamp),
            ("date", Type::S32) => Some(WitType::Date),
            ("time", Type::S32) => Some(WitType::Time),
            ("decimal", Type::String) => Some(WitType::Decimal),
            _ => None,
        }
    }
}

fn no_sql_type(kind: &str) -> String {
    format!("a {kind} has no SQL type")
}
