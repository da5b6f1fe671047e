//! What columns a message stands for, and the schema that columns are written with: the conventions of Connect's converter
//! and of ksqlDB above it.

use std::fmt::Write as _;

use millpond_types::sql_type::DECIMAL_PRECISION_MAX;
use millpond_types::{Field, SqlType};

use super::schema::{ENTRY, FieldType, ProtoField, ProtoSchema, WellKnown};
use crate::avro::columns::TYPES_MAX;
use crate::format::Nullable;

/// Deepest type that is inferred.
const DEPTH_MAX: usize = 32;

/// Where inference is, and how much it may still unfold.
struct Walk {
    above: Vec<usize>,
    left: usize,
}

/// The columns of a message's fields; those without an SQL type are left out.
pub fn fields_of(schema: &ProtoSchema, message: usize, name: &dyn Fn(&str) -> String) -> Vec<Field> {
    fields(schema, message, name, &mut Walk { above: Vec::new(), left: TYPES_MAX })
}

fn fields(schema: &ProtoSchema, message: usize, name: &dyn Fn(&str) -> String, walk: &mut Walk) -> Vec<Field> {
    let declared = &schema.messages[message];
    let count = declared.fields.len() + 1;
    if walk.above.contains(&message) || walk.above.len() > DEPTH_MAX || walk.left < count {
        return Vec::new();
    }
    walk.left -= count;
    walk.above.push(message);
    let mut columns = Vec::new();
    for (oneof, label) in declared.oneofs.iter().enumerate() {
        let parts = declared.fields.iter().filter(|f| f.oneof == Some(oneof));
        let parts: Vec<Field> =
            parts.filter_map(|f| Some(Field::new(name(&f.name), type_of(schema, f, name, walk)?))).collect();
        if !parts.is_empty() {
            columns.push(Field::new(name(&oneof_name(label, oneof)), SqlType::Struct(parts)));
        }
    }
    for field in declared.fields.iter().filter(|f| f.oneof.is_none()) {
        if let Some(ty) = type_of(schema, field, name, walk) {
            columns.push(Field::new(name(&field.name), ty));
        }
    }
    walk.above.pop();
    columns
}

/// The name of the STRUCT that a oneof is.
pub fn oneof_name(label: &str, index: usize) -> String {
    format!("{label}_{index}")
}

fn type_of(
    schema: &ProtoSchema,
    field: &ProtoField,
    name: &dyn Fn(&str) -> String,
    walk: &mut Walk,
) -> Option<SqlType> {
    let single = match &field.ty {
        FieldType::Map(key, value) => {
            if **key != FieldType::String {
                return None;
            }
            return Some(SqlType::map(SqlType::String, single(schema, value, field.digits, name, walk)?));
        }
        FieldType::Message(message) if field.repeated && schema.messages[*message].is_entry() => {
            // Connect's converter writes maps so.
            let value = &schema.messages[*message].fields[1];
            if walk.above.contains(message) || walk.above.len() > DEPTH_MAX || walk.left == 0 {
                return None;
            }
            walk.left -= 1;
            walk.above.push(*message);
            let value = type_of(schema, value, name, walk);
            walk.above.pop();
            return Some(SqlType::map(SqlType::String, value?));
        }
        ty => single(schema, ty, field.digits, name, walk)?,
    };
    Some(if field.repeated { SqlType::array(single) } else { single })
}

fn single(
    schema: &ProtoSchema,
    ty: &FieldType,
    digits: (Option<u8>, Option<u8>),
    name: &dyn Fn(&str) -> String,
    walk: &mut Walk,
) -> Option<SqlType> {
    Some(match ty {
        FieldType::Double | FieldType::Float => SqlType::Double,
        FieldType::Int32 | FieldType::Sint32 | FieldType::Sfixed32 => SqlType::Integer,
        // What has no sign needs more room.
        FieldType::Uint32
        | FieldType::Fixed32
        | FieldType::Int64
        | FieldType::Uint64
        | FieldType::Sint64
        | FieldType::Fixed64
        | FieldType::Sfixed64 => SqlType::BigInt,
        FieldType::Bool => SqlType::Boolean,
        FieldType::String | FieldType::Enum(_) => SqlType::String,
        FieldType::Bytes => SqlType::Bytes,
        FieldType::Map(..) => return None,
        FieldType::Message(message) => match schema.well_known(*message) {
            Some(WellKnown::Timestamp) => SqlType::Timestamp,
            Some(WellKnown::Date) => SqlType::Date,
            Some(WellKnown::Time) => SqlType::Time,
            Some(WellKnown::Decimal) => {
                let precision = digits.0.unwrap_or(64).clamp(1, DECIMAL_PRECISION_MAX);
                SqlType::Decimal { precision, scale: digits.1.unwrap_or(0).min(precision) }
            }
            Some(WellKnown::Wrapper) => {
                let value = schema.messages[*message].fields.first()?;
                return single(schema, &value.ty, digits, name, walk);
            }
            None => {
                let fields = fields(schema, *message, name, walk);
                if fields.is_empty() {
                    return None;
                }
                SqlType::Struct(fields)
            }
        },
    })
}

/// Why a column's name, or one inside its type, cannot be a field's.
pub fn objection(columns: &[Field]) -> Option<String> {
    fn inside(ty: &SqlType) -> Option<String> {
        match ty {
            SqlType::Array(item) => inside(item),
            SqlType::Map(_, value) => inside(value),
            SqlType::Struct(fields) => objection(fields),
            _ => None,
        }
    }
    columns.iter().find_map(|c| {
        let own = crate::avro::schema::check_name(&c.name).err();
        own.or_else(|| inside(&c.ty))
    })
}

/// The schema of columns: a message of that full name with a field for each, numbered by position.
pub fn schema_of(columns: &[Field], full_name: &str, nullable: Nullable) -> String {
    let (package, name) = full_name.rsplit_once('.').unwrap_or(("", full_name));
    // Names of the messages inside count on from the outermost's own number.
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (stem, number) = name.split_at(name.len() - digits);
    let stem = if digits == 0 { "ConnectDefault" } else { stem };
    let mut writer = Writer { stem: stem.to_owned(), next: number.parse().unwrap_or(1), nullable, imports: Vec::new() };
    let mut body = String::new();
    writer.message(&mut body, name, columns, 0, false);
    let mut text = String::from("syntax = \"proto3\";\n");
    if !package.is_empty() {
        let _ = writeln!(text, "package {package};");
    }
    writer.imports.sort_unstable();
    writer.imports.dedup();
    if !writer.imports.is_empty() {
        text.push('\n');
    }
    for import in &writer.imports {
        let _ = writeln!(text, "import \"{import}\";");
    }
    text.push('\n');
    text.push_str(&body);
    text
}

/// The name and fields of a message inside another, and whether it is a map's entry.
type Nested = (String, Vec<Field>, bool);

struct Writer {
    stem: String,
    next: u64,
    nullable: Nullable,
    imports: Vec<&'static str>,
}

impl Writer {
    /// Of a map's entry the key is always plain.
    fn message(&mut self, out: &mut String, name: &str, columns: &[Field], depth: usize, is_entry: bool) {
        let indent = "  ".repeat(depth);
        let _ = writeln!(out, "{indent}message {name} {{");
        let mut nested = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            let number = i + 1;
            let label = &column.name;
            let (ty, options) = match &column.ty {
                SqlType::Array(item) => {
                    let (ty, options) = self.item(item, &mut nested);
                    (format!("repeated {ty}"), options)
                }
                SqlType::Map(_, value) => {
                    self.next += 1;
                    let name = format!("{}{}{ENTRY}", self.stem, self.next);
                    let [key, value] = [("key", SqlType::String), ("value", SqlType::clone(value))]
                        .map(|(name, ty)| Field::new(name, ty));
                    nested.push((name.clone(), vec![key, value], true));
                    (format!("repeated {name}"), String::new())
                }
                SqlType::String if is_entry && i == 0 => ("string".to_owned(), String::new()),
                ty if is_scalar(ty) && self.nullable == Nullable::Optional => {
                    (format!("optional {}", self.single(ty, &mut nested).0), String::new())
                }
                ty => self.single(ty, &mut nested),
            };
            let _ = writeln!(out, "{indent}  {ty} {label} = {number}{options};");
        }
        for (name, columns, is_entry) in nested {
            out.push('\n');
            self.message(out, &name, &columns, depth + 1, is_entry);
        }
        let _ = writeln!(out, "{indent}}}");
    }

    /// An item of a list: lists and maps need a message around them.
    fn item(&mut self, ty: &SqlType, nested: &mut Vec<Nested>) -> (String, String) {
        match ty {
            SqlType::Array(_) | SqlType::Map(..) => {
                self.next += 1;
                let name = format!("{}{}", self.stem, self.next);
                nested.push((name.clone(), vec![Field::new(LIST_FIELD, ty.clone())], false));
                (name, String::new())
            }
            _ => self.single(ty, nested),
        }
    }

    fn single(&mut self, ty: &SqlType, nested: &mut Vec<Nested>) -> (String, String) {
        let wraps = self.nullable == Nullable::Wrapper;
        let scalar = |plain: &str, wrapper: &str| {
            if wraps { format!("google.protobuf.{wrapper}Value") } else { plain.to_owned() }
        };
        if wraps && is_scalar(ty) {
            self.imports.push("google/protobuf/wrappers.proto");
        }
        let mut options = String::new();
        let name = match ty {
            SqlType::Boolean => scalar("bool", "Bool"),
            SqlType::Integer => scalar("int32", "Int32"),
            SqlType::BigInt => scalar("int64", "Int64"),
            SqlType::Double => scalar("double", "Double"),
            SqlType::String => scalar("string", "String"),
            SqlType::Bytes => scalar("bytes", "Bytes"),
            SqlType::Timestamp => {
                self.imports.push("google/protobuf/timestamp.proto");
                "google.protobuf.Timestamp".to_owned()
            }
            SqlType::Date => {
                self.imports.push("google/type/date.proto");
                "google.type.Date".to_owned()
            }
            SqlType::Time => {
                self.imports.push("google/type/timeofday.proto");
                "google.type.TimeOfDay".to_owned()
            }
            SqlType::Decimal { precision, scale } => {
                self.imports.extend(["confluent/meta.proto", "confluent/type/decimal.proto"]);
                let _ = write!(
                    options,
                    " [(confluent.field_meta) = {{ params: [{{ key: \"precision\", value: \"{precision}\" }}, {{ key: \
                     \"scale\", value: \"{scale}\" }}] }}]"
                );
                "confluent.type.Decimal".to_owned()
            }
            SqlType::Struct(fields) => {
                self.next += 1;
                let name = format!("{}{}", self.stem, self.next);
                nested.push((name.clone(), fields.clone(), false));
                name
            }
            // `item` has put a message around them.
            SqlType::Array(_) | SqlType::Map(..) => String::new(),
        };
        (name, options)
    }
}

/// The field of a message around a list in a list.
pub const LIST_FIELD: &str = "value";

/// Whether NULL needs a representation.
fn is_scalar(ty: &SqlType) -> bool {
    use SqlType::{BigInt, Boolean, Bytes, Double, Integer, String};
    matches!(ty, Boolean | Integer | BigInt | Double | String | Bytes)
}
