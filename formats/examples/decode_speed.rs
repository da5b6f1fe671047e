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
                r#"{{"ts":{},"ip":"10.{}.{}.{}","user_id":"user-{}","method":"{}","path":"/api/v1/items/{}","status":{},"bytes":{},"agent":"Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/117.0"}}"#,
                1_700_000_000_000u64 + i as u64 * 37,
                i % 256,
                i / 7 % 256,
                i / 3 % 256,
                i * 7919 % 100_000,
                ["GET", "POST", "PUT"][i % 3],
                i * 31 % 5000,
                [200, 404, 500, 301][i % 4],
                i * 127 % 100_000,
            );
            event
        })
        .collect()
}

/// Seconds per row of the fastest of many runs.
#[allow(clippy::disallowed_methods, reason = "how long something took")]
fn fastest(mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..5).for_each(|_| run());
        start.elapsed().as_secs_f64() / 5.0
    };
    (0..30).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min) / ROWS as f64
}

fn report(what: &str, size: usize, seconds: f64) {
    let (rate, ns) = (1e-6 / seconds, seconds * 1e9);
    println!("{what:<34} {rate:6.2} million rows/s of {size} bytes, {ns:.0} ns each");
}

/// Every event with its members in another order, with white space as Python writes it or without.
fn reshaped(events: &[String], spaced: bool, order: impl Fn(usize, usize) -> usize) -> Vec<String> {
    let shapes = events.iter().enumerate().map(|(row, event)| {
        let members: Vec<&str> = event.trim_matches(['{', '}']).split(",\"").collect();
        let members: Vec<String> = (0..members.len())
            .map(|place| {
                let member = members[order(row, place) % members.len()];
                let (name, value) = member.split_once(':').unwrap_or((member, "null"));
                let gap = if spaced { " " } else { "" };
                format!("\"{}:{gap}{value}", name.trim_start_matches('"'))
            })
            .collect();
        format!("{{{}}}", members.join(if spaced { ", " } else { "," }))
    });
    shapes.collect()
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
    let size = |events: &[String]| events.iter().map(String::len).sum::<usize>() / events.len();
    let decoder = Decoder::new(Format::Json, &columns, DecodeOptions::default(), &wanted)?;
    for (what, events, batch) in [
        ("decode", events.clone(), ROWS),
        ("decode, batches of 8", events.clone(), 8),
        ("decode, spaces", reshaped(&events, true, |_, place| place), ROWS),
        ("decode, members in turning order", reshaped(&events, false, |row, place| row + place), ROWS),
    ] {
        let seconds = fastest(|| {
            for batch in events.chunks(batch) {
                let decoded = decoder.decode(batch.iter().map(|e| Some(e.as_bytes())));
                assert!(decoded.as_ref().is_ok_and(|d| d.errors.is_empty()));
                let _ = black_box(decoded);
            }
        });
        report(what, size(&events), seconds);
    }

    let decoded = decoder.decode(events.iter().map(|e| Some(e.as_bytes())))?;
    let fields: Vec<Field> = wanted.iter().map(|&i| columns[i].clone()).collect();
    for (what, format) in [("encode", Format::Json), ("encode DELIMITED", Format::DELIMITED)] {
        let encoder = Encoder::new(format, &fields, EncodeOptions::default())?;
        let mut out = Encoded::default();
        let seconds = fastest(|| {
            out.clear();
            assert!(encoder.encode(decoded.rows, &decoded.columns, None, &mut out).is_ok());
        });
        report(what, out.size() / ROWS, seconds);
        if format == Format::DELIMITED {
            let decoder = Decoder::all(format, &fields, DecodeOptions::default())?;
            let seconds = fastest(|| {
                let _ = black_box(decoder.decode(out.iter()));
            });
            report("decode DELIMITED", out.size() / ROWS, seconds);
        }
    }
    Ok(())
}
