//! `millpond sql`: a person, or a script, types SQL at a server.
//!
//! It is a client of the HTTP interface like any other and knows nothing of the engine; of the dialect it knows the grammar,
//! for completion and for errors that need no server.

pub mod args;
mod client;
mod complete;
mod entity;
mod help;
mod input;
pub mod output;
mod problem;
mod repl;
mod rows;
mod run;
mod session;
mod stream;
pub mod table;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

pub use args::SqlArgs;
use client::{Client, Login};
use run::{Runner, Stop};
use session::Session;

use super::secret;

const FAILED: u8 = 1;
const NO_SERVER: u8 = 2;
/// As a shell tells of SIGINT.
const INTERRUPTED: u8 = 130;

/// Who asks, and whom to believe.
fn login(args: &SqlArgs) -> Result<(Login, Option<Vec<u8>>), String> {
    let told = |e: anyhow::Error| format!("{e:#}");
    let login = match (&args.user, secret::from_environment(secret::TOKEN_VARIABLE).map_err(told)?) {
        (Some(user), _) => Login::Password { user: user.clone(), password: secret::password_of(user).map_err(told)? },
        (None, Some(token)) => Login::Token(token),
        (None, None) => Login::Nobody,
    };
    let read = |path: &PathBuf| std::fs::read(path).map_err(|e| format!("cannot read \"{}\": {e}", path.display()));
    Ok((login, args.cacert.as_ref().map(read).transpose()?))
}

pub fn run(args: SqlArgs) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(args.output);
    for (name, value) in &args.define {
        session.variables.define(name, value.as_str());
    }
    let made = login(&args).and_then(|(login, authorities)| Client::new(&args.server, login, authorities));
    let client = match made {
        Ok(client) => client,
        Err(why) => {
            output::Output::new().problem(&format!("error: {why}"));
            return Ok(ExitCode::from(NO_SERVER));
        }
    };
    let mut runner = Runner::new(client, session);
    if let Some(secret) = runner.client.in_the_open() {
        let server = runner.client.server();
        let warning = format!("warning: {secret} crosses the network in plain text to {server}; https:// changes that");
        runner.output.problem(&warning);
    }
    if runner.set_first(&args.set).is_err() {
        return Ok(ExitCode::from(NO_SERVER));
    }
    // One thread is enough for one user; it runs while a statement does.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = if !args.scripts.0.is_empty() {
        args.scripts.0.iter().try_for_each(|script| runtime.block_on(runner.script(script)))
    } else if io::stdin().is_terminal() {
        repl::interactive(&runtime, &mut runner)?;
        Ok(())
    } else {
        repl::piped(&runtime, &mut runner)
    };
    Ok(match result {
        Ok(()) | Err(Stop::Exit | Stop::Closed) => ExitCode::SUCCESS,
        Err(Stop::Failed) => ExitCode::from(FAILED),
        Err(Stop::Lost) => ExitCode::from(NO_SERVER),
        Err(Stop::Interrupted) => ExitCode::from(INTERRUPTED),
    })
}
