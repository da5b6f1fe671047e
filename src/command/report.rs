//! What the commands that ask a broker print: tables for people, JSON for scripts.
//!
//! Whoever stops reading (`| head`) ends the command quietly.

use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::{Map, Value as Json};

use super::progress::{Progress, wipe};
use super::sql::output::Output;
use super::sql::table::{Column, draw, printable};

/// Said before what the system says, which does not tell where to.
pub const OUTPUT_FAILED: &str = "cannot write to standard output";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Tables for people
    #[default]
    Table,
    /// One JSON document
    Json,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Shown {
    /// How the answer is shown
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t = Form::Table)]
    pub output: Form,
    /// No line that tells how far long work is
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Shown {
    /// How far work on so many of these is, for a person.
    pub fn progress(&self, noun: &'static str) -> Progress {
        Progress::new(!self.quiet && self.output == Form::Table, noun)
    }
}

/// A table whose columns have a title, and a name in JSON.
pub struct Rows {
    columns: Vec<(&'static str, &'static str)>,
    rows: Vec<Vec<Json>>,
}

impl Rows {
    pub fn new(columns: &[(&'static str, &'static str)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn push(&mut self, row: Vec<Json>) {
        self.rows.push(row);
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn json(&self) -> Json {
        let object = |row: &Vec<Json>| {
            let fields = self.columns.iter().zip(row).map(|((_, name), value)| ((*name).to_string(), value.clone()));
            Json::Object(fields.collect::<Map<_, _>>())
        };
        Json::Array(self.rows.iter().map(object).collect())
    }

    pub fn text(&self) -> String {
        let numbers = |i: usize| {
            !self.rows.is_empty()
                && self.rows.iter().all(|row| matches!(row.get(i), Some(Json::Number(_) | Json::Null)))
        };
        let columns: Vec<Column> = (0..)
            .zip(&self.columns)
            .map(|(i, (title, _))| if numbers(i) { Column::number(title) } else { Column::text(title) })
            .collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        draw(&columns, &rows, Output::new().width())
    }
}

fn cell(value: &Json) -> String {
    match value {
        Json::Null => "-".to_string(),
        Json::String(text) => text.clone(),
        Json::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(","),
        Json::Bool(true) => "yes".to_string(),
        Json::Bool(false) => "no".to_string(),
        other => other.to_string(),
    }
}

/// Writes to standard output. A reader that went away is no failure.
pub fn say(text: &str) -> Result<()> {
    wipe();
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context(OUTPUT_FAILED),
    }
}

pub fn say_json(value: &Json) -> Result<()> {
    say(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// A line of its own, safe for a terminal.
pub fn say_line(text: &str) -> Result<()> {
    say(&format!("{}\n", printable(text)))
}

/// A remark for a person, on standard error.
pub fn note(text: &str) {
    wipe();
    // Who closed standard error does not want to know.
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// So many of something: `noun` is the word for one.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Bytes as people read them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Asks before what cannot be undone, where somebody can be asked.
pub fn confirm(yes: bool, what: &str) -> Result<()> {
    use io::IsTerminal;
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        anyhow::bail!("{what}: this cannot be undone; --yes says that it is meant");
    }
    let _ = write!(io::stderr().lock(), "{what}? This cannot be undone. [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { anyhow::bail!("nothing was done") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!((size(1023), size(1024), size(5 << 30)), ("1023 B".into(), "1.0 KiB".into(), "5.0 GiB".into()));
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "right")), ["0 rights", "1 right", "2 rights"]);
    }
}
