//! `millpond user`: users of a data directory that no server holds, and those of a running server, of Millpond or of
//! Apache Kafka.
//!
//! A running server is sent a salt and the salted password, as Kafka's own tools do, and never the password.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::{AlterUserScramCredentialsRequest, DescribeUserScramCredentialsRequest};
use millpond_broker::security::scram::{ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism};
use millpond_broker::security::users::{Users, for_broker};
use millpond_broker::storage::{OpenError, Storage, StorageOptions};

use super::connect::Connect;
use super::report::{OUTPUT_FAILED, confirm, note};
use super::secret;
use super::serve::{DATA_DEFAULT, runtime};
use super::sql::table::printable;
use super::usage::usage;
use crate::kafka::{Client, Error, Lane, To, text};

/// No command makes more users than any server takes.
const USERS_MAX: usize = usize::MAX;

#[derive(Args)]
pub struct UserArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Subcommand)]
enum Action {
    /// Make a user, or give one another password
    ///
    /// Of a running server, where --bootstrap, another flag of a connection or the variable MILLPOND_BOOTSTRAP says so; else
    /// of a data directory, which is made where --data names one that is not there. The new password comes from
    /// --new-password-file, from the first line of standard input, or is asked for; for a data directory also from the
    /// variable MILLPOND_PASSWORD, which for a server is the password of --user.
    Add {
        #[command(flatten)]
        of: OfUser,
        /// A file whose content is the new password
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        /// How slow guessing is made
        #[arg(long, value_name = "N", default_value_t = ITERATIONS_DEFAULT,
              value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
        iterations: u32,
    },
    /// Show all users and what they can prove themselves by
    ///
    /// Those of a running server, where --bootstrap, another flag of a connection or the variable MILLPOND_BOOTSTRAP says
    /// so; else those of a data directory.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Remove a user
    ///
    /// Of a running server, where --bootstrap, another flag of a connection or the variable MILLPOND_BOOTSTRAP says so; else
    /// of a data directory.
    Remove {
        #[command(flatten)]
        of: OfUser,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Action {
    fn place(&self) -> &Place {
        match self {
            Self::Add { of, .. } | Self::Remove { of, .. } => &of.place,
            Self::List { place } => place,
        }
    }
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
    /// Data directory, which no server may hold [default: ./millpond-data, if it is there and no server is named]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Place {
    /// The directory that is meant, and whether there is something in it. One that nobody named is not made up.
    fn find(&self) -> Result<(PathBuf, bool)> {
        let path = self.data.clone().unwrap_or_else(|| DATA_DEFAULT.into());
        let name = path.display();
        let is_there = match path.read_dir() {
            Ok(mut files) => files.next().is_some(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
            Err(_) if path.is_file() => bail!("\"{name}\" is a file; --data names a directory"),
            Err(e) => return Err(e).with_context(|| format!("data directory \"{name}\" cannot be read")),
        };
        if !is_there && self.data.is_none() {
            return Err(usage(format!(
                "whose users? --data DIR is for those of a data directory (there is no \"{name}\"), \
                 --bootstrap HOST:PORT for those of a running server"
            )));
        }
        Ok((path, is_there))
    }
}

pub fn run(args: UserArgs) -> Result<ExitCode> {
    super::serve::start_log_quietly();
    match (&args.action.place().data, args.connect.is_given()) {
        (Some(_), true) => {
            return Err(usage("--data is a directory's, and the other flags are a server's; give one or the other"));
        }
        (None, _) if args.connect.names_a_broker() => of_server(args)?,
        _ => of_directory(args.action)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn of_directory(action: Action) -> Result<()> {
    let (path, is_there) = action.place().find()?;
    match action {
        Action::Add { of, new_password_file, iterations } => {
            // Before anything is opened: whoever is asked for a password should not wait, nor hold the directory.
            let password = match secret::from_environment(secret::PASSWORD_VARIABLE)? {
                Some(password) if new_password_file.is_none() => password,
                _ => secret::new_password(&of.name, new_password_file.as_deref())?,
            };
            let name = of.name.clone();
            // The first user is made before the first server starts.
            if !is_there {
                note(&format!("making the data directory \"{}\"", path.display()));
            }
            with_users(path, async move |users| {
                let is_new = users.describe(&name).is_none();
                users.set_password(&name, &password, iterations).await?;
                added(&name, is_new)
            })
        }
        Action::List { .. } | Action::Remove { .. } if !is_there => {
            bail!("there is no data directory \"{}\"; --data names it", path.display())
        }
        Action::List { .. } => with_users(path, async |users| show(users.list())),
        Action::Remove { of: OfUser { name, .. }, yes } => {
            // As above: nothing is held while somebody thinks.
            confirm_removal(yes, &name)?;
            with_users(path, async move |users| match users.remove(&name).await? {
                true => removed(&name),
                false => unknown(&name),
            })
        }
    }
}

fn of_server(args: UserArgs) -> Result<()> {
    let client = args.connect.client()?;
    match args.action {
        Action::Add { of, new_password_file, iterations } => {
            if let Some(address) = client.in_the_open() {
                note(&format!(
                    "what is made of the password crosses the network in plain text to {address}; --tls changes that"
                ));
            }
            let upsertions = upsertions(&of.name, new_password_file.as_deref(), iterations)?;
            runtime()?.block_on(async {
                let is_new = user_of(&client, &of.name).await?.is_none();
                alter(&client, upsertions, Vec::new(), "change").await?;
                added(&of.name, is_new)
            })
        }
        Action::List { .. } => show(runtime()?.block_on(users_of(&client))?),
        Action::Remove { of, yes } => runtime()?.block_on(async {
            let Some(credentials) = user_of(&client, &of.name).await? else { return unknown(&of.name) };
            confirm_removal(yes, &of.name)?;
            let deletions = credentials.into_iter().map(|(mechanism, _)| {
                ScramCredentialDeletion::default().with_name(text(&of.name)).with_mechanism(mechanism.number())
            });
            alter(&client, Vec::new(), deletions.collect(), "remove").await?;
            removed(&of.name)
        }),
    }
}

fn added(name: &str, is_new: bool) -> Result<()> {
    say(&format!("{} user \"{name}\"", if is_new { "added" } else { "changed the password of" }))
}

fn confirm_removal(yes: bool, name: &str) -> Result<()> {
    confirm(yes, &format!("remove user \"{name}\""))
}

fn removed(name: &str) -> Result<()> {
    say(&format!("removed user \"{name}\""))
}

fn unknown(name: &str) -> Result<()> {
    bail!("there is no user \"{name}\"; \"millpond user list\" shows who there is")
}

/// For all mechanisms, each with a salt of its own.
fn upsertions(name: &str, file: Option<&Path>, iterations: u32) -> Result<Vec<ScramCredentialUpsertion>> {
    let password = secret::new_password(name, file)?;
    let of_mechanism = |mechanism: ScramMechanism| {
        let (salt, salted) = for_broker(mechanism, &password, iterations)?;
        Ok(ScramCredentialUpsertion::default()
            .with_name(text(name))
            .with_mechanism(mechanism.number())
            .with_iterations(iterations as i32)
            .with_salt(salt.to_vec().into())
            .with_salted_password(salted.into()))
    };
    ScramMechanism::ALL.into_iter().map(of_mechanism).collect()
}

/// All in one request, where they are made all or none. Apache Kafka takes one change of a user in a request; it gets one
/// after the other.
async fn alter(
    client: &Client,
    upsertions: Vec<ScramCredentialUpsertion>,
    deletions: Vec<ScramCredentialDeletion>,
    verb: &str,
) -> Result<()> {
    let empty = AlterUserScramCredentialsRequest::default;
    let whole = empty().with_upsertions(upsertions.clone()).with_deletions(deletions.clone());
    match alter_once(client, &whole, verb).await {
        Err(error) if error.code() == Some(ResponseError::DuplicateResource) => {}
        done => return Ok(done?),
    }
    let upsertions = upsertions.into_iter().map(|one| empty().with_upsertions(vec![one]));
    let deletions = deletions.into_iter().map(|one| empty().with_deletions(vec![one]));
    for one in upsertions.chain(deletions) {
        alter_once(client, &one, verb).await?;
    }
    Ok(())
}

async fn alter_once(client: &Client, request: &AlterUserScramCredentialsRequest, verb: &str) -> Result<(), Error> {
    let answer = client.call_once(&To::Controller, Lane::Main, request, Duration::ZERO).await?;
    for result in &answer.results {
        let message = result.error_message.as_ref().map(|m| m.as_str());
        Error::check(result.error_code, || format!("cannot {verb} user \"{}\"", result.user), message)?;
    }
    Ok(())
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

/// As a running server tells them, by name.
async fn users_of(client: &Client) -> Result<Vec<Described>> {
    let mut users = described(client, None).await?;
    users.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(users)
}

/// What one user can prove themselves by, if the server has them.
async fn user_of(client: &Client, name: &str) -> Result<Option<Vec<(ScramMechanism, u32)>>> {
    Ok(described(client, Some(name)).await?.into_iter().next().map(|(_, credentials)| credentials))
}

async fn described(client: &Client, name: Option<&str>) -> Result<Vec<Described>> {
    let names = name.map(|name| vec![UserName::default().with_name(text(name))]);
    let request = DescribeUserScramCredentialsRequest::default().with_users(names);
    let answer = client.call_once(&To::Any, Lane::Main, &request, Duration::ZERO).await?;
    let message = answer.error_message.as_ref().map(|m| m.as_str());
    Error::check(answer.error_code, || "cannot list users".to_string(), message)?;
    let mut users = Vec::with_capacity(answer.results.len());
    for result in &answer.results {
        if name.is_some() && result.error_code == ResponseError::ResourceNotFound.code() {
            continue;
        }
        let message = result.error_message.as_ref().map(|m| m.as_str());
        Error::check(result.error_code, || format!("cannot describe user \"{}\"", result.user), message)?;
        let infos = result.credential_infos.iter();
        let credentials =
            infos.filter_map(|c| Some((ScramMechanism::numbered(c.mechanism)?, c.iterations.max(0) as u32)));
        let mut credentials: Vec<_> = credentials.collect();
        // Not every server keeps an order.
        credentials.sort_unstable();
        users.push((result.user.to_string(), credentials));
    }
    Ok(users)
}

/// Opens the directory for the time of one change.
fn with_users(path: PathBuf, work: impl AsyncFnOnce(&Users) -> Result<()>) -> Result<()> {
    let hint = "a running server shows and changes its users itself: millpond user list --bootstrap HOST:PORT";
    let storage = Storage::open(StorageOptions::new(path)).map_err(|error| match error {
        OpenError::Locked(_) => anyhow::Error::new(error).context(hint),
        other => other.into(),
    })?;
    let done = runtime()?.block_on(async {
        let users = Users::open(&storage, USERS_MAX).await?;
        work(&users).await
    });
    storage.close()?;
    done
}

fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{line}").context(OUTPUT_FAILED)
}
