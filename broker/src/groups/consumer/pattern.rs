//! Subscriptions by regular expression: RE2's syntax, matched against whole names.
//!
//! Expressions come from strangers. The engine takes time in proportion to expression and name; the size of both the
//! expression and its compiled form is bounded here.

use regex::{Regex, RegexBuilder};

/// Bytes of an expression.
pub const PATTERN_BYTES_MAX: usize = 1_000;
/// Bytes of its compiled form.
const COMPILED_BYTES_MAX: usize = 256 * 1024;
/// Bytes that the engine may keep while it matches.
const CACHE_BYTES_MAX: usize = 256 * 1024;
const NESTING_MAX: u32 = 50;

/// An expression that matches whole names only, or what is wrong with it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("the regular expression is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    // By itself first: what closes a group that it did not open must not get by.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(CACHE_BYTES_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large once it is compiled".to_owned(),
            // The engine draws a picture over several lines; its last one says what is wrong.
            other => {
                let text = other.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("the regular expression cannot be read: {why}")
            }
        })
}

#[cfg(test)]
mod tests {
    use super::compile;

    #[test]
    fn expressions_match_whole_names() {
        let matches = |pattern: &str, name: &str| compile(pattern).unwrap().is_match(name);
        assert!(matches("a|ab", "ab") && matches("^a.*", "abc") && matches("a.*$", "abc"));
        assert!(!matches("b", "abc") && !matches("a|b", "ab") && !matches("", "a"));
        for wrong in ["a)(b", "(", "a{1000000}", "(?P<x>", r"(a)\1", "[z-a]"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
        assert!(compile(&"(".repeat(500)).is_err() && compile(&"a".repeat(2_000)).is_err());
    }
}
