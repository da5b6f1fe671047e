//! Columns from schemas and schemas from columns, whatever language the schemas are written in.
//!
//! Not here: the conventions of each language (`avro`, `json_sr`, `protobuf`).

use millpond_types::{Error, Field, Result, SqlType};

use crate::format::{Format, Nullable, Side};
use crate::protobuf::ProtoSchema;
use crate::registered::{Parsed, Schema, SchemaKind};
use crate::{avro, json_sr, protobuf};

/// What a schema of columns is called, and how it is laid out.
#[derive(Clone, Debug, Default)]
pub struct Naming {
    /// That of the record or message; the format's own where `None`.
    pub full_name: Option<String>,
    /// The one column is all, without a record.
    pub unwrap: bool,
    /// PROTOBUF.
    pub nullable: Nullable,
}

/// The record name of the keys of a stream or table that a query makes: its own name in camel case.
pub fn key_record_name(source: &str) -> String {
    let mut name = format!("{}.", avro::columns::NAMESPACE);
    for word in source.split('_') {
        let mut chars = word.chars();
        name.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        name.extend(chars.flat_map(char::to_lowercase));
    }
    name.push_str("Key");
    name
}

impl SchemaKind {
    /// The language of a format's schemas.
    pub fn of(format: Format) -> Option<Self> {
        Some(match format {
            Format::Avro => Self::Avro,
            Format::JsonSr => Self::Json,
            Format::Protobuf => Self::Protobuf,
            _ => return None,
        })
    }
}

/// The schema that columns are written with.
pub fn schema_for(format: Format, columns: &[Field], naming: &Naming) -> Result<Schema> {
    let kind = SchemaKind::of(format)
        .ok_or_else(|| Error::bad_request(format!("{} has no schemas in a registry", format.name())))?;
    let name = |default: &str| naming.full_name.clone().unwrap_or_else(|| default.to_owned());
    let text = match kind {
        SchemaKind::Avro => {
            let name = name(&format!("{}.KsqlDataSourceSchema", avro::columns::NAMESPACE));
            for part in name.split('.') {
                avro::schema::check_name(part)
                    .map_err(|why| Error::bad_request(format!("Schema is not compatible with Avro: {why}")))?;
            }
            avro::columns::schema_of(columns, &name, naming.unwrap).to_string()
        }
        SchemaKind::Json => json_sr::schema_of(columns, naming.unwrap).to_string(),
        SchemaKind::Protobuf => protobuf::columns::schema_of(columns, &name("ConnectDefault1"), naming.nullable),
    };
    Schema::parse(kind, &text, &[])
}

/// The message of that full name, or the first.
pub(crate) fn message_of(schema: &ProtoSchema, full_name: Option<&str>) -> Result<usize> {
    match full_name {
        Some(name) => {
            schema.message(name).ok_or_else(|| Error::not_found(format!("the schema has no message \"{name}\"")))
        }
        None => schema.roots.first().copied().ok_or_else(|| Error::bad_request("the schema has no message")),
    }
}

/// The columns that a schema stands for. `unwrap`: it is the type of the one column, `ROWKEY` or `ROWVAL`. Names are in upper case
/// unless `keep_case` says otherwise.
pub fn columns_of(
    schema: &Schema,
    side: Side,
    unwrap: bool,
    keep_case: bool,
    full_name: Option<&str>,
) -> Result<Vec<Field>> {
    let name = |name: &str| if keep_case { name.to_owned() } else { name.to_uppercase() };
    let single = |ty: Option<SqlType>| {
        let column = if side == Side::Key { "ROWKEY" } else { "ROWVAL" };
        ty.map(|ty| vec![Field::new(column, ty)])
    };
    let columns = match &schema.parsed {
        Parsed::Avro(avro) if unwrap => single(avro::columns::type_of(avro, avro.root, &name)),
        Parsed::Avro(avro) => avro::columns::fields_of(avro, avro.root, &name),
        Parsed::Json(json) if unwrap => single(json_sr::type_of(json, &name)),
        Parsed::Json(json) => json_sr::fields_of(json, &name),
        Parsed::Protobuf(proto) => {
            let fields = protobuf::columns::fields_of(proto, message_of(proto, full_name)?, &name);
            if unwrap { single(Some(SqlType::Struct(fields))) } else { Some(fields) }
        }
    };
    match columns {
        Some(columns) if !columns.is_empty() => {
            let mut seen = std::collections::HashSet::with_capacity(columns.len());
            for column in &columns {
                if !seen.insert(column.name.as_str()) {
                    return Err(Error::bad_request(format!(
                        "Duplicate field names found in the schema: {}; give VALUE_SCHEMA_ID or KEY_SCHEMA_ID to keep the case \
                         of names",
                        column.name
                    )));
                }
            }
            Ok(columns)
        }
        Some(_) => Err(Error::bad_request("the schema has no field that could be a column")),
        None => Err(Error::bad_request(
            "Schema returned from schema registry is anonymous type. To use this schema with ksqlDB, set \
             'WRAP_SINGLE_VALUE=false' in the WITH clause properties.",
        )),
    }
}
