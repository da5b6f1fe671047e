//! Serdes between the bytes of records and Arrow columns: JSON, DELIMITED, KAFKA, PROTOBUF_NOSR, NONE, and with schemas by id
//! AVRO, JSON_SR and PROTOBUF; and around them what else has to do with bytes and text: JSON trees with exact numbers, values as
//! text, schemas and the columns that they stand for, windowed keys, PRINT's guesses.
//!
//! Not here: where records come from (`broker`), what columns mean (`engine`), which formats a statement chooses (`sql`).
//! Invariants: no bytes can make it panic or allocate without bound; a bad record spoils no other.
//!
//! ```
//! use millpond_formats::{DecodeOptions, Decoder, EncodeOptions, Encoded, Encoder, Format};
//! use millpond_types::{Field, SqlType};
//!
//! let columns = [Field::new("ID", SqlType::BigInt), Field::new("NAME", SqlType::String), Field::new("V", SqlType::Double)];
//! // Only ID and V are wanted; the other members are passed over.
//! let decoder = Decoder::new(Format::Json, &columns, DecodeOptions::default(), &[0, 2])?;
//! let records: [Option<&[u8]>; 3] = [Some(br#"{"id": 7, "name": "x", "v": 1}"#), None, Some(b"oops")];
//! let decoded = decoder.decode(records)?;
//! assert_eq!((decoded.rows, decoded.columns.len()), (3, 2));
//! assert!(decoded.null_rows.as_ref().is_some_and(|nulls| nulls.value(1)));
//! assert_eq!(decoded.errors[0].row, 2);
//!
//! let encoder = Encoder::new(Format::Json, &[columns[0].clone(), columns[2].clone()], EncodeOptions::default())?;
//! let mut out = Encoded::default();
//! encoder.encode(decoded.rows, &decoded.columns, decoded.null_rows.as_ref(), &mut out)?;
//! assert_eq!(out.get(0), Some(&br#"{"ID":7,"V":1.0}"#[..]));
//! assert_eq!(out.get(1), None);
//! # Ok::<(), millpond_types::Error>(())
//! ```

#![forbid(unsafe_code)]

mod arrays;
pub mod avro;
mod columns;
mod decoder;
mod delimited;
mod encoder;
mod format;
mod framed;
mod inference;
pub mod json;
mod json_sr;
mod kafka;
mod names;
pub mod number;
pub mod print;
pub mod protobuf;
pub mod registered;
pub mod text;
mod values;
pub mod windowed;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use decoder::{DecodeError, DecodeOptions, Decoded, Decoder, Decoding};
pub use encoder::{EncodeOptions, Encoded, Encoder};
pub use format::{Format, Nullable, Side};
pub use framed::{framed_to_json, schema_id};
pub use inference::{Naming, columns_of, key_record_name, schema_for};
pub use json::Json;
pub use number::java_double;
pub use registered::{NoSchemas, Parsed, Schema, SchemaKind, Schemas, WriterSchema};
pub use text::{java_text, value_text};
pub use values::{value_from_json, value_to_json};

/// Appends base64 text.
pub(crate) fn encode_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    let len = base64::encoded_len(bytes.len(), true).unwrap_or(0);
    out.resize(start + len, 0);
    // The slice is as long as the text.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Appends what base64 text stands for; white space in it is passed over. False where it is not base64.
pub(crate) fn decode_base64(out: &mut Vec<u8>, text: &[u8]) -> bool {
    if text.iter().any(|b| *b <= b' ') {
        let bare: Vec<u8> = text.iter().copied().filter(|b| *b > b' ').collect();
        return STANDARD.decode_vec(bare, out).is_ok();
    }
    STANDARD.decode_vec(text, out).is_ok()
}
