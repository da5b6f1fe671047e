//! URL functions. A text that is no URI is a row error; a part that is missing is NULL.

use super::typed::{Builtin, Int, Str, scalar};

const CATEGORY: &str = "URL";

pub fn register(b: &mut Builtin) {
    b.add(
        "URL_EXTRACT_PROTOCOL",
        CATEGORY,
        "the scheme",
        vec![scalar!((url: Str) -> Str => Uri::parse(url).map(|u| u.scheme))],
    );
    b.add(
        "URL_EXTRACT_HOST",
        CATEGORY,
        "the host",
        vec![scalar!((url: Str) -> Str => Uri::parse(url).map(|u| u.host))],
    );
    b.add(
        "URL_EXTRACT_PORT",
        CATEGORY,
        "the port",
        vec![scalar!((url: Str) -> Int => Uri::parse(url).map(|u| u.port))],
    );
    b.add(
        "URL_EXTRACT_PATH",
        CATEGORY,
        "the path",
        vec![scalar!((url: Str) -> Str => Uri::parse(url).map(|u| u.path.map(|p| unescape(p, false))))],
    );
    b.add(
        "URL_EXTRACT_QUERY",
        CATEGORY,
        "the query, all of it",
        vec![scalar!((url: Str) -> Str => Uri::parse(url).map(|u| u.query.map(|q| unescape(q, false))))],
    );
    b.add(
        "URL_EXTRACT_FRAGMENT",
        CATEGORY,
        "the fragment",
        vec![scalar!((url: Str) -> Str => Uri::parse(url).map(|u| u.fragment.map(|f| unescape(f, false))))],
    );
    b.add(
        "URL_EXTRACT_PARAMETER",
        CATEGORY,
        "a parameter of the query",
        vec![scalar!((url: Str, parameter: Str) -> Str => Uri::parse(url).map(|u| u.parameter(parameter)))],
    );
    b.add(
        "URL_ENCODE_PARAM",
        CATEGORY,
        "a text as it stands in a form",
        vec![scalar!((text: Str) -> Str => encode(text))],
    );
    b.add(
        "URL_DECODE_PARAM",
        CATEGORY,
        "a text as it stood in a form",
        vec![scalar!((text: Str) -> Str => decode(text))],
    );
}

/// Parts of a URI (RFC 2396), still escaped.
struct Uri<'a> {
    scheme: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<i32>,
    path: Option<&'a str>,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Uri<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let illegal =
            |c: char| c <= ' ' || matches!(c, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '\u{7f}');
        if let Some(c) = text.chars().find(|c| illegal(*c)) {
            return Err(format!(
                "\"{}\" is not a URI: it has the character {c:?}",
                text.chars().take(100).collect::<String>()
            ));
        }
        escapes(text)?;
        let (rest, fragment) = match text.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (text, None),
        };
        let scheme = rest.split_once(':').filter(|(s, _)| {
            s.starts_with(|c: char| c.is_ascii_alphabetic())
                && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        });
        let (scheme, rest) = scheme.map_or((None, rest), |(s, rest)| (Some(s), rest));
        if scheme.is_some() && !rest.starts_with('/') {
            // Opaque, such as mailto:a@b: no host, path or query.
            return Ok(Self { scheme, host: None, port: None, path: None, query: None, fragment });
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            None => (None, rest),
        };
        let (host, port) = authority.map_or((None, None), host_and_port);
        Ok(Self { scheme, host, port, path: Some(path), query, fragment })
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let query = unescape(self.query?, false);
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| value.to_owned())
        })
    }
}

fn host_and_port(authority: &str) -> (Option<&str>, Option<i32>) {
    let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !server.ends_with(']') => (host, port.parse().ok()),
        _ => (server, None),
    };
    if is_host(host) { (Some(host), port) } else { (None, None) }
}

/// A name of letters, digits and inner hyphens whose last part does not begin with a digit, or an address. Any other
/// authority has neither host nor port.
fn is_host(host: &str) -> bool {
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.split('.').all(is_label)
        && name.rsplit('.').next().is_some_and(|l| !l.starts_with(|c: char| c.is_ascii_digit()))
}

/// Percent escapes resolved; in a form also `+`.
fn unescape(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) if form => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn decode(text: &str) -> Result<String, String> {
    escapes(text)?;
    Ok(unescape(text, true))
}

/// Whether every percent sign begins an escape.
fn escapes(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let digits = rest.get(at + 1..at + 3).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.ok_or_else(|| "a % without two hexadecimal digits".to_owned())?;
        rest = &rest[at + 3..];
    }
    Ok(())
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let uri = Uri::parse("https://test@confluent.io:8080/nested/path?query&jobs=a%20b#frag").unwrap();
        assert_eq!(
            (uri.scheme, uri.host, uri.port, uri.path),
            (Some("https"), Some("confluent.io"), Some(8080), Some("/nested/path"))
        );
        assert_eq!((uri.query, uri.fragment), (Some("query&jobs=a%20b"), Some("frag")));
        assert_eq!(uri.parameter("jobs").as_deref(), Some("a b"));
        assert_eq!(Uri::parse("www.confluent.io").unwrap().scheme, None);
        assert!(Uri::parse("http://a b").is_err());
        assert!(Uri::parse("http://a/%zz").is_err());
        assert_eq!(Uri::parse("mailto:a@b.c").unwrap().path, None);
        let parts = |text| Uri::parse(text).map(|u| (u.host.map(str::to_owned), u.port)).unwrap();
        assert_eq!(parts("http://foo_bar.com:80/x"), (None, None));
        assert_eq!(parts("http://10.0.0.1:80/x"), (Some("10.0.0.1".to_owned()), Some(80)));
        assert_eq!(encode("?foo $bar"), "%3Ffoo+%24bar");
        assert_eq!(decode("%3Ffoo+%24bar").as_deref(), Ok("?foo $bar"));
        assert!(decode("%zz").is_err());
    }
}
