//! ksqlDB's own cases, where they are at hand (MILLPOND_CASES: the folder with query-validation-tests): what is accepted
//! there must be accepted here, what is refused there must be refused here, and not for want of a feature.

use std::collections::BTreeMap;
use std::path::PathBuf;

use millpond_sql::plan::Analysed;
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
    /// Sources that must be there afterwards: name, columns if given, key format if given.
    sources: Vec<(String, Option<String>, Option<String>)>,
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
                    sources: test["post"]["sources"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|s| {
                            let format = s["keyFormat"]["format"].as_str().or(s["keyFormat"].as_str());
                            let own = |t: Option<&str>| t.map(str::to_owned);
                            (s["name"].as_str().unwrap().to_owned(), own(s["schema"].as_str()), own(format))
                        })
                        .collect(),
                    refused: test
                        .get("expectedException")
                        .map(|e| e["message"].as_str().unwrap_or_default().to_owned()),
                });
            }
        }
    }
    cases
}

/// What is wrong with the sources that a case left behind.
fn wrong_sources(case: &Case, world: &World) -> Option<String> {
    for (name, schema, key_format) in &case.sources {
        let Some(source) = world.sources.get(name) else { return Some(format!("no source {name}")) };
        if let Some(schema) = schema {
            let text = format!("CREATE STREAM X ({schema}) WITH (KAFKA_TOPIC='x');");
            let parsed = millpond_sql::parse::parse_statement(&text).unwrap().statement;
            let millpond_sql::syntax::Statement::CreateSource(create) = parsed else { unreachable!() };
            let mut wanted: Vec<(bool, String)> = Vec::new();
            for column in &create.columns {
                use millpond_sql::syntax::ColumnRole;
                let key = matches!(column.role.node, ColumnRole::Key | ColumnRole::PrimaryKey);
                let ty = millpond_sql::analyse::resolve_type(&column.ty, world).unwrap();
                wanted.push((key, format!("{} {ty}", column.name.value)));
            }
            wanted.sort_by_key(|(key, _)| !key);
            let mut found: Vec<(bool, String)> =
                source.schema.columns.iter().map(|c| (c.is_key(), format!("{} {}", c.name, c.ty))).collect();
            found.sort_by_key(|(key, _)| !key);
            if wanted != found {
                return Some(format!("{name} has {}, not {schema}", source.schema));
            }
        }
        if let Some(format) = key_format
            && !source.key_format.name.eq_ignore_ascii_case(format)
        {
            return Some(format!("{name} has key format {}, not {format}", source.key_format.name));
        }
    }
    None
}

fn plain(text: &str) -> String {
    let kept = text.to_lowercase().replace(['`', '\'', '"'], "");
    kept.trim_end_matches('.').split_whitespace().collect::<Vec<_>>().join(" ")
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
        let mut world = World {
            topics_on_demand: true,
            registry: std::env::var_os("MILLPOND_REGISTRY").is_some(),
            properties: case.properties.clone(),
            ..World::default()
        };
        world.topics.extend(case.topics.iter().map(|(name, partitions)| (name.clone(), (*partitions, 1))));
        let sql = case.statements.join("\n");
        let result = world.run(&sql);
        match (&case.refused, result) {
            (None, Ok(_)) => {
                positive += 1;
                match wrong_sources(case, &world) {
                    None => accepted += 1,
                    Some(why) => report += &format!("WRONG SOURCE {}\n    {why}\n", case.id),
                }
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

/// ksqlDB's cases of its server: what their SELECTs give as columns, and what is refused.
#[test]
fn ksqldb_rest_cases() {
    let Some(folder) = folder().and_then(|f| Some(f.parent()?.join("rest-query-validation-tests"))) else { return };
    let Ok(files) = std::fs::read_dir(folder) else { return };
    let mut files: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
    files.sort();
    let (mut good, mut all, mut unsupported) = (0, 0, 0);
    let mut report = String::new();
    for file in files {
        let json: Json = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        for test in json["tests"].as_array().unwrap() {
            let id = format!("{} - {}", file.file_stem().unwrap().to_string_lossy(), test["name"].as_str().unwrap());
            let format = test["format"][0].as_str().unwrap_or("JSON");
            let statements: Vec<String> = test["statements"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|s| Some(s.as_str()?.replace("{FORMAT}", format)))
                .collect();
            let mut world = World { topics_on_demand: true, registry: true, ..World::default() };
            for (key, value) in test["properties"].as_object().into_iter().flatten() {
                world.properties.insert(key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
            world.properties.insert("ksql.compat.quirks".into(), "true".into());
            let headers: Vec<Option<&str>> = test["responses"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|r| r.get("query"))
                .map(|rows| rows[0]["header"]["schema"].as_str())
                .collect();
            let mut seen = 0;
            let mut problem = None;
            for text in &statements {
                match world.run(text) {
                    Ok(analysed) => {
                        let schema = match analysed.first() {
                            Some(Analysed::Push(q) | Analysed::PullStream(q)) => q.root.schema.to_string(),
                            Some(Analysed::Pull(p)) => p.schema.to_string(),
                            _ => continue,
                        };
                        if let Some(Some(wanted)) = headers.get(seen)
                            && *wanted != schema
                        {
                            problem = Some(format!("has {schema}, not {wanted}"));
                            break;
                        }
                        seen += 1;
                    }
                    Err((d, _)) => {
                        problem = Some(format!("refused: {} {}", d.code, d.with_position(text)));
                        break;
                    }
                }
            }
            if problem.as_ref().is_some_and(|p| p.contains("SQL900")) {
                unsupported += 1;
                continue;
            }
            all += 1;
            let refused = problem.as_ref().is_some_and(|p| p.starts_with("refused"));
            match (test.get("expectedError"), problem) {
                (None, None) => good += 1,
                (Some(_), Some(_)) if refused => good += 1,
                (Some(e), _) => {
                    report +=
                        &format!("WRONGLY ACCEPTED {id}\n    {}\n    {}\n", e["message"], statements.last().unwrap())
                }
                (None, Some(p)) => report += &format!("WRONG {id}\n    {p}\n    {}\n", statements.last().unwrap()),
            }
        }
    }
    println!("{report}");
    println!("good {good} of {all}, unsupported {unsupported}");
    assert!(good * 100 >= all * 85, "{good} of {all}");
}
