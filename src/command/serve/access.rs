//! Who may come in: listeners, TLS, users and tokens as the configuration has them.
//!
//! Not here: how somebody is known (`broker::security`), HTTP's side of it (`server`).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use millpond::config::{Config, HttpSecurity, Tls as TlsConfig, host_and_port};
use millpond_broker::security::delegation::DelegationSettings;
use millpond_broker::security::tls::{ClientAuth, Tls, TlsSettings, disagreement};
use millpond_broker::security::tokens::TokenSettings;
use millpond_broker::security::turns::Turns;
use millpond_broker::security::{
    AuthenticationSettings, Authenticator, Endpoint, Mechanism, Principal, PrincipalMapping, SecurityProtocol,
};
use millpond_broker::server::{Listener, ServerSettings};
use millpond_server::{Accepting, Access, Checked, HttpSecurity as HttpServerSecurity, Shown, TlsSource};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

const KAFKA_DEFAULT: &str = "127.0.0.1:9092";
const HTTP1_AND_2: [&[u8]; 2] = [b"h2", b"http/1.1"];
const PRINCIPAL_CLAIM_DEFAULT: &str = "sub";
const CLOCK_SKEW_DEFAULT: Duration = Duration::from_secs(30);

/// Binds all Kafka listeners: the plain one of `kafka`, which is there by default unless others are, and each
/// `[[listener]]`.
pub async fn listeners(config: &Config) -> Result<Vec<Listener>> {
    let mut all = Vec::new();
    if config.kafka.is_some() || config.listener.is_empty() {
        let address = config.kafka.as_deref().unwrap_or(KAFKA_DEFAULT);
        let mut listener = Listener::from(super::bind("kafka", address).await?);
        listener.endpoint.advertised = config.advertised()?;
        all.push(listener);
    } else if config.kafka_advertised.is_some() {
        bail!("kafka_advertised belongs to kafka, which is not set; each [[listener]] has its own advertised");
    }
    for listener in &config.listener {
        let name = listener.name.as_deref().unwrap_or(&listener.protocol).to_owned();
        let one = bind_one(config, listener, &name).await;
        all.push(one.with_context(|| format!("listener \"{name}\""))?);
    }
    let mut names: Vec<&str> = all.iter().map(|l| l.endpoint.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("two listeners have the same name, \"{}\"; give each [[listener]] a name of its own", twice[0]);
    }
    Ok(all)
}

async fn bind_one(config: &Config, listener: &millpond::config::Listener, name: &str) -> Result<Listener> {
    let protocol: SecurityProtocol = listener.protocol.parse().map_err(anyhow::Error::msg)?;
    let tls = match (protocol.is_tls(), tls(&listener.tls(), &[])?) {
        (true, None) => bail!("{protocol} needs certificate and key, which name PEM files"),
        (false, Some(_)) => bail!("{protocol} has no TLS; SSL and SASL_SSL take certificate and key"),
        (_, tls) => tls,
    };
    let tokens = config.security.oauth.is_some();
    let mechanisms = match (protocol.is_sasl(), &listener.mechanisms) {
        (false, Some(_)) => bail!("{protocol} has no mechanisms; SASL_SSL and SASL_PLAINTEXT have"),
        (false, None) => Vec::new(),
        (true, None) => Listener::default_mechanisms(protocol.is_tls(), tokens),
        (true, Some(named)) if named.is_empty() => bail!("mechanisms is empty"),
        (true, Some(named)) => {
            let parsed: Result<Vec<Mechanism>, String> = named.iter().map(|m| m.parse()).collect();
            parsed.map_err(anyhow::Error::msg)?
        }
    };
    if mechanisms.contains(&Mechanism::OAuthBearer) && !tokens {
        bail!("OAUTHBEARER needs [security.oauth], which says whose tokens are believed");
    }
    let socket = TcpListener::bind(&listener.address)
        .await
        .with_context(|| format!("cannot listen on address \"{}\"", listener.address))?;
    if !protocol.is_tls()
        && mechanisms.iter().any(|m| matches!(m, Mechanism::Plain | Mechanism::OAuthBearer))
        && !is_loopback(socket.local_addr().ok())
    {
        warn!(listener = name, "passwords or tokens cross the network in plain text here; SASL_SSL changes that");
    }
    let advertised = listener.advertised.as_deref().map(|text| host_and_port("advertised", text)).transpose()?;
    Ok(Listener { socket, endpoint: Endpoint { name: name.to_owned(), protocol, advertised }, tls, mechanisms })
}

fn is_loopback(address: Option<SocketAddr>) -> bool {
    address.is_some_and(|address| address.ip().is_loopback())
}

/// TLS from its files; `None` where none is named.
fn tls(config: &TlsConfig, alpn: &[&[u8]]) -> Result<Option<Arc<Tls>>> {
    let client_auth = match config.client_auth.as_deref() {
        None | Some("none") => ClientAuth::None,
        Some("requested") => ClientAuth::Requested,
        Some("required") => ClientAuth::Required,
        Some(other) => bail!("client_auth is \"none\", \"requested\" or \"required\", not \"{other}\""),
    };
    let principal_mapping = match &config.principal_mapping {
        Some(text) => text.parse()?,
        None => PrincipalMapping::default(),
    };
    let (certificate, key) = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        (None, None)
            if config.client_ca.is_none() && config.client_crls.is_empty() && client_auth == ClientAuth::None =>
        {
            return Ok(None);
        }
        _ => bail!("TLS needs both certificate and key, which name PEM files"),
    };
    let (client_ca, client_crls) = (config.client_ca.clone(), config.client_crls.clone());
    let alpn = alpn.iter().map(|p| p.to_vec()).collect();
    let settings = TlsSettings { certificate, key, client_ca, client_crls, client_auth, principal_mapping, alpn };
    Ok(Some(Tls::load(settings)?))
}

/// TLS of HTTP.
pub fn http_tls(config: &HttpSecurity) -> Result<Option<Arc<Tls>>> {
    tls(&config.tls(), &HTTP1_AND_2).context("http_security")
}

/// What the configuration says about users and tokens.
pub fn authentication(config: &Config) -> AuthenticationSettings {
    let security = &config.security;
    let defaults = AuthenticationSettings::default();
    AuthenticationSettings {
        users_max: security.users_max.unwrap_or(defaults.users_max),
        delegation: DelegationSettings {
            tokens_max: security.delegation_tokens_max.unwrap_or(defaults.delegation.tokens_max),
            bytes_max: super::fixed_parts(config).delegation_tokens,
            lifetime_max_ms: security.delegation_token_max_ms.unwrap_or(defaults.delegation.lifetime_max_ms).max(0),
            renewal_ms: security.delegation_token_renewal_ms.unwrap_or(defaults.delegation.renewal_ms).max(0),
        },
        failure_delay: milliseconds(security.failed_authentication_delay_ms).unwrap_or(defaults.failure_delay),
        derivations_max: security.password_checks_max.unwrap_or(defaults.derivations_max),
        tries_per_address_max: security.tries_per_address_max.unwrap_or(defaults.tries_per_address_max),
        session_max: milliseconds(security.session_max_ms).filter(|session| !session.is_zero()),
        tokens: security.oauth.as_ref().map(|oauth| TokenSettings {
            issuer: oauth.issuer.clone(),
            audiences: oauth.audience.clone(),
            clock_skew: milliseconds(oauth.clock_skew_ms).unwrap_or(CLOCK_SKEW_DEFAULT),
            principal_claim: oauth.principal_claim.clone().unwrap_or_else(|| PRINCIPAL_CLAIM_DEFAULT.into()),
        }),
    }
}

fn milliseconds(value: Option<u64>) -> Option<Duration> {
    value.map(Duration::from_millis)
}

/// Puts what the configuration says about connections into the broker's settings.
pub fn configure(config: &Config, settings: &mut ServerSettings) -> Result<()> {
    let security = &config.security;
    for name in &security.super_users {
        let principal: Principal = name.parse().context("super_users")?;
        settings.super_users.push(principal);
    }
    settings.authorization = security.authorization();
    if let Some(entities) = security.quotas_max {
        settings.quotas.entities_max = entities;
    }
    if let Some(timeout) = milliseconds(security.authentication_timeout_ms) {
        settings.authentication_timeout = timeout;
    }
    if let Some(timeout) = milliseconds(security.handshake_timeout_ms) {
        settings.handshake_timeout = timeout;
    }
    if let Some(max) = security.handshakes_max {
        settings.handshakes_max = max;
    }
    if let Some(max) = security.handshakes_at_once {
        settings.handshake_turns = Turns::new(max);
    }
    if let Some(max) = security.unauthenticated_request_bytes_max {
        settings.unauthenticated_request_bytes_max = max;
    }
    Ok(())
}

/// HTTP's side: everybody has to say who they are where some Kafka listener asks for it, unless the configuration says
/// otherwise.
pub fn http(
    config: &Config,
    kafka: &[Listener],
    tls: Option<&Arc<Tls>>,
    address: Option<SocketAddr>,
    authenticator: &Arc<Authenticator>,
    turns: &Arc<Turns>,
) -> HttpServerSecurity {
    let http = &config.http_security;
    let asks = |listener: &Listener| {
        listener.endpoint.protocol.is_sasl() || listener.tls.as_ref().is_some_and(|tls| tls.asks_clients())
    };
    let asked = http.authentication.unwrap_or_else(|| kafka.iter().any(asks));
    if asked && tls.is_none() && !is_loopback(address) {
        warn!(
            "passwords and tokens cross the network in plain text over HTTP; certificate and key in [http_security] change that"
        );
    }
    HttpServerSecurity {
        access: asked.then(|| Arc::new(ByAuthenticator(Arc::clone(authenticator))) as Arc<dyn Access>),
        healthcheck_open: http.healthcheck_open.unwrap_or(false),
        tls: tls.map(|tls| Arc::new(HttpTls { tls: Arc::clone(tls), turns: Arc::clone(turns) }) as Arc<dyn TlsSource>),
    }
}

/// The same users on HTTP as on Kafka's listeners.
struct ByAuthenticator(Arc<Authenticator>);

impl Access for ByAuthenticator {
    fn check(&self, shown: Shown, from: IpAddr) -> Checked {
        let authenticator = Arc::clone(&self.0);
        Box::pin(async move {
            match shown {
                Shown::Password { user, password } => authenticator.password(&user, &password, from).await.ok(),
                Shown::Token(token) => authenticator.token(&token, from).await.ok().map(|verified| verified.principal),
            }
        })
    }

    fn takes_tokens(&self) -> bool {
        self.0.tokens().is_some()
    }
}

struct HttpTls {
    tls: Arc<Tls>,
    /// The same as of Kafka's listeners.
    turns: Arc<Turns>,
}

impl TlsSource for HttpTls {
    fn accept(&self, socket: TcpStream, from: IpAddr) -> Accepting<'_> {
        Box::pin(async move {
            let accepted = self.turns.accept(&self.tls, socket, from).await;
            accepted.map_err(|error| io::Error::other(disagreement(&error)))
        })
    }

    fn principal(&self, connection: &rustls::ServerConnection) -> Result<Option<Principal>, String> {
        let principal = self.tls.principal(connection).map_err(|e| e.to_string())?;
        Ok((!principal.is_anonymous()).then_some(principal))
    }
}
