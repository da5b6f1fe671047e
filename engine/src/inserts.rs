//! Rows written one by one by a client: `/inserts-stream` and the library's `insert`.

use millpond_formats::json::{Comments, Json};
use millpond_formats::value_from_json;
use millpond_sql::plan::{Relation, SourceInfo};
use millpond_types::access::Right;
use millpond_types::ports::is_internal;
use millpond_types::{ColumnRole, Error, Result, Value};

use crate::engine::Engine;
use crate::session::Session;
use crate::statements::{InsertTarget, insert_row};

/// Longest row, in bytes of JSON.
pub const ROW_BYTES_MAX: usize = 4 << 20;

/// Writes rows into one stream or table.
pub struct Inserter {
    engine: Engine,
    target: InsertTarget,
}

impl Engine {
    /// Prepares to write rows. The name follows SQL's case rules: folded to upper case unless it stands in back-ticks.
    pub fn inserter(&self, name: &str, session: &Session) -> Result<Inserter> {
        let folded = match name.strip_prefix('`').and_then(|n| n.strip_suffix('`')) {
            Some(quoted) => quoted.to_string(),
            None => name.to_uppercase(),
        };
        let source = self.catalog().sources.get(&folded).cloned();
        let source = source
            .ok_or_else(|| Error::not_found(format!("cannot insert into an unknown stream/table: \"{folded}\"")))?;
        session.check_topic(Right::Write, &source.topic)?;
        check_writable(&source)?;
        self.check_not_computed(&source)?;
        Ok(Inserter { engine: self.clone(), target: InsertTarget::new(self, source)? })
    }
}

impl Engine {
    /// The rows of a table that a query writes are that query's alone: its state would not know of others.
    pub(crate) fn check_not_computed(&self, source: &SourceInfo) -> Result<()> {
        if source.relation == Relation::Stream {
            return Ok(());
        }
        match self.catalog().writers(&source.name).find(|q| q.creates_sink) {
            Some(query) => Err(Error::bad_request(format!(
                "cannot insert into \"{}\": its rows are computed by query \"{}\"",
                source.name, query.id
            ))),
            None => Ok(()),
        }
    }
}

fn check_writable(source: &SourceInfo) -> Result<()> {
    if source.read_only {
        return Err(Error::bad_request(format!("cannot insert into read-only source \"{}\"", source.name)));
    }
    if source.window.is_some() {
        return Err(Error::bad_request(format!("cannot insert into windowed source \"{}\"", source.name)));
    }
    if is_internal(&source.topic) {
        return Err(Error::bad_request(format!(
            "cannot insert into \"{}\": its topic \"{}\" is internal",
            source.name, source.topic
        )));
    }
    if source.schema.columns.iter().any(|c| matches!(c.role, ColumnRole::Headers | ColumnRole::Header(_))) {
        return Err(Error::bad_request(format!("cannot insert into \"{}\": it has header columns", source.name)));
    }
    Ok(())
}

impl Inserter {
    /// Writes one row and waits until it is durable. Columns not named are NULL; ROWTIME sets the record's time. Blocks.
    pub fn insert(&self, row: &[(String, Value)], row_time: Option<i64>) -> Result<()> {
        insert_row(&self.engine, &self.target, row, row_time)
    }

    /// The same from a JSON object; names follow SQL's case rules, values are converted to the columns' types. Blocks.
    pub fn insert_json(&self, line: &[u8]) -> Result<()> {
        if line.len() > ROW_BYTES_MAX {
            return Err(Error::bad_request(format!("a row is longer than {ROW_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(line).map_err(|_| Error::bad_request("a row is not UTF-8"))?;
        let json = Json::parse(text, Comments::Refused)?;
        let Some(members) = json.as_object() else {
            return Err(Error::bad_request("a row must be a JSON object"));
        };
        let source = &self.target.source;
        let mut row = Vec::with_capacity(members.len());
        let mut row_time = None;
        for (name, value) in members {
            let folded = match name.strip_prefix('`').and_then(|n| n.strip_suffix('`')) {
                Some(quoted) => quoted.to_string(),
                None => name.to_uppercase(),
            };
            if folded == "ROWTIME" && source.schema.get("ROWTIME").is_none() {
                row_time =
                    Some(value.as_i64().filter(|ms| *ms >= 0).ok_or_else(|| {
                        Error::bad_request("ROWTIME must be milliseconds since the epoch, 0 or more")
                    })?);
                continue;
            }
            let column = source.schema.get(&folded).ok_or_else(|| {
                Error::bad_request(format!("column \"{folded}\" does not exist in \"{}\"", source.name))
            })?;
            row.push((folded, value_from_json(value, &column.ty)?));
        }
        self.insert(&row, row_time)
    }
}
