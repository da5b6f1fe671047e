//! Single SQL values to and from JSON trees, with the rules of the JSON format.

use millpond_types::value::value_at;
use millpond_types::{Error, Result, SqlType, Value};

use crate::columns::Column;
use crate::json;
use crate::json::Json;
use crate::number::{decimal_text, into_string, java_double};

/// The value of this type, coerced as the JSON format does it.
pub fn value_from_json(json: &Json, ty: &SqlType) -> Result<Value> {
    let mut text = Vec::new();
    json.write(&mut text);
    let mut column = Column::new(ty, 1)?;
    json::decode::single(&text, Some(&mut column))
        .map_err(|failure| Error::bad_request(format!("not a value of type {ty}: {}", failure.message)))?;
    Ok(value_at(column.finish()?.as_ref(), ty, 0))
}

/// The value as the JSON format writes it.
pub fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(b) => Json::Bool(*b),
        Value::Integer(i) | Value::Date(i) | Value::Time(i) => Json::Number(i.to_string()),
        Value::BigInt(i) | Value::Timestamp(i) => Json::Number(i.to_string()),
        Value::Double(d) if d.is_finite() => Json::Number(java_double(*d)),
        Value::Double(d) => Json::String(java_double(*d)),
        Value::Decimal { unscaled, scale, .. } => Json::Number(decimal_text(*unscaled, *scale)),
        Value::String(text) => Json::String(text.clone()),
        Value::Bytes(bytes) => {
            let mut out = Vec::new();
            crate::encode_base64(&mut out, bytes);
            Json::String(into_string(out))
        }
        Value::Array(items) => Json::Array(items.iter().map(value_to_json).collect()),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|(key, value)| (crate::text::value_text(key).unwrap_or_default(), value_to_json(value)))
                .collect(),
        ),
        Value::Struct(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Comments;

    #[test]
    fn coercions_are_those_of_the_format() {
        let read = |text: &str, ty: &SqlType| value_from_json(&Json::parse(text, Comments::Refused).unwrap(), ty);
        assert_eq!(read("\"12\"", &SqlType::Integer).unwrap(), Value::Integer(12));
        assert_eq!(read("{\"a\":[1.50]}", &SqlType::String).unwrap(), Value::String("{\"a\":[1.50]}".into()));
        let decimal = Value::Decimal { unscaled: 1230, precision: 4, scale: 2 };
        assert_eq!(read("12.3", &SqlType::decimal(4, 2)).unwrap(), decimal);
        assert_eq!(value_to_json(&decimal), Json::Number("12.30".into()));
        assert!(read("1", &SqlType::Boolean).is_err());
    }
}
