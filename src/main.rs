//! The command `millpond`: its subcommands and nothing else; each one's work is in `command/`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod command;

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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(args) => command::serve::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Sql(args) => command::sql::run(args),
        Command::Test(args) => command::test::run(&args),
        Command::Demo(args) => command::demo::run(&args),
        Command::CompileUdf { args } => Ok(millpond_udfs::compile_child::main(args)),
    };
    result.unwrap_or_else(|e| {
        #[allow(clippy::print_stderr, reason = "the last word of a command that failed")]
        {
            eprintln!("millpond: {e:#}");
        }
        ExitCode::FAILURE
    })
}
