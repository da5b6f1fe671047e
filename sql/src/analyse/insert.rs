//! INSERT INTO ... VALUES.

use std::sync::Arc;

use millpond_types::ports::is_internal;
use millpond_types::{ColumnRole, Field, SqlType};

use super::coerce::{coerce, widens};
use super::scope::{ROWOFFSET, ROWPARTITION, ROWTIME, unknown_source};
use super::shown::shown;
use super::sink::is_null_literal;
use super::source::noun;
use super::timestamp::parse_partial_timestamp;
use super::typer::{Typed, Typer, null};
use crate::diagnostic::{Code, Diagnostic, suggest};
use crate::expr::{ExprKind, TypedExpr};
use crate::plan::{Analysed, AnalysisResult, Environment, Relation, SourceInfo};
use crate::syntax::{self, Expr};

pub(super) fn insert_values(insert: &syntax::InsertValues, env: &dyn Environment) -> AnalysisResult<Analysed> {
    let name = &insert.target;
    let target: Arc<SourceInfo> = match env.source(&name.value) {
        Some(target) => target,
        None => {
            let message = format!("cannot insert values into an unknown stream/table: `{}`", name.value);
            return Err(unknown_source(env, name, message));
        }
    };
    let refuse = |message: String| Err(Diagnostic::at(Code::Conflict, name.span, message));
    if target.read_only {
        return refuse(format!("cannot insert values into read-only {}: {}", noun(target.relation), target.name));
    }
    if target.window.is_some() {
        return refuse(format!("cannot insert values into windowed {}: {}", noun(target.relation), target.name));
    }
    if is_internal(&target.topic) {
        return refuse(format!("cannot insert values into {}: its topic {} is internal", target.name, target.topic));
    }
    let is_header = |role: &ColumnRole| matches!(role, ColumnRole::Headers | ColumnRole::Header(_));
    let columns: Vec<syntax::Ident> = if insert.columns.is_empty() {
        if let Some(header) = target.schema.columns.iter().find(|c| is_header(&c.role)) {
            return refuse(format!("cannot insert into HEADER columns: {}", header.name));
        }
        target.schema.columns.iter().map(|c| syntax::Ident { span: name.span, ..syntax::Ident::new(&c.name) }).collect()
    } else {
        insert.columns.clone()
    };
    if insert.columns.is_empty() && columns.len() != insert.values.len() {
        let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
        let names = list(&mut target.schema.keys().chain(target.schema.values()).map(|c| format!("`{}`", c.name)));
        let values = list(&mut insert.values.iter().map(|v| shown(v, true)));
        let message = format!("Expected a value for each column. Expected Columns: [{names}]. Got [{values}]");
        return Err(Diagnostic::at(Code::Invalid, insert.list.span, failed(&target, &message)));
    }
    if columns.len() != insert.values.len() {
        return Err(Diagnostic::at(
            Code::Invalid,
            insert.list.span,
            format!(
                "failed to prepare statement: Expected number columns and values to match: {}, {}",
                columns.len(),
                insert.values.len()
            ),
        )
        .with_detail(format!(
            "the columns are {}",
            columns.iter().map(|c| c.value.as_str()).collect::<Vec<_>>().join(", ")
        )));
    }
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    let mut values = Vec::with_capacity(columns.len());
    let mut row_time = None;
    let mut given_keys: Vec<String> = Vec::new();
    for (column, value) in columns.iter().zip(&insert.values) {
        let written = &column.value;
        if names.contains(written) || (written == ROWTIME && row_time.is_some()) {
            return Err(Diagnostic::at(
                Code::DuplicateName,
                column.span,
                format!("column name is specified more than once: {written}"),
            ));
        }
        if written == ROWTIME {
            row_time = Some(time(value, &target, env)?);
            continue;
        }
        if matches!(written.as_str(), ROWPARTITION | ROWOFFSET) {
            return Err(Diagnostic::at(
                Code::Invalid,
                column.span,
                format!("inserting into column `{written}` is not allowed"),
            ));
        }
        let Some(declared) = target.schema.get(written) else {
            let all = target.schema.columns.iter().map(|c| c.name.as_str());
            let diagnostic = Diagnostic::at(
                Code::UnknownName,
                column.span,
                failed(&target, &format!("Column name `{written}` does not exist")),
            );
            return Err(match suggest(written, all) {
                Some(other) => diagnostic.with_hint(format!("did you mean `{other}`?")),
                None => diagnostic,
            });
        };
        if is_header(&declared.role) {
            return Err(Diagnostic::at(
                Code::Conflict,
                column.span,
                format!("cannot insert into HEADER columns: {written}"),
            ));
        }
        values.push(constant(value, written, &declared.ty, &target, env)?);
        if declared.is_key() && !is_null_literal(value) {
            given_keys.push(written.clone());
        }
        names.push(written.clone());
    }
    if target.relation == Relation::Table
        && let Some(key) = target.schema.keys().find(|k| !given_keys.contains(&k.name))
    {
        return Err(Diagnostic::at(
            Code::Key,
            insert.list.span,
            failed(&target, &format!("Value for primary key column(s) {} is required for tables", key.name)),
        ));
    }
    Ok(Analysed::InsertValues { target, columns: names, values, row_time })
}

/// As ksqlDB begins what it says of rows that it cannot write.
fn failed(target: &SourceInfo, why: &str) -> String {
    format!("failed to insert values into '{}'. {why}", target.name)
}

/// A value without columns, as the column's type.
fn constant(
    value: &Expr,
    column: &str,
    ty: &SqlType,
    target: &SourceInfo,
    env: &dyn Environment,
) -> AnalysisResult<TypedExpr> {
    refuse_columns(value)?;
    let typed = match Typer::new(env, &[], "VALUES", true).typed(value)? {
        Typed::Null(span) => return Ok(null(ty, span)),
        Typed::Expr(e) => e,
    };
    let span = typed.span;
    let from = typed.ty.clone();
    let wrong = |from: &SqlType| {
        let message = format!("Expected type {ty} for field `{column}` but got {from}({})", shown(value, true));
        Diagnostic::at(Code::Type, span, failed(target, &message))
    };
    // A number is not text here, nor the other way round, but where an own text form exists.
    let literal_of_other_kind = matches!(typed.kind, ExprKind::Literal(_))
        && ((*ty == SqlType::String && from != SqlType::String)
            || (from == SqlType::String && (ty.is_numeric() || *ty == SqlType::Boolean)));
    if literal_of_other_kind {
        return Err(wrong(&from));
    }
    match coerce(typed.clone(), ty) {
        Ok(e) => Ok(e),
        // Narrower containers and numbers convert when the value is known.
        Err(_)
            if widens(&known(&from, ty), ty)
                || (from.is_numeric() && ty.is_numeric() && !matches!(typed.kind, ExprKind::Literal(_))) =>
        {
            Ok(TypedExpr::new(ExprKind::Cast(Box::new(typed)), ty.clone(), span))
        }
        Err(_) => Err(wrong(&from)),
    }
}

/// A type without the fields that the wanted one does not have: ksqlDB leaves them out of what it writes.
fn known(from: &SqlType, wanted: &SqlType) -> SqlType {
    match (from, wanted) {
        (SqlType::Array(a), SqlType::Array(b)) => SqlType::array(known(a, b)),
        (SqlType::Map(key, a), SqlType::Map(_, b)) => SqlType::map((**key).clone(), known(a, b)),
        (SqlType::Struct(fields), SqlType::Struct(wanted)) => {
            let of = |f: &Field| {
                let same = wanted.iter().find(|w| w.name == f.name)?;
                Some(Field::new(f.name.clone(), known(&f.ty, &same.ty)))
            };
            SqlType::Struct(fields.iter().filter_map(of).collect())
        }
        _ => from.clone(),
    }
}

fn refuse_columns(value: &Expr) -> AnalysisResult<()> {
    let mut stray = None;
    let mut lambda_depth = 0usize;
    value.walk(&mut |e| {
        if matches!(e.kind, syntax::ExprKind::Lambda { .. }) {
            lambda_depth += 1;
        }
        if let Some(column) = e.column()
            && (column.qualifier.is_some() || lambda_depth == 0)
            && e.interval_unit().is_none()
            && stray.is_none()
        {
            stray = Some((column.clone(), e.span));
        }
        true
    });
    match stray {
        None => Ok(()),
        Some((column, span)) => Err(match column.qualifier {
            Some(qualifier) => Diagnostic::at(
                Code::UnknownName,
                span,
                format!("failed to prepare statement: '{}' is not a valid stream/table name or alias", qualifier.value),
            ),
            None => Diagnostic::at(
                Code::UnknownName,
                span,
                format!("VALUES column '{}' cannot be resolved: values are constants", column.name.value),
            ),
        }),
    }
}

/// The time of the record: BIGINT milliseconds, or a text that names a time.
fn time(value: &Expr, target: &SourceInfo, env: &dyn Environment) -> AnalysisResult<TypedExpr> {
    refuse_columns(value)?;
    if let Some(syntax::Literal::String(text)) = value.literal() {
        let ms = parse_partial_timestamp(text).map_err(|m| Diagnostic::at(Code::Type, value.span, m))?;
        let kind = ExprKind::Literal(millpond_types::Value::BigInt(ms));
        return Ok(TypedExpr::new(kind, SqlType::BigInt, value.span));
    }
    constant(value, ROWTIME, &SqlType::BigInt, target, env)
}
