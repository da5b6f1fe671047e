//! ksqlDB's own cases, where they are at hand (MILLPOND_CASES: the folder with query-validation-tests): what is accepted
//! there must be accepted here, what is refused there must be refused here, and not for want of a feature.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;

use crate::world::World;

/// A case after expansion of its formats.
struct Case {
    id: String,
    statements: Vec<String>,
    properties: BTreeMap<String, String>,
    topics: Vec<(String, i32)>,
    /// The message that is expected.
    refused: Option<String>,
}

fn folder() -> Option<PathBuf> {
    let root = PathBuf::from(std::env::var_os("MILLPOND_CASES")?);
    [root.join("query-validation-tests"), root].into_iter().find(|p| p.join("joins.json").exists())
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once("*/").map_or("", |(_, after)| after);
    }
    out + rest
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let Some(folder) = folder() else { return cases };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let json: Json =
            serde_json::from_str(&text).or_else(|_| serde_json::from_str(&without_comments(&text))).unwrap();
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        for test in json["tests"].as_array().unwrap() {
            if test["enabled"] == Json::Bool(false) {
                continue;
            }
            let formats: Vec<String> = match test["format"].as_array() {
                Some(list) => list.iter().map(|f| f.as_str().unwrap().to_owned()).collect(),
                None => vec![String::new()],
            };
            for format in formats {
                let text = |j: &Json| j.as_str().unwrap_or_default().replace("{FORMAT}", &format);
                let mut properties: BTreeMap<String, String> = BTreeMap::new();
                for (key, value) in test["properties"].as_object().into_iter().flatten() {
                    properties.insert(key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                }
                let topics = test["topics"].as_array().into_iter().flatten().filter_map(|t| {
                    Some((t["name"].as_str()?.to_owned(), t["partitions"].as_i64().unwrap_or(1) as i32))
                });
                let name = test["name"].as_str().unwrap();
                cases.push(Case {
                    id: format!("{stem} - {name}{}{format}", if format.is_empty() { "" } else { " - " }),
                    statements: test["statements"].as_array().unwrap().iter().map(text).collect(),
                    properties,
                    topics: topics.collect(),
                    refused: test
                        .get("expectedException")
                        .map(|e| e["message"].as_str().unwrap_or_default().to_owned()),
                });
            }
        }
    }
    cases
}

fn plain(text: &str) -> String {
    let kept = text.to_lowercase().replace(['`', '\'', '"'], "");
    kept.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn ksqldb_cases() {
    let cases = cases();
    if cases.is_empty() {
        return;
    }
    let (mut accepted, mut positive, mut refused, mut negative, mut unsupported, mut worded) = (0, 0, 0, 0, 0, 0);
    let mut report = String::new();
    for case in &cases {
        let mut world = World { topics_on_demand: true, properties: case.properties.clone(), ..World::default() };
        world.topics.extend(case.topics.iter().map(|(name, partitions)| (name.clone(), (*partitions, 1))));
        let sql = case.statements.join("\n");
        // Topics of CREATE statements have the partitions that their WITH clauses name.
        for statement in millpond_sql::parse::parse(&sql).into_iter().flatten() {
            if let millpond_sql::syntax::Statement::CreateSource(create) = statement.statement {
                let value = |name: &str| create.properties.get(name).map(|v| v.node.to_string());
                if let (Some(topic), Some(partitions)) = (value("KAFKA_TOPIC"), value("PARTITIONS")) {
                    if let Ok(partitions) = partitions.parse() {
                        world.topics.entry(topic.trim_matches('\'').to_owned()).or_insert((partitions, 1));
                    }
                }
            }
        }
        let result = world.run(&sql);
        match (&case.refused, result) {
            (None, Ok(_)) => {
                positive += 1;
                accepted += 1;
            }
            (_, Err((d, _))) if d.code == millpond_sql::diagnostic::Code::Unsupported => unsupported += 1,
            (None, Err((d, _))) => {
                positive += 1;
                report += &format!("WRONGLY REFUSED {}\n    {}\n", case.id, d.with_position(&sql));
            }
            (Some(wanted), Ok(_)) => {
                negative += 1;
                report += &format!("WRONGLY ACCEPTED {}\n    {}\n", case.id, wanted.replace('\n', " "));
            }
            (Some(wanted), Err((d, last))) => {
                negative += 1;
                if last {
                    refused += 1;
                    let ours = plain(&d.sentence());
                    if ours.contains(&plain(wanted)) {
                        worded += 1;
                    } else {
                        report += &format!(
                            "OTHER WORDS {}\n    wanted {}\n    got    {}\n",
                            case.id,
                            wanted.replace('\n', " "),
                            d.sentence()
                        );
                    }
                } else {
                    report += &format!("REFUSED TOO EARLY {}\n    {}\n", case.id, d.with_position(&sql));
                }
            }
        }
    }
    println!("{report}");
    println!(
        "accepted {accepted} of {positive}, refused {refused} of {negative} ({worded} in ksqlDB's words), unsupported {unsupported}"
    );
    // Four negative cases fail while rows are processed, not when the statements are analysed.
    assert!(accepted * 100 >= positive * 98, "{accepted} of {positive} accepted");
    assert!(refused * 100 >= negative * 95, "{refused} of {negative} refused");
}
