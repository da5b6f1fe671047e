//! Which column a member of a JSON object belongs to, guessed from the object before.
//!
//! A name matches a column exactly, or else when its upper-case form does. Records of a topic mostly have the same
//! members in the same order, so the members of the last object are remembered in their order, and a name is first
//! compared with the one that stood in its place. A wrong guess costs a hash look-up, never a wrong answer.

use std::collections::HashMap;

use super::scan::{Cursor, Scan, unescape};

/// Most names that are remembered; the data choose them, so there is a limit.
const NAMES_MAX: usize = 1024;
/// Longest name that is remembered.
const NAME_LEN_MAX: usize = 256;
/// How many places further on a name is looked for, as members may be missing.
const AHEAD_MAX: usize = 4;

/// What to do with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Skip,
    /// The column, and whether the name is exactly the column's.
    Column(u32, bool),
}

#[derive(Debug)]
struct Name {
    /// The name between its quotes, as in the bytes.
    token: Box<[u8]>,
    words: [u64; 2],
    masks: [u64; 2],
    target: Target,
}

impl Name {
    fn new(token: &[u8], target: Target) -> Self {
        let mut bytes = [0u8; 16];
        let mut mask = [0u8; 16];
        for ((to, mask), from) in bytes.iter_mut().zip(&mut mask).zip(token) {
            (*to, *mask) = (*from, 0xff);
        }
        Self { token: token.into(), words: words(&bytes), masks: words(&mask), target }
    }

    #[inline(always)]
    fn starts(&self, rest: &[u8]) -> bool {
        match rest.first_chunk::<16>() {
            Some(chunk) => {
                let [a, b] = words(chunk);
                (a & self.masks[0] == self.words[0]) & (b & self.masks[1] == self.words[1])
                    && (self.token.len() <= 16 || rest.starts_with(&self.token))
            }
            None => rest.starts_with(&self.token),
        }
    }
}

#[inline(always)]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let word = u128::from_le_bytes(*bytes);
    [word as u64, (word >> 64) as u64]
}

#[derive(Debug)]
pub struct Members {
    columns: Vec<Box<str>>,
    /// Whether a column's value came under its exact name; valid while the object is read.
    pub exact: Vec<bool>,
    names: Vec<Name>,
    by_token: HashMap<Box<[u8]>, u32>,
    /// The names of the last object, in order, by index.
    order: Vec<u32>,
}

impl Members {
    pub fn new<'a>(columns: impl Iterator<Item = &'a str>) -> Self {
        let columns: Vec<Box<str>> = columns.map(Into::into).collect();
        let exact = vec![false; columns.len()];
        Self { columns, exact, names: Vec::new(), by_token: HashMap::new(), order: Vec::new() }
    }

    /// Whether no more names can be remembered, so that starting anew is better.
    pub fn is_full(&self) -> bool {
        self.names.len() >= NAMES_MAX
    }

    pub fn column_name(&self, index: usize) -> &str {
        self.columns.get(index).map_or("", |name| name)
    }

    /// Takes a member's name; `place` counts the members of the object and is moved on.
    #[inline(always)]
    pub fn take(&mut self, cursor: &mut Cursor<'_>, place: &mut usize) -> Scan<Target> {
        if let Some(name) = self.order.get(*place).and_then(|&i| self.names.get(i as usize))
            && name.starts(cursor.bytes.get(cursor.pos..).unwrap_or_default())
        {
            *place += 1;
            cursor.pos += name.token.len();
            return Ok(name.target);
        }
        self.take_slow(cursor, place)
    }

    #[inline(never)]
    fn take_slow(&mut self, cursor: &mut Cursor<'_>, place: &mut usize) -> Scan<Target> {
        let rest = cursor.bytes.get(cursor.pos..).unwrap_or_default();
        let ahead = self.order.iter().enumerate().skip(*place + 1).take(AHEAD_MAX);
        for (at, &index) in ahead {
            if let Some(name) = self.names.get(index as usize)
                && name.starts(rest)
            {
                *place = at + 1;
                cursor.pos += name.token.len();
                return Ok(name.target);
            }
        }
        if cursor.peek() != Some(b'"') {
            return cursor.unexpected("a member name");
        }
        let start = cursor.pos;
        let (raw, escaped) = cursor.raw_string()?;
        let token = cursor.bytes.get(start..cursor.pos).unwrap_or_default();
        let index = match self.by_token.get(token) {
            Some(&index) => index,
            None => {
                let target = self.target(raw, escaped);
                if token.len() > NAME_LEN_MAX || self.names.len() >= NAMES_MAX {
                    return Ok(target);
                }
                let index = self.names.len() as u32;
                self.names.push(Name::new(token, target));
                self.by_token.insert(token.into(), index);
                index
            }
        };
        if *place < self.order.len() {
            self.order[*place] = index;
        } else if *place == self.order.len() && *place < NAMES_MAX {
            self.order.push(index);
        }
        *place += 1;
        Ok(self.names[index as usize].target)
    }

    fn target(&self, raw: &[u8], escaped: bool) -> Target {
        let mut plain = Vec::new();
        let name = if escaped {
            unescape(&mut plain, raw);
            &plain
        } else {
            raw
        };
        let find = |name: &[u8]| self.columns.iter().position(|c| c.as_bytes() == name);
        if let Some(index) = find(name) {
            return Target::Column(index as u32, true);
        }
        let upper = String::from_utf8_lossy(name).to_uppercase();
        find(upper.as_bytes()).map_or(Target::Skip, |index| Target::Column(index as u32, false))
    }
}
