//! How many JSON events a core decodes and encodes per second: 220-byte access-log events, five of eight columns wanted.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use millpond_formats::{DecodeOptions, Decoder, EncodeOptions, Encoded, Encoder, Format};
use millpond_types::{Field, SqlType};

const ROWS: usize = 8192;

fn events() -> Vec<String> {
    (0..ROWS)
        .map(|i| {
            let mut event = String::new();
            let _ = write!(
                event,
                r#"{{"ts":{},"ip":"10.{}.{}.{}","user_id":"user-{}","method":"{}","path":"/api/v1/items/{}","status":{},"bytes":{},"agent":"{}"}}"#,
                1_700_000_000_000u64 + i as u64 * 37,
                i % 256,
                i / 7 % 256,
                i / 3 % 256,
                i * 7919 % 100_000,
                ["GET", "POST", "PUT"][i % 3],
                i * 31 % 5000,
                [200, 404, 500, 301][i % 4],
                i * 127 % 100_000,
                "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/117.0",
            );
            event
        })
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let columns = [
        Field::new("TS", SqlType::BigInt),
        Field::new("IP", SqlType::String),
        Field::new("USER_ID", SqlType::String),
        Field::new("METHOD", SqlType::String),
        Field::new("PATH", SqlType::String),
        Field::new("STATUS", SqlType::Integer),
        Field::new("BYTES", SqlType::BigInt),
        Field::new("AGENT", SqlType::String),
    ];
    let wanted = [0, 2, 4, 5, 6];
    let events = events();
    let size: usize = events.iter().map(String::len).sum::<usize>() / ROWS;
    let decoder = Decoder::new(Format::Json, &columns, DecodeOptions::default(), &wanted)?;
    let mut best = f64::INFINITY;
    for _ in 0..40 {
        let start = Instant::now();
        for _ in 0..5 {
            let decoded = decoder.decode(events.iter().map(|e| Some(e.as_bytes())))?;
            assert!(decoded.errors.is_empty());
            black_box(decoded.columns);
        }
        best = best.min(start.elapsed().as_secs_f64() / 5.0);
    }
    println!(
        "decode: {:.2} million events/s of {size} bytes, {:.0} ns each",
        ROWS as f64 / best / 1e6,
        best / ROWS as f64 * 1e9
    );

    let decoded = decoder.decode(events.iter().map(|e| Some(e.as_bytes())))?;
    let out_columns: Vec<Field> = wanted.iter().map(|&i| columns[i].clone()).collect();
    let encoder = Encoder::new(Format::Json, &out_columns, EncodeOptions::default())?;
    let mut out = Encoded::default();
    best = f64::INFINITY;
    for _ in 0..40 {
        let start = Instant::now();
        for _ in 0..5 {
            out.clear();
            encoder.encode(decoded.rows, &decoded.columns, None, &mut out)?;
            black_box(&out);
        }
        best = best.min(start.elapsed().as_secs_f64() / 5.0);
    }
    println!("encode: {:.2} million rows/s of {} bytes", ROWS as f64 / best / 1e6, out.size() / ROWS);
    Ok(())
}
