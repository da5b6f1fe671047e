//! What is on its way to storage, in the order in which it was queued there, and how that becomes true in memory: in the
//! same order, whoever of those that wait hears first; and not at all where it was not written.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Order<T> {
    /// Number of the first that is not over.
    first: u64,
    queued: VecDeque<Queued<T>>,
}

#[derive(Debug)]
struct Queued<T> {
    /// `None`: it was not written, and is over.
    what: Option<T>,
    written: bool,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { first: 0, queued: VecDeque::new() }
    }
}

impl<T> Order<T> {
    /// Takes in what was queued just now; gives its number.
    pub fn push(&mut self, what: T) -> u64 {
        self.queued.push_back(Queued { what: Some(what), written: false });
        self.first + self.queued.len() as u64 - 1
    }

    /// How one came out. Gives it where it was not written: that is over at once, while all that is later is still open.
    pub fn settle(&mut self, number: u64, written: bool) -> Option<T> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let queued = self.queued.get_mut(at)?;
        queued.written = written;
        if written { None } else { queued.what.take() }
    }

    /// The next that was written, after all that was queued before it, with its number; it is over then.
    pub fn next(&mut self) -> Option<(u64, T)> {
        while self.queued.front().is_some_and(|queued| queued.written || queued.what.is_none()) {
            self.first += 1;
            if let Some(what) = self.queued.pop_front().and_then(|queued| queued.what) {
                return Some((self.first - 1, what));
            }
        }
        None
    }

    /// What was queued later than one.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &T> {
        let passed = usize::try_from((number + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.queued.iter().skip(passed).filter_map(|queued| queued.what.as_ref())
    }

    /// What is not over, in order.
    pub fn open(&self) -> impl Iterator<Item = &T> {
        self.queued.iter().filter_map(|queued| queued.what.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_becomes_true_in_the_order_of_queueing() {
        fn ready(order: &mut Order<char>) -> String {
            std::iter::from_fn(|| order.next()).map(|(number, what)| format!("{number}{what} ")).collect()
        }
        let mut order = Order::default();
        for what in "abcde".chars() {
            order.push(what);
        }
        assert_eq!((order.settle(1, true), ready(&mut order).as_str()), (None, ""));
        assert_eq!((order.settle(3, false), ready(&mut order).as_str()), (Some('d'), ""));
        assert_eq!(order.open().collect::<String>(), "abce");
        assert_eq!((order.after(1).collect::<String>(), order.after(4).count()), ("ce".to_owned(), 0));
        assert_eq!((order.settle(0, true), ready(&mut order).as_str()), (None, "0a 1b "));
        assert_eq!((order.settle(0, false), order.settle(4, true)), (None, None));
        assert_eq!((order.settle(2, false), order.after(2).collect::<String>()), (Some('c'), "e".to_owned()));
        assert_eq!((ready(&mut order).as_str(), order.push('f'), order.settle(5, true)), ("4e ", 5, None));
        assert_eq!((order.after(4).count(), ready(&mut order).as_str(), order.open().count()), (1, "5f ", 0));
    }
}
