//! Secrets from people and scripts: never from the command line, where others see them, and never shown.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, Config, Editor, Helper};

/// Where a script leaves a password.
pub const PASSWORD_VARIABLE: &str = "MILLPOND_PASSWORD";
/// Where a script leaves a bearer token.
pub const TOKEN_VARIABLE: &str = "MILLPOND_TOKEN";
/// Longest line that a password is read from.
const LINE_BYTES_MAX: u64 = 4096;
/// Largest file that holds one.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// Shows what is typed as nothing.
struct Hidden;

impl Highlighter for Hidden {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned(" ".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        true
    }
}

impl Completer for Hidden {
    type Candidate = String;
}

impl Hinter for Hidden {
    type Hint = String;
}

impl Validator for Hidden {}
impl Helper for Hidden {}

/// The value of an environment variable, if it is set and not empty.
pub fn from_environment(variable: &str) -> Result<Option<String>> {
    match std::env::var(variable) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!("the value of {variable} is not UTF-8"),
    }
}

/// What a file holds, without the end of its line.
pub fn of_file(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read \"{}\"", path.display());
    if std::fs::metadata(path).with_context(cannot)?.len() > FILE_BYTES_MAX {
        bail!("\"{}\" is larger than {FILE_BYTES_MAX} bytes; it holds nothing but the password", path.display());
    }
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_string())
}

/// A new password: from a file, from the first line of standard input, or typed twice.
pub fn new_password(user: &str, file: Option<&Path>) -> Result<String> {
    if let Some(path) = file {
        let password = of_file(path)?;
        ensure!(!password.is_empty(), "\"{}\", which is to hold the password, is empty", path.display());
        return Ok(password);
    }
    if !io::stdin().is_terminal() {
        let mut line = String::new();
        let read = io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line);
        read.context("cannot read the password from standard input")?;
        let password = line.trim_end_matches(['\r', '\n']).to_owned();
        ensure!(!password.is_empty(), "the first line of standard input, which is to be the password, is empty");
        return Ok(password);
    }
    let password = typed(&format!("new password for {user}: "))?;
    ensure!(!password.is_empty(), "the password is empty");
    ensure!(typed("the same again: ")? == password, "the two passwords are not the same");
    Ok(password)
}

/// A password that somebody has: from the environment, or typed. Standard input is for statements.
pub fn password_of(user: &str) -> Result<String> {
    if let Some(password) = from_environment(PASSWORD_VARIABLE)? {
        return Ok(password);
    }
    ensure!(
        io::stdin().is_terminal(),
        "where does the password of \"{user}\" come from? There is no terminal to ask at; set {PASSWORD_VARIABLE}"
    );
    typed(&format!("password for {user}: "))
}

fn typed(prompt: &str) -> Result<String> {
    let config = Config::builder().color_mode(ColorMode::Forced).auto_add_history(false).build();
    let mut editor: Editor<Hidden, MemHistory> = Editor::with_history(config, MemHistory::new())?;
    editor.set_helper(Some(Hidden));
    match editor.readline(prompt) {
        Ok(password) => Ok(password),
        Err(ReadlineError::Interrupted | ReadlineError::Eof) => bail!("no password was given"),
        Err(error) => Err(error).context("cannot read the password"),
    }
}
