//! What the user typed: when it can be run, into which commands it falls, and what must not be remembered.
//!
//! A command of this program (EXIT, HELP, SPOOL ...) may end with its line when it stands alone; a statement ends with a
//! semicolon. Not here: what statements mean (`millpond_sql`), running them (`run`).

use std::path::PathBuf;

use millpond_sql::parse::{is_complete, split};
use millpond_sql::syntax::Span;

use super::args::OutputForm;

/// A command for this program; the server never sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Exit,
    Help(Option<String>),
    History,
    Version,
    Clear,
    /// Shows the server, or changes to another.
    Server(Option<String>),
    /// Shows the form of the output, or changes it.
    Output(Option<OutputForm>),
    RunScript(PathBuf),
    /// `None` ends it.
    Spool(Option<PathBuf>),
}

/// One command or statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Command(Result<Command, String>),
    /// A statement for the parser, without its semicolon.
    Statement,
}

/// First words of commands, with what HELP says about them.
pub const COMMANDS: &[(&str, &str)] = &[
    ("CLEAR", "clear the screen"),
    ("EXIT", "leave; also QUIT, Ctrl-D"),
    ("HELP", "this list; HELP word tells more about one command"),
    ("HISTORY", "what was typed before"),
    ("OUTPUT", "OUTPUT [TABULAR | JSON]: how answers are shown"),
    ("QUIT", "leave"),
    ("RUN SCRIPT", "RUN SCRIPT 'file': run the statements of a file"),
    ("SERVER", "SERVER [url]: show the server, or talk to another one"),
    ("SPOOL", "SPOOL 'file' | OFF: write everything that is shown also to a file"),
    ("VERSION", "the versions of this program and of the server"),
];

/// The commands and statements of a text, each with its place.
pub fn pieces(text: &str) -> Vec<(Span, Piece)> {
    if let Some(command) = lone_command(text) {
        let start = text.len() - text.trim_start().len();
        return vec![(Span::new(start, text.trim_end().len()), Piece::Command(command))];
    }
    split(text)
        .into_iter()
        .map(|span| {
            let piece = command(span.slice(text)).map_or(Piece::Statement, Piece::Command);
            (span, piece)
        })
        .collect()
}

/// Whether what was typed can be run.
pub fn is_ready(text: &str) -> bool {
    is_complete(text) || lone_command(text).is_some()
}

/// A command that stands alone in one line, where it needs no semicolon.
fn lone_command(text: &str) -> Option<Result<Command, String>> {
    let line = text.trim().trim_end_matches(';').trim_end();
    let whole = !line.contains('\n') && !unquoted(line).contains(';');
    if whole { command(line) } else { None }
}

/// The text outside of quotes.
fn unquoted(line: &str) -> String {
    line.split('\'').step_by(2).collect()
}

/// The command that a text is; `None` if it does not begin like one.
fn command(text: &str) -> Option<Result<Command, String>> {
    let mut words = text.split_whitespace();
    let first = words.next()?.to_ascii_uppercase();
    let rest: Vec<&str> = words.collect();
    let alone = |command: Command| match rest.first() {
        None => Ok(command),
        Some(more) => Err(format!("\"{first}\" stands alone, found \"{more}\" behind it")),
    };
    let result = match first.as_str() {
        "EXIT" | "QUIT" => alone(Command::Exit),
        "HISTORY" => alone(Command::History),
        "VERSION" => alone(Command::Version),
        "CLEAR" => alone(Command::Clear),
        "HELP" | "?" => Ok(Command::Help((!rest.is_empty()).then(|| rest.join(" ")))),
        "SERVER" => match rest.as_slice() {
            [] => Ok(Command::Server(None)),
            [url] => Ok(Command::Server(Some(url.trim_matches('\'').to_string()))),
            _ => Err("expected SERVER or SERVER url".to_string()),
        },
        "OUTPUT" => match rest.as_slice() {
            [] => Ok(Command::Output(None)),
            [form] if form.eq_ignore_ascii_case("JSON") => Ok(Command::Output(Some(OutputForm::Json))),
            [form] if form.eq_ignore_ascii_case("TABULAR") => Ok(Command::Output(Some(OutputForm::Tabular))),
            _ => Err("expected OUTPUT, OUTPUT TABULAR or OUTPUT JSON".to_string()),
        },
        "SPOOL" => match rest.as_slice() {
            [word] if word.eq_ignore_ascii_case("OFF") => Ok(Command::Spool(None)),
            _ => match quoted(text, "SPOOL") {
                Some(path) => Ok(Command::Spool(Some(path))),
                None => Err("expected SPOOL 'file' or SPOOL OFF".to_string()),
            },
        },
        "RUN" => {
            let after = text.trim_start().get(3..)?.trim_start();
            match quoted(after, "SCRIPT") {
                Some(path) => Ok(Command::RunScript(path)),
                None => Err("expected RUN SCRIPT 'file'".to_string()),
            }
        }
        _ => return None,
    };
    Some(result)
}

/// The string in quotes behind a word; two quotes in it are one.
fn quoted(text: &str, word: &str) -> Option<PathBuf> {
    let text = text.trim();
    let head = text.get(..word.len())?;
    let inner = text.get(word.len()..)?.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    let plain = inner.replace("''", "");
    (head.eq_ignore_ascii_case(word) && !inner.is_empty() && !plain.contains('\''))
        .then(|| PathBuf::from(inner.replace("''", "'")))
}

/// Words that say that a line may hold a secret.
const SECRETS: [&str; 8] = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL", "JAAS", "API_KEY", "BASIC.AUTH"];

/// Whether a line may be kept in the history: not if it looks like one with a secret, or begins with a blank.
pub fn is_memorable(line: &str) -> bool {
    let upper = line.to_ascii_uppercase();
    !line.trim().is_empty() && !line.starts_with(' ') && !SECRETS.iter().any(|word| upper.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_statement_or_the_command_is_whole() {
        for text in
            ["", "  \n", "SELECT 1;", "SELECT ';\n';", "exit", "Help select", "spool 'a;b'", "SERVER http://a:1"]
        {
            assert!(is_ready(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT ';", "SHOW STREAMS; SELECT", "/* ;", "CREATE STREAM exit"] {
            assert!(!is_ready(text), "{text}");
        }
    }

    #[test]
    fn text_falls_into_commands_and_statements() {
        let text = "SHOW STREAMS; run script 'it''s.sql'; SELECT ';' FROM s;";
        let found: Vec<(&str, Piece)> =
            pieces(text).into_iter().map(|(span, piece)| (span.slice(text), piece)).collect();
        assert_eq!(
            found,
            [
                ("SHOW STREAMS", Piece::Statement),
                ("run script 'it''s.sql'", Piece::Command(Ok(Command::RunScript("it's.sql".into())))),
                ("SELECT ';' FROM s", Piece::Statement),
            ]
        );
        let only = |text: &str| pieces(text).into_iter().map(|(_, piece)| piece).next();
        assert_eq!(only(" quit; "), Some(Piece::Command(Ok(Command::Exit))));
        assert_eq!(only("server http://h:1"), Some(Piece::Command(Ok(Command::Server(Some("http://h:1".into()))))));
        assert_eq!(only("output json"), Some(Piece::Command(Ok(Command::Output(Some(OutputForm::Json))))));
        assert_eq!(only("SPOOL off"), Some(Piece::Command(Ok(Command::Spool(None)))));
        assert!(matches!(only("SPOOL x"), Some(Piece::Command(Err(_)))));
        assert!(matches!(only("RUN SCRIPT"), Some(Piece::Command(Err(_)))));
        assert!(matches!(only("RUN"), Some(Piece::Command(Err(_)))));
    }

    #[test]
    fn secrets_are_not_remembered() {
        assert!(is_memorable("SHOW STREAMS;"));
        assert!(!is_memorable("SET 'ssl.key.password'='x';"));
        assert!(!is_memorable(" SHOW STREAMS;"));
        assert!(!is_memorable("CREATE SINK CONNECTOR c WITH ('aws.Secret'='x');"));
    }
}
