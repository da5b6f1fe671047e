//! Why a statement failed, and what had been done by then.

use std::fmt;

use millpond_sql::diagnostic::{Code, Diagnostic};
use millpond_types::{Error, ErrorKind};

use crate::entity::Answer;

/// One statement's failure.
#[derive(Clone, Debug)]
pub enum Problem {
    /// The statement is wrong at a place; spans are in the text that was submitted.
    Sql(Box<Diagnostic>),
    /// It was right, and failed.
    Failed(Error),
    /// An ASSERT that did not hold.
    Assertion(String),
    /// A SELECT or PRINT among statements that give no rows.
    GivesRows,
    /// As many push queries as are allowed are open.
    TooManyPushQueries(String),
}

const GIVES_ROWS: &str = "a SELECT or PRINT gives rows: send it to /query or /query-stream, one at a time";

impl Problem {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sql(d) => match d.code {
                Code::Unsupported => ErrorKind::Unsupported,
                Code::Bug => ErrorKind::Bug,
                Code::Conflict | Code::DuplicateName => ErrorKind::Conflict,
                Code::UnknownName => ErrorKind::NotFound,
                _ => ErrorKind::BadRequest,
            },
            Self::Failed(e) => e.kind(),
            Self::Assertion(_) => ErrorKind::Conflict,
            Self::GivesRows => ErrorKind::BadRequest,
            Self::TooManyPushQueries(_) => ErrorKind::Retry,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Self::Sql(d) => &d.message,
            Self::Failed(e) => e.message(),
            Self::Assertion(message) | Self::TooManyPushQueries(message) => message,
            Self::GivesRows => GIVES_ROWS,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(d) => d.fmt(f),
            Self::Failed(e) => e.fmt(f),
            other => f.write_str(other.message()),
        }
    }
}

impl std::error::Error for Problem {}

impl From<Error> for Problem {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

impl From<Diagnostic> for Problem {
    fn from(d: Diagnostic) -> Self {
        Self::Sql(Box::new(d))
    }
}

/// The failure of a list of statements: those before the failing one are done and stay done.
#[derive(Clone, Debug)]
pub struct StatementError {
    pub problem: Problem,
    /// Text of the failing statement; empty where the text could not be read at all.
    pub statement: String,
    pub done: Vec<Answer>,
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for StatementError {}
