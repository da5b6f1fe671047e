//! The files of properties that Kafka's own clients and tools take, as far as they say how a cluster is reached.
//!
//! Properties that say nothing about that are left to whoever knows them; those of security that cannot be followed are
//! refused, since to leave them out would change who one is or whom one trusts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::settings::{Login, Mechanism, Pem, Secret, Tls};

/// A file of a person's settings, not of data.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, Default)]
pub struct Properties {
    values: BTreeMap<String, String>,
}

/// The options of a JAAS line, and the module that it names.
#[derive(Debug, PartialEq, Eq)]
struct Jaas {
    module: String,
    options: BTreeMap<String, String>,
}

impl Properties {
    pub fn read(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot read \"{}\"", path.display());
        if std::fs::metadata(path).with_context(cannot)?.len() > FILE_BYTES_MAX {
            bail!("\"{}\" is larger than {FILE_BYTES_MAX} bytes; is it a file of properties?", path.display());
        }
        Self::parse(&std::fs::read_to_string(path).with_context(cannot)?)
            .with_context(|| format!("\"{}\" is not a file of properties", path.display()))
    }

    /// Java's form: `name=value`, `name: value`, comments, lines that go on after a backslash.
    fn parse(text: &str) -> Result<Self> {
        let mut values = BTreeMap::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let mut logical = line.trim_start().to_string();
            if logical.is_empty() || logical.starts_with(['#', '!']) {
                continue;
            }
            while (logical.len() - logical.trim_end_matches('\\').len()) & 1 == 1 {
                logical.pop();
                let Some((_, more)) = lines.next() else { break };
                logical.push_str(more.trim_start());
            }
            let (name, value) = split(&logical);
            let place = || format!("line {}", number + 1);
            values.insert(unescape(name).with_context(place)?, unescape(value).with_context(place)?.trim().to_string());
        }
        Ok(Self { values })
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// TLS and login as `security.protocol` and what belongs to it say.
    pub fn security(&self) -> Result<(Option<Tls>, Option<Login>)> {
        let protocol = self.get("security.protocol").unwrap_or("PLAINTEXT").to_uppercase();
        let (tls, sasl) = match protocol.as_str() {
            "PLAINTEXT" => (false, false),
            "SSL" => (true, false),
            "SASL_PLAINTEXT" => (false, true),
            "SASL_SSL" => (true, true),
            other => bail!(
                "security.protocol \"{other}\" is not known; there are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL"
            ),
        };
        Ok((tls.then(|| self.tls()).transpose()?, sasl.then(|| self.login()).transpose()?))
    }

    fn tls(&self) -> Result<Tls> {
        for store in ["ssl.truststore", "ssl.keystore"] {
            let kind = self.get(&format!("{store}.type")).unwrap_or("JKS").to_uppercase();
            let named = self.get(&format!("{store}.location"));
            if let Some(path) = named
                && kind != "PEM"
            {
                bail!(
                    "{store}.location \"{path}\" is a store of type {kind}, and only PEM is read: export it with \
                     \"keytool -importkeystore -deststoretype PKCS12\" and \"openssl pkcs12\", and set {store}.type=PEM"
                );
            }
        }
        if self.get("ssl.key.password").is_some() {
            bail!("ssl.key.password is not supported; \"openssl pkey -in FILE -out PLAIN\" opens an encrypted key");
        }
        let file = |name: &str| self.get(name).map(|path| Pem::File(PathBuf::from(path)));
        let inline = |name: &str| self.get(name).map(|pem| Pem::Text(Secret(pem_lines(pem))));
        let store = file("ssl.keystore.location");
        let any_name = self.values.get("ssl.endpoint.identification.algorithm").is_some_and(|v| v.trim().is_empty());
        Ok(Tls {
            authorities: inline("ssl.truststore.certificates").or_else(|| file("ssl.truststore.location")),
            certificate: inline("ssl.keystore.certificate.chain").or_else(|| store.clone()),
            key: inline("ssl.keystore.key").or(store),
            any_name,
        })
    }

    fn login(&self) -> Result<Login> {
        let name = self.get("sasl.mechanism").unwrap_or("GSSAPI");
        let mechanism = Mechanism::parse(name).context("sasl.mechanism")?;
        let jaas = self.get("sasl.jaas.config").context("sasl.jaas.config is missing; it names the user")?;
        let jaas = Jaas::parse(jaas).context("sasl.jaas.config")?;
        let wanted = match mechanism {
            Mechanism::Plain => "PlainLoginModule",
            Mechanism::ScramSha256 | Mechanism::ScramSha512 => "ScramLoginModule",
            Mechanism::OauthBearer => "OAuthBearerLoginModule",
        };
        if jaas.module.rsplit('.').next() != Some(wanted) {
            bail!("sasl.jaas.config names \"{}\"; {} needs {wanted}", jaas.module, mechanism.name());
        }
        if mechanism == Mechanism::OauthBearer {
            return Ok(Login { mechanism, user: String::new(), secret: Secret(self.token()?) });
        }
        let option =
            |name: &str| jaas.options.get(name).cloned().with_context(|| format!("sasl.jaas.config has no \"{name}\""));
        Ok(Login { mechanism, user: option("username")?, secret: Secret(option("password")?) })
    }

    fn token(&self) -> Result<String> {
        let url = self
            .get("sasl.oauthbearer.token.endpoint.url")
            .context("sasl.oauthbearer.token.endpoint.url is missing; file:///PATH names a file with the token")?;
        let Some(path) = url.strip_prefix("file:") else {
            bail!(
                "a token from \"{url}\" is not fetched here: fetch it by other means and give its file, \
                 sasl.oauthbearer.token.endpoint.url=file:///PATH"
            );
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        let token = std::fs::read_to_string(path).with_context(|| format!("cannot read the token in \"{path}\""))?;
        Ok(token.trim().to_string())
    }
}

impl Jaas {
    fn parse(text: &str) -> Result<Self> {
        let mut words = words(text)?.into_iter();
        let module = words.next().filter(|w| w.1.is_none()).context("it begins with the name of a module")?.0;
        let flag = words.next().map(|w| w.0).unwrap_or_default();
        if !["required", "requisite", "sufficient", "optional"].contains(&flag.to_lowercase().as_str()) {
            bail!("after the module comes \"required\", not \"{flag}\"");
        }
        let options = words
            .map(|(name, value)| {
                value.map(|value| (name.clone(), value)).ok_or_else(|| anyhow!("\"{name}\" has no value"))
            })
            .collect::<Result<_>>()?;
        Ok(Self { module, options })
    }
}

/// `name` and `name=value` up to the semicolon; values may be in quotes, in which a backslash protects what follows it.
fn words(text: &str) -> Result<Vec<(String, Option<String>)>> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.peek() {
            None => bail!("it ends with a semicolon"),
            Some(';') => return Ok(found),
            Some(_) => {}
        }
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != '=' && *c != ';') {
            name.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            found.push((name, None));
            continue;
        }
        let mut value = String::new();
        match chars.next_if(|c| *c == '"' || *c == '\'') {
            None => {
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != ';') {
                    value.push(c);
                }
            }
            Some(quote) => loop {
                match chars.next() {
                    None => bail!("a quote is not closed"),
                    Some('\\') => value.extend(chars.next()),
                    Some(c) if c == quote => break,
                    Some(c) => value.push(c),
                }
            },
        }
        found.push((name, Some(value)));
    }
}

/// Name and value, at the first `=`, `:` or blank that no backslash protects.
fn split(line: &str) -> (&str, &str) {
    let mut protected = false;
    let end = line.char_indices().find(|(_, c)| {
        let found = !protected && (matches!(c, '=' | ':') || c.is_whitespace());
        protected = *c == '\\' && !protected;
        found
    });
    let Some((at, _)) = end else { return (line, "") };
    let (name, rest) = line.split_at(at);
    let rest = rest.trim_start();
    (name, rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start())
}

fn unescape(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                out.push(code.with_context(|| format!("\"\\u{digits}\" is not a character"))?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

/// PEM on one line, as properties often have it, with its line ends back where blanks stand for them.
fn pem_lines(text: &str) -> String {
    if text.contains('\n') {
        return text.to_string();
    }
    let mut out = String::with_capacity(text.len() + 64);
    for (i, part) in text.split("-----").enumerate() {
        if i % 2 == 1 {
            out.push_str(&format!("\n-----{}-----\n", part.trim()));
        } else {
            out.push_str(&part.split_whitespace().collect::<Vec<_>>().join("\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# As Kafka's documentation has it
bootstrap.servers=a:9093,b:9093
security.protocol=SASL_SSL
sasl.mechanism: SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
    username="alice" \
    password="a b=\\"c;\\"";
ssl.truststore.type=PEM
ssl.truststore.location=/etc/ca\u002epem
ssl.endpoint.identification.algorithm=
unknown.to.us = whatever
"#;

    #[test]
    fn a_clients_own_file() {
        let properties = Properties::parse(FILE).unwrap();
        assert_eq!(properties.get("bootstrap.servers"), Some("a:9093,b:9093"));
        let (tls, login) = properties.security().unwrap();
        let (tls, login) = (tls.unwrap(), login.unwrap());
        assert_eq!((login.mechanism, login.user.as_str()), (Mechanism::ScramSha512, "alice"));
        assert_eq!(login.secret.0, "a b=\"c;\"");
        assert!(tls.any_name);
        assert!(matches!(tls.authorities, Some(Pem::File(path)) if path == Path::new("/etc/ca.pem")));
        assert!(Properties::parse("").unwrap().security().unwrap().0.is_none());
    }

    #[test]
    fn what_cannot_be_followed_is_refused_with_the_way_out() {
        let refused = |text: &str| format!("{:#}", Properties::parse(text).and_then(|p| p.security()).unwrap_err());
        let names = |text: &str, part: &str| assert!(refused(text).contains(part), "{text}: {}", refused(text));
        names("security.protocol=SSL\nssl.truststore.location=/t.jks", "PEM");
        names("security.protocol=SSLX", "SASL_SSL");
        names("security.protocol=SASL_SSL", "GSSAPI");
        names("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN", "sasl.jaas.config is missing");
        let plain = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=";
        names(&format!("{plain}a.b.PlainLoginModule required username=\"u\";"), "\"password\"");
        names(&format!("{plain}a.b.PlainLoginModule required username=\"u"), "quote");
        names(&format!("{plain}a.b.PlainLoginModule required"), "semicolon");
        names(&format!("{plain}a.b.ScramLoginModule required;"), "PlainLoginModule");
        names("a=\\uZZZZ", "line 1");
    }

    #[test]
    fn pem_on_one_line() {
        let pem = pem_lines("-----BEGIN CERTIFICATE----- AAAA BBBB -----END CERTIFICATE-----");
        assert_eq!(pem.trim(), "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----");
    }
}
