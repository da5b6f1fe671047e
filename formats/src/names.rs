//! Columns and the fields of a schema, found by their names: exactly, or else in any case.
//!
//! Invariant: the work is that of reading all names once, however many there are.

use std::collections::HashMap;

use millpond_types::Field;

/// A target and what it is called and holds.
pub(crate) type Wanted<'a> = (usize, &'a Field);

/// For what is wanted the place among the names that are written, each given once; and what has none.
pub(crate) fn places<'w, 'f>(
    written: impl Iterator<Item = &'w str>,
    wanted: &[Wanted<'f>],
) -> (Vec<(usize, Wanted<'f>)>, Vec<Wanted<'f>>) {
    let written: Vec<&str> = written.collect();
    let mut found = Vec::with_capacity(wanted.len());
    if wanted.is_empty() {
        return (found, Vec::new());
    }
    let mut taken = vec![false; written.len()];
    let mut exact: HashMap<&str, usize> = HashMap::with_capacity(written.len());
    for (i, name) in written.iter().enumerate() {
        exact.entry(name).or_insert(i);
    }
    let mut open = Vec::new();
    for &(target, field) in wanted {
        match exact.get(field.name.as_str()).filter(|at| !taken[**at]) {
            Some(&at) => {
                taken[at] = true;
                found.push((at, (target, field)));
            }
            None => open.push((target, field)),
        }
    }
    if open.is_empty() {
        return (found, open);
    }
    // The first that is not taken comes last, to be popped.
    let mut any: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, name) in written.iter().enumerate().rev().filter(|(i, _)| !taken[*i]) {
        any.entry(name.to_uppercase()).or_default().push(i);
    }
    open.retain(|(target, field)| match any.get_mut(&field.name.to_uppercase()).and_then(Vec::pop) {
        Some(at) => {
            found.push((at, (*target, field)));
            false
        }
        None => true,
    });
    (found, open)
}
