//! What was typed cannot be done, whatever the broker says: the process ends with the status that clap ends with.

use std::fmt;

/// As clap ends where it refuses arguments itself.
pub const STATUS: u8 = 2;

#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// What clap cannot see for itself: what depends on several arguments, or on what they mean.
pub fn usage(why: impl Into<String>) -> anyhow::Error {
    Usage(why.into()).into()
}

/// The status of a command that failed.
pub fn status(error: &anyhow::Error) -> u8 {
    if error.is::<Usage>() { STATUS } else { 1 }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn wrong_use_stays_wrong_use_with_a_context() {
        let wrong: anyhow::Result<()> = Err(usage("--before is no offset"));
        assert_eq!(wrong.as_ref().map_err(status), Err(2));
        assert_eq!(wrong.context("topic").map_err(|e| status(&e)), Err(2));
        assert_eq!(status(&anyhow::anyhow!("the broker said no")), 1);
    }
}
