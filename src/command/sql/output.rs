//! Where everything goes that is shown: standard output, and the file that SPOOL named.
//!
//! Problems go to standard error, so that what a script prints can be read by another program.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use comfy_table::Table;

pub struct Output {
    terminal: bool,
    spool: Option<File>,
}

impl Output {
    pub fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), spool: None }
    }

    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Of the terminal as it is now; `None` where there is none.
    pub fn width(&self) -> Option<usize> {
        if self.terminal { Table::new().width().map(usize::from).filter(|width| *width > 0) } else { None }
    }

    /// Shows a text that ends with its line, at once. An error means that nobody reads it any more.
    pub fn show(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        self.record(text);
        Ok(())
    }

    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.show(&format!("{text}\n"))
    }

    /// Shows a problem.
    pub fn problem(&mut self, text: &str) {
        let text = format!("{text}\n");
        // Who closed standard error does not want to know.
        let _ = io::stderr().lock().write_all(text.as_bytes());
        self.record(&text);
    }

    /// Writes to the file of SPOOL only: what the user typed is on the screen already.
    pub fn record(&mut self, text: &str) {
        if let Some(file) = &mut self.spool
            && let Err(e) = file.write_all(text.as_bytes())
        {
            self.spool = None;
            self.problem(&format!("error: cannot write the spool file any more, it is closed: {e}"));
        }
    }

    pub fn spool_to(&mut self, path: &Path) -> io::Result<()> {
        self.spool = Some(File::create(path)?);
        Ok(())
    }

    /// Whether there was a file.
    pub fn spool_off(&mut self) -> bool {
        self.spool.take().is_some()
    }
}
