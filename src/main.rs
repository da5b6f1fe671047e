//! The command `millpond`: its subcommands and nothing else; each one's work is in `command/`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

mod command;
mod kafka;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A Kafka log, a streaming SQL engine in the ksqlDB dialect and a WebAssembly host in one process.
#[derive(Parser)]
#[command(name = "millpond", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve Kafka clients and ksqlDB clients from one data directory.
    Serve(Serve),
    /// Type SQL at a server: lines, scripts or single statements.
    Sql(command::sql::SqlArgs),
    /// Create, show, change and delete topics.
    Topic(command::topic::TopicArgs),
    /// Send lines, JSON or files to a topic.
    Produce(command::produce::ProduceArgs),
    /// Print a topic's records as they are and as they come.
    Consume(command::consume::ConsumeArgs),
    /// Show consumer groups with their lag; set their offsets anew.
    Group(command::group::GroupArgs),
    /// Give and take rights.
    Acl(command::acl::AclArgs),
    /// Show and change settings of topics, brokers and groups.
    Config(command::config::ConfigArgs),
    /// Make, list and remove users: of a data directory that no server holds, or of a running server.
    User(command::user::UserArgs),
    /// Run query cases in ksqlDB's JSON form and say which pass.
    Test(TestArgs),
    /// Count a web server's requests as they come: the whole way from a log line to a live table.
    Demo(command::demo::DemoArgs),
    /// Compile one WebAssembly upload under limits; the server runs it.
    #[command(hide = true)]
    CompileUdf {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Args)]
pub struct Serve {
    /// Data directory; created if it is not there [default: ./millpond-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where Kafka clients connect [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
    /// Where ksqlDB clients connect [default: 127.0.0.1:8088]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// When a write counts as done: group, interval:MS or none [default: group]
    #[arg(long, value_name = "WHEN")]
    durability: Option<String>,
    /// Open a damaged data directory without what cannot be read of it, which the refusal names
    #[arg(long)]
    accept_data_loss: bool,
    /// The same and limits, in TOML; flags win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
pub struct TestArgs {
    /// Case files, or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only cases whose id contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print failures in full instead of one line each
    #[arg(long)]
    full: bool,
    /// Fail unless at least so many cases pass; without it, unless all do
    #[arg(long, value_name = "N")]
    at_least: Option<usize>,
}

/// Commands by what they are for, as `--help` shows them.
const HELP: [(&str, &[&str]); 3] = [
    ("Millpond", &["serve", "sql", "user", "demo"]),
    (
        "Any Kafka broker, Millpond too (--bootstrap HOST:PORT)",
        &["topic", "produce", "consume", "group", "acl", "config"],
    ),
    ("Checks", &["test", "help"]),
];

/// The command, with its subcommands in groups.
fn cli() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    let mut template = String::from("{about}\n\n{usage-heading} {usage}\n");
    for (title, names) in HELP {
        template.push_str(&format!("\n{title}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about).map(ToString::to_string);
            template.push_str(&format!("  {name:<9}{}\n", about.unwrap_or_default()));
        }
    }
    template.push_str("\nOptions:\n{options}\n\n\"millpond COMMAND --help\" says more.");
    Cli::command().help_template(template)
}

fn main() -> ExitCode {
    let cli = match Cli::from_arg_matches(&cli().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let result = match cli.command {
        Command::Serve(args) => command::serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Sql(args) => command::sql::run(args),
        Command::Topic(args) => wait(command::topic::run(args)),
        Command::Produce(args) => wait(command::produce::run(args)),
        Command::Consume(args) => wait(command::consume::run(args)),
        Command::Group(args) => wait(command::group::run(args)),
        Command::Acl(args) => wait(command::acl::run(args)),
        Command::Config(args) => wait(command::config::run(args)),
        Command::User(args) => command::user::run(args),
        Command::Test(args) => command::test::run(&args),
        Command::Demo(args) => command::demo::run(&args),
        Command::CompileUdf { args } => Ok(millpond_udfs::compile_child::main(args)),
    };
    result.unwrap_or_else(|e| {
        #[allow(clippy::print_stderr, reason = "the last word of a command that failed")]
        {
            eprintln!("millpond: {e:#}");
        }
        ExitCode::from(command::usage::status(&e))
    })
}

/// Runs a command that talks to a broker.
fn wait(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = command::serve::runtime()?;
    let result = runtime.block_on(command);
    // A thread that waits for somebody to type ends with the process.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_shows_every_command_once() {
        let mut command = cli();
        command.build();
        let shown = command.render_help().to_string();
        for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = sub.get_name();
            assert_eq!(shown.matches(&format!("\n  {name} ")).count(), 1, "{name}: {shown}");
        }
    }
}
