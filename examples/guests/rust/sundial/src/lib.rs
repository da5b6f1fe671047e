//! Functions of nothing but the clock and chance, for the tests of what guests see.

wit_bindgen::generate!({ path: "wit", world: "sundial", generate_all });

use wasi::clocks::wall_clock;
use wasi::random::random;

struct Sundial;

export!(Sundial);

impl Guest for Sundial {
    fn shadow() -> i64 {
        let now = wall_clock::now();
        now.seconds as i64 * 1_000 + i64::from(now.nanoseconds / 1_000_000)
    }

    fn lot() -> i64 {
        random::get_random_u64() as i64
    }

    fn seen(text: String) -> String {
        format!("{text} {} {:x} {:x}", Self::shadow(), Self::lot(), Self::lot())
    }
}
