//! An ordered map whose copies share what they have in common: a copy costs a count, a change one of its parts.
//!
//! Invariants: no part is empty or longer than [`PART_MAX`]; neighbours that are small together are one.

use std::borrow::Borrow;
use std::sync::Arc;

/// Most entries of one part. Fifty thousand entries are a few hundred parts.
const PART_MAX: usize = 256;

type Part<K, V> = Arc<Vec<(K, V)>>;

#[derive(Debug)]
pub(crate) struct Sorted<K, V> {
    parts: Arc<Vec<Part<K, V>>>,
    len: usize,
}

impl<K, V> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), len: self.len }
    }
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { parts: Arc::default(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether two are one and the same, not merely equal.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    /// The part where a key is or would be, and its place there.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let ends_before = |part: &Part<K, V>| part.last().is_some_and(|(last, _)| last.borrow() < key);
        let part = self.parts.partition_point(ends_before);
        let at = self.parts.get(part).map_or(Err(0), |part| part.binary_search_by(|(k, _)| k.borrow().cmp(key)));
        (part, at)
    }

    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (part, at) = self.find(key);
        Some(&self.parts.get(part)?.get(at.ok()?)?.1)
    }

    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (part, at) = self.find(key);
        let at = at.ok()?;
        Some(&mut Arc::make_mut(Arc::make_mut(&mut self.parts).get_mut(part)?).get_mut(at)?.1)
    }

    pub fn insert(&mut self, key: K, value: V) {
        let (part, at) = self.find(&key);
        let parts = Arc::make_mut(&mut self.parts);
        // What is behind everything goes into the last part.
        let part = if part == parts.len() { part.saturating_sub(1) } else { part };
        let Some(shared) = parts.get_mut(part) else {
            parts.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return;
        };
        let entries = Arc::make_mut(shared);
        match at {
            Ok(at) => entries[at].1 = value,
            Err(_) => {
                let at = entries.partition_point(|(k, _)| *k < key);
                entries.insert(at, (key, value));
                self.len += 1;
            }
        }
        if entries.len() > PART_MAX {
            let rest = entries.split_off(PART_MAX / 2);
            parts.insert(part + 1, Arc::new(rest));
        }
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (part, at) = self.find(key);
        let at = at.ok()?;
        let parts = Arc::make_mut(&mut self.parts);
        let entries = Arc::make_mut(parts.get_mut(part)?);
        let (_, value) = entries.remove(at);
        self.len -= 1;
        let len = entries.len();
        if len == 0 {
            parts.remove(part);
        } else if parts.get(part + 1).is_some_and(|next| len + next.len() <= PART_MAX / 4) {
            let next = parts.remove(part + 1);
            Arc::make_mut(&mut parts[part]).extend(next.iter().cloned());
        }
        Some(value)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.parts.iter().flat_map(|part| part.iter()).map(|(key, value)| (key, value))
    }

    /// From a key on.
    pub fn from<'a, Q: Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: Borrow<Q>,
    {
        let (part, at) = self.find(key);
        let skipped = at.unwrap_or_else(|at| at);
        self.parts.iter().skip(part).flat_map(|part| part.iter()).skip(skipped).map(|(key, value)| (key, value))
    }

    pub fn last_key(&self) -> Option<&K> {
        self.iter().next_back().map(|(key, _)| key)
    }

    #[cfg(test)]
    fn parts(&self) -> Vec<*const Vec<(K, V)>> {
        self.parts.iter().map(Arc::as_ptr).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn it_is_an_ordered_map_and_a_change_copies_one_part() {
        let (mut map, mut model) = (Sorted::default(), BTreeMap::new());
        let mut seed = 7_u64;
        for turn in 0..20_000_u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = (seed >> 33) % 5_000;
            if turn < 12_000 || seed & (1 << 20) == 0 {
                map.insert(key, turn);
                model.insert(key, turn);
            } else {
                assert_eq!(map.remove(&key), model.remove(&key));
            }
        }
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        assert!(map.from(&2_500).eq(model.range(2_500..)));
        assert_eq!(map.last_key(), model.keys().next_back());
        assert!((0..5_000).all(|key| map.get(&key) == model.get(&key)));
        let before = map.clone();
        map.insert(2_500, 0);
        let (old, new): (HashSet<_>, HashSet<_>) =
            (before.parts().into_iter().collect(), map.parts().into_iter().collect());
        assert!(old.len() > 10 && old.difference(&new).count() == 1 && new.difference(&old).count() <= 2);
        for key in 0..5_000 {
            map.remove(&key);
        }
        assert!(map.is_empty() && map.parts().is_empty() && before.len() == model.len());
    }
}
