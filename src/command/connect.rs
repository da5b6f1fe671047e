//! Flags that say which cluster a command talks to and who is asking, and the client that comes of them.
//!
//! A password never stands in the arguments, where other users of the machine can read it: it comes from the
//! environment, a file, or whoever sits at the terminal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::secret;
use super::usage::usage;
use crate::kafka::properties::Properties;
use crate::kafka::settings::{Address, Login, Mechanism, Pem, Secret, TIMEOUT_DEFAULT, Tls};
use crate::kafka::{Client, Settings};

const BOOTSTRAP: &str = "MILLPOND_BOOTSTRAP";
const BOOTSTRAP_DEFAULT: &str = "127.0.0.1:9092";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct Connect {
    /// The broker to talk to, or several with commas [env MILLPOND_BOOTSTRAP; default: 127.0.0.1:9092]
    #[arg(
        short,
        long,
        visible_alias = "bootstrap-server",
        global = true,
        value_name = "HOST:PORT",
        value_parser = Addresses::parse
    )]
    bootstrap: Option<Addresses>,
    /// A file of properties as Kafka's own clients have it; flags win
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Encrypt, and check the broker's certificate
    #[arg(long, global = true)]
    tls: bool,
    /// Who may sign the broker's certificate, in PEM form [default: the system's authorities]
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The certificate that is shown to the broker, in PEM form
    #[arg(long, global = true, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, in PEM form
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// How to log in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER [default with --user: SCRAM-SHA-512]
    #[arg(long, global = true, value_name = "NAME", value_parser = mechanism)]
    sasl_mechanism: Option<Mechanism>,
    /// Log in as this user; the password comes from MILLPOND_PASSWORD, --password-file or the terminal
    #[arg(short, long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// A file that holds the password, or the token for OAUTHBEARER
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How long one request, with its repetitions, may take
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
}

/// Brokers that a flag names.
#[derive(Clone, Debug)]
struct Addresses(Vec<Address>);

impl Addresses {
    fn parse(text: &str) -> Result<Self, String> {
        Address::list(text).map(Self).map_err(|e| format!("{e:#}"))
    }
}

fn mechanism(text: &str) -> Result<Mechanism, String> {
    Mechanism::parse(text).map_err(|e| format!("{e:#}"))
}

/// What the environment says about the broker, if anything.
fn variable() -> Option<String> {
    std::env::var(BOOTSTRAP).ok().filter(|text| !text.is_empty())
}

/// A positive number of seconds, also a fraction.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>();
    match number.map(Duration::try_from_secs_f64) {
        Ok(Ok(time)) if !time.is_zero() && time < Duration::from_secs(365 * 86_400) => Ok(time),
        _ => Err("expected a positive number of seconds".to_string()),
    }
}

impl Connect {
    /// Whether any flag says something about a broker.
    pub fn is_given(&self) -> bool {
        let Self { bootstrap, config, tls, cacert, cert, key, sasl_mechanism, user, password_file, timeout } = self;
        let files = [config, cacert, cert, key, password_file];
        *tls || bootstrap.is_some()
            || sasl_mechanism.is_some()
            || user.is_some()
            || timeout.is_some()
            || files.iter().any(|file| file.is_some())
    }

    /// Whether it is said which broker is meant, here or in the environment.
    pub fn names_a_broker(&self) -> bool {
        self.is_given() || variable().is_some()
    }

    pub fn properties(&self) -> Result<Properties> {
        self.config.as_deref().map(Properties::read).transpose().map(Option::unwrap_or_default)
    }

    pub fn client(&self) -> Result<Arc<Client>> {
        self.client_of(&self.properties()?)
    }

    pub fn client_of(&self, properties: &Properties) -> Result<Arc<Client>> {
        Ok(Arc::new(Client::new(self.settings(properties)?)?))
    }

    fn settings(&self, properties: &Properties) -> Result<Settings> {
        let bootstrap = match (&self.bootstrap, properties.get("bootstrap.servers")) {
            (Some(Addresses(flag)), _) => flag.clone(),
            (None, Some(text)) => Address::list(text).context("bootstrap.servers")?,
            (None, None) => Address::list(variable().as_deref().unwrap_or(BOOTSTRAP_DEFAULT))
                .map_err(|e| usage(format!("{BOOTSTRAP}: {e:#}")))?,
        };
        let (mut tls, mut login) = properties.security()?;
        if self.tls || self.cacert.is_some() || self.cert.is_some() {
            let tls = tls.get_or_insert_with(Tls::default);
            let file = |path: &Option<PathBuf>| path.clone().map(Pem::File);
            tls.authorities = file(&self.cacert).or_else(|| tls.authorities.take());
            if self.cert.is_some() {
                tls.certificate = file(&self.cert);
                tls.key = file(&self.key);
            }
        }
        if self.user.is_some() || self.sasl_mechanism.is_some() {
            login = Some(self.login()?);
        }
        Ok(Settings {
            bootstrap,
            tls,
            login,
            client_id: properties.get("client.id").unwrap_or("millpond").to_string(),
            timeout: self.timeout.unwrap_or(TIMEOUT_DEFAULT),
        })
    }

    fn login(&self) -> Result<Login> {
        let mechanism = self.sasl_mechanism.unwrap_or(Mechanism::ScramSha512);
        let user = match (&self.user, mechanism) {
            (Some(user), _) => user.clone(),
            (None, Mechanism::OauthBearer) => String::new(),
            (None, _) => return Err(usage(format!("{} needs a user: --user NAME", mechanism.name()))),
        };
        let secret = match (&self.password_file, mechanism) {
            (Some(path), _) => secret::of_file(path)?,
            (None, Mechanism::OauthBearer) => secret::from_environment(secret::TOKEN_VARIABLE)?.with_context(|| {
                format!("no token is given; put it into {} or a file for --password-file", secret::TOKEN_VARIABLE)
            })?,
            (None, _) => secret::password_of(&user)?,
        };
        Ok(Login { mechanism, user, secret: Secret(secret) })
    }
}
