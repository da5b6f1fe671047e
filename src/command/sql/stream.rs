//! Shows the rows of a query, or the lines of PRINT, while they come.
//!
//! Invariants: a row is on the screen at most [`ROWS_WAIT`] after it came; Ctrl-C ends the query here and on the server.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::client::{Lines, Rows};
use super::rows::{StreamedRow, cell, columns, object};
use super::run::{Runner, Stop};
use super::table::{Column, Growing, printable};

/// Rows that fix the widths of a pull query's columns, and most rows drawn at once.
const ROWS_MAX: usize = 1000;
/// How long a row of a push query waits for others to be drawn with it.
const ROWS_WAIT: Duration = Duration::from_millis(50);
/// How long the head of a push query waits for the first row, which tells how wide columns are.
const HEAD_WAIT: Duration = Duration::from_millis(500);

/// What is shown of a query so far.
struct View {
    columns: Vec<Column>,
    table: Option<Growing>,
    push: bool,
    pending: Vec<Vec<String>>,
    json: String,
    json_rows: usize,
    rows: u64,
}

impl View {
    fn take(&mut self, row: &StreamedRow) {
        let Some(row) = &row.row else { return };
        self.rows += 1;
        if self.table.is_some() {
            let show = |text: String| if row.tombstone && text == "null" { "<TOMBSTONE>".to_string() } else { text };
            self.pending.push(row.columns.iter().map(|value| show(cell(value))).collect());
        } else {
            let mut text = object(&self.columns, row);
            if row.tombstone {
                // A name that no column can have without quotes.
                text.truncate(text.len() - 1);
                text.push_str(",\"@tombstone\":true}");
            }
            self.json.push_str(&text);
            self.json.push('\n');
            self.json_rows += 1;
        }
    }

    fn waiting(&self) -> usize {
        self.pending.len() + self.json_rows
    }

    /// The text of what waits.
    fn draw(&mut self) -> String {
        self.json_rows = 0;
        match &mut self.table {
            Some(table) => table.rows(&std::mem::take(&mut self.pending)),
            None => std::mem::take(&mut self.json),
        }
    }

    fn end(&mut self) -> String {
        let mut text = if self.waiting() > 0 { self.draw() } else { String::new() };
        if let Some(table) = &mut self.table {
            text += &table.end();
        }
        text
    }

    /// Why a push query has no more rows; of a pull query, over a stream too, how many there were.
    fn summary(&self, last: Option<&str>) -> String {
        match last.filter(|_| self.push) {
            Some(last) => last.to_string(),
            None if self.rows == 1 => "1 row".to_string(),
            None => format!("{} rows", self.rows),
        }
    }
}

pub async fn rows(runner: &mut Runner, mut rows: Rows, push: bool) -> Result<(), Stop> {
    let mut view = View {
        columns: Vec::new(),
        table: None,
        push,
        pending: Vec::new(),
        json: String::new(),
        json_rows: 0,
        rows: 0,
    };
    let mut query_id: Option<String> = None;
    let mut last = None;
    let mut draw_at: Option<Instant> = None;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let problem = loop {
        let row = tokio::select! {
            biased;
            _ = &mut interrupt => {
                if let Some(id) = &query_id {
                    runner.client.close(id).await;
                }
                runner.output.show(&view.end())?;
                runner.notice("Query terminated")?;
                return Err(Stop::Interrupted);
            }
            () = sleep_until(draw_at.unwrap_or_else(Instant::now)), if draw_at.is_some() => {
                draw_at = None;
                runner.output.show(&view.draw())?;
                continue;
            }
            row = rows.next() => row,
        };
        let row = match row {
            Ok(Some(row)) => row,
            Ok(None) => break None,
            Err(why) => break Some((why, Stop::Lost)),
        };
        if let Some(header) = &row.header {
            query_id.clone_from(&header.query_id);
            view.columns = columns(&header.schema);
            if runner.is_tabular() {
                let mut columns = view.columns.clone();
                if !view.push {
                    // All rows are there at once; they tell the widths.
                    columns.iter_mut().for_each(|c| c.width_usual = 0);
                }
                view.table = Some(Growing::new(columns, runner.output.width()));
                draw_at = push.then(|| Instant::now() + HEAD_WAIT);
            }
        }
        if let Some(error) = &row.error_message {
            break Some((error.text().to_string(), Stop::Failed));
        }
        if let Some(message) = &row.final_message {
            last = Some(message.clone());
        }
        view.take(&row);
        if view.waiting() >= ROWS_MAX {
            draw_at = None;
            runner.output.show(&view.draw())?;
        } else if view.waiting() == 1 && push {
            draw_at = Some(Instant::now() + ROWS_WAIT);
        }
    };
    runner.output.show(&view.end())?;
    match problem {
        None => Ok(runner.notice(&view.summary(last.as_deref()))?),
        Some((why, stop)) => {
            runner.output.problem(&format!("error: {}", printable(&why)));
            Err(stop)
        }
    }
}

pub async fn lines(runner: &mut Runner, mut lines: Lines) -> Result<(), Stop> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let next = tokio::select! {
            biased;
            // Dropping the connection ends it.
            _ = &mut interrupt => {
                runner.notice("Topic printing ceased")?;
                return Err(Stop::Interrupted);
            }
            next = lines.next() => next,
        };
        match next {
            Ok(Some(lines)) => {
                let tabular = runner.is_tabular();
                let show = |line: &String| match tabular {
                    true => printable(line) + "\n",
                    false => format!("{}\n", serde_json::json!({ "line": line })),
                };
                runner.output.show(&lines.iter().map(show).collect::<String>())?;
            }
            Ok(None) => return Ok(()),
            Err(why) => {
                runner.output.problem(&format!("error: {}", printable(&why)));
                return Err(Stop::Lost);
            }
        }
    }
}
