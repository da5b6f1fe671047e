//! CREATE ... AS SELECT and INSERT INTO ... SELECT: what a query writes to.

use std::sync::Arc;

use millpond_types::ColumnRole;
use millpond_types::ports::is_internal;

use super::coerce::{coerce, widens};
use super::join::plain_format;
use super::properties::{With, WithOf};
use super::query::{PlannedQuery, Purpose, QueryAnalysis, wrong_result};
use super::source::{
    check_formats, check_replaceable, check_schema_id, check_topic_name, check_upgrade, default_format, relation,
    retention, timestamp, topic_configs_of,
};
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{
    Analysed, AnalysisResult, Environment, FormatError, FormatSpec, NodeKind, Relation, Side, Sink, SourceInfo,
};
use crate::syntax::{self, Literal, SourceKind};

pub(super) fn create_as(create: &syntax::CreateAs, text: &str, env: &dyn Environment) -> AnalysisResult<Analysed> {
    let relation = relation(create.kind);
    let statement = match create.kind {
        SourceKind::Stream => "CREATE STREAM AS SELECT",
        SourceKind::Table => "CREATE TABLE AS SELECT",
    };
    let with = With::new(&create.properties, WithOf::CreateAs)?;
    check_replaceable(env, &create.name, relation, create.or_replace, false, create.if_not_exists)?;
    let purpose = Purpose::Persistent { sink: &create.name.value, statement };
    // A format the user named is where rows are keyed anew, too; else whatever the source has.
    let planned = QueryAnalysis { query: &create.query, env, purpose, key_format: None }.plan()?;
    let result = &planned.plan.root;
    if result.relation != relation {
        return Err(wrong_result(create.name.span, result.relation, statement));
    }
    let schema = result.schema.clone();
    let keyed = schema.keys().next().is_some();

    let key_format = sink_key_format(&with, &planned, keyed, env)?;
    let value_name = match with.format_name(Side::Value)? {
        Some(name) => name,
        None => planned.value_format.name.clone(),
    };
    let mut value_format = with.format(Side::Value, value_name, Some(&planned.value_format))?;
    value_format.wrap_single = with.wrap_single(env, &value_format.name, schema.values().count())?;
    check_formats(env, &schema, &key_format, &value_format, &with, create.name.span)?;

    let window = result.window;
    let retention = retention(&with)?;
    if retention.is_some() && relation == Relation::Table && window.is_none() {
        return Err(Diagnostic::at(
            Code::Property,
            with.span("RETENTION_MS"),
            "invalid config variable in the WITH clause: RETENTION_MS. Non-windowed tables do not support retention",
        ));
    }
    let timestamp = timestamp(&with, &schema, env)?;
    let topic = match with.string("KAFKA_TOPIC")? {
        Some(topic) => topic,
        None => {
            let prefix = env.property("ksql.output.topic.name.prefix").unwrap_or_default();
            format!("{prefix}{}", create.name.value)
        }
    };
    check_topic_name(&topic, with.span("KAFKA_TOPIC"))?;
    for (side, format) in [(Side::Key, &key_format), (Side::Value, &value_format)] {
        check_schema_id(&schema, &topic, side, format, &with, env)?;
    }
    let existing = env.topic(&topic);
    let partitions = with.positive::<i32>("PARTITIONS")?;
    let replicas = with.positive::<i16>("REPLICAS")?;
    if let (Some((found, _)), Some(wanted)) = (existing, partitions)
        && found != wanted
    {
        return Err(Diagnostic::at(
            Code::Conflict,
            with.span("PARTITIONS"),
            format!(
                "a Kafka topic with the name '{topic}' already exists, with different partition/replica \
                     configuration than required. KSQL expects {wanted} partitions (topic has {found})"
            ),
        ));
    }
    let partitions = partitions.or(existing.map(|(p, _)| p)).unwrap_or(planned.partitions);
    let replicas = replicas.or(existing.map(|(_, r)| r)).unwrap_or(planned.replicas);
    let source = SourceInfo {
        name: create.name.value.clone(),
        relation,
        schema,
        topic,
        partitions,
        replicas,
        key_format,
        value_format,
        window,
        timestamp: None,
        read_only: false,
        materialised: relation == Relation::Table,
        statement: text.to_owned(),
        owner: None,
    };
    if create.or_replace {
        check_upgrade(env, &source, create.name.span)?;
    }
    let topic_configs = topic_configs_of(relation, window.is_some(), retention, planned.retention_ms);
    Ok(Analysed::CreateAs {
        query: planned.plan,
        sink: Sink { source, topic_configs, timestamp },
        or_replace: create.or_replace,
        if_not_exists: create.if_not_exists,
    })
}

/// What the statement says, else the sources' format, else the default. A format that cannot hold the key is refused
/// later, also where the user did not name it: only between stages is the format of a key ours to choose.
fn sink_key_format(
    with: &With<'_>,
    planned: &PlannedQuery,
    keyed: bool,
    env: &dyn Environment,
) -> AnalysisResult<FormatSpec> {
    let named = with.format_name(Side::Key)?;
    if !keyed {
        if let Some(name) = named.filter(|n| n != "NONE" && with.has("KEY_FORMAT")) {
            let unknown = env.check_format(&plain_format(name.clone()), Side::Key, &[]);
            if let Err(FormatError::Invalid(why)) = unknown {
                return Err(Diagnostic::at(Code::Format, with.format_span(Side::Key), why));
            }
            return Err(Diagnostic::at(
                Code::Key,
                with.format_span(Side::Key),
                format!("key format specified for stream without key columns: {name}"),
            ));
        }
        return Ok(plain_format("NONE".to_owned()));
    }
    if let Some(name) = named {
        return with.format(Side::Key, name, planned.key_format.as_ref());
    }
    let inherited = match &planned.key_format {
        Some(format) => format.clone(),
        None => plain_format(default_format(Side::Key, env)?),
    };
    let name = inherited.name.clone();
    with.format(Side::Key, name, Some(&inherited))
}

pub(super) fn insert_into(insert: &syntax::InsertInto, env: &dyn Environment) -> AnalysisResult<Analysed> {
    let with = With::new(&insert.properties, WithOf::InsertInto)?;
    let name = &insert.target;
    let target: Arc<SourceInfo> = match env.source(&name.value) {
        Some(target) => target,
        None => {
            let message = format!("source `{}` does not exist", name.value);
            return Err(super::scope::unknown_source(env, name, message));
        }
    };
    let refuse = |code: Code, message: String| Err(Diagnostic::at(code, name.span, message));
    if target.relation != Relation::Stream {
        return refuse(
            Code::Invalid,
            format!("INSERT INTO can only be used to insert into a stream. {} is a table", target.name),
        );
    }
    if target.read_only {
        return refuse(Code::Conflict, format!("cannot insert into read-only stream: {}", target.name));
    }
    if is_internal(&target.topic) {
        return refuse(
            Code::Conflict,
            format!("cannot insert into {}: its topic {} is internal", target.name, target.topic),
        );
    }
    if target.schema.columns.iter().any(|c| matches!(c.role, ColumnRole::Headers | ColumnRole::Header(_))) {
        return refuse(Code::Invalid, format!("cannot insert into {} because it has header columns", target.name));
    }
    let purpose = Purpose::Persistent { sink: &name.value, statement: "INSERT INTO" };
    let analysis = QueryAnalysis { query: &insert.query, env, purpose, key_format: None };
    let mut planned = analysis.plan()?;
    if planned.plan.root.relation != Relation::Stream {
        return refuse(
            Code::Invalid,
            format!(
                "incompatible data sink and query result. Data sink ({}) type is STREAM but select query result is \
                 TABLE",
                target.name
            ),
        );
    }
    if planned.plan.root.window != target.window {
        return refuse(
            Code::Window,
            format!("incompatible data sink and query result: the keys of \"{}\" have another window", target.name),
        );
    }
    fit_schema(&mut planned, &target, insert)?;
    let query_id = match with.string("QUERY_ID")? {
        Some(id) if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            return Err(Diagnostic::at(
                Code::Property,
                with.span("QUERY_ID"),
                format!("query IDs may contain only alphanumeric characters and '_'. Got: '{id}'"),
            ));
        }
        id => id.map(|id| id.to_ascii_uppercase()),
    };
    Ok(Analysed::InsertInto { query: planned.plan, target: (*target).clone(), query_id })
}

/// Casts the result's columns to the target's, or says that they do not fit.
fn fit_schema(planned: &mut PlannedQuery, target: &SourceInfo, insert: &syntax::InsertInto) -> AnalysisResult<()> {
    let root = &mut planned.plan.root;
    let wanted: Vec<_> = target.schema.keys().chain(target.schema.columns.iter().filter(|c| !c.is_key())).collect();
    let fits = root.schema.columns.len() == wanted.len()
        && root
            .schema
            .columns
            .iter()
            .zip(&wanted)
            .all(|(r, w)| r.name == w.name && r.is_key() == w.is_key() && widens(&r.ty, &w.ty));
    if !fits {
        return Err(Diagnostic::at(
            Code::Type,
            insert.target.span,
            format!(
                "incompatible schema between results and sink. Result schema is {}. Sink schema is {}",
                root.schema, target.schema
            ),
        )
        .with_hint("columns must agree in number, order, name and key, and their types must widen to the target's"));
    }
    if let NodeKind::Project { exprs, .. } = &mut root.kind {
        for ((expr, column), wanted) in exprs.iter_mut().zip(&mut root.schema.columns).zip(&wanted) {
            let cast = coerce(expr.clone(), &wanted.ty);
            *expr = cast.map_err(|_| Diagnostic::bug("a column that widens does not convert"))?;
            column.ty = wanted.ty.clone();
        }
    }
    Ok(())
}

/// Whether a literal is NULL.
pub(super) fn is_null_literal(expr: &syntax::Expr) -> bool {
    expr.literal() == Some(&Literal::Null)
}
