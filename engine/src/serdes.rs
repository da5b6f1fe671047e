//! Plans' formats as the codecs of `formats`: the one place where `FormatSpec` meets them.

use std::sync::Arc;

use millpond_formats::{DecodeOptions, Decoder, EncodeOptions, Encoder, Format, Schemas, Side};
use millpond_sql::plan::FormatSpec;
use millpond_types::{Column, Error, Field, Result};

use crate::schemas::writer_of;

/// The format that a plan names.
pub fn format_of(spec: &FormatSpec) -> Result<Format> {
    match (Format::parse(&spec.name)?, spec.delimiter) {
        (Format::Delimited { .. }, Some(delimiter)) => {
            let delimiter = u8::try_from(delimiter)
                .map_err(|_| Error::bad_request(format!("delimiter \"{delimiter}\" is not an ASCII character")))?;
            Ok(Format::Delimited { delimiter })
        }
        (format @ Format::ProtobufNosr { .. }, _) => {
            let nullable = spec.properties.iter().find(|(name, _)| name.ends_with("PROTOBUF_NULLABLE_REPRESENTATION"));
            nullable.map_or(Ok(format), |(name, text)| format.with_nullable(name, text))
        }
        (format, _) => Ok(format),
    }
}

/// The fields of one side of a record, as the formats take them.
pub fn fields<'a>(columns: impl IntoIterator<Item = &'a Column>) -> Vec<Field> {
    columns.into_iter().map(|c| Field::new(c.name.as_str(), c.ty.clone())).collect()
}

fn unwrap_single(spec: &FormatSpec, side: Side, fields: &[Field]) -> Result<bool> {
    format_of(spec)?.unwraps(side, fields, None, spec.wrap_single)
}

/// Reads one side of records; `wanted` are indexes into `fields`.
pub fn decoder(
    spec: &FormatSpec,
    side: Side,
    fields: &[Field],
    wanted: &[usize],
    schemas: &Arc<dyn Schemas>,
) -> Result<Decoder> {
    let options = DecodeOptions { unwrap_single: unwrap_single(spec, side, fields)?, check_all: false };
    Ok(Decoder::new(format_of(spec)?, fields, options, wanted)?.with_schemas(schemas.clone()))
}

/// Writes one side of records, after the schema that is registered for it.
pub fn encoder(spec: &FormatSpec, side: Side, fields: &[Field], schemas: &dyn Schemas) -> Result<Encoder> {
    let encoder = plain_encoder(spec, side, fields)?;
    match writer_of(spec, side, schemas)? {
        Some(writer) => encoder.with_schema(&writer),
        None => Ok(encoder),
    }
}

/// Writes one side of records, whatever the registry has.
pub fn plain_encoder(spec: &FormatSpec, side: Side, fields: &[Field]) -> Result<Encoder> {
    Encoder::new(format_of(spec)?, fields, EncodeOptions { side, unwrap_single: unwrap_single(spec, side, fields)? })
}

/// Writes keys. `whole`: a key of several columns is a record even where all of them are NULL. Without schemas the bytes only
/// tell keys apart.
pub fn key_encoder(spec: &FormatSpec, fields: &[Field], whole: bool, schemas: Option<&dyn Schemas>) -> Result<Encoder> {
    let unwrap_single = unwrap_single(spec, Side::Key, fields)?;
    let side = if whole && fields.len() > 1 { Side::Value } else { Side::Key };
    let encoder = Encoder::new(format_of(spec)?, fields, EncodeOptions { side, unwrap_single })?;
    match schemas.map(|s| writer_of(spec, Side::Key, s)).transpose()?.flatten() {
        Some(writer) => encoder.with_schema(&writer),
        None => Ok(encoder),
    }
}
