//! How far long work is, as one line that is drawn over itself on a terminal.
//!
//! Only where standard error is a terminal and nobody asked for quiet or JSON; what is short is never shown. Counting
//! costs two additions; the clock is looked at by who calls `show`, not by record.
//! Invariant: whatever else is written to the terminal first takes the line away (`wipe`), and so does the end.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use comfy_table::Table;
use tokio::time::Instant;

use super::report::{note, size};

/// What takes less is not worth a line.
const FIRST_AFTER: Duration = Duration::from_millis(400);
const EVERY: Duration = Duration::from_millis(250);
/// The rate is that of about so long.
const RATE_OVER_SECONDS: f64 = 3.0;
/// As a shell tells of SIGINT.
pub const INTERRUPTED: u8 = 130;

/// A line stands on the terminal, which the whole process has one of.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Takes the line away, so that something else can be written.
pub fn wipe() {
    if DRAWN.swap(false, Ordering::Relaxed) {
        // Who closed standard error does not want to know.
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    pub count: u64,
    pub bytes: Option<u64>,
    /// How much of the whole is done, and the whole, in whatever unit the whole is known in.
    pub share: Option<(u64, u64)>,
}

/// The text, by a clock that somebody else has.
struct Line {
    noun: &'static str,
    /// When, how much, and the rate then.
    last: Option<(f64, u64, f64)>,
}

impl Line {
    fn text(&mut self, seconds: f64, at: &At) -> String {
        let mut text = format!("{} {}", grouped(at.count), self.noun);
        let measure = at.bytes.unwrap_or(at.count);
        let rate = match self.last {
            Some((then, before, rate)) if seconds > then => {
                let now = measure.saturating_sub(before) as f64 / (seconds - then);
                rate + (now - rate) * (1.0 - (-(seconds - then) / RATE_OVER_SECONDS).exp())
            }
            Some((_, _, rate)) => rate,
            None => measure as f64 / seconds.max(0.001),
        };
        self.last = Some((seconds, measure, rate));
        match at.bytes {
            Some(bytes) => text.push_str(&format!(", {}, {}/s", size(bytes), size(rate as u64))),
            None if rate >= 1.0 => text.push_str(&format!(", {}/s", grouped(rate as u64))),
            None => {}
        }
        match at.share {
            Some((done, whole)) if whole > 0 => {
                let share = (done as f64 / whole as f64).min(1.0);
                text.push_str(&format!(", {} %", (share * 100.0) as u64));
                if share > 0.0 && share < 1.0 {
                    text.push_str(&format!(", {} left", duration(seconds * (1.0 - share) / share)));
                }
            }
            _ => text.push_str(&format!(", {}", duration(seconds))),
        }
        text
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

pub struct Progress {
    on: bool,
    started: Instant,
    next: Cell<Instant>,
    line: RefCell<Line>,
    at: Cell<At>,
}

impl Progress {
    /// `wanted`: neither quiet nor for a program.
    pub fn new(wanted: bool, noun: &'static str) -> Self {
        let started = Instant::now();
        Self {
            on: wanted && std::io::stderr().is_terminal(),
            started,
            next: Cell::new(started + FIRST_AFTER),
            line: RefCell::new(Line { noun, last: None }),
            at: Cell::default(),
        }
    }

    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// One more of those that `during` counts.
    pub fn add(&self, count: u64) {
        let at = self.at.get();
        let share = at.share.map(|(done, whole)| (done + count, whole));
        self.at.set(At { count: at.count + count, share, ..at });
    }

    /// Draws where it is time to.
    pub fn show(&self, at: &At) {
        let now = Instant::now();
        if !self.on || now < self.next.get() {
            return;
        }
        self.next.set(now + EVERY);
        let mut text = self.line.borrow_mut().text((now - self.started).as_secs_f64(), at);
        let mut table = Table::new();
        table.use_stderr();
        // A line that wraps could not be taken away.
        let width = table.width().filter(|width| *width > 0).map_or(80, usize::from).saturating_sub(1);
        text.truncate(text.char_indices().nth(width).map_or(text.len(), |(i, _)| i));
        // Who closed standard error does not want to know.
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K{text}");
        DRAWN.store(true, Ordering::Relaxed);
    }

    /// When it is to be drawn again; never where nobody sees it.
    pub async fn tick(&self) {
        match self.on {
            true => tokio::time::sleep_until(self.next.get()).await,
            false => std::future::pending().await,
        }
    }

    /// Does the work, of so many parts that it tells with `add`. Ctrl-C says how far it came, and ends the process.
    pub async fn during<T>(&self, whole: usize, done: &str, work: impl Future<Output = T>) -> T {
        self.at.set(At { share: Some((0, whole as u64)), ..At::default() });
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => {
                    wipe();
                    return result;
                }
                () = self.tick() => self.show(&self.at.get()),
                _ = tokio::signal::ctrl_c() => {
                    let (count, noun) = (self.at.get().count, self.line.borrow().noun);
                    note(&format!("millpond: interrupted; {} of {} {noun} {done}, more may be under way", grouped(count), grouped(whole as u64)));
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_count_bytes_rate_share_and_time_left() {
        let mut line = Line { noun: "records", last: None };
        let at = |count: u64, bytes: u64, whole: u64| At { count, bytes: Some(bytes), share: Some((bytes, whole)) };
        assert_eq!(line.text(0.5, &at(0, 0, 1 << 30)), "0 records, 0 B, 0 B/s, 0 %");
        let mut line = Line { noun: "records", last: None };
        assert_eq!(
            line.text(10.0, &at(1_234_567, 100 << 20, 1000 << 20)),
            "1,234,567 records, 100.0 MiB, 10.0 MiB/s, 10 %, 1 min 30 s left"
        );
        // It stalls: the rate falls, not at once.
        let text = line.text(12.0, &at(1_234_567, 100 << 20, 1000 << 20));
        assert!(text.contains("5.1 MiB/s"), "{text}");
        let text = line.text(60.0, &at(1_234_567, 100 << 20, 1000 << 20));
        assert!(text.contains(" 0 B/s"), "{text}");
        // The whole may turn out larger than it was said to be.
        assert!(line.text(61.0, &at(2_000_000, 2000 << 20, 1000 << 20)).ends_with(", 100 %"));
    }

    #[test]
    fn without_a_whole_the_time_so_far() {
        let mut line = Line { noun: "records", last: None };
        let at = At { count: 999, bytes: Some(2048), share: None };
        assert_eq!(line.text(2.0, &at), "999 records, 2.0 KiB, 1.0 KiB/s, 2 s");
        let mut line = Line { noun: "groups", last: None };
        let at = At { count: 3, bytes: None, share: Some((3, 1000)) };
        assert_eq!(line.text(12.0, &at), "3 groups, 0 %, 1 h 6 min left");
        let mut line = Line { noun: "partitions", last: None };
        assert_eq!(line.text(8000.0, &At::default()), "0 partitions, 2 h 13 min");
    }
}
