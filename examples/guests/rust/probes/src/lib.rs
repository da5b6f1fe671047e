//! One function per kind of type and per kind of misbehaviour, for the tests of the host.

use std::sync::atomic::{AtomicI64, Ordering};

wit_bindgen::generate!({
    path: ["../../../../udfs/wit", "wit"],
    world: "millpond:probes/probes",
    generate_all,
});

struct Probes;

export!(Probes);

static CALLS: AtomicI64 = AtomicI64::new(0);

impl Guest for Probes {
    fn add_one(n: i64) -> i64 {
        n.wrapping_add(1)
    }

    fn halve(x: f64) -> f64 {
        x / 2.0
    }

    fn echo(s: String) -> String {
        s
    }

    fn shout(s: String) -> String {
        s.to_uppercase()
    }

    fn join_two(a: String, b: String) -> String {
        a + &b
    }

    fn is_even(n: i64) -> bool {
        n % 2 == 0
    }

    fn tiny(n: u8) -> u8 {
        n
    }

    fn huge(n: i64) -> u64 {
        n as u64
    }

    fn first_char(s: String) -> Option<char> {
        s.chars().next()
    }

    fn or_zero(n: Option<i32>) -> i32 {
        n.unwrap_or(0)
    }

    fn none_if_negative(n: i32) -> Option<i32> {
        (n >= 0).then_some(n)
    }

    fn midpoint(a: Point, b: Point) -> Point {
        Point { x: (a.x + b.x) / 2.0, y: (a.y + b.y) / 2.0 }
    }

    fn describe_visit(v: Visit) -> String {
        format!("{} {} {}", v.at, v.path.as_deref().unwrap_or("-"), v.tags.join("+"))
    }

    fn make_visit(path: Option<String>, tags: Vec<String>) -> Visit {
        Visit { at: 1_500, path, tags }
    }

    fn total(numbers: Vec<i64>) -> i64 {
        numbers.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    fn times(s: String, n: u16) -> Vec<String> {
        vec![s; n as usize]
    }

    fn mirror(mut data: Vec<u8>) -> Vec<u8> {
        data.reverse();
        data
    }

    fn count_words(text: String) -> Vec<(String, i32)> {
        let mut counts: Vec<(String, i32)> = Vec::new();
        for word in text.split_whitespace() {
            match counts.iter_mut().find(|(known, _)| known == word) {
                Some((_, count)) => *count += 1,
                None => counts.push((word.to_string(), 1)),
            }
        }
        counts
    }

    fn largest(counts: Vec<(String, i32)>) -> Option<String> {
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(word, _)| word)
    }

    fn level_of(n: i32) -> Level {
        match n {
            ..10 => Level::Low,
            10..100 => Level::Middle,
            _ => Level::VeryHigh,
        }
    }

    fn rank(l: Level) -> i32 {
        match l {
            Level::Low => 1,
            Level::Middle => 2,
            Level::VeryHigh => 3,
        }
    }

    fn swap(pair: (i32, String)) -> (String, i32) {
        (pair.1, pair.0)
    }

    fn parse_int(s: String) -> Result<i64, String> {
        s.parse().map_err(|_| format!("no number: \"{s}\""))
    }

    fn next_day(d: Date) -> Date {
        d + 1
    }

    fn plus_minute(t: Timestamp) -> Timestamp {
        t + 60_000
    }

    fn noon() -> Time {
        12 * 3_600_000
    }

    fn digits(d: Decimal) -> i32 {
        d.bytes().filter(u8::is_ascii_digit).count() as i32
    }

    fn unlucky(n: i64) -> i64 {
        assert!(n != 13, "unlucky");
        n
    }

    fn spin(n: i64) -> i64 {
        let mut turns = 0;
        while std::hint::black_box(n) < 0 {
            turns += 1;
        }
        n + turns
    }

    fn wild(n: i64) -> String {
        if n == 13 {
            // What a guest written in an unsafe language can do; the host must not believe it.
            return unsafe { String::from_raw_parts(0xffff_fff0 as *mut u8, 64, 64) };
        }
        n.to_string()
    }

    fn hoard(mib: u32) -> u32 {
        let block = vec![1u8; (mib as usize) << 20];
        std::hint::black_box(&block).len() as u32 >> 20
    }

    fn calls() -> i64 {
        CALLS.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn area(s: Shape) -> f64 {
        match s {
            Shape::Dot => 0.0,
            Shape::Circle(r) => r * r * std::f64::consts::PI,
        }
    }

    fn may(r: Rights) -> bool {
        r.contains(Rights::READ)
    }

    fn forget(_: i64) {}

    fn triple(d: Decimal) -> Decimal {
        format!("{d}{d}{d}")
    }
}
