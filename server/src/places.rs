//! Places of which there is a limited number, in all and for one address: connections, requests under way.
//!
//! Invariant: a place is counted for as long as its [`Place`] lives, however its use ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use millpond_types::network;
use parking_lot::Mutex;

/// How many there are, and who has them.
pub(crate) struct Places {
    max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One of them, until it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    All,
    Address,
}

impl Places {
    pub fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_address_max, taken: Mutex::default() })
    }

    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let address = network(address);
        let mut taken = self.taken.lock();
        if taken.all >= self.max {
            return Err(Full::All);
        }
        let of = taken.of.entry(address).or_default();
        if *of >= self.per_address_max {
            // Whoever has none is not kept.
            if *of == 0 {
                taken.of.remove(&address);
            }
            return Err(Full::Address);
        }
        *of += 1;
        taken.all += 1;
        Ok(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(of) = taken.of.get_mut(&self.address) {
            *of = of.saturating_sub(1);
            if *of == 0 {
                taken.of.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_per_network() {
        let places = Places::new(3, 2);
        let [a, a2, b]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "127.0.0.1"].map(|a| a.parse().unwrap());
        let first = places.take(a).unwrap();
        let _second = places.take(a2).unwrap();
        assert!(matches!(places.take(a), Err(Full::Address)));
        let _third = places.take(b).unwrap();
        assert!(matches!(places.take(b), Err(Full::All)));
        drop(first);
        assert!(places.take("::ffff:127.0.0.1".parse().unwrap()).is_ok());
        assert_eq!(places.taken.lock().of.len(), 2);
    }
}
