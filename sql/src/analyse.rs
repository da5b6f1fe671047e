//! Statements to what they mean: names resolved, types and conversions explicit, rules checked, queries planned.
//!
//! Owns everything between the syntax tree and `plan::Analysed`. Not here: reading text (`parse`), running anything,
//! the value of constant expressions. Pure: what it knows of the world comes through `plan::Environment`.
//!
//! Invariant: what is not supported by this version comes out as `Code::Unsupported`, what the user did wrong as any
//! other code.

mod aggregate;
mod call;
mod calls;
mod coerce;
mod input;
mod insert;
mod items;
mod join;
mod lookup;
mod properties;
mod prune;
mod pull;
mod query;
mod scope;
mod shown;
mod sink;
mod source;
mod timestamp;
mod typer;
mod types;

use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{Analysed, AnalysisResult, Environment};
use crate::syntax::{Emit, Statement};

use query::{Purpose, QueryAnalysis};

pub use source::alter_columns;
pub use types::{resolve_type, resolve_type_with};

/// What a statement means. For the statements that `Analysed` lists; all others are answered from their syntax.
/// `text` is the statement's own text, which becomes part of what it creates.
pub fn analyse(statement: &Statement, text: &str, env: &dyn Environment) -> AnalysisResult<Analysed> {
    match statement {
        Statement::CreateSource(create) => source::create_source(create, text, env),
        Statement::CreateAs(create) => sink::create_as(create, text, env),
        Statement::InsertInto(insert) => sink::insert_into(insert, env),
        Statement::InsertValues(insert) => insert::insert_values(insert, env),
        Statement::Query(query) => match query.emit.as_ref().map(|e| e.node) {
            None => pull::pull(query, env),
            Some(Emit::Changes | Emit::Final) => {
                let analysis = QueryAnalysis { query, env, purpose: Purpose::Push, key_format: None };
                analysis.plan().map(|planned| Analysed::Push(planned.plan))
            }
        },
        _ => Err(Diagnostic::new(
            Code::Unsupported,
            "only CREATE, INSERT and SELECT have a plan that could be explained",
        )),
    }
}
