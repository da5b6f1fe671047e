//! `/metrics` read as strictly as Prometheus' text form is meant, and held against the table of `docs/metrics.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::kafka::{Client, Sent};
use crate::process::Process;

const DOCUMENTED: &str = include_str!("../../docs/metrics.md");

/// One measured family as it was read.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    /// Name with its suffix, labels, value.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads all families, or says which line breaks which rule.
pub fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    let (mut families, mut helped, mut current) = (BTreeMap::<String, Family>::new(), BTreeSet::new(), String::new());
    let mut series = BTreeSet::new();
    for line in text.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
            if !is_name(name) || help.trim().is_empty() || !helped.insert(name.to_owned()) {
                return wrong("a family's help is there once");
            }
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
            if name != current || !["counter", "gauge", "histogram"].contains(&kind) {
                return wrong("a type follows the help of its family");
            }
            if families.insert(name.to_owned(), Family { kind: kind.to_owned(), samples: Vec::new() }).is_some() {
                return wrong("a family has one type");
            }
        } else if line.starts_with('#') || line.is_empty() {
            return wrong("neither help nor type");
        } else {
            let (name, labels, value) = sample(line)?;
            let Some(family) = families.get_mut(&current) else { return wrong("a sample before its family") };
            let suffix = name.strip_prefix(current.as_str()).ok_or_else(|| format!("of another family: {line}"))?;
            let fits = match family.kind.as_str() {
                "histogram" => {
                    matches!((suffix, labels.contains_key("le")), ("_bucket", true) | ("_sum" | "_count", false))
                }
                _ => suffix.is_empty(),
            };
            if !fits || !series.insert((name.clone(), labels.clone())) {
                return wrong("not a sample of this family, or there twice");
            }
            if family.kind != "gauge" && (value.is_nan() || value < 0.0) {
                return wrong("less than nothing was counted");
            }
            family.samples.push((name, labels, value));
        }
    }
    for (name, family) in &families {
        if family.samples.is_empty() {
            return Err(format!("\"{name}\" has no samples"));
        }
        if family.kind == "histogram" {
            buckets_grow(name, family)?;
        }
    }
    Ok(families)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64), String> {
    let wrong = |why: &str| format!("{why}: {line}");
    let end = line.find(['{', ' ']).ok_or_else(|| wrong("no value"))?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name) {
        return Err(wrong("not a name"));
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or_else(|| wrong("a label without a value"))?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().ok_or_else(|| wrong("a label's value does not end"))? {
                    (i, '"') => break i,
                    (_, '\\') => match chars.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, c @ ('"' | '\\'))) => value.push(c),
                        _ => return Err(wrong("an unknown escape")),
                    },
                    (_, c) => value.push(c),
                }
            };
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return Err(wrong("a label that is none, or is there twice"));
            }
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').ok_or_else(|| wrong("labels do not end"))?;
    }
    let value = rest.strip_prefix(' ').ok_or_else(|| wrong("no value"))?;
    let value = value.parse().map_err(|_| wrong("not a number"))?;
    Ok((name.to_owned(), labels, value))
}

/// A histogram's buckets as bound and count, its `_count`, and whether it has a `_sum`.
type Histogram = (Vec<(f64, f64)>, Option<f64>, bool);

/// Within one histogram bounds and counts grow, and the last bucket holds all.
fn buckets_grow(name: &str, family: &Family) -> Result<(), String> {
    let mut by_labels: BTreeMap<_, Histogram> = BTreeMap::new();
    for (full, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound =
            labels.remove("le").map(|le| if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap_or(f64::NAN) });
        let (buckets, count, sum) = by_labels.entry(labels).or_default();
        match bound {
            Some(bound) => buckets.push((bound, *value)),
            None if full.ends_with("_count") => *count = Some(*value),
            None => *sum = true,
        }
    }
    for (labels, (buckets, count, sum)) in by_labels {
        let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        if !grows || buckets.last() != count.map(|count| (f64::INFINITY, count)).as_ref() || !sum {
            return Err(format!("\"{name}\" {labels:?} is no histogram: {buckets:?}, {count:?}"));
        }
    }
    Ok(())
}

#[test]
fn the_parser_is_strict() {
    let fine = "# HELP a_total h\n# TYPE a_total counter\na_total{x=\"q\\\"\\n\"} 1\na_total 2\n";
    assert_eq!(parse(fine).unwrap()["a_total"].samples[0].1["x"], "q\"\n");
    for bad in [
        "a_total 1\n",
        "# HELP a h\n# TYPE a counter\na 1",
        "# HELP a h\n# TYPE a counter\na 1\na 1\n",
        "# HELP a h\n# TYPE a counter\na -1\n",
        "# HELP a h\n# TYPE a counter\nb 1\n",
        "# HELP a h\n# TYPE a counter\na{x=\"y} 1\n",
        "# HELP a h\n# TYPE a counter\n# HELP b h\n",
        "# HELP a h\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_measured_is_well_formed_named_by_the_rules_and_documented() {
    let data = tempfile::tempdir().unwrap();
    let server = Process::start(data.path());
    let mut client = Client::connect(server.kafka).unwrap();
    client.create_topic("t", 1, &[]).unwrap();
    client.alter_topic("t", &[("cleanup.policy", "compact")]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scrape = || runtime.block_on(server.get("/metrics")).text;
    runtime.block_on(server.sql(
        "CREATE STREAM S (V INT) WITH (KAFKA_TOPIC='s', PARTITIONS=1, VALUE_FORMAT='JSON');
         CREATE STREAM O AS SELECT V FROM S EMIT CHANGES;
         INSERT INTO S VALUES (1);",
    ));
    runtime.block_on(server.eventually("SELECT V FROM O;", &[serde_json::json!([1])]));
    let families = parse(&scrape()).unwrap_or_else(|e| panic!("{e}"));
    let documented: BTreeMap<&str, &str> = DOCUMENTED
        .lines()
        .filter_map(|line| line.strip_prefix("| `millpond_"))
        .filter_map(|line| line.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").next().unwrap_or_default()))
        .collect();
    for (name, family) in &families {
        let short = name.strip_prefix("millpond_").unwrap_or_else(|| panic!("\"{name}\" has no prefix"));
        assert_eq!(documented.get(short).copied(), Some(family.kind.as_str()), "\"{name}\" in docs/metrics.md");
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "\"{name}\"");
        assert!(!name.contains("_ms") && !name.contains("_kb") && !name.contains("_mb"), "\"{name}\" has no base unit");
    }
    for name in documented.keys() {
        assert!(families.contains_key(&format!("millpond_{name}")), "\"{name}\" of docs/metrics.md is not there");
    }
    let value = |families: &BTreeMap<String, Family>, name: &str, label: Option<(&str, &str)>| {
        let family = families.get(name).unwrap_or_else(|| panic!("no \"{name}\""));
        let fits =
            |labels: &BTreeMap<String, String>| label.is_none_or(|(k, v)| labels.get(k).map(String::as_str) == Some(v));
        let found = family
            .samples
            .iter()
            .filter(|(full, labels, _)| (full == name || full.ends_with("_count")) && fits(labels));
        found.map(|(_, _, value)| *value).sum::<f64>()
    };
    let total = value(&families, "millpond_storage_volume_bytes", None);
    let free = value(&families, "millpond_storage_volume_free_bytes", None);
    assert!(total > free && free > 0.0, "{total}, {free}");
    assert_eq!(value(&families, "millpond_broker_connections", Some(("listener", "PLAINTEXT"))), 1.0);
    for state in ["storage_disk_full", "storage_write_stopped"] {
        assert_eq!(value(&families, &format!("millpond_{state}"), None), 0.0);
    }
    let before = value(&families, "millpond_storage_commit_duration_seconds", None);
    let bytes = value(&families, "millpond_storage_log_bytes", None);
    let record = Sent { key: Some("k".into()), value: "v".repeat(1000), timestamp: 1 };
    let producer = client.init_producer(1).unwrap();
    client.produce("t", &producer, &[(0, vec![record])]).unwrap();
    let families = parse(&scrape()).unwrap_or_else(|e| panic!("{e}"));
    assert!(value(&families, "millpond_storage_commit_duration_seconds", None) > before);
    assert!(value(&families, "millpond_storage_log_bytes", None) >= bytes + 1000.0);
    assert!(value(&families, "millpond_storage_wal_bytes", None) > 1000.0);
    // An answer is counted after it was sent.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let families = parse(&scrape()).unwrap_or_else(|e| panic!("{e}"));
        let produced = value(&families, "millpond_broker_request_duration_seconds", Some(("api", "produce")));
        if produced == 1.0 {
            break;
        }
        assert!(Instant::now() < until, "{produced}");
    }
    server.stop();
}
