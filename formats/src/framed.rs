//! One record with its schema's id in front, as JSON: for people and tests, not for the data path.

use std::sync::Arc;

use millpond_types::value::value_at;
use millpond_types::{Error, Field, Result};

use crate::decoder::{DecodeOptions, Decoder, message_path};
use crate::format::{Format, Side};
use crate::inference::columns_of;
use crate::json::{Comments, Json};
use crate::protobuf::wire::Reader;
use crate::registered::{FRAME_LEN, Parsed, Schemas, read_frame};
use crate::values::value_to_json;

/// The schema's id, where the bytes begin like such a record.
pub fn schema_id(bytes: &[u8]) -> Option<u32> {
    read_frame(bytes).ok()
}

/// What a record holds, by the schema that it names: all of it, under the schema's own names.
pub fn framed_to_json(bytes: &[u8], schemas: &Arc<dyn Schemas>) -> Result<Json> {
    let damaged = |failure: Box<crate::json::scan::Failure>| Error::bad_request(failure.text());
    let id = read_frame(bytes).map_err(damaged)?;
    let schema = schemas.schema(id)?.ok_or_else(|| Error::not_found(format!("there is no schema with id {id}")))?;
    let whole = || columns_of(&schema, Side::Value, false, true, None);
    let (format, columns, unwrap) = match &schema.parsed {
        Parsed::Json(_) => {
            let text = std::str::from_utf8(bytes.get(FRAME_LEN..).unwrap_or_default());
            return Json::parse(text.map_err(|_| Error::bad_request("the JSON is not UTF-8"))?, Comments::Refused);
        }
        Parsed::Avro(_) => match whole() {
            Ok(columns) => (Format::Avro, columns, false),
            Err(_) => (Format::Avro, columns_of(&schema, Side::Value, true, true, None)?, true),
        },
        Parsed::Protobuf(proto) => {
            let mut reader = Reader::new(bytes);
            reader.pos = FRAME_LEN;
            let path = message_path(&mut reader).map_err(damaged)?;
            let message = proto.at_path(&path);
            let message =
                message.ok_or_else(|| Error::bad_request(format!("the schema has no message at {path:?}")))?;
            (Format::Protobuf, crate::protobuf::columns::fields_of(proto, message, &str::to_owned), false)
        }
    };
    let options = DecodeOptions { unwrap_single: unwrap, check_all: true };
    let decoded = Decoder::all(format, &columns, options)?.with_schemas(schemas.clone()).decode([Some(bytes)])?;
    if let Some(error) = decoded.errors.first() {
        return Err(Error::bad_request(error.message.clone()));
    }
    let cell = |(field, array): (&Field, &arrow::array::ArrayRef)| value_to_json(&value_at(array, &field.ty, 0));
    let mut cells = columns.iter().zip(&decoded.columns);
    if unwrap {
        return Ok(cells.next().map_or(Json::Null, cell));
    }
    Ok(Json::Object(cells.map(|(field, array)| (field.name.clone(), cell((field, array)))).collect()))
}
