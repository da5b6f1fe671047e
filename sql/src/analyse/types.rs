//! Types as written to types as meant: built-in names, CREATE TYPE aliases, DECIMAL's parameters.

use millpond_types::sql_type::DECIMAL_PRECISION_MAX;
use millpond_types::{Field, SqlType};

use crate::diagnostic::{Code, Diagnostic, suggest};
use crate::plan::{AnalysisResult, Environment};
use crate::syntax::{TypeName, TypeNameKind, TypeParameter};

const BUILT_IN: [&str; 12] = [
    "BOOLEAN",
    "INT",
    "INTEGER",
    "BIGINT",
    "DOUBLE",
    "DECIMAL",
    "STRING",
    "VARCHAR",
    "BYTES",
    "DATE",
    "TIME",
    "TIMESTAMP",
];

/// The type that a type name means; custom types are expanded.
pub fn resolve_type(ty: &TypeName, env: &dyn Environment) -> AnalysisResult<SqlType> {
    resolve_type_with(ty, &|name| env.custom_type(name))
}

/// As `resolve_type`, where custom types come from elsewhere than an environment.
pub fn resolve_type_with(ty: &TypeName, custom: &dyn Fn(&str) -> Option<SqlType>) -> AnalysisResult<SqlType> {
    Ok(match &ty.kind {
        TypeNameKind::Array(item) => SqlType::array(resolve_type_with(item, custom)?),
        TypeNameKind::Map(key, value) => {
            SqlType::map(resolve_type_with(key, custom)?, resolve_type_with(value, custom)?)
        }
        TypeNameKind::Struct(fields) => {
            let mut resolved: Vec<Field> = Vec::with_capacity(fields.len());
            for field in fields {
                if resolved.iter().any(|f| f.name == field.name.value) {
                    return Err(Diagnostic::at(
                        Code::DuplicateName,
                        field.name.span,
                        format!("duplicate field names found in STRUCT: '{}'", field.name.value),
                    ));
                }
                resolved.push(Field::new(field.name.value.clone(), resolve_type_with(&field.ty, custom)?));
            }
            SqlType::Struct(resolved)
        }
        TypeNameKind::Named { name, parameters } => match name.value.to_ascii_uppercase().as_str() {
            "BOOLEAN" => SqlType::Boolean,
            "INT" | "INTEGER" => SqlType::Integer,
            "BIGINT" => SqlType::BigInt,
            "DOUBLE" => SqlType::Double,
            "STRING" | "VARCHAR" => SqlType::String,
            "BYTES" => SqlType::Bytes,
            "DATE" => SqlType::Date,
            "TIME" => SqlType::Time,
            "TIMESTAMP" => SqlType::Timestamp,
            "DECIMAL" => decimal(ty, parameters)?,
            _ => {
                return custom(&name.value).ok_or_else(|| {
                    let diagnostic = Diagnostic::at(
                        Code::UnknownName,
                        name.span,
                        format!("cannot resolve unknown type: {}", name.value),
                    );
                    match suggest(&name.value, BUILT_IN) {
                        Some(other) => diagnostic.with_hint(format!("did you mean {other}?")),
                        None => diagnostic,
                    }
                });
            }
        },
    })
}

fn decimal(ty: &TypeName, parameters: &[TypeParameter]) -> AnalysisResult<SqlType> {
    let wrong = |message: String| Diagnostic::at(Code::Type, ty.span, message);
    let [TypeParameter::Number(precision), TypeParameter::Number(scale)] = parameters else {
        return Err(wrong("DECIMAL is defined as DECIMAL(precision, scale), such as DECIMAL(10, 2)".to_owned()));
    };
    if *precision < 1 {
        return Err(wrong(format!("DECIMAL precision must be >= 1: DECIMAL({precision},{scale})")));
    }
    if *scale < 0 {
        return Err(wrong(format!("DECIMAL scale must be >= 0: DECIMAL({precision},{scale})")));
    }
    if scale > precision {
        return Err(wrong(format!("DECIMAL precision must be >= scale: DECIMAL({precision},{scale})")));
    }
    match (u8::try_from(*precision), u8::try_from(*scale)) {
        (Ok(precision), Ok(scale)) if precision <= DECIMAL_PRECISION_MAX => Ok(SqlType::decimal(precision, scale)),
        _ => Err(Diagnostic::at(
            Code::Unsupported,
            ty.span,
            format!("DECIMAL({precision}, {scale}) is too long: at most {DECIMAL_PRECISION_MAX} digits are supported"),
        )),
    }
}

/// Whether a MAP is this type or a part of it.
pub(super) fn contains_map(ty: &SqlType) -> bool {
    match ty {
        SqlType::Map(..) => true,
        SqlType::Array(item) => contains_map(item),
        SqlType::Struct(fields) => fields.iter().any(|f| contains_map(&f.ty)),
        _ => false,
    }
}
