//! The principal of a client's certificate: its subject as Kafka prints it, and the rules that shorten it.
//!
//! A subject is written in the form of RFC 2253 as Java does: the last part first, short names for the attributes that
//! the RFC lists, dotted numbers and hexadecimal for all others. Rules are in the syntax of Kafka's
//! `ssl.principal.mapping.rules`: `RULE:pattern/replacement/`, with `L` or `U` after it for the case, and `DEFAULT`,
//! separated by commas; the first that fits the whole name counts.

use std::fmt::Write;
use std::str::FromStr;

use millpond_types::Principal;
use regex::Regex;
use thiserror::Error;
use x509_parser::asn1_rs::Tag;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The attributes that have a short name.
const SHORT_NAMES: [(&str, &str); 9] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];
/// A compiled pattern may take so much.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Why a certificate gives no principal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate has no subject")]
    Empty,
    #[error("no rule of \"principal_mapping\" fits the subject \"{0}\"")]
    NoRule(String),
}

/// The subject of a certificate in DER.
pub fn subject(certificate: &[u8]) -> Result<String, NameError> {
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|_| NameError::Unreadable)?;
    let name = rfc2253(certificate.subject());
    if name.is_empty() { Err(NameError::Empty) } else { Ok(name) }
}

fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter() {
        let attributes: Vec<String> = part.iter().map(attribute).collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let id = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(number, _)| *number == id).map(|(_, short)| *short);
    match (short, text_of(attribute)) {
        (Some(short), Some(text)) => format!("{short}={}", escaped(&text)),
        (short, _) => format!("{}=#{}", short.unwrap_or(&id), hexadecimal(attribute)),
    }
}

fn text_of(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    let bytes = value.as_bytes();
    match value.tag() {
        Tag::PrintableString | Tag::Utf8String | Tag::Ia5String | Tag::GeneralString => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        Tag::TeletexString => Some(bytes.iter().map(|b| char::from(*b)).collect()),
        Tag::BmpString => {
            let units = bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
            String::from_utf16(&units.collect::<Vec<u16>>()).ok()
        }
        _ => None,
    }
}

/// The value with its tag and length.
fn hexadecimal(attribute: &AttributeTypeAndValue<'_>) -> String {
    let value = attribute.attr_value();
    let bytes = value.as_bytes();
    // Strings are primitive and of the universal class, and their tags fit one byte.
    let mut der = vec![value.tag().0 as u8];
    match bytes.len() {
        short @ 0..128 => der.push(short as u8),
        long => {
            let number: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            der.push(0x80 | number.len() as u8);
            der.extend_from_slice(&number);
        }
    }
    der.extend_from_slice(bytes);
    der.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn escaped(text: &str) -> String {
    let outer = |c: char| c == ' ' || c == '\r';
    let first = text.find(|c| !outer(c)).unwrap_or(text.len());
    let last = text.rfind(|c| !outer(c)).unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    for (i, c) in text.char_indices() {
        match c {
            '\0' => {
                out.push_str("\\00");
                continue;
            }
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => out.push('\\'),
            _ if i < first || i > last => out.push('\\'),
            _ => {}
        }
        out.push(c);
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Lower,
    Upper,
}

#[derive(Debug, Clone)]
enum Rule {
    Default,
    Match { pattern: Regex, replacement: String, case: Case },
}

/// Rules that turn a subject into a name.
#[derive(Debug, Clone)]
pub struct PrincipalMapping(Vec<Rule>);

impl Default for PrincipalMapping {
    fn default() -> Self {
        Self(vec![Rule::Default])
    }
}

/// What is wrong with a text of rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "principal mapping \"{text}\": {problem}; it is DEFAULT, or RULE:pattern/replacement/ with L or U behind for the case, several with commas between"
)]
pub struct MappingError {
    text: String,
    problem: String,
}

impl FromStr for PrincipalMapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let wrong = |problem: String| MappingError { text: text.to_owned(), problem };
        let mut rules = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("DEFAULT") {
                rules.push(Rule::Default);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("RULE:") {
                let unfinished = || wrong("a rule has no end".into());
                let (pattern, after) = until_slash(after).ok_or_else(unfinished)?;
                let (replacement, after) = until_slash(after).ok_or_else(unfinished)?;
                let (case, after) = match (after.strip_prefix('L'), after.strip_prefix('U')) {
                    (Some(after), _) => (Case::Lower, after),
                    (_, Some(after)) => (Case::Upper, after),
                    _ => (Case::Kept, after),
                };
                let pattern = regex::RegexBuilder::new(&format!("\\A(?:{pattern})\\z"))
                    .size_limit(PATTERN_BYTES_MAX)
                    .build()
                    .map_err(|e| wrong(format!("the pattern \"{pattern}\" is not one: {e}")))?;
                rules.push(Rule::Match { pattern, replacement: replacement.to_owned(), case });
                rest = after;
            } else {
                return Err(wrong(format!("no rule begins at \"{rest}\"")));
            }
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err(wrong(format!("\"{rest}\" is no comma"))),
            };
        }
        if rules.is_empty() {
            return Err(wrong("it is empty".into()));
        }
        Ok(Self(rules))
    }
}

/// Splits at the next slash without a backslash before it.
fn until_slash(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '/' => return Some((text.get(..i)?, text.get(i + 1..)?)),
            _ => {}
        }
    }
    None
}

impl PrincipalMapping {
    pub fn principal(&self, subject: &str) -> Result<Principal, NameError> {
        for rule in &self.0 {
            let name = match rule {
                Rule::Default => subject.to_owned(),
                Rule::Match { pattern, replacement, case } => {
                    let Some(found) = pattern.captures(subject) else { continue };
                    let name = replaced(replacement, &found);
                    match case {
                        Case::Kept => name,
                        Case::Lower => name.to_lowercase(),
                        Case::Upper => name.to_uppercase(),
                    }
                }
            };
            if name.is_empty() {
                return Err(NameError::Empty);
            }
            return Ok(Principal::user(&name));
        }
        Err(NameError::NoRule(subject.to_owned()))
    }
}

/// `$1` stands for a group of the pattern where it has so many, `${name}` for a named one, a backslash for what follows
/// it.
fn replaced(replacement: &str, found: &regex::Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = replacement.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => out.extend(rest.next()),
            '$' if rest.peek() == Some(&'{') => {
                rest.next();
                let name: String = rest.by_ref().take_while(|c| *c != '}').collect();
                out.push_str(found.name(&name).map_or("", |group| group.as_str()));
            }
            '$' => {
                let mut group = None;
                while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
                    let longer = group.unwrap_or(0usize).saturating_mul(10).saturating_add(digit as usize);
                    if longer >= found.len() {
                        break;
                    }
                    group = Some(longer);
                    rest.next();
                }
                match group {
                    Some(group) => out.push_str(found.get(group).map_or("", |group| group.as_str())),
                    None => out.push('$'),
                }
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(rules: &str, subject: &str) -> Result<String, NameError> {
        rules.parse::<PrincipalMapping>().unwrap().principal(subject).map(|p| p.name().to_owned())
    }

    #[test]
    fn rules_in_their_order() {
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/, RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L,\
                     RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U,DEFAULT";
        assert_eq!(mapped(rules, "CN=Duke,OU=ServiceUsers,O=Org,C=US").unwrap(), "Duke");
        assert_eq!(mapped(rules, "CN=Duke,OU=SME,O=m,L=Fulton,ST=MD,C=US").unwrap(), "duke@sme");
        assert_eq!(mapped(rules, "cn=duke,ou=JavaSoft").unwrap(), "DUKE");
        assert_eq!(mapped(rules, "OU=JavaSoft,O=Sun").unwrap(), "OU=JavaSoft,O=Sun");
        assert!(matches!(mapped("RULE:^CN=x$/x/", "CN=xy"), Err(NameError::NoRule(_))), "the whole name must fit");
        assert_eq!(mapped(r"RULE:CN=(a\/b)/$1\$2$9\//", "CN=a/b").unwrap(), "a/b$2$9/");
        assert_eq!(mapped("RULE:CN=(?P<n>.*)/${n}-x/", "CN=a").unwrap(), "a-x");
        assert_eq!(mapped("RULE:CN=(.*)/$1/", "CN="), Err(NameError::Empty));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for bad in ["", "RULE:a/b", "RULE:(/b/", "DEFAULT RULE:a/b/", "rule:a/b/", "RULE:a/b/X"] {
            let error = bad.parse::<PrincipalMapping>().unwrap_err().to_string();
            assert!(error.contains("RULE:pattern/replacement/"), "{error}");
        }
    }

    #[test]
    fn a_subject_as_java_prints_it() {
        use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
        let mut name = DistinguishedName::new();
        name.push(DnType::CountryName, "CH");
        name.push(DnType::OrganizationName, "A, \"B\" + C");
        name.push(DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 25]), "example");
        name.push(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), DnValue::Utf8String("a@b".into()));
        name.push(DnType::CommonName, " ä#b ");
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = name;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let expected = r#"CN=\ ä\#b\ ,1.2.840.113549.1.9.1=#0c03614062,DC=example,O=A\, \"B\" \+ C,C=CH"#;
        assert_eq!(subject(certificate.der()).unwrap(), expected);
        assert_eq!(subject(b"nothing"), Err(NameError::Unreadable));
    }
}
