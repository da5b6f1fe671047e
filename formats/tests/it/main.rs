//! The formats through their public face: rules by table, round trips and garbage by property.

mod properties;
mod rules;
mod schemas;

use millpond_formats::{DecodeOptions, Decoded, Decoder, EncodeOptions, Encoded, Encoder, Format};
use millpond_types::value::{array_from_values, value_at};
use millpond_types::{Field, SqlType, Value};

fn field(name: &str, ty: SqlType) -> Field {
    Field::new(name, ty)
}

fn decode(format: Format, fields: &[Field], unwrap_single: bool, rows: &[Option<&[u8]>]) -> Decoded {
    let options = DecodeOptions { unwrap_single, ..Default::default() };
    Decoder::all(format, fields, options).unwrap().decode(rows.iter().copied()).unwrap()
}

/// Row by row, what was read.
fn values(decoded: &Decoded, fields: &[Field]) -> Vec<Vec<Value>> {
    (0..decoded.rows)
        .map(|row| decoded.columns.iter().zip(fields).map(|(c, f)| value_at(c.as_ref(), &f.ty, row)).collect())
        .collect()
}

fn encode(format: Format, fields: &[Field], options: EncodeOptions, rows: &[Vec<Value>]) -> Encoded {
    let columns: Vec<_> = fields
        .iter()
        .enumerate()
        .map(|(i, f)| array_from_values(&f.ty, &rows.iter().map(|r| r[i].clone()).collect::<Vec<_>>()).unwrap())
        .collect();
    let mut out = Encoded::default();
    Encoder::new(format, fields, options).unwrap().encode(rows.len(), &columns, None, &mut out).unwrap();
    out
}
