//! The words that the grammar knows, in alphabetical order.
//!
//! Most of them are names like any other where the grammar does not wait for them; only the reserved ones must be quoted.

/// Words that are never a name unless quoted.
const RESERVED: &[&str] = &[
    "ALL", "AND", "AS", "BETWEEN", "BY", "CASE", "CAST", "CREATE", "DESCRIBE", "DISTINCT", "DROP", "ELSE", "END",
    "EXISTS", "FALSE", "FROM", "FULL", "GROUP", "HAVING", "IN", "INNER", "INSERT", "INTO", "IS", "JOIN", "LEFT",
    "LIKE", "LIMIT", "NOT", "NULL", "ON", "OR", "OUTER", "RIGHT", "SELECT", "STREAM", "TABLE", "THEN", "TRUE",
    "VALUES", "WHEN", "WHERE", "WINDOW", "WITH", "WITHIN",
];

/// Words with a meaning in some places, and names in all others.
const NON_RESERVED: &[&str] = &[
    "ADD",
    "ADVANCE",
    "ALTER",
    "ARRAY",
    "ASC",
    "ASSERT",
    "AT",
    "BEGINNING",
    "BIGINT",
    "BOOLEAN",
    "BYTES",
    "CHANGES",
    "COLUMN",
    "CONNECTOR",
    "CONNECTORS",
    "DATE",
    "DAY",
    "DAYS",
    "DECIMAL",
    "DEFINE",
    "DELETE",
    "DESC",
    "DOUBLE",
    "EMIT",
    "ESCAPE",
    "EXPLAIN",
    "EXTENDED",
    "FINAL",
    "FUNCTION",
    "FUNCTIONS",
    "GRACE",
    "HEADER",
    "HEADERS",
    "HOPPING",
    "HOUR",
    "HOURS",
    "ID",
    "IF",
    "INT",
    "INTEGER",
    "INTERVAL",
    "KEY",
    "LIST",
    "MAP",
    "MILLISECOND",
    "MILLISECONDS",
    "MINUTE",
    "MINUTES",
    "ORDER",
    "PARTITION",
    "PAUSE",
    "PERIOD",
    "PLUGINS",
    "PRIMARY",
    "PRINT",
    "PROPERTIES",
    "QUERIES",
    "REPLACE",
    "RESUME",
    "RETENTION",
    "RUN",
    "SAMPLE",
    "SCHEMA",
    "SCRIPT",
    "SECOND",
    "SECONDS",
    "SESSION",
    "SET",
    "SHOW",
    "SINK",
    "SIZE",
    "SOURCE",
    "STREAMS",
    "STRING",
    "STRUCT",
    "SUBJECT",
    "SYSTEM",
    "TABLES",
    "TERMINATE",
    "TIME",
    "TIMEOUT",
    "TIMESTAMP",
    "TOPIC",
    "TOPICS",
    "TUMBLING",
    "TYPE",
    "TYPES",
    "UNDEFINE",
    "UNSET",
    "VARCHAR",
    "VARIABLES",
    "ZONE",
];

/// All words of the grammar in upper case: first the reserved ones, then the others.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    RESERVED.iter().chain(NON_RESERVED).copied()
}

/// Whether an upper-case word must be quoted to be a name.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.binary_search(&word).is_ok()
}

/// Whether an upper-case word means something to the grammar.
pub fn is_keyword(word: &str) -> bool {
    is_reserved(word) || NON_RESERVED.binary_search(&word).is_ok()
}

/// Words that begin something else when a bracket follows; as names they are written in quotes to be safe.
pub(crate) fn is_constructor(word: &str) -> bool {
    matches!(word, "ARRAY" | "MAP" | "STRUCT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_lists_are_sorted() {
        assert!(RESERVED.is_sorted() && NON_RESERVED.is_sorted());
    }
}
