//! Going through what the database holds of all batches, past what cannot be read of it.
//!
//! What is damaged is a block of a table, or all of one: keys of which only those around them are known. It is passed by
//! looking for the least key from which the database can be read on.

use rocksdb::{DB, ErrorKind, ReadOptions};

use super::Result;
use super::shared::family;
use crate::keys::{Kind, cf};

/// Bytes of a key after its kind.
const NUMBER_LEN: usize = 16;

/// How far it came.
#[derive(Debug, Default)]
pub struct Walked {
    pub is_end: bool,
    /// Places that could not be read.
    pub damaged: usize,
    /// What is said of the first of them.
    pub why: Option<String>,
}

/// Shows batches from a key on, until somebody has enough and says false; that batch is then the one to go on with.
pub fn walk(
    db: &DB,
    options: impl Fn() -> ReadOptions,
    from: &mut Vec<u8>,
    mut show: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<Walked> {
    let log = family(db, cf::LOG)?;
    let begin = |from: &[u8]| {
        let mut read = options();
        read.fill_cache(false);
        let mut at = db.raw_iterator_cf_opt(log, read);
        at.seek(from);
        at
    };
    let mut walked = Walked::default();
    let mut at = begin(from);
    loop {
        while let (Some(key), Some(value)) = (at.key(), at.value()) {
            from.clear();
            from.extend_from_slice(key);
            if !show(key, value) {
                return Ok(walked);
            }
            at.next();
        }
        let next = match at.status() {
            Ok(()) => None,
            Err(e) if e.kind() == ErrorKind::Corruption => {
                walked.damaged += 1;
                walked.why.get_or_insert_with(|| e.to_string());
                behind(from, |number| match begin(&key_of(number)).status() {
                    Ok(()) => Ok(true),
                    Err(e) if e.kind() == ErrorKind::Corruption => Ok(false),
                    Err(e) => Err(e.into()),
                })?
            }
            Err(e) => return Err(e.into()),
        };
        let Some(next) = next else {
            *from = key_of(u128::MAX);
            walked.is_end = true;
            return Ok(walked);
        };
        *from = key_of(next);
        at = begin(from);
    }
}

/// The least number from which can be read behind what cannot, which comes after a key; `None` where nothing can.
fn behind(after: &[u8], can_read: impl Fn(u128) -> Result<bool>) -> Result<Option<u128>> {
    let mut bad = number_of(after);
    let mut good = None;
    for step in 0..u128::BITS {
        let Some(next) = number_of(after).checked_add(1 << step) else { break };
        if can_read(next)? {
            good = Some(next);
            break;
        }
        bad = next;
    }
    let Some(mut good) = good else { return Ok(None) };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if can_read(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(Some(good))
}

fn key_of(number: u128) -> Vec<u8> {
    [&[Kind::Batch as u8], &number.to_be_bytes()[..]].concat()
}

fn number_of(key: &[u8]) -> u128 {
    let number = key.get(1..).and_then(|rest| rest.first_chunk::<NUMBER_LEN>());
    number.map_or(0, |number| u128::from_be_bytes(*number))
}
