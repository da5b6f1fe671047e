//! `millpond user`: users of a data directory that no server holds, and those of a running server.
//!
//! While a server runs, Kafka's own tools change its users over the network.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kafka_protocol::messages::DescribeUserScramCredentialsRequest;
use millpond_broker::security::scram::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism};
use millpond_broker::security::users::Users;
use millpond_broker::storage::{Storage, StorageOptions};

use super::connect::Connect;
use super::report::note;
use super::secret;
use super::serve::{DATA_DEFAULT, runtime};
use super::sql::table::printable;
use crate::kafka::{Client, Error, Lane, To};

/// No command makes more users than any server takes.
const USERS_MAX: usize = usize::MAX;

#[derive(Args)]
pub struct UserArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a user, or give one another password
    ///
    /// The password comes from the variable MILLPOND_PASSWORD, from the first line of standard input, or is asked for.
    Add {
        #[command(flatten)]
        of: OfUser,
        /// How slow guessing is made
        #[arg(long, value_name = "N", default_value_t = ITERATIONS_DEFAULT,
              value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
        iterations: u32,
    },
    /// Show all users and what they can prove themselves by
    ///
    /// Those of a data directory, or, with --bootstrap or another flag of a connection, those of a running server.
    List {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        connect: Connect,
    },
    /// Remove a user
    Remove {
        #[command(flatten)]
        of: OfUser,
    },
}

#[derive(Args)]
struct OfUser {
    /// The user's name, without "User:"
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Args)]
struct Place {
    /// Data directory, which no server may hold [default: ./millpond-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Place {
    fn path(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| DATA_DEFAULT.into())
    }

    fn is_there(&self) -> bool {
        self.path().read_dir().is_ok_and(|mut files| files.next().is_some())
    }
}

pub fn run(args: UserArgs) -> Result<ExitCode> {
    super::serve::start_log_quietly();
    match args.action {
        Action::Add { of, iterations } => {
            // Before anything is opened: whoever is asked for a password should not wait, nor hold the directory.
            let password = secret::new_password(&of.name)?;
            let name = of.name.clone();
            // The first user is made before the first server starts.
            if !of.place.is_there() {
                note(&format!("making the data directory \"{}\"", of.place.path().display()));
            }
            with_users(&of.place, async move |users| {
                let is_new = users.describe(&name).is_none();
                users.set_password(&name, &password, iterations).await?;
                say(&format!("{} user \"{name}\"", if is_new { "added" } else { "changed the password of" }))
            })
        }
        Action::List { place, connect } if connect.is_given() => match &place.data {
            Some(_) => bail!("--data is a directory's, and the other flags are a server's; give one or the other"),
            None => show(runtime()?.block_on(users_of(&*connect.client()?))?),
        },
        Action::List { place, .. } | Action::Remove { of: OfUser { place, .. } } if !place.is_there() => {
            bail!("there is no data directory \"{}\"; --data names it", place.path().display())
        }
        Action::List { place, .. } => with_users(&place, async |users| show(users.list())),
        Action::Remove { of } => {
            let name = of.name.clone();
            with_users(&of.place, async move |users| {
                if !users.remove(&name).await? {
                    bail!("there is no user \"{name}\"; \"millpond user list\" shows who there is");
                }
                say(&format!("removed user \"{name}\""))
            })
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// A user's name, and mechanisms with their iterations.
type Described = (String, Vec<(ScramMechanism, u32)>);

fn show(users: Vec<Described>) -> Result<()> {
    if users.is_empty() {
        note("there are no users");
    }
    for (name, credentials) in users {
        let ways: Vec<String> =
            credentials.iter().map(|(m, iterations)| format!("{} ({iterations})", m.name())).collect();
        say(&format!("{}\t{}", printable(&name), ways.join(", ")))?;
    }
    Ok(())
}

/// As a running server tells them.
async fn users_of(client: &Client) -> Result<Vec<Described>> {
    let all = DescribeUserScramCredentialsRequest::default().with_users(None);
    let answer = client.call_once(&To::Any, Lane::Main, &all, Duration::ZERO).await?;
    let message = answer.error_message.as_ref().map(|m| m.as_str());
    Error::check(answer.error_code, || "cannot list users".to_string(), message)?;
    let mut users = Vec::with_capacity(answer.results.len());
    for result in &answer.results {
        let message = result.error_message.as_ref().map(|m| m.as_str());
        Error::check(result.error_code, || format!("cannot describe user \"{}\"", result.user), message)?;
        let infos = result.credential_infos.iter();
        let credentials =
            infos.filter_map(|c| Some((ScramMechanism::numbered(c.mechanism)?, c.iterations.max(0) as u32)));
        users.push((result.user.to_string(), credentials.collect()));
    }
    users.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(users)
}

/// Opens the directory for the time of one change.
fn with_users(place: &Place, work: impl AsyncFnOnce(&Users) -> Result<()>) -> Result<()> {
    let options = StorageOptions::new(place.path());
    let hint = "a running server shows its users itself: millpond user list --bootstrap HOST:PORT, and changes them: \
        kafka-configs --alter --entity-type users ...";
    let storage = Storage::open(options).context(hint)?;
    let done = runtime()?.block_on(async {
        let users = Users::open(&storage, USERS_MAX).await?;
        work(&users).await
    });
    storage.close()?;
    done
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}
