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
use std::process::ExitCode;

pub use args::SqlArgs;
use client::Client;
use run::{Runner, Stop};
use session::Session;

const FAILED: u8 = 1;
const NO_SERVER: u8 = 2;
/// As a shell tells of SIGINT.
const INTERRUPTED: u8 = 130;

pub fn run(args: SqlArgs) -> anyhow::Result<ExitCode> {
    let mut session = Session::new(args.output);
    for (name, value) in &args.set {
        session.set(name, value);
    }
    for (name, value) in &args.define {
        session.variables.define(name, value.as_str());
    }
    let client = match Client::new(&args.server) {
        Ok(client) => client,
        Err(why) => {
            output::Output::new().problem(&format!("error: {why}"));
            return Ok(ExitCode::from(NO_SERVER));
        }
    };
    let mut runner = Runner::new(client, session);
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
