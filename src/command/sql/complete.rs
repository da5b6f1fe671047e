//! What can stand at the cursor: keywords from the grammar, names from the server.
//!
//! Names are a copy that is renewed after statements that may have changed them; nothing here talks to the server.

use std::collections::{BTreeMap, BTreeSet};

use millpond_sql::parse;
use millpond_sql::token::{TokenKind, is_reserved, tokenize};
use serde_json::Value as Json;

use super::input::COMMANDS;

/// One request tells all names.
pub const NAMES_STATEMENTS: &str =
    "SHOW FUNCTIONS; SHOW PROPERTIES; DESCRIBE STREAMS; DESCRIBE TABLES; SHOW TOPICS; SHOW QUERIES; SHOW TYPES;";

/// Most candidates offered at once.
const CANDIDATES_MAX: usize = 500;

const TYPES: [&str; 14] = [
    "ARRAY",
    "BIGINT",
    "BOOLEAN",
    "BYTES",
    "DATE",
    "DECIMAL",
    "DOUBLE",
    "INT",
    "INTEGER",
    "MAP",
    "STRING",
    "STRUCT",
    "TIME",
    "TIMESTAMP",
];

const PSEUDO_COLUMNS: [&str; 5] = ["ROWOFFSET", "ROWPARTITION", "ROWTIME", "WINDOWEND", "WINDOWSTART"];

const WITH_PROPERTIES: [&str; 18] = [
    "FORMAT",
    "KAFKA_TOPIC",
    "KEY_DELIMITER",
    "KEY_FORMAT",
    "KEY_SCHEMA_FULL_NAME",
    "KEY_SCHEMA_ID",
    "PARTITIONS",
    "REPLICAS",
    "RETENTION_MS",
    "TIMESTAMP",
    "TIMESTAMP_FORMAT",
    "VALUE_DELIMITER",
    "VALUE_FORMAT",
    "VALUE_SCHEMA_FULL_NAME",
    "VALUE_SCHEMA_ID",
    "WINDOW_SIZE",
    "WINDOW_TYPE",
    "WRAP_SINGLE_VALUE",
];

/// The names that a server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// With the columns of each.
    pub sources: BTreeMap<String, Vec<String>>,
    pub functions: Vec<String>,
    pub topics: Vec<String>,
    pub queries: Vec<String>,
    pub types: Vec<String>,
    pub properties: Vec<String>,
    pub variables: Vec<String>,
}

impl Names {
    /// From the answers to [`NAMES_STATEMENTS`].
    pub fn from_entities(entities: &[Json]) -> Self {
        let mut names = Self::default();
        for entity in entities {
            match entity["@type"].as_str().unwrap_or_default() {
                "function_names" => names.functions = texts(&entity["functions"], "name"),
                "properties" => names.properties = texts(&entity["properties"], "name"),
                "source_descriptions" => {
                    for source in entity["sourceDescriptions"].as_array().into_iter().flatten() {
                        if let Some(name) = source["name"].as_str() {
                            names.sources.insert(name.to_string(), texts(&source["fields"], "name"));
                        }
                    }
                }
                "kafka_topics" => names.topics = texts(&entity["topics"], "name"),
                "queries" => names.queries = texts(&entity["queries"], "id"),
                "type_list" => {
                    names.types =
                        entity["types"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
                }
                _ => {}
            }
        }
        names
    }
}

fn texts(list: &Json, member: &str) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item[member].as_str()).map(str::to_string).collect()
}

/// Where the completed word begins, and what it may become, in order.
pub fn complete(line: &str, position: usize, names: &Names) -> (usize, Vec<String>) {
    let before = line.get(..position).unwrap_or(line);
    if let Some(found) = variable(before, names).or_else(|| property(before, names)) {
        return found;
    }
    let found = parse::complete(before);
    let prefix = before.get(found.start..).unwrap_or_default();
    let lower = !prefix.is_empty() && !prefix.chars().any(char::is_uppercase);
    let mut candidates = BTreeSet::new();
    let mut offer = |name: &str, plain: bool| {
        if !starts_with(name, prefix) {
            return;
        }
        // As it would be typed: in small letters if the user does so, in back-ticks if it is no plain name.
        let text = match (plain || is_plain(name), lower) {
            (true, true) => name.to_lowercase(),
            (true, false) => name.to_string(),
            (false, _) => format!("`{}`", name.replace('`', "``")),
        };
        candidates.insert(text);
    };
    if before.get(..found.start).unwrap_or_default().trim().is_empty() {
        COMMANDS.iter().for_each(|(command, _)| offer(command, true));
    }
    found.words.iter().for_each(|word| offer(word, true));
    let last = before.get(..found.start).unwrap_or_default().split_whitespace().next_back().unwrap_or_default();
    let class = match found.name.unwrap_or_default() {
        // These may also be given as strings, which the grammar names first.
        "a string" if last.ends_with(['(', ',']) => "the name of a property",
        "a string" if ["PRINT", "TOPIC"].iter().any(|word| last.eq_ignore_ascii_case(word)) => "the name of a topic",
        // A source may be called FUNCTION, so the grammar takes the word for a name.
        "" if last.eq_ignore_ascii_case("FUNCTION") && found.words.iter().all(|word| *word == "EXTENDED") => {
            "the name of a function"
        }
        class => class,
    };
    let columns = || columns_in_reach(line, names);
    match class {
        "the name of a source" | "the name of a stream or table" => names.sources.keys().for_each(|n| offer(n, false)),
        // A name in front of a dot is a source or an alias: only columns follow.
        "the name of a column" | "the name of a field" => columns().iter().for_each(|n| offer(n, false)),
        "an expression" => {
            columns().iter().for_each(|n| offer(n, false));
            PSEUDO_COLUMNS.iter().for_each(|n| offer(n, true));
            names.functions.iter().for_each(|n| offer(n, true));
        }
        "the name of a function" => names.functions.iter().for_each(|n| offer(n, true)),
        // Topics keep their case also without quotes.
        "the name of a topic" => {
            let topics = names.topics.iter().filter(|n| n.starts_with(prefix) && is_word(n));
            return (found.start, topics.take(CANDIDATES_MAX).cloned().collect());
        }
        "the name of a type" => names.types.iter().for_each(|n| offer(n, false)),
        "a type" => {
            TYPES.iter().for_each(|n| offer(n, true));
            names.types.iter().for_each(|n| offer(n, false));
        }
        "the id of a query" | "a statement to explain" => names.queries.iter().for_each(|n| offer(n, true)),
        "the name of a property" => WITH_PROPERTIES.iter().for_each(|n| offer(n, true)),
        "the name of a variable" => names.variables.iter().for_each(|n| offer(n, true)),
        _ => {}
    }
    (found.start, candidates.into_iter().take(CANDIDATES_MAX).collect())
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

fn is_word(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a name means itself without quotes.
fn is_plain(name: &str) -> bool {
    is_word(name) && !name.chars().any(|c| c.is_ascii_lowercase()) && !is_reserved(name)
}

/// The columns of the sources that the line names, of all sources if it names none.
fn columns_in_reach(line: &str, names: &Names) -> BTreeSet<String> {
    let mut columns = BTreeSet::new();
    for token in tokenize(line) {
        let name = match token.kind {
            TokenKind::Word(word) => word,
            TokenKind::Quoted(name) => name,
            _ => continue,
        };
        columns.extend(names.sources.get(&name).into_iter().flatten().cloned());
    }
    if columns.is_empty() {
        columns.extend(names.sources.values().flatten().cloned());
    }
    columns
}

/// `${na` anywhere.
fn variable(before: &str, names: &Names) -> Option<(usize, Vec<String>)> {
    let start = before.rfind("${")? + 2;
    let prefix = before.get(start..)?;
    if !is_word(prefix) && !prefix.is_empty() {
        return None;
    }
    let found = names.variables.iter().filter(|n| starts_with(n, prefix));
    Some((start, found.map(|n| format!("{n}}}")).collect()))
}

/// The string of SET and UNSET, which is a property's name.
fn property(before: &str, names: &Names) -> Option<(usize, Vec<String>)> {
    let statement = before.rsplit(';').next().unwrap_or_default().trim_start();
    let (word, rest) = statement.split_once(char::is_whitespace)?;
    let prefix = rest.trim_start().strip_prefix('\'')?;
    let is_set = word.eq_ignore_ascii_case("SET") || word.eq_ignore_ascii_case("UNSET");
    if !is_set || prefix.contains('\'') {
        return None;
    }
    let found = names.properties.iter().filter(|n| starts_with(n, prefix));
    Some((before.len() - prefix.len(), found.map(|n| format!("{n}'")).collect()))
}

/// Whether the cursor is in the file name of RUN SCRIPT or SPOOL.
pub fn is_in_file_name(before: &str) -> bool {
    let upper = before.trim_start().to_ascii_uppercase();
    let path = upper.strip_prefix("SPOOL").or_else(|| upper.strip_prefix("RUN")?.trim_start().strip_prefix("SCRIPT"));
    path.and_then(|rest| rest.trim_start().strip_prefix('\'')).is_some_and(|path| !path.contains('\''))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        let mut names = Names::from_entities(&[
            json!({ "@type": "function_names", "functions": [{ "name": "COUNT" }, { "name": "UCASE" }] }),
            json!({ "@type": "source_descriptions", "sourceDescriptions": [
                { "name": "ORDERS", "fields": [{ "name": "ORDER_ID" }, { "name": "unit" }] },
                { "name": "USERS", "fields": [{ "name": "USER_ID" }] },
            ]}),
            json!({ "@type": "kafka_topics", "topics": [{ "name": "orders" }, { "name": "or-der" }] }),
            json!({ "@type": "queries", "queries": [{ "id": "CSAS_X_1" }] }),
            json!({ "@type": "type_list", "types": { "ADDRESS": {} } }),
            json!({ "@type": "properties", "properties": [{ "name": "auto.offset.reset" }] }),
        ]);
        names.variables.push("TOPIC".into());
        names
    }

    /// Candidates where `|` stands.
    fn at(line: &str) -> Vec<String> {
        let position = line.find('|').expect("a cursor");
        complete(&line.replacen('|', "", 1), position, &names()).1
    }

    #[test]
    fn statements_and_commands_begin() {
        assert_eq!(at("SEL|"), ["SELECT"]);
        assert_eq!(at("sp|"), ["spool"]);
        assert!(at("|").contains(&"CREATE".to_string()));
        assert_eq!(at("SHOW STREAMS; ex|"), ["explain"]);
    }

    #[test]
    fn names_of_the_server() {
        assert_eq!(at("SELECT * FROM or|"), ["orders"]);
        assert_eq!(at("DESCRIBE US|"), ["USERS"]);
        // Of the source that is named behind the cursor; a name in small letters needs quotes.
        assert_eq!(at("SELECT u| FROM orders"), ["`unit`", "ucase"]);
        assert!(at("SELECT | FROM users").contains(&"USER_ID".to_string()));
        assert!(!at("SELECT | FROM users").contains(&"ORDER_ID".to_string()));
        assert_eq!(at("SELECT COU|"), ["COUNT"]);
        assert_eq!(at("describe function uc|"), ["ucase"]);
        assert_eq!(at("PRINT or|"), ["orders"]);
        assert_eq!(at("TERMINATE CS|"), ["CSAS_X_1"]);
        assert_eq!(at("CREATE STREAM s (a ADD|"), ["ADDRESS"]);
        assert_eq!(at("CREATE STREAM s (a INT) WITH (KAFKA|"), ["KAFKA_TOPIC"]);
    }

    #[test]
    fn properties_variables_and_strings() {
        assert_eq!(at("SET 'au|"), ["auto.offset.reset'"]);
        assert_eq!(at("SELECT '${to|"), ["TOPIC}"]);
        assert!(at("SELECT 'sel|").is_empty());
        assert!(at("-- sel|").is_empty());
        assert!(is_in_file_name("run script 'a"));
        assert!(!is_in_file_name("run script 'a'"));
    }
}
