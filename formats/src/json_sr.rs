//! JSON_SR: JSON behind the frame with a schema's id. The bytes are JSON's own, so that only the JSON Schema is made and
//! understood here, by the conventions of Connect's converter.
//!
//! Not here: whether one schema can replace another (`registry`).

use millpond_types::sql_type::DECIMAL_PRECISION_MAX;
use millpond_types::{Field, SqlType};

use crate::avro::columns::TYPES_MAX;
use crate::json::Json;

/// Deepest type that is inferred.
const DEPTH_MAX: usize = 32;

/// The SQL type of a schema; `None` where there is none.
pub fn type_of(schema: &Json, name: &dyn Fn(&str) -> String) -> Option<SqlType> {
    infer(schema, schema, name, 0, &mut { TYPES_MAX })
}

/// The columns of an object's properties.
pub fn fields_of(schema: &Json, name: &dyn Fn(&str) -> String) -> Option<Vec<Field>> {
    match type_of(schema, name)? {
        SqlType::Struct(fields) => Some(fields),
        _ => None,
    }
}

fn infer(root: &Json, schema: &Json, name: &dyn Fn(&str) -> String, depth: usize, left: &mut usize) -> Option<SqlType> {
    if depth > DEPTH_MAX || *left == 0 {
        return None;
    }
    *left -= 1;
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let mut at = root;
        for part in reference.strip_prefix('#')?.split('/').filter(|p| !p.is_empty()) {
            at = at.get(&part.replace("~1", "/").replace("~0", "~"))?;
        }
        return infer(root, at, name, depth + 1, left);
    }
    for combined in ["oneOf", "anyOf"] {
        let Some(branches) = schema.get(combined).and_then(Json::as_array) else { continue };
        let others: Vec<&Json> =
            branches.iter().filter(|b| b.get("type").and_then(Json::as_str) != Some("null")).collect();
        return match others.as_slice() {
            [one] => infer(root, one, name, depth + 1, left),
            _ => {
                // Connect makes a STRUCT of them, with a field for each.
                let fields: Vec<Field> = others
                    .iter()
                    .enumerate()
                    .filter_map(|(i, b)| {
                        let field = format!("connect_union_field_{i}");
                        Some(Field::new(name(&field), infer(root, b, name, depth + 1, left)?))
                    })
                    .collect();
                if fields.is_empty() { None } else { Some(SqlType::Struct(fields)) }
            }
        };
    }
    let connect = schema.get("connect.type").and_then(Json::as_str).unwrap_or_default();
    let title = schema.get("title").and_then(Json::as_str).unwrap_or_default();
    let ty = match schema.get("type") {
        Some(Json::String(ty)) => ty.as_str(),
        // A list with "null" in it.
        Some(Json::Array(types)) => {
            let mut others = types.iter().filter_map(Json::as_str).filter(|t| *t != "null");
            match (others.next(), others.next()) {
                (Some(one), None) => one,
                _ => return None,
            }
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("enum").is_some() || schema.get("const").is_some() => "string",
        _ => return None,
    };
    match title {
        "org.apache.kafka.connect.data.Decimal" => {
            let parameter = |name: &str| {
                let value = schema.get("connect.parameters")?.get(name)?;
                value.as_str().map_or_else(|| value.as_i64(), |s| s.parse().ok()).and_then(|n| u8::try_from(n).ok())
            };
            let precision = parameter("connect.decimal.precision").unwrap_or(64).min(DECIMAL_PRECISION_MAX);
            return Some(SqlType::Decimal { precision, scale: parameter("scale").unwrap_or(0).min(precision) });
        }
        "org.apache.kafka.connect.data.Date" => return Some(SqlType::Date),
        "org.apache.kafka.connect.data.Time" => return Some(SqlType::Time),
        "org.apache.kafka.connect.data.Timestamp" => return Some(SqlType::Timestamp),
        _ => {}
    }
    Some(match ty {
        "boolean" => SqlType::Boolean,
        "integer" if matches!(connect, "int8" | "int16" | "int32") => SqlType::Integer,
        "integer" => SqlType::BigInt,
        "number" => SqlType::Double,
        "string" if connect == "bytes" => SqlType::Bytes,
        "string" => SqlType::String,
        "array" => {
            let items = schema.get("items")?;
            match (connect, items.get("properties")) {
                ("map", Some(entry)) => {
                    let key = infer(root, entry.get("key")?, name, depth + 1, left)?;
                    let value = infer(root, entry.get("value")?, name, depth + 1, left)?;
                    if key != SqlType::String {
                        return None;
                    }
                    SqlType::map(key, value)
                }
                _ => SqlType::array(infer(root, items, name, depth + 1, left)?),
            }
        }
        "object" if connect == "map" => {
            SqlType::map(SqlType::String, infer(root, schema.get("additionalProperties")?, name, depth + 1, left)?)
        }
        "object" => {
            let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&[]);
            if properties.is_empty() {
                let values = schema.get("additionalProperties").filter(|v| matches!(v, Json::Object(_)))?;
                return Some(SqlType::map(SqlType::String, infer(root, values, name, depth + 1, left)?));
            }
            let mut fields: Vec<(i64, Field)> = properties
                .iter()
                .enumerate()
                .filter_map(|(i, (property, schema))| {
                    let index = schema.get("connect.index").and_then(Json::as_i64).unwrap_or(i as i64);
                    Some((index, Field::new(name(property), infer(root, schema, name, depth + 1, left)?)))
                })
                .collect();
            fields.sort_by_key(|(index, _)| *index);
            if fields.is_empty() {
                return None;
            }
            SqlType::Struct(fields.into_iter().map(|(_, field)| field).collect())
        }
        _ => return None,
    })
}

fn text(text: impl Into<String>) -> Json {
    Json::String(text.into())
}

fn number(number: impl ToString) -> Json {
    Json::Number(number.to_string())
}

type Members = Vec<(String, Json)>;

/// The schema of columns: an object with a property for each, or where `unwrap` says so, that of the one column. All may be null.
pub fn schema_of(columns: &[Field], unwrap: bool) -> Json {
    match columns {
        [column] if unwrap => optional(ty(&column.ty), None),
        _ => Json::Object(object(columns)),
    }
}

fn optional(schema: Members, index: Option<usize>) -> Json {
    let mut members = Vec::new();
    if let Some(index) = index {
        members.push(("connect.index".to_owned(), number(index)));
    }
    let null = Json::Object(vec![("type".to_owned(), text("null"))]);
    members.push(("oneOf".to_owned(), Json::Array(vec![null, Json::Object(schema)])));
    Json::Object(members)
}

fn object(fields: &[Field]) -> Members {
    let properties = fields.iter().enumerate().map(|(i, f)| (f.name.clone(), optional(ty(&f.ty), Some(i)))).collect();
    vec![("type".to_owned(), text("object")), ("properties".to_owned(), Json::Object(properties))]
}

fn ty(ty_: &SqlType) -> Members {
    let plain = |name: &str, connect: Option<&str>| {
        let mut members = vec![("type".to_owned(), text(name))];
        members.extend(connect.map(|c| ("connect.type".to_owned(), text(c))));
        members
    };
    let logical = |title: &str, connect: &str| {
        let mut members = plain(if title == "Decimal" { "number" } else { "integer" }, None);
        members.push(("title".to_owned(), text(format!("org.apache.kafka.connect.data.{title}"))));
        members.push(("connect.version".to_owned(), number(1)));
        members.push(("connect.type".to_owned(), text(connect)));
        members
    };
    match ty_ {
        SqlType::Boolean => plain("boolean", None),
        SqlType::Integer => plain("integer", Some("int32")),
        SqlType::BigInt => plain("integer", Some("int64")),
        SqlType::Double => plain("number", Some("float64")),
        SqlType::String => plain("string", None),
        SqlType::Bytes => plain("string", Some("bytes")),
        SqlType::Date => logical("Date", "int32"),
        SqlType::Time => logical("Time", "int32"),
        SqlType::Timestamp => logical("Timestamp", "int64"),
        SqlType::Decimal { precision, scale } => {
            let mut members = logical("Decimal", "bytes");
            let parameters = vec![
                ("scale".to_owned(), text(scale.to_string())),
                ("connect.decimal.precision".to_owned(), text(precision.to_string())),
            ];
            members.push(("connect.parameters".to_owned(), Json::Object(parameters)));
            members
        }
        SqlType::Array(item) => {
            vec![("type".to_owned(), text("array")), ("items".to_owned(), optional(ty(item), None))]
        }
        SqlType::Map(_, value) => vec![
            ("type".to_owned(), text("object")),
            ("connect.type".to_owned(), text("map")),
            ("additionalProperties".to_owned(), optional(ty(value), None)),
        ],
        SqlType::Struct(fields) => object(fields),
    }
}
