//! `millpond user`: users of a data directory that no server holds.
//!
//! While a server runs, Kafka's own tools do the same over the network.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use millpond_broker::security::scram::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN};
use millpond_broker::security::users::Users;
use millpond_broker::storage::{Storage, StorageOptions};

use super::report::note;
use super::secret;
use super::serve::{DATA_DEFAULT, runtime};

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
    List {
        #[command(flatten)]
        place: Place,
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
    /// Data directory, which no server may hold
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
}

pub fn run(args: UserArgs) -> Result<ExitCode> {
    super::serve::start_log_quietly();
    match args.action {
        Action::Add { of, iterations } => {
            // Before anything is opened: whoever is asked for a password should not wait, nor hold the directory.
            let password = secret::new_password(&of.name)?;
            let name = of.name.clone();
            // The first user is made before the first server starts.
            if !is_there(&of.place) {
                note(&format!("making the data directory \"{}\"", of.place.data.display()));
            }
            with_users(&of.place, async move |users| {
                let is_new = users.describe(&name).is_none();
                users.set_password(&name, &password, iterations).await?;
                say(&format!("{} user \"{name}\"", if is_new { "added" } else { "changed the password of" }))
            })
        }
        Action::List { place } | Action::Remove { of: OfUser { place, .. } } if !is_there(&place) => {
            bail!("there is no data directory \"{}\"; --data names it", place.data.display())
        }
        Action::List { place } => with_users(&place, async |users| {
            let all = users.list();
            if all.is_empty() {
                note("there are no users");
            }
            for (name, credentials) in all {
                let ways: Vec<String> =
                    credentials.iter().map(|(m, iterations)| format!("{} ({iterations})", m.name())).collect();
                say(&format!("{name}\t{}", ways.join(", ")))?;
            }
            Ok(())
        }),
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

fn is_there(place: &Place) -> bool {
    place.data.read_dir().is_ok_and(|mut files| files.next().is_some())
}

/// Opens the directory for the time of one change.
fn with_users(place: &Place, work: impl AsyncFnOnce(&Users) -> Result<()>) -> Result<()> {
    let options = StorageOptions::new(&place.data);
    let hint =
        "a running server shows and changes users itself: kafka-configs --describe|--alter --entity-type users ...";
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
