//! What columns an Avro schema stands for, and the schema that columns are written with: the conventions of Connect's
//! converter and of ksqlDB's translator above it.

use millpond_types::sql_type::DECIMAL_PRECISION_MAX;
use millpond_types::{Field, SqlType};

use super::schema::{AvroSchema, Logical, Node, Shape, branch_name, check_name};
use crate::json::Json;

/// Deepest type that is inferred.
const DEPTH_MAX: usize = 32;
/// Most types that a schema may unfold to: where records are used twice at every level, that doubles with each.
pub(crate) const TYPES_MAX: usize = 20_000;

/// Where inference is, and how much it may still unfold.
struct Walk {
    above: Vec<usize>,
    left: usize,
}

impl Walk {
    fn new() -> Self {
        Self { above: Vec::new(), left: TYPES_MAX }
    }
}

/// The SQL type of a schema; `None` where there is none, as for a record that contains itself. `name` makes the names of
/// fields.
pub fn type_of(schema: &AvroSchema, index: usize, name: &dyn Fn(&str) -> String) -> Option<SqlType> {
    infer(schema, index, name, &mut Walk::new())
}

/// The columns of a record's fields; those without an SQL type are left out.
pub fn fields_of(schema: &AvroSchema, index: usize, name: &dyn Fn(&str) -> String) -> Option<Vec<Field>> {
    match infer(schema, index, name, &mut Walk::new())? {
        SqlType::Struct(fields) if matches!(schema.node(schema.nullable(index).0).shape, Shape::Record(_)) => {
            Some(fields)
        }
        _ => None,
    }
}

fn infer(schema: &AvroSchema, index: usize, name: &dyn Fn(&str) -> String, walk: &mut Walk) -> Option<SqlType> {
    if walk.above.contains(&index) || walk.above.len() > DEPTH_MAX || walk.left == 0 {
        return None;
    }
    walk.left -= 1;
    walk.above.push(index);
    let ty = infer_inner(schema, index, name, walk);
    walk.above.pop();
    ty
}

fn infer_inner(schema: &AvroSchema, index: usize, name: &dyn Fn(&str) -> String, walk: &mut Walk) -> Option<SqlType> {
    let Node { shape, logical } = schema.node(index);
    Some(match (shape, *logical) {
        (Shape::Null, _) => return None,
        (_, Logical::Decimal { precision, scale }) => {
            let precision = u8::try_from(precision).unwrap_or(u8::MAX).min(DECIMAL_PRECISION_MAX);
            SqlType::Decimal { precision, scale: u8::try_from(scale).unwrap_or(u8::MAX).min(precision) }
        }
        (_, Logical::Date) => SqlType::Date,
        (_, Logical::TimeMillis) => SqlType::Time,
        (_, Logical::TimestampMillis) => SqlType::Timestamp,
        (Shape::Boolean, _) => SqlType::Boolean,
        (Shape::Int, _) => SqlType::Integer,
        (Shape::Long, _) => SqlType::BigInt,
        (Shape::Float | Shape::Double, _) => SqlType::Double,
        (Shape::Bytes | Shape::Fixed { .. }, _) => SqlType::Bytes,
        (Shape::String | Shape::Enum { .. }, _) => SqlType::String,
        (Shape::Map(values), _) => SqlType::map(SqlType::String, infer(schema, *values, name, walk)?),
        (Shape::Array(items), _) => match entry_of(schema, *items) {
            Some((key, value)) => {
                let (key, value) = (infer(schema, key, name, walk)?, infer(schema, value, name, walk)?);
                if key != SqlType::String {
                    return None;
                }
                SqlType::map(key, value)
            }
            None => SqlType::array(infer(schema, *items, name, walk)?),
        },
        (Shape::Record(record), _) => {
            let fields = record.fields.iter();
            let fields = fields.filter_map(|f| Some(Field::new(name(&f.name), infer(schema, f.node, name, walk)?)));
            let fields: Vec<Field> = fields.collect();
            if fields.is_empty() {
                return None;
            }
            SqlType::Struct(fields)
        }
        (Shape::Union(branches), _) => match schema.nullable(index) {
            (one, _) if one != index => return infer(schema, one, name, walk),
            _ => {
                let fields: Vec<Field> = branches
                    .iter()
                    .filter_map(|&b| Some(Field::new(name(member_name(schema, b)), infer(schema, b, name, walk)?)))
                    .collect();
                if fields.is_empty() {
                    return None;
                }
                SqlType::Struct(fields)
            }
        },
    })
}

/// The name of a branch of a union where it becomes the field of a STRUCT.
pub fn member_name(schema: &AvroSchema, branch: usize) -> &str {
    let name = branch_name(&schema.node(branch).shape);
    name.rsplit('.').next().unwrap_or(name)
}

/// Key and value of an array's items where they are a map's entries.
pub fn entry_of(schema: &AvroSchema, items: usize) -> Option<(usize, usize)> {
    let (items, _) = schema.nullable(items);
    let Shape::Record(record) = &schema.node(items).shape else { return None };
    let field = |name: &str| record.fields.iter().find(|f| f.name == name).map(|f| f.node);
    if !record.is_entry || record.fields.len() != 2 {
        return None;
    }
    Some((field("key")?, field("value")?))
}

/// Namespace of the schemas that ksqlDB makes.
pub const NAMESPACE: &str = "io.confluent.ksql.avro_schemas";

/// The schema of columns: a record of that full name with a field for each, or where `unwrap` says so, the type of the one column.
/// Every field may be null.
pub fn schema_of(columns: &[Field], full_name: &str, unwrap: bool) -> Json {
    let (namespace, name) = full_name.rsplit_once('.').unwrap_or(("", full_name));
    match columns {
        [column] if unwrap => ty(&column.ty, namespace, name, true),
        _ => record(columns, namespace, name, true),
    }
}

/// Why a column's name, or one inside its type, cannot be Avro's.
pub fn objection(columns: &[Field], unwrap: bool) -> Option<String> {
    columns.iter().find_map(|c| {
        let own = if unwrap { None } else { check_name(&c.name).err() };
        own.or_else(|| type_objection(&c.ty))
    })
}

fn type_objection(ty: &SqlType) -> Option<String> {
    match ty {
        SqlType::Array(item) => type_objection(item),
        SqlType::Map(_, value) => type_objection(value),
        SqlType::Struct(fields) => objection(fields, false),
        _ => None,
    }
}

fn text(text: impl Into<String>) -> Json {
    Json::String(text.into())
}

fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::Object(members.into_iter().map(|(name, json)| (name.to_owned(), json)).collect())
}

fn number(number: impl ToString) -> Json {
    Json::Number(number.to_string())
}

fn optional(json: Json) -> Json {
    Json::Array(vec![text("null"), json])
}

fn full(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn record(columns: &[Field], namespace: &str, name: &str, outermost: bool) -> Json {
    let fields = columns.iter().map(|c| field(&c.name, &c.ty, namespace, &format!("{name}_{}", c.name))).collect();
    let mut members = vec![("type".to_owned(), text("record")), ("name".to_owned(), text(name))];
    if outermost && !namespace.is_empty() {
        members.push(("namespace".to_owned(), text(namespace)));
    }
    members.push(("fields".to_owned(), Json::Array(fields)));
    members.push(("connect.name".to_owned(), text(full(namespace, name))));
    Json::Object(members)
}

fn field(name: &str, column: &SqlType, namespace: &str, path: &str) -> Json {
    object([("name", text(name)), ("type", optional(ty(column, namespace, path, false))), ("default", Json::Null)])
}

/// `name` is that of a record, should the type be one.
fn ty(column: &SqlType, namespace: &str, name: &str, outermost: bool) -> Json {
    let connect = |ty: &str, connect: &str, logical: &str| {
        object([
            ("type", text(ty)),
            ("connect.version", number(1)),
            ("connect.name", text(format!("org.apache.kafka.connect.data.{connect}"))),
            ("logicalType", text(logical)),
        ])
    };
    match column {
        SqlType::Boolean => text("boolean"),
        SqlType::Integer => text("int"),
        SqlType::BigInt => text("long"),
        SqlType::Double => text("double"),
        SqlType::String => text("string"),
        SqlType::Bytes => text("bytes"),
        SqlType::Date => connect("int", "Date", "date"),
        SqlType::Time => connect("int", "Time", "time-millis"),
        SqlType::Timestamp => connect("long", "Timestamp", "timestamp-millis"),
        SqlType::Decimal { precision, scale } => object([
            ("type", text("bytes")),
            ("scale", number(scale)),
            ("precision", number(precision)),
            ("connect.version", number(1)),
            (
                "connect.parameters",
                object([
                    ("scale", text(scale.to_string())),
                    ("connect.decimal.precision", text(precision.to_string())),
                ]),
            ),
            ("connect.name", text("org.apache.kafka.connect.data.Decimal")),
            ("logicalType", text("decimal")),
        ]),
        SqlType::Array(item) => {
            object([("type", text("array")), ("items", optional(ty(item, namespace, name, false)))])
        }
        SqlType::Map(key, value) => {
            // Keys may be null for Connect, so that a map becomes the list of its entries.
            let entry = vec![
                field("key", key, namespace, &format!("{name}_MapKey")),
                field("value", value, namespace, &format!("{name}_MapValue")),
            ];
            let mut members = vec![("type".to_owned(), text("record")), ("name".to_owned(), text(name))];
            if outermost && !namespace.is_empty() {
                members.push(("namespace".to_owned(), text(namespace)));
            }
            members.push(("fields".to_owned(), Json::Array(entry)));
            members.push(("connect.internal.type".to_owned(), text("MapEntry")));
            object([
                ("type", text("array")),
                ("items", Json::Object(members)),
                ("connect.internal.type", text("MapEntry")),
            ])
        }
        SqlType::Struct(fields) => record(fields, namespace, name, outermost),
    }
}
