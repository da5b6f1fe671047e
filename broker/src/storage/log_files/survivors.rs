//! Files of survivors: of batches that stay where most of what lay beside them was deleted or compacted away. What has
//! outlived others once will most likely go on to do so, and among batches that come and go it would have to be moved again and
//! again. So survivors lie apart from what is appended, by how often they were moved: data settles, and files of what
//! lives short die as a whole.
//!
//! ```text
//! head     magic [8] | generation u32: 1 of batches that lay where they were appended, then one more each time
//! magic    begins with 0xff, where a batch's base offset never does; then batches as in each log file, and no record
//! ```
//!
//! Invariants: whoever puts some holds `Shared::compacting`, one at a time; all is on disk before a key names it, whatever
//! the durability, so that nothing of it is looked for after an end without warning, and what cannot be forced is given up.
//! A file is not taken for dead as long as something is under way to it.
//!
//! Not here: which batches are moved, and when (`log_space`, `compaction`).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{LogFiles, Placing};
use crate::keys::BatchPlace;
use crate::storage::Result;

const MAGIC: [u8; 8] = *b"\xffmoved01";
pub const HEAD: usize = 12;
/// Batches that were moved more often lie together; each generation may have a file that is not full.
pub const GENERATIONS: u32 = 3;

pub fn head(generation: u32) -> Bytes {
    [&MAGIC[..], &generation.to_be_bytes()].concat().into()
}

/// Which generation a file that begins so is of; `None`: what is written first lies in it.
pub fn generation_in(bytes: &[u8]) -> Option<u32> {
    let generation = bytes.strip_prefix(&MAGIC)?.first_chunk()?;
    Some(u32::from_be_bytes(*generation))
}

/// The file of a generation.
#[derive(Clone, Copy)]
pub struct Target {
    pub file: u32,
    pub under_way: bool,
}

/// Batches on their way into files of survivors, until keys name them or it is known that none will.
pub struct Survivors<'f> {
    files: &'f LogFiles,
    placings: BTreeMap<u32, Placing>,
}

impl<'f> Survivors<'f> {
    pub fn new(files: &'f LogFiles) -> Self {
        Self { files, placings: BTreeMap::new() }
    }

    /// Says where a batch comes to lie; `place` says the rest of it.
    pub fn add(&mut self, generation: u32, batch: &Bytes, place: &BatchPlace) -> BatchPlace {
        let generation = generation.clamp(1, GENERATIONS);
        let placing = self.placings.entry(generation).or_insert_with(|| self.files.place_survivors(generation));
        placing.add(batch, place.sequence, place.last_offset_delta, place.max_timestamp)
    }

    /// Has all of them on disk, so that keys may name them; returns their bytes. Blocks on disk.
    pub fn write(&self) -> Result<u64> {
        let mut bytes = 0;
        for placing in self.placings.values() {
            self.files.append(placing, None, true)?;
            bytes += u64::from(placing.placed().len);
        }
        Ok(bytes)
    }
}

impl Drop for Survivors<'_> {
    fn drop(&mut self) {
        self.files.settled(self.placings.keys());
    }
}

impl LogFiles {
    fn place_survivors(&self, generation: u32) -> Placing {
        let mut table = self.table.lock();
        let open = table.survivors.get(&generation).map(|target| target.file);
        let open = open.and_then(|number| Some((number, table.files.get(&number)?.size)));
        let (file, is_new, from) = match open.filter(|(_, size)| *size < self.file_bytes) {
            Some((number, size)) => (number, false, u32::try_from(size).unwrap_or(u32::MAX)),
            // Not the one that the writer is about to begin.
            None => (table.last.max(table.pending.unwrap_or(0)).saturating_add(1), true, 0),
        };
        table.last = table.last.max(file);
        table.survivors.insert(generation, Target { file, under_way: true });
        let mut placing = Placing { generation, ..Placing::new(file, is_new, from) };
        if is_new {
            placing.put(head(generation));
        }
        placing
    }

    /// Keys name what was under way, or none will.
    fn settled<'g>(&self, generations: impl Iterator<Item = &'g u32>) {
        let mut table = self.table.lock();
        for generation in generations {
            if let Some(target) = table.survivors.get_mut(generation) {
                target.under_way = false;
            }
        }
    }

    /// Keys name these now.
    pub fn survived(&self, places: &[BatchPlace]) {
        let mut table = self.table.lock();
        for place in places {
            if let Some(file) = table.files.get_mut(&place.file) {
                file.live = file.live.saturating_add(i64::from(place.len));
                file.end = file.end.max(u64::from(place.at) + u64::from(place.len));
            }
        }
    }

    /// How often what lies in a file was moved; where that cannot be read, it is as if never.
    pub fn generation(&self, number: u32) -> u32 {
        self.read(number, 0, HEAD).ok().and_then(|head| generation_in(&head)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{append, batch, files};
    use super::*;

    fn survive(files: &LogFiles, generation: u32, texts: &[&str]) -> Vec<BatchPlace> {
        let mut survivors = Survivors::new(files);
        let batches: Vec<Bytes> = texts.iter().map(|text| batch(text)).collect();
        let places: Vec<_> = batches
            .iter()
            .map(|b| survivors.add(generation, b, &BatchPlace { sequence: 7, ..BatchPlace::default() }))
            .collect();
        survivors.write().unwrap();
        for (place, batch) in places.iter().zip(&batches) {
            assert!(files.uses().iter().all(|file| file.number != place.file), "something is under way to it");
            assert!(!files.retire(place.file) && !files.retire_dead(place.file) && !files.remove(place.file).unwrap());
            assert_eq!(files.read(place.file, place.at, place.len as usize).unwrap(), *batch);
        }
        files.survived(&places);
        places
    }

    #[test]
    fn survivors_lie_apart_from_what_is_appended_and_by_generation() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let first = append(&files, &["a"])[0].0;
        let one = survive(&files, 1, &["b", "c"]);
        let two = survive(&files, 2, &["d"])[0];
        assert_eq!(append(&files, &["e"])[0].0.file, first.file);
        assert_eq!(survive(&files, 1, &["f"])[0].file, one[0].file);
        assert_eq!(survive(&files, GENERATIONS + 9, &["g"])[0].file, survive(&files, GENERATIONS, &["h"])[0].file);
        let of = |place: &BatchPlace| files.generation(place.file);
        assert_eq!((of(&first), of(&one[1]), of(&two)), (0, 1, 2));
        assert!(files.uses().iter().all(|file| file.dead() <= HEAD as u64));
        // What was appended last is gone on with, as long as all files are there.
        let again = super::super::tests::files(directory.path());
        again.go_on(first.file);
        assert_eq!(append(&again, &["i"])[0].0.file, first.file);
        again.there_was(99);
        again.begin_another();
        again.go_on(first.file);
        assert_eq!(append(&again, &["i"])[0].0.file, 100);
    }

    #[test]
    fn a_file_of_survivors_that_nothing_names_goes() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        // The writer is about to begin one too.
        let placing = files.place();
        let survivors = {
            let mut survivors = Survivors::new(&files);
            let place = survivors.add(1, &batch("a"), &BatchPlace::default());
            survivors.write().unwrap();
            place
        };
        assert_ne!(survivors.file, placing.placed().file);
        assert!(files.retire_dead(survivors.file) && files.remove(survivors.file).unwrap());
        files.gave_up();
        assert!(survive(&files, 1, &["b"])[0].file > survivors.file);
        // One that cannot be written is given up, and the next has another number.
        let next = files.table.lock().last + 1;
        std::fs::create_dir(files.path_of(next)).unwrap();
        let mut failing = Survivors::new(&files);
        failing.add(2, &batch("c"), &BatchPlace::default());
        assert!(failing.write().is_err());
        drop(failing);
        assert_eq!(survive(&files, 2, &["d"])[0].file, next + 1);
    }
}
