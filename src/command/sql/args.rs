//! The flags of `millpond sql`.
//!
//! Statements and files keep the order in which they were given, also between `-e` and `-f`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum, value_parser};

/// Where a server listens unless its own flags say otherwise.
pub const SERVER_DEFAULT: &str = "http://127.0.0.1:8088";

const EXIT_CODES: &str =
    "Exit status: 0 all went well, 1 a statement failed, 2 wrong use or no server, 130 interrupted.";

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct SqlArgs {
    /// The server to talk to
    #[arg(long, value_name = "URL", default_value = SERVER_DEFAULT)]
    pub server: String,
    /// Who asks; the password comes from the variable MILLPOND_PASSWORD or is asked for, a token from MILLPOND_TOKEN
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Believe these authorities (PEM) instead of the system's
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// How rows and answers are shown
    #[arg(long, value_enum, value_name = "FORM", default_value_t = OutputForm::Tabular)]
    pub output: OutputForm,
    /// Set a property first, as SET does
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
    /// Define a variable first, as DEFINE does
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = pair)]
    pub define: Vec<(String, String)>,
    #[command(flatten)]
    pub scripts: Scripts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// Tables for people
    Tabular,
    /// One JSON object per row or answer, each on its line
    Json,
}

/// What to run instead of reading lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    Statements(String),
    /// `-` is standard input.
    File(PathBuf),
}

/// All of them, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scripts(pub Vec<Script>);

const EXECUTE: &str = "execute";
const FILE: &str = "file";

impl Args for Scripts {
    fn augment_args(command: Command) -> Command {
        command
            .arg(
                Arg::new(EXECUTE)
                    .short('e')
                    .long(EXECUTE)
                    .value_name("STATEMENTS")
                    // A script may begin with a comment.
                    .allow_hyphen_values(true)
                    .action(ArgAction::Append)
                    .value_parser(value_parser!(String))
                    .help("Run these statements, then end; can be repeated"),
            )
            .arg(
                Arg::new(FILE)
                    .short('f')
                    .long(FILE)
                    .value_name("FILE")
                    .action(ArgAction::Append)
                    .value_parser(value_parser!(PathBuf))
                    .help("Run the statements of this file (\"-\" is standard input), then end; can be repeated"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Scripts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut found: Vec<(usize, Script)> = Vec::new();
        if let (Some(places), Some(values)) = (matches.indices_of(EXECUTE), matches.get_many::<String>(EXECUTE)) {
            found.extend(places.zip(values.cloned().map(Script::Statements)));
        }
        if let (Some(places), Some(values)) = (matches.indices_of(FILE), matches.get_many::<PathBuf>(FILE)) {
            found.extend(places.zip(values.cloned().map(Script::File)));
        }
        found.sort_by_key(|(place, _)| *place);
        Ok(Self(found.into_iter().map(|(_, script)| script).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_string(), value.to_string())),
        _ => Err("expected NAME=VALUE".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_keep_their_order() {
        let command = SqlArgs::augment_args(Command::new("sql"));
        let matches = command.get_matches_from(["sql", "-f", "a.sql", "-e", "SHOW STREAMS", "-f", "-", "-d", "n=1=2"]);
        let args = SqlArgs::from_arg_matches(&matches).expect("the flags are right");
        let expected =
            [Script::File("a.sql".into()), Script::Statements("SHOW STREAMS".into()), Script::File("-".into())];
        assert_eq!(args.scripts.0, expected);
        assert_eq!(args.define, [("n".to_string(), "1=2".to_string())]);
        assert_eq!(args.output, OutputForm::Tabular);
    }
}
