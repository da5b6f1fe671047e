//! What HELP says.

use millpond_sql::diagnostic::suggest;

use super::input::COMMANDS;

const STATEMENTS: &[(&str, &str)] = &[
    ("ALTER", "ALTER STREAM|TABLE name ADD COLUMN column type, ...;"),
    ("ASSERT", "ASSERT [NOT EXISTS] TOPIC name [WITH (...)] [TIMEOUT n SECONDS];"),
    (
        "CREATE",
        "CREATE [OR REPLACE] [SOURCE] STREAM|TABLE [IF NOT EXISTS] name (column type [KEY|PRIMARY KEY], ...) WITH (KAFKA_TOPIC='...', VALUE_FORMAT='...');\n\
         CREATE [OR REPLACE] STREAM|TABLE [IF NOT EXISTS] name [WITH (...)] AS SELECT ... [EMIT CHANGES];\n\
         CREATE TYPE [IF NOT EXISTS] name AS type;",
    ),
    ("DEFINE", "DEFINE name = 'value';   ${name} stands for the value from then on; kept on this side"),
    ("DESCRIBE", "DESCRIBE name [EXTENDED];\nDESCRIBE STREAMS|TABLES [EXTENDED];\nDESCRIBE FUNCTION name;"),
    ("DROP", "DROP STREAM|TABLE [IF EXISTS] name [DELETE TOPIC];\nDROP TYPE [IF EXISTS] name;"),
    ("EXPLAIN", "EXPLAIN statement;\nEXPLAIN query_id;"),
    ("INSERT", "INSERT INTO name [(column, ...)] VALUES (value, ...);\nINSERT INTO name SELECT ...;"),
    ("PAUSE", "PAUSE query_id|ALL;"),
    ("PRINT", "PRINT topic [FROM BEGINNING] [INTERVAL n] [LIMIT n];   Ctrl-C ends it"),
    ("RESUME", "RESUME query_id|ALL;"),
    (
        "SELECT",
        "SELECT ... FROM name [WHERE ...] [LIMIT n];               what is there now\n\
         SELECT ... FROM name [WHERE ...] EMIT CHANGES [LIMIT n];  and what comes; Ctrl-C ends it",
    ),
    ("SET", "SET 'property' = 'value';   for the statements that follow; kept on this side"),
    ("SHOW", "SHOW STREAMS|TABLES|TOPICS|QUERIES [EXTENDED];\nSHOW FUNCTIONS|PROPERTIES|TYPES|VARIABLES;"),
    ("TERMINATE", "TERMINATE query_id|ALL;"),
    ("UNDEFINE", "UNDEFINE name;"),
    ("UNSET", "UNSET 'property';"),
];

/// Everything, or about one word.
pub fn help(topic: Option<&str>) -> String {
    let Some(topic) = topic else { return overview() };
    let word = topic.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if let Some((_, text)) = STATEMENTS.iter().find(|(name, _)| *name == word || (word == "LIST" && *name == "SHOW")) {
        return format!("{text}\n");
    }
    if let Some((name, text)) = COMMANDS.iter().find(|(name, _)| name.split(' ').next() == Some(&word)) {
        return format!("{name}: {text}\n");
    }
    let mut names = STATEMENTS.iter().chain(COMMANDS).map(|(name, _)| *name);
    match names.clone().find(|name| name.starts_with(&word)).or_else(|| suggest(&word, &mut names)) {
        Some(near) => format!("There is no help about \"{topic}\"; HELP {near}?\n"),
        None => format!("There is no help about \"{topic}\"; HELP lists what there is.\n"),
    }
}

fn overview() -> String {
    let mut out = String::from("Statements end with a semicolon and may go over several lines:\n ");
    for (name, _) in STATEMENTS {
        out.push(' ');
        out.push_str(name);
    }
    out.push_str(
        "\nHELP SELECT (or another of them) shows its form.\n\nCommands of this program end with their line:\n",
    );
    for (name, text) in COMMANDS {
        out.push_str(&format!("  {name:<11} {text}\n"));
    }
    out.push_str("\nTab completes. Ctrl-C ends a running query or drops the line, Ctrl-D leaves.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_help() {
        let all = help(None);
        for (name, _) in STATEMENTS.iter().chain(COMMANDS) {
            assert!(all.contains(name), "{name}");
            assert!(!help(Some(name)).contains("no help"), "{name}");
        }
        assert_eq!(help(Some("sel")), "There is no help about \"sel\"; HELP SELECT?\n");
        assert_eq!(help(Some("slect")), "There is no help about \"slect\"; HELP SELECT?\n");
    }
}
