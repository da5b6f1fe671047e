//! Millpond as a library: a log, SQL and nothing else; no listener, no server.
//!
//! ```sh
//! cargo run --example embedded
//! ```

use std::error::Error;

use millpond::{Database, OwnedRecord};

pub fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("millpond-embedded-{}", std::process::id()));
    let db = Database::open(&directory)?;

    // A topic with a schema, and a table that counts it in windows of a minute.
    db.execute(
        "CREATE STREAM readings (sensor STRING KEY, celsius DOUBLE)
           WITH (KAFKA_TOPIC='readings', PARTITIONS=4, VALUE_FORMAT='JSON');
         CREATE TABLE per_minute AS
           SELECT sensor, COUNT(*) AS n, MAX(celsius) AS hottest
           FROM readings WINDOW TUMBLING (SIZE 1 MINUTE) GROUP BY sensor EMIT CHANGES;",
    )?;

    // Rows of a push query come as Arrow batches. It ends when it is dropped, or by its LIMIT.
    let mut hot = db.subscribe("SELECT sensor, celsius FROM readings WHERE celsius > 30 EMIT CHANGES LIMIT 3;")?;

    let readings: Vec<OwnedRecord> = (0..1_000_i64)
        .map(|i| OwnedRecord {
            key: Some(format!("sensor-{}", i % 5).into_bytes()),
            value: Some(format!(r#"{{"celsius": {}}}"#, 20 + i % 13).into_bytes()),
            timestamp: 1_700_000_000_000 + i * 100,
            headers: Vec::new(),
        })
        .collect();
    db.produce("readings", &readings)?;

    while let Some(batch) = hot.next_blocking() {
        println!("hot: {:?}", batch?);
    }

    // The table is its query's state, a moment behind the log: ask until all readings are counted.
    let totals = loop {
        let total = db.query("SELECT SUM(n) AS n FROM per_minute;")?;
        let counted = format!("{:?}", total.batches);
        if counted.contains("1000") {
            break db.query(
                "SELECT sensor, SUM(n) AS n, MAX(hottest) AS hottest FROM per_minute GROUP BY sensor ORDER BY sensor;",
            )?;
        }
        std::thread::yield_now();
    };
    for batch in &totals.batches {
        println!("{batch:?}");
    }

    // A WebAssembly component becomes SQL functions in the same way: db.register_module("name", &bytes)?
    if let Some(path) = std::env::args().nth(1).filter(|p| p.ends_with(".wasm")) {
        let module = db.register_module("guest", &std::fs::read(path)?)?;
        for function in &module.report.functions {
            println!("function {function}");
        }
    }

    db.close()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
