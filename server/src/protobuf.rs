//! Rows of results as Protobuf messages without frames, and the schema that tells how to read them.

use arrow::array::ArrayRef;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millpond_formats::{EncodeOptions, Encoded, Encoder, Format, Naming, Side, schema_for};
use millpond_types::{Field, Result, Schema};

/// Writes the rows of one result.
pub(crate) struct Messages {
    encoder: Encoder,
    /// The text of the schema: a message with a field for each column, numbered by position.
    pub schema: String,
}

impl Messages {
    /// Refuses columns that no message can have.
    pub fn new(schema: &Schema) -> Result<Self> {
        let fields: Vec<Field> = schema.columns.iter().map(|c| Field::new(c.name.as_str(), c.ty.clone())).collect();
        let options = EncodeOptions { side: Side::Value, unwrap_single: false };
        let text = format!("{}\n", schema_for(Format::Protobuf, &fields, &Naming::default())?.text.trim_end());
        Ok(Self { encoder: Encoder::new(Format::PROTOBUF_NOSR, &fields, options)?, schema: text })
    }

    /// Each row as JSON text: its message in base64.
    pub fn rows(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<String>> {
        let mut encoded = Encoded::default();
        self.encoder.encode(rows, columns, None, &mut encoded)?;
        Ok((0..rows).map(|row| format!("\"{}\"", STANDARD.encode(encoded.get(row).unwrap_or_default()))).collect())
    }
}
