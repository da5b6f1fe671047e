//! The catalog as the analyser sees it while it looks at one statement.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_formats::Format;
use millpond_sql::functions::FunctionCatalog;
use millpond_sql::plan::{Environment, FormatError, FormatSpec, InferredColumns, Side, SourceInfo};
use millpond_types::{ErrorKind, Field, SqlType};

use crate::catalog::{Catalog, Planned};
use crate::engine::Engine;
use crate::schemas::{self, Inferred};
use crate::serdes::format_of;
use crate::session::Session;

pub(crate) struct CatalogEnvironment<'a> {
    pub engine: &'a Engine,
    pub catalog: &'a Catalog,
    pub session: &'a Session,
    /// A source that is treated as not there: the one that the statement under analysis made.
    pub hidden: Option<&'a str>,
    /// Sources and types as a query was planned with them, which go before those of now.
    pub planned: Option<&'a Planned>,
    /// A statement whose answer carries warnings is not refused for what would work in ksqlDB, if to no purpose.
    pub warnings: Option<&'a RefCell<Vec<String>>>,
}

fn fields(columns: &[(String, SqlType)]) -> Vec<Field> {
    columns.iter().map(|(name, ty)| Field::new(name.as_str(), ty.clone())).collect()
}

impl Environment for CatalogEnvironment<'_> {
    fn source(&self, name: &str) -> Option<Arc<SourceInfo>> {
        if self.hidden == Some(name) {
            return None;
        }
        self.planned.and_then(|p| p.sources.get(name)).or_else(|| self.catalog.sources.get(name)).cloned()
    }

    fn source_names(&self) -> Vec<String> {
        self.catalog.sources.keys().filter(|name| self.hidden != Some(name.as_str())).cloned().collect()
    }

    fn custom_type(&self, name: &str) -> Option<SqlType> {
        self.planned.and_then(|p| p.types.get(name)).or_else(|| self.catalog.types.get(name)).cloned()
    }

    fn functions(&self) -> &dyn FunctionCatalog {
        self.engine.functions().as_ref()
    }

    fn topic(&self, name: &str) -> Option<(i32, i16)> {
        self.engine.topic_shape(name)
    }

    fn property(&self, name: &str) -> Option<String> {
        self.engine.property(self.session, name)
    }

    fn check_format(&self, spec: &FormatSpec, side: Side, columns: &[(String, SqlType)]) -> Result<(), FormatError> {
        let side = match side {
            Side::Key => millpond_formats::Side::Key,
            Side::Value => millpond_formats::Side::Value,
        };
        let fields = fields(columns);
        let check = || {
            let format = format_of(spec)?;
            format.check_columns(side, &fields)?;
            format.unwraps(side, &fields, spec.wrap_single, None)?;
            Ok(())
        };
        match check() {
            Ok(()) => Ok(()),
            Err(e) => {
                let e: millpond_types::Error = e;
                match e.kind() {
                    ErrorKind::Unsupported => Err(FormatError::Unsupported(e.message().to_string())),
                    _ => Err(FormatError::Invalid(e.message().to_string())),
                }
            }
        }
    }

    fn inferred_columns(
        &self,
        topic: &str,
        side: Side,
        spec: &FormatSpec,
        unwrap: bool,
    ) -> Result<Option<InferredColumns>, String> {
        let side = match side {
            Side::Key => millpond_formats::Side::Key,
            Side::Value => millpond_formats::Side::Value,
        };
        schemas::check_seen(self.engine, self.session, topic, side, spec).map_err(|e| e.message().to_owned())?;
        match schemas::infer(&self.engine.schemas().now(), topic, side, spec, unwrap) {
            Ok(Inferred::Columns(columns, id)) => Ok(Some(InferredColumns {
                columns: columns.into_iter().map(|c| (c.name, c.ty)).collect(),
                properties: BTreeMap::from([(schemas::WRITER_ID.to_owned(), id.to_string())]),
            })),
            Ok(Inferred::Missing) => Ok(None),
            Err(e) => Err(e.message().to_owned()),
        }
    }

    fn check_time_pattern(&self, pattern: &str) -> Result<(), String> {
        crate::java_time::Pattern::compile(pattern).map(drop)
    }

    fn refuses_constant(&self, why: &str) -> bool {
        match (self.planned, self.warnings) {
            // It runs already.
            (Some(_), _) => false,
            // As ksqlDB does, which says nothing.
            (None, Some(warnings)) => {
                warn(warnings, format!("{why}: it gives NULL in each row"));
                false
            }
            (None, None) => true,
        }
    }

    fn warn(&self, warning: &str) {
        if let Some(warnings) = self.warnings {
            warn(warnings, warning.to_owned());
        }
    }

    fn key_format_supports(&self, name: &str, columns: &[(String, SqlType)]) -> bool {
        let objection = |f: Format| f.objection(millpond_formats::Side::Key, &fields(columns));
        Format::parse(name).is_ok_and(|format| objection(format).is_none())
    }
}

/// Each is told once.
fn warn(warnings: &RefCell<Vec<String>>, warning: String) {
    let mut warnings = warnings.borrow_mut();
    if !warnings.contains(&warning) {
        warnings.push(warning);
    }
}
