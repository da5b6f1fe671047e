//! Rows of results as JSON text.

use arrow::array::{ArrayRef, RecordBatch};
use millpond_types::value::value_at;
use millpond_types::{ColumnRole, Schema, SqlType, Value};

/// `["a",1,null]`
pub(crate) fn write_row(schema: &Schema, columns: &[ArrayRef], row: usize, out: &mut String) {
    out.push('[');
    for (i, (column, array)) in schema.columns.iter().zip(columns).enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_value(&value_at(array, &column.ty, row), out);
    }
    out.push(']');
}

pub(crate) fn write_batch_row(schema: &Schema, batch: &RecordBatch, row: usize, out: &mut String) {
    write_row(schema, batch.columns(), row, out);
}

fn write_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Boolean(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Integer(i) => out.push_str(&i.to_string()),
        Value::BigInt(i) => out.push_str(&i.to_string()),
        // JSON has no infinities.
        Value::Double(d) if !d.is_finite() => write_text(&millpond_formats::java_double(*d), out),
        Value::Double(d) => out.push_str(&millpond_formats::java_double(*d)),
        Value::Decimal { .. } | Value::Date(_) | Value::Time(_) | Value::Timestamp(_) | Value::Bytes(_) => {
            let text = millpond_formats::value_text(value).unwrap_or_default();
            match value {
                Value::Decimal { .. } => out.push_str(&text),
                _ => write_text(&text, out),
            }
        }
        Value::String(s) => write_text(s, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (i, (key, item)) in entries.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                match key {
                    Value::String(s) => write_text(s, out),
                    other => {
                        let mut text = String::new();
                        write_value(other, &mut text);
                        write_text(&text, out);
                    }
                }
                out.push(':');
                write_value(item, out);
            }
            out.push('}');
        }
        Value::Struct(fields) => {
            out.push('{');
            for (i, (name, field)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write_value(field, out);
            }
            out.push('}');
        }
    }
}

/// `` `ID` STRING KEY, `V` BIGINT ``; `keys`: what is no value column is marked, as it is not for push queries.
pub(crate) fn schema_text(schema: &Schema, keys: bool) -> String {
    let mut text = String::new();
    for (i, c) in schema.columns.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&format!("`{}` {}", c.name, c.ty));
        match &c.role {
            ColumnRole::Key if keys => text.push_str(" KEY"),
            ColumnRole::Headers if keys => text.push_str(" HEADERS"),
            ColumnRole::Header(key) if keys => text.push_str(&format!(" HEADER('{key}')")),
            _ => {}
        }
    }
    text
}

/// The type as `columnTypes` gives it.
pub(crate) fn type_text(ty: &SqlType) -> String {
    ty.to_string()
}
