//! Schemas of sources and results: ordered columns, each with its role in the record.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field as ArrowField, Schema as ArrowSchema, SchemaRef};

use crate::SqlType;

/// Where in a record a column lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ColumnRole {
    /// Part of the record's key. A STREAM's KEY, a TABLE's PRIMARY KEY.
    Key,
    Value,
    /// All headers of the record (`HEADERS`), or the last one with this key (`HEADER('k')`).
    Headers,
    Header(String),
    /// ROWTIME, ROWPARTITION, ROWOFFSET, WINDOWSTART, WINDOWEND and their join-prefixed forms.
    Pseudo,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    pub name: String,
    pub ty: SqlType,
    pub role: ColumnRole,
}

impl Column {
    pub fn new(name: impl Into<String>, ty: SqlType, role: ColumnRole) -> Self {
        Self { name: name.into(), ty, role }
    }

    pub fn key(name: impl Into<String>, ty: SqlType) -> Self {
        Self::new(name, ty, ColumnRole::Key)
    }

    pub fn value(name: impl Into<String>, ty: SqlType) -> Self {
        Self::new(name, ty, ColumnRole::Value)
    }

    pub fn pseudo(name: impl Into<String>, ty: SqlType) -> Self {
        Self::new(name, ty, ColumnRole::Pseudo)
    }

    pub fn is_key(&self) -> bool {
        self.role == ColumnRole::Key
    }

    pub fn is_value(&self) -> bool {
        self.role == ColumnRole::Value
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schema {
    pub columns: Vec<Column>,
}

impl Schema {
    pub fn new(columns: Vec<Column>) -> Self {
        Self { columns }
    }

    pub fn keys(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.is_key())
    }

    pub fn values(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.is_value())
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The Arrow schema of a batch with exactly these columns in this order, all nullable.
    pub fn to_arrow(&self) -> SchemaRef {
        Arc::new(ArrowSchema::new(
            self.columns.iter().map(|c| ArrowField::new(c.name.as_str(), c.ty.to_arrow(), true)).collect::<Vec<_>>(),
        ))
    }
}

/// Comma-separated columns as ksqlDB writes them: `` `ID` STRING KEY, `V` INTEGER ``.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.columns.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "`{}` {}", c.name, c.ty)?;
            match &c.role {
                ColumnRole::Key => f.write_str(" KEY")?,
                ColumnRole::Headers => f.write_str(" HEADERS")?,
                ColumnRole::Header(k) => write!(f, " HEADER('{k}')")?,
                ColumnRole::Value | ColumnRole::Pseudo => {}
            }
        }
        Ok(())
    }
}
