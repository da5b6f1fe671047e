//! CREATE STREAM and CREATE TABLE over a topic, ALTER, and the rules about columns that all sources share.

use std::collections::BTreeMap;

use millpond_types::ports::is_internal;
use millpond_types::{Column, ColumnRole, Field, Schema, SqlType};

use super::properties::{With, WithOf, uses_registry};
use super::scope::is_pseudo;
use super::types::{contains_map, resolve_type};
use crate::diagnostic::{Code, Diagnostic, suggest};
use crate::plan::{
    Analysed, AnalysisResult, Environment, FormatError, FormatSpec, Relation, Side, SourceInfo, TimestampColumn,
};
use crate::syntax::{self, ColumnDef, Ident, SourceKind, Span};

pub(super) fn relation(kind: SourceKind) -> Relation {
    match kind {
        SourceKind::Stream => Relation::Stream,
        SourceKind::Table => Relation::Table,
    }
}

pub(super) fn noun(relation: Relation) -> &'static str {
    match relation {
        Relation::Stream => "stream",
        Relation::Table => "table",
    }
}

pub(super) fn create_source(
    create: &syntax::CreateSource,
    text: &str,
    env: &dyn Environment,
) -> AnalysisResult<Analysed> {
    let relation = relation(create.kind);
    let with = With::new(&create.properties, WithOf::CreateSource)?;
    check_replaceable(env, &create.name, relation, create.or_replace, create.read_only, create.if_not_exists)?;

    let Some(topic) = with.string("KAFKA_TOPIC")? else {
        return Err(Diagnostic::at(
            Code::Property,
            create.name.span,
            "missing required property \"KAFKA_TOPIC\" which has no default value",
        ));
    };
    check_topic_name(&topic, with.span("KAFKA_TOPIC"))?;
    let key_name = format_name(&with, Side::Key, env)?;
    let value_name = format_name(&with, Side::Value, env)?;
    let mut key_format = with.format(Side::Key, key_name, None)?;
    let mut value_format = with.format(Side::Value, value_name, None)?;

    let mut schema = columns(&create.columns, relation, env)?;
    for (side, format) in [(Side::Key, &mut key_format), (Side::Value, &mut value_format)] {
        let declared = match side {
            Side::Key => schema.keys().next().is_some(),
            Side::Value => schema.values().next().is_some(),
        };
        let id = match side {
            Side::Key => "KEY_SCHEMA_ID",
            Side::Value => "VALUE_SCHEMA_ID",
        };
        if !declared && uses_registry(&format.name) {
            infer(&mut schema, &topic, side, format, &with, env, create.name.span)?;
        }
        if declared && with.has(id) {
            return Err(Diagnostic::at(
                Code::Property,
                with.span(id),
                format!("table elements and {id} cannot both exist for create statement"),
            ));
        }
    }
    if schema.columns.is_empty() {
        return Err(Diagnostic::at(Code::Invalid, create.name.span, "the statement does not define any columns"));
    }
    if relation == Relation::Table && schema.keys().next().is_none() {
        return Err(Diagnostic::at(
            Code::Key,
            create.name.span,
            "tables require a PRIMARY KEY. Please define the PRIMARY KEY",
        )
        .with_hint("declare a column such as: id BIGINT PRIMARY KEY"));
    }

    key_format.wrap_single = None;
    value_format.wrap_single = with.wrap_single(env, &value_format.name, schema.values().count())?;
    check_formats(env, &schema, &key_format, &value_format, &with, create.name.span)?;

    let window = with.window()?;
    if window.is_some() && schema.keys().next().is_none() {
        return Err(Diagnostic::at(Code::Window, create.name.span, "windowed sources require a key column"));
    }
    let timestamp = timestamp(&with, &schema, env)?;

    let partitions = with.positive::<i32>("PARTITIONS")?;
    let replicas = with.positive::<i16>("REPLICAS")?;
    let retention = retention(&with)?;
    if retention.is_some() && relation == Relation::Table && window.is_none() {
        return Err(Diagnostic::at(
            Code::Property,
            with.span("RETENTION_MS"),
            "invalid config variable in the WITH clause: RETENTION_MS. Non-windowed tables do not support retention",
        ));
    }
    let existing = env.topic(&topic);
    let quirks = env.property("ksql.compat.quirks").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    let (partitions, replicas, create_topic) = match (existing, partitions) {
        (Some((found, found_replicas)), wanted) => {
            // A topic that is kept once is what a statement written for several brokers finds here.
            let strict = found_replicas != 1 || quirks;
            let differs =
                wanted.is_some_and(|w| w != found) || (strict && replicas.is_some_and(|r| r != found_replicas));
            if differs {
                return Err(Diagnostic::at(
                    Code::Conflict,
                    with.span("KAFKA_TOPIC"),
                    format!(
                        "a Kafka topic with the name '{topic}' already exists, with different partition/replica \
                         configuration than required. KSQL expects {} partitions (topic has {found}), and {} \
                         replication factor (topic has {found_replicas})",
                        wanted.unwrap_or(found),
                        replicas.unwrap_or(found_replicas)
                    ),
                ));
            }
            (found, found_replicas, None)
        }
        (None, Some(wanted)) => {
            let replicas = replicas.unwrap_or(1);
            (wanted, replicas, Some((wanted, replicas)))
        }
        (None, None) => {
            return Err(Diagnostic::at(
                Code::Invalid,
                with.span("KAFKA_TOPIC"),
                format!("topic '{topic}' does not exist"),
            )
            .with_hint(
                "to create a new topic for the stream/table provide the 'PARTITIONS' configuration in the WITH clause \
                 (and optionally 'REPLICAS')",
            ));
        }
    };
    let mut topic_configs = BTreeMap::new();
    if create_topic.is_some() {
        topic_configs = topic_configs_of(relation, window.is_some(), retention, None);
    }

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
        timestamp,
        read_only: create.read_only,
        materialised: create.read_only && relation == Relation::Table,
        statement: text.to_owned(),
        owner: None,
    };
    if create.or_replace {
        check_upgrade(env, &source, create.name.span)?;
    }
    Ok(Analysed::CreateSource {
        source,
        create_topic,
        topic_configs,
        or_replace: create.or_replace,
        if_not_exists: create.if_not_exists,
    })
}

/// Puts in the columns of a side that the statement leaves to the side's schema.
fn infer(
    schema: &mut Schema,
    topic: &str,
    side: Side,
    format: &mut FormatSpec,
    with: &With<'_>,
    env: &dyn Environment,
    fallback: Span,
) -> AnalysisResult<()> {
    let span = if with.has("FORMAT") || side == Side::Value { with.format_span(side) } else { fallback };
    // A key stands alone where its format lets it.
    let unwrap = side == Side::Key || with.boolean("WRAP_SINGLE_VALUE")? == Some(false);
    let inferred = env.inferred_columns(topic, side, format, unwrap);
    let inferred = inferred.map_err(|why| {
        Diagnostic::at(Code::Format, span, format!("unable to use the schema of topic '{topic}': {why}"))
    })?;
    let Some(inferred) = inferred else {
        let what = if side == Side::Key { "keys" } else { "values" };
        return Err(Diagnostic::at(
            Code::Format,
            span,
            format!("schema for message {what} on topic '{topic}' does not exist in the Schema Registry"),
        )
        .with_hint(format!(
            "register a schema under subject '{topic}-{}', or define the columns",
            if side == Side::Key { "key" } else { "value" }
        )));
    };
    format.properties.extend(inferred.properties);
    let role = if side == Side::Key { ColumnRole::Key } else { ColumnRole::Value };
    for (name, ty) in inferred.columns {
        if is_pseudo(&name) {
            return Err(Diagnostic::at(
                Code::Invalid,
                fallback,
                format!("'{name}' is a reserved column name. You cannot use it as a name for a column"),
            ));
        }
        if schema.get(&name).is_some() {
            return Err(Diagnostic::at(Code::DuplicateName, fallback, format!("duplicate column names: {name}")));
        }
        if side == Side::Key {
            check_key_type(&name, &ty, fallback)?;
        }
        schema.columns.push(Column::new(name, ty, role.clone()));
    }
    schema.columns.sort_by_key(|c| (!c.is_key(), !c.is_value()));
    Ok(())
}

/// Whether the schema that KEY_SCHEMA_ID or VALUE_SCHEMA_ID names can hold what a query gives.
pub(super) fn check_schema_id(
    schema: &Schema,
    topic: &str,
    side: Side,
    format: &FormatSpec,
    with: &With<'_>,
    env: &dyn Environment,
) -> AnalysisResult<()> {
    let (id, what) = match side {
        Side::Key => ("KEY_SCHEMA_ID", "key"),
        Side::Value => ("VALUE_SCHEMA_ID", "value"),
    };
    if !with.has(id) {
        return Ok(());
    }
    let own: Vec<&Column> = match side {
        Side::Key => schema.keys().collect(),
        Side::Value => schema.values().collect(),
    };
    let unwrap = own.len() == 1 && (side == Side::Key || with.boolean("WRAP_SINGLE_VALUE")? == Some(false));
    let span = with.span(id);
    let registered = env.inferred_columns(topic, side, format, unwrap);
    let registered = registered
        .map_err(|why| Diagnostic::at(Code::Format, span, format!("unable to use the schema of {id}: {why}")))?;
    let Some(registered) = registered else {
        let number = format.properties.get(id).cloned().unwrap_or_default();
        return Err(Diagnostic::at(
            Code::Format,
            span,
            format!("schema with id {number} for message {what}s does not exist in the Schema Registry"),
        ));
    };
    let listed = |columns: &mut dyn Iterator<Item = (&str, &SqlType)>| {
        let shown: Vec<String> = columns.map(|(name, ty)| format!("`{name}` {ty}")).collect();
        shown.join(", ")
    };
    let alone = unwrap && matches!(registered.columns.as_slice(), [(name, _)] if name == "ROWKEY" || name == "ROWVAL");
    let fits = |i: usize, c: &Column| {
        registered.columns.get(i).is_some_and(|(name, ty)| *ty == c.ty && (alone || *name == c.name))
    };
    let changed: Vec<&Column> = own.iter().enumerate().filter(|(i, c)| !fits(*i, c)).map(|(_, c)| *c).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(Diagnostic::at(
        Code::Format,
        span,
        format!(
            "the following {what} columns are changed, missing or reordered: [{}]. Schema from schema registry is [{}]",
            listed(&mut changed.iter().map(|c| (c.name.as_str(), &c.ty))),
            listed(&mut registered.columns.iter().map(|(name, ty)| (name.as_str(), ty)))
        ),
    ))
}

/// Which names a topic can have otherwise is the log's to say.
pub(super) fn check_topic_name(topic: &str, span: Span) -> AnalysisResult<()> {
    if topic.trim().is_empty() {
        return Err(Diagnostic::at(Code::Property, span, "must have non-empty topic name"));
    }
    if is_internal(topic) {
        let message = format!("topic '{topic}' is internal: no stream or table can be over it");
        return Err(Diagnostic::at(Code::Property, span, message));
    }
    Ok(())
}

/// What RETENTION_MS says, within what Kafka allows.
pub(super) fn retention(with: &With<'_>) -> AnalysisResult<Option<i64>> {
    match with.integer("RETENTION_MS")? {
        Some(ms) if ms < -1 => Err(Diagnostic::at(
            Code::Property,
            with.span("RETENTION_MS"),
            format!("RETENTION_MS cannot be {ms}: it must be a number of milliseconds, or -1 for ever"),
        )),
        retention => Ok(retention),
    }
}

/// Kafka's settings of a topic that holds such a stream or table.
pub(super) fn topic_configs_of(
    relation: Relation,
    windowed: bool,
    retention_ms: Option<i64>,
    window_retention_ms: Option<i64>,
) -> BTreeMap<String, String> {
    let policy = match (relation, windowed) {
        (Relation::Stream, _) => "delete",
        (Relation::Table, false) => "compact",
        (Relation::Table, true) => "compact,delete",
    };
    let mut configs = BTreeMap::from([("cleanup.policy".to_owned(), policy.to_owned())]);
    let retention = match (retention_ms, window_retention_ms) {
        (Some(a), Some(b)) if a >= 0 => Some(a.max(b)),
        (a, b) => a.or(b),
    };
    if let Some(ms) = retention {
        configs.insert("retention.ms".to_owned(), ms.to_string());
    }
    configs
}

/// Refuses a name that is taken, unless the statement says what to do then.
pub(super) fn check_replaceable(
    env: &dyn Environment,
    name: &Ident,
    relation: Relation,
    or_replace: bool,
    read_only: bool,
    if_not_exists: bool,
) -> AnalysisResult<()> {
    let refuse = |why: String| {
        let what = noun(relation);
        Err(Diagnostic::at(Code::Conflict, name.span, format!("cannot add {what} '{}': {why}", name.value)))
    };
    if or_replace {
        if if_not_exists {
            return refuse("OR REPLACE and IF NOT EXISTS cannot be used together".to_owned());
        }
        if env.property("ksql.create.or.replace.enabled").is_some_and(|v| v.eq_ignore_ascii_case("false")) {
            return refuse("CREATE OR REPLACE functionality has been disabled".to_owned());
        }
        let existing = env.source(&name.value);
        if read_only || existing.as_ref().is_some_and(|s| s.read_only) {
            return refuse(format!("CREATE OR REPLACE is not supported on source {}s", noun(relation)));
        }
        if let Some(existing) = existing.filter(|s| s.relation != relation) {
            return refuse(format!("a {} with the same name already exists", noun(existing.relation)));
        }
        return Ok(());
    }
    match env.source(&name.value) {
        Some(existing) if !if_not_exists => {
            refuse(format!("a {} with the same name already exists", noun(existing.relation)))
        }
        _ => Ok(()),
    }
}

/// Refuses a replacement whose stored data or readers could not follow.
pub(super) fn check_upgrade(env: &dyn Environment, new: &SourceInfo, span: Span) -> AnalysisResult<()> {
    let Some(old) = env.source(&new.name) else { return Ok(()) };
    let refuse = |why: String| Err(Diagnostic::at(Code::Conflict, span, format!("cannot upgrade data source: {why}")));
    let changed: Vec<String> = old
        .schema
        .columns
        .iter()
        .filter(|c| !new.schema.columns.contains(c))
        .map(|c| format!("`{}` {}", c.name, c.ty))
        .collect();
    if !changed.is_empty() {
        return refuse(format!("the following columns are changed, missing or reordered: [{}]", changed.join(", ")));
    }
    let kept: Vec<&Column> = new.schema.columns.iter().filter(|c| old.schema.columns.contains(c)).collect();
    if !kept.iter().copied().eq(old.schema.columns.iter()) {
        return refuse("columns are reordered".to_owned());
    }
    if old.schema.keys().count() != new.schema.keys().count() {
        return refuse("key columns cannot be added".to_owned());
    }
    if old.topic != new.topic {
        return refuse(format!("topic '{}' cannot become '{}'", old.topic, new.topic));
    }
    if (&old.key_format.name, &old.value_format.name) != (&new.key_format.name, &new.value_format.name) {
        return refuse("formats cannot be changed".to_owned());
    }
    if old.window != new.window {
        return refuse("the window of the key cannot be changed".to_owned());
    }
    Ok(())
}

/// The columns of ALTER ... ADD COLUMN with their types, checked against the source.
pub fn alter_columns(alter: &syntax::AlterSource, env: &dyn Environment) -> AnalysisResult<Vec<Column>> {
    let source = super::scope::find_source(env, &alter.name)?;
    let what = noun(source.relation);
    let refuse = |span: Span, why: String| {
        Err(Diagnostic::at(Code::Conflict, span, format!("cannot alter {what} '{}': {why}", source.name)))
    };
    if source.relation != relation(alter.kind) {
        return refuse(alter.name.span, format!("it is a {what}"));
    }
    if source.read_only {
        return refuse(alter.name.span, format!("ALTER operations are not supported on source {what}s"));
    }
    if is_query_sink(&source) {
        return refuse(alter.name.span, "ALTER command is not supported for CREATE ... AS statements".to_owned());
    }
    let mut added: Vec<Column> = Vec::with_capacity(alter.add.len());
    for column in &alter.add {
        let name = &column.name.value;
        let ty = resolve_type(&column.ty, env)?;
        if source.schema.get(name).is_some() || added.iter().any(|c| c.name == *name) {
            return refuse(column.name.span, format!("column '{name}' already exists"));
        }
        if is_pseudo(name) {
            return Err(reserved(&column.name));
        }
        added.push(Column::value(name.clone(), ty));
    }
    let mut schema = source.schema.clone();
    schema.columns.extend(added.iter().cloned());
    let values: Vec<(String, SqlType)> = schema.values().map(|c| (c.name.clone(), c.ty.clone())).collect();
    check_format(env, &source.value_format, Side::Value, &values, alter.name.span)?;
    Ok(added)
}

/// Whether a query made the source and writes to it.
fn is_query_sink(source: &SourceInfo) -> bool {
    let words: Vec<String> = source.statement.split_whitespace().map(str::to_ascii_uppercase).collect();
    source.materialised && !source.read_only
        || words.windows(2).any(|w| matches!(w, [a, b] if a == "AS" && b == "SELECT"))
}

fn reserved(name: &Ident) -> Diagnostic {
    Diagnostic::at(
        Code::Invalid,
        name.span,
        format!("'{}' is a reserved column name. You cannot use it as a name for a column", name.value),
    )
}

fn columns(defs: &[ColumnDef], relation: Relation, env: &dyn Environment) -> AnalysisResult<Schema> {
    let mut columns: Vec<Column> = Vec::with_capacity(defs.len());
    let mut headers_seen = false;
    for def in defs {
        let name = &def.name.value;
        let ty = resolve_type(&def.ty, env)?;
        if is_pseudo(name) {
            return Err(reserved(&def.name));
        }
        if columns.iter().any(|c| c.name == *name) {
            return Err(Diagnostic::at(Code::DuplicateName, def.name.span, format!("duplicate column names: {name}")));
        }
        let at = |code: Code, message: String| Diagnostic::at(code, def.role.span, message);
        let is_header = matches!(def.role.node, syntax::ColumnRole::Headers | syntax::ColumnRole::Header(_));
        if is_header {
            if env.property("ksql.headers.columns.enabled").is_some_and(|v| v.eq_ignore_ascii_case("false")) {
                return Err(at(
                    Code::Invalid,
                    "cannot create schema with headers columns since the feature flag is disabled".to_owned(),
                ));
            }
            if headers_seen {
                return Err(at(
                    Code::Invalid,
                    format!("schema already contains a HEADERS column, \"{name}\" cannot be one too"),
                ));
            }
        }
        let role = match &def.role.node {
            syntax::ColumnRole::Value => ColumnRole::Value,
            syntax::ColumnRole::Key if relation == Relation::Table => {
                return Err(at(
                    Code::Key,
                    format!("column `{name}` is a 'KEY' column: please use 'PRIMARY KEY' for tables"),
                )
                .with_detail(
                    "tables have PRIMARY KEYs, which are unique and NON NULL; streams have KEYs, which have \
                              no uniqueness or NON NULL constraints",
                ));
            }
            syntax::ColumnRole::PrimaryKey if relation == Relation::Stream => {
                return Err(at(
                    Code::Key,
                    format!("column `{name}` is a 'PRIMARY KEY' column: please use 'KEY' for streams"),
                )
                .with_detail(
                    "tables have PRIMARY KEYs, which are unique and NON NULL; streams have KEYs, which have \
                              no uniqueness or NON NULL constraints",
                ));
            }
            syntax::ColumnRole::Key | syntax::ColumnRole::PrimaryKey => {
                check_key_type(name, &ty, def.name.span)?;
                ColumnRole::Key
            }
            syntax::ColumnRole::Headers => {
                let wanted = headers_type();
                if ty != wanted {
                    return Err(at(
                        Code::Type,
                        format!("invalid type for HEADERS column: expected {wanted}, got {ty}"),
                    ));
                }
                if columns.iter().any(|c| matches!(c.role, ColumnRole::Header(_))) {
                    return Err(at(
                        Code::Invalid,
                        "schema already contains a HEADER('key') column, it cannot have a HEADERS column too"
                            .to_owned(),
                    ));
                }
                headers_seen = true;
                ColumnRole::Headers
            }
            syntax::ColumnRole::Header(key) => {
                if ty != SqlType::Bytes {
                    return Err(at(
                        Code::Type,
                        format!("invalid type for HEADER('{key}') column: expected BYTES, got {ty}"),
                    ));
                }
                if columns.iter().any(|c| matches!(&c.role, ColumnRole::Header(k) if k == key)) {
                    return Err(at(Code::Invalid, format!("schema already contains a HEADER('{key}') column")));
                }
                ColumnRole::Header(key.clone())
            }
        };
        columns.push(Column::new(name.clone(), ty, role));
    }
    // Keys come first wherever they were written; the others stay in order.
    columns.sort_by_key(|c| !c.is_key());
    Ok(Schema::new(columns))
}

fn headers_type() -> SqlType {
    SqlType::array(SqlType::Struct(vec![Field::new("KEY", SqlType::String), Field::new("VALUE", SqlType::Bytes)]))
}

/// Refuses MAPs in keys: their bytes have no order of entries, so equal keys could differ.
pub(super) fn check_key_type(name: &str, ty: &SqlType, span: Span) -> AnalysisResult<()> {
    if !contains_map(ty) {
        return Ok(());
    }
    Err(Diagnostic::at(
        Code::Key,
        span,
        format!(
            "map keys, including types that contain maps, are not supported as they may lead to unexpected behavior \
             due to inconsistent serialization. Key column name: `{name}`. Column type: {ty}"
        ),
    ))
}

/// The format a statement names for a side, or the session's default.
fn format_name(with: &With<'_>, side: Side, env: &dyn Environment) -> AnalysisResult<String> {
    if let Some(name) = with.format_name(side)? {
        return Ok(name);
    }
    default_format(side, env)
}

pub(super) fn default_format(side: Side, env: &dyn Environment) -> AnalysisResult<String> {
    let (property, which, fallback) = match side {
        Side::Key => ("ksql.persistence.default.format.key", "KEY_FORMAT", Some("KAFKA")),
        Side::Value => ("ksql.persistence.default.format.value", "VALUE_FORMAT", None),
    };
    match (env.property(property).filter(|p| !p.trim().is_empty()), fallback) {
        (Some(name), _) => Ok(name.trim().to_ascii_uppercase()),
        (None, Some(name)) => Ok(name.to_owned()),
        (None, None) => Err(Diagnostic::new(
            Code::Property,
            format!(
                "statement is missing the '{which}' property from the WITH clause. Either provide one or set a default \
                 via the '{property}' config"
            ),
        )),
    }
}

/// Whether both formats can hold the schema.
pub(super) fn check_formats(
    env: &dyn Environment,
    schema: &Schema,
    key: &FormatSpec,
    value: &FormatSpec,
    with: &With<'_>,
    fallback: Span,
) -> AnalysisResult<()> {
    let place = |side: Side| {
        let span = with.format_span(side);
        if span == Span::default() { fallback } else { span }
    };
    let keys: Vec<(String, SqlType)> = schema.keys().map(|c| (c.name.clone(), c.ty.clone())).collect();
    check_format(env, key, Side::Key, &keys, place(Side::Key))?;
    let values: Vec<(String, SqlType)> = schema.values().map(|c| (c.name.clone(), c.ty.clone())).collect();
    check_format(env, value, Side::Value, &values, place(Side::Value))
}

const FORMATS: [&str; 8] = ["AVRO", "DELIMITED", "JSON", "JSON_SR", "KAFKA", "NONE", "PROTOBUF", "PROTOBUF_NOSR"];

pub(super) fn check_format(
    env: &dyn Environment,
    format: &FormatSpec,
    side: Side,
    columns: &[(String, SqlType)],
    span: Span,
) -> AnalysisResult<()> {
    if format.name == "NONE" && !columns.is_empty() {
        let shown: Vec<String> = columns.iter().map(|(n, t)| format!("`{n}` {t} KEY")).collect();
        return Err(Diagnostic::at(
            Code::Format,
            span,
            format!("the 'NONE' format can only be used when no columns are defined. Got: [{}]", shown.join(", ")),
        ));
    }
    let what = match side {
        Side::Key => "key",
        Side::Value => "value",
    };
    env.check_format(format, side, columns).map_err(|error| match error {
        FormatError::Invalid(why) if why.starts_with("Unknown format") => {
            let hint = match suggest(&format.name, FORMATS) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("there are {}", FORMATS.join(", ")),
            };
            Diagnostic::at(Code::Format, span, why).with_hint(hint)
        }
        FormatError::Invalid(why) => {
            let told = ["Key format", "Value format"].iter().any(|w| why.starts_with(w));
            let message = if told { why } else { format!("{what} format does not support schema: {why}") };
            let diagnostic = Diagnostic::at(Code::Format, span, message);
            // The one that holds most, where it holds this.
            let other =
                FormatSpec { name: "JSON".to_owned(), delimiter: None, wrap_single: None, properties: BTreeMap::new() };
            match format.name != other.name && env.check_format(&other, side, columns).is_ok() {
                true => diagnostic.with_hint(format!("WITH ({}_FORMAT='JSON') can hold it", what.to_ascii_uppercase())),
                false => diagnostic,
            }
        }
        FormatError::Unsupported(why) => Diagnostic::at(Code::Unsupported, span, why),
    })
}

/// The column that gives the time, checked.
pub(super) fn timestamp(
    with: &With<'_>,
    schema: &Schema,
    env: &dyn Environment,
) -> AnalysisResult<Option<TimestampColumn>> {
    let format = with.string("TIMESTAMP_FORMAT")?;
    if let Some(pattern) = &format {
        env.check_time_pattern(pattern).map_err(|why| {
            Diagnostic::at(
                Code::Property,
                with.span("TIMESTAMP_FORMAT"),
                format!("invalid datetime format for config:TIMESTAMP_FORMAT, reason:{why}"),
            )
        })?;
    }
    let Some(written) = with.string("TIMESTAMP")? else {
        if format.is_some() {
            env.warn("TIMESTAMP_FORMAT has no effect without TIMESTAMP");
        }
        return Ok(None);
    };
    let span = with.span("TIMESTAMP");
    let name = match written.strip_prefix('`').and_then(|w| w.strip_suffix('`')) {
        Some(quoted) => quoted.to_owned(),
        None => written.to_ascii_uppercase(),
    };
    let Some(column) = schema.get(&name).filter(|c| c.is_key() || c.is_value()) else {
        return Err(Diagnostic::at(
            Code::Property,
            span,
            format!("the TIMESTAMP column set in the WITH clause does not exist in the schema: '{name}'"),
        ));
    };
    match (&column.ty, &format) {
        (SqlType::BigInt | SqlType::Timestamp, None) | (SqlType::String, Some(_)) => {}
        (SqlType::String, None) => {
            return Err(Diagnostic::at(
                Code::Property,
                span,
                format!(
                    "timestamp column, '{name}', should be LONG(INT64), TIMESTAMP or a String(varchar) with a format \
                     specified; 'TIMESTAMP_FORMAT' is missing"
                ),
            ));
        }
        (ty, Some(_)) => {
            return Err(Diagnostic::at(
                Code::Property,
                with.span("TIMESTAMP_FORMAT"),
                format!("'TIMESTAMP_FORMAT' set on column '{name}' of type {ty}: it is only for STRING columns"),
            ));
        }
        (ty, None) => {
            return Err(Diagnostic::at(
                Code::Property,
                span,
                format!(
                    "timestamp column, '{name}', should be LONG(INT64), TIMESTAMP or a String(varchar) with a format \
                     specified, not {ty}"
                ),
            ));
        }
    }
    Ok(Some(TimestampColumn { column: name, format }))
}
