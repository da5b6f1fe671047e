//! Reads lines from a person: editing, history, completion.
//!
//! Not here: running what was read (`run`). Invariant: whatever goes wrong with a line, the next one can be typed.

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::path::PathBuf;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use tokio::runtime::Runtime;

use super::complete::{Names, complete, is_in_file_name};
use super::input::{is_memorable, is_ready};
use super::problem::Source;
use super::run::{Runner, Stop};

const PROMPT: &str = "millpond> ";
/// Of the lines that go on with a statement.
const PROMPT_MORE: &str = "       -> ";
/// Entries of the history, in memory and in its file.
const HISTORY_LEN_MAX: usize = 5000;
/// Longest statement that standard input may hold.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

struct Assistant {
    names: Names,
    files: FilenameCompleter,
    /// The lines of the statement before the one that is typed.
    before: String,
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        if is_in_file_name(line.get(..position).unwrap_or(line)) {
            return self.files.complete_path(line, position);
        }
        let before = self.before.len();
        let (start, candidates) = complete(&format!("{}{line}", self.before), before + position, &self.names);
        let pair = |text: String| Pair { display: text.clone(), replacement: text };
        // What is completed is a word, and words do not go over lines.
        Ok((start.saturating_sub(before), candidates.into_iter().map(pair).collect()))
    }
}

impl Validator for Assistant {}

impl Hinter for Assistant {
    type Hint = String;
}

impl Highlighter for Assistant {
    fn highlight_candidate<'c>(&self, candidate: &'c str, _: CompletionType) -> Cow<'c, str> {
        Cow::Borrowed(candidate)
    }
}

impl Helper for Assistant {}

/// Reads and runs until the user leaves.
pub fn interactive(runtime: &Runtime, runner: &mut Runner) -> anyhow::Result<()> {
    let config = Config::builder()
        .max_history_size(HISTORY_LEN_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .auto_add_history(false)
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Assistant, FileHistory> = Editor::with_config(config)?;
    let assistant = Assistant { names: Names::default(), files: FilenameCompleter::new(), before: String::new() };
    editor.set_helper(Some(assistant));
    let file = history_file();
    if let Some(file) = &file {
        // There is none at the first start.
        let _ = editor.load_history(file);
    }
    runner.history = editor.history().iter().cloned().collect();
    let text = format!("millpond {}. HELP tells what can be typed here.", env!("CARGO_PKG_VERSION"));
    runner.output.line(&text)?;
    // Without a server one can still ask for help, or for another server.
    let _ = runtime.block_on(runner.greet());
    loop {
        if runner.names_changed
            && let Some(names) = runtime.block_on(runner.names())
            && let Some(assistant) = editor.helper_mut()
        {
            assistant.names = names;
        }
        let text = match read_statement(&mut editor) {
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if is_memorable(&text) && editor.add_history_entry(text.as_str())? {
            runner.history.push(text.clone());
            if let Some(file) = &file
                && let Err(e) = editor.append_history(file)
            {
                tracing::debug!("cannot write the history: {e}");
            }
        }
        runner.output.record(&format!("{PROMPT}{text}\n"));
        match runtime.block_on(runner.text(Source::typed(&text))) {
            Ok(()) | Err(Stop::Failed | Stop::Lost | Stop::Interrupted) => {}
            Err(Stop::Exit | Stop::Closed) => return Ok(()),
        }
    }
}

/// Reads lines until there is something to run.
fn read_statement(editor: &mut Editor<Assistant, FileHistory>) -> rustyline::Result<String> {
    let mut text = String::new();
    let read = loop {
        if let Some(assistant) = editor.helper_mut() {
            assistant.before.clone_from(&text);
        }
        match editor.readline(if text.is_empty() { PROMPT } else { PROMPT_MORE }) {
            Ok(line) => text.push_str(&line),
            Err(e) => break Err(e),
        }
        if is_ready(&text) {
            break Ok(text);
        }
        text.push('\n');
    };
    if let Some(assistant) = editor.helper_mut() {
        assistant.before.clear();
    }
    read
}

/// Runs what comes from another program: each statement as soon as it is whole.
pub fn piped(runtime: &Runtime, runner: &mut Runner) -> Result<(), Stop> {
    let mut text = String::new();
    let mut input = io::stdin().lock();
    loop {
        let read = input.read_line(&mut text);
        let end = match read {
            Ok(bytes) => bytes == 0,
            Err(e) => {
                runner.output.problem(&format!("error: cannot read standard input: {e}"));
                return Err(Stop::Lost);
            }
        };
        if text.len() > STATEMENT_BYTES_MAX {
            runner.output.problem(&format!("error: a statement has more than {STATEMENT_BYTES_MAX} bytes"));
            return Err(Stop::Failed);
        }
        // Only a line that ends a statement is worth a look at all that was read.
        let whole = end || text.trim_end().ends_with(';') || !text.trim_end().contains('\n');
        if whole && (end || is_ready(&text)) {
            runtime.block_on(runner.text(Source::typed(&text)))?;
            text.clear();
        }
        if end {
            return Ok(());
        }
    }
}

/// In the user's folder for such things; `None` where there is none.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    let folder = state.join("millpond");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}
