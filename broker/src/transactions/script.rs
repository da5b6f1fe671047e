//! The machine by scripts: requests at given times, and what they answer.

use millpond_types::{TopicId, TopicPartition};

use super::machine::{Change, End, Init, InitRequest, Machine, State, Transaction};
use super::{TransactionError, TransactionSettings};
use crate::groups::{Committed, OffsetKey};
use crate::storage::Ending;

const TIMEOUT: i32 = 1000;

struct Script {
    machine: Machine,
    now: i64,
    next_id: i64,
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition { topic: TopicId([1; 16]), partition }
}

fn key(partition: i32) -> OffsetKey {
    OffsetKey { topic: "t".into(), partition }
}

fn at(offset: i64) -> Committed {
    Committed {
        topic_id: TopicId([1; 16]),
        offset,
        leader_epoch: 1,
        metadata: String::new(),
        committed_at: 0,
        expires_at: -1,
    }
}

impl Script {
    fn new() -> Self {
        Self::with(TransactionSettings::default())
    }

    fn with(settings: TransactionSettings) -> Self {
        Self { machine: Machine::new(settings), now: 0, next_id: 100 }
    }

    /// As if it was written: what is stored is read back.
    fn apply(&mut self, change: &Change) {
        let mut change = change.clone();
        let (_, stored) = change.stamped(0);
        let after = stored.map(|stored| Transaction::decode(&stored).unwrap());
        assert_eq!(after, change.after);
        assert_eq!(change.write.entries.len(), 0);
        self.machine.apply(&change.id, after);
    }

    fn init_as(&mut self, expected: Option<(i64, i16)>) -> Result<((i64, i16), Option<Change>), TransactionError> {
        let request = InitRequest { id: "x".into(), timeout_ms: TIMEOUT, expected };
        let mut ready = self.machine.init(&request, None, self.now)?;
        if ready == Init::NeedsProducerId {
            self.next_id += 1;
            ready = self.machine.init(&request, Some(self.next_id), self.now)?;
        }
        let Init::Ready { producer_id, epoch, change } = ready else { panic!() };
        if let Some(change) = &change {
            self.apply(change);
        }
        Ok(((producer_id, epoch), change.map(|change| *change)))
    }

    fn init(&mut self) -> (i64, i16) {
        self.init_as(None).unwrap().0
    }

    fn run(&mut self, result: Result<Option<Change>, TransactionError>) -> Result<Option<Change>, TransactionError> {
        if let Ok(Some(change)) = &result {
            self.apply(change);
        }
        result
    }

    fn add(&mut self, producer: (i64, i16), partitions: &[i32]) -> Result<Option<Change>, TransactionError> {
        let places: Vec<_> = partitions.iter().map(|p| place(*p)).collect();
        let result = self.machine.add_partitions("x", producer, &places, false, self.now);
        self.run(result)
    }

    fn end(&mut self, producer: (i64, i16), commit: bool) -> Result<Option<Change>, TransactionError> {
        let result = self.machine.end("x", producer, commit, self.now);
        self.run(result)
    }

    fn raise(&mut self, producer: (i64, i16), commit: bool) -> Result<((i64, i16), Option<Change>), TransactionError> {
        let mut ready = self.machine.end_and_raise("x", producer, commit, None, self.now)?;
        if ready == End::NeedsProducerId {
            self.next_id += 1;
            ready = self.machine.end_and_raise("x", producer, commit, Some(self.next_id), self.now)?;
        }
        let End::Ready { producer, change } = ready else { panic!() };
        if let Some(change) = &change {
            self.apply(change);
        }
        Ok((producer, change.map(|change| *change)))
    }

    fn state(&self) -> State {
        self.machine.get("x").unwrap().state
    }
}

#[test]
fn a_transaction_ends_once_and_one_way() {
    let mut s = Script::new();
    let a = s.init();
    assert_eq!(a, (101, 0));
    assert_eq!(s.end(a, true), Err(TransactionError::InvalidState), "nothing has begun");
    let added = s.add(a, &[0, 1]).unwrap().unwrap();
    assert_eq!((added.write.added.len(), added.write.producer_id, added.write.producer_epoch), (2, 101, 0));
    assert_eq!(s.add(a, &[1]), Ok(None), "known already");
    assert_eq!(s.add(a, &[1, 2]).unwrap().unwrap().write.added, [place(2)]);
    let ended = s.end(a, true).unwrap().unwrap();
    assert_eq!(ended.write.ending, Some(Ending { commit: true, partitions: vec![place(0), place(1), place(2)] }));
    assert_eq!(s.end(a, true), Ok(None), "asked twice");
    assert_eq!(s.end(a, false), Err(TransactionError::InvalidState));
    s.add(a, &[0]).unwrap();
    assert_eq!(s.end(a, false).unwrap().unwrap().write.ending.unwrap().partitions, [place(0)]);
    assert_eq!(s.end(a, false), Ok(None));
    assert_eq!(s.end(a, true), Err(TransactionError::InvalidState));
}

#[test]
fn only_the_latest_producer_may() {
    let mut s = Script::new();
    let a = s.init();
    s.add(a, &[0]).unwrap();
    let (b, change) = s.init_as(None).unwrap();
    assert_eq!(b, (101, 2), "one to fence, one to go on with, as in Kafka");
    let write = change.unwrap().write;
    assert_eq!((write.producer_epoch, write.ending), (1, Some(Ending { commit: false, partitions: vec![place(0)] })));
    assert_eq!(s.add(a, &[0]), Err(TransactionError::Fenced));
    assert_eq!(s.end(a, true), Err(TransactionError::Fenced));
    assert_eq!(s.end((101, 1), true), Err(TransactionError::Fenced), "nobody is given the one that fences");
    assert_eq!(s.end((999, 1), true), Err(TransactionError::InvalidProducerId));
    let unknown = s.machine.end("y", b, true, 0);
    assert_eq!(unknown, Err(TransactionError::InvalidProducerId));
    s.add(b, &[0]).unwrap();
    assert!(s.end(b, true).unwrap().is_some());
}

#[test]
fn a_producer_goes_on_from_its_own_epoch_only() {
    let mut s = Script::new();
    let a = s.init();
    let b = s.init_as(Some(a)).unwrap().0;
    assert_eq!(b, (101, 1));
    let (again, change) = s.init_as(Some(a)).unwrap();
    assert_eq!((again, change), (b, None), "the answer was lost");
    s.add(b, &[0]).unwrap();
    assert_eq!(s.init_as(Some(a)), Err(TransactionError::Fenced), "the successor is at work");
    assert_eq!(s.init_as(Some((999, 1))), Err(TransactionError::Fenced));
    assert_eq!(s.init_as(Some(b)).unwrap().0, (101, 2));
}

#[test]
fn a_producer_goes_on_with_the_epoch_that_an_end_gave_it() {
    let mut s = Script::new();
    let a = s.init();
    s.add(a, &[0]).unwrap();
    assert_eq!(s.init_as(Some((101, -1))), Err(TransactionError::Fenced));
    s.now += i64::from(TIMEOUT);
    let change = s.machine.expire("x", s.now, s.now).unwrap();
    s.apply(&change);
    // Timed out: asked twice, and no longer once it has begun.
    let (b, change) = s.init_as(Some(a)).unwrap();
    assert_eq!((b, s.state()), ((101, 1), State::Empty));
    assert_eq!(change.unwrap().write.ending, None);
    assert_eq!(s.init_as(Some(a)), Ok((b, None)));
    s.add(b, &[0]).unwrap();
    assert_eq!(s.init_as(Some(a)), Err(TransactionError::Fenced), "its successor is at work");
    // Ended the newer way, and the answer was lost.
    let (c, _) = s.raise(b, true).unwrap();
    assert_eq!(s.init_as(Some(b)).unwrap().0, c);
    assert_eq!(s.init_as(Some(a)), Err(TransactionError::Fenced), "two before");
    // Ended the older way, in which the epoch stays.
    let (d, _) = s.init_as(Some(c)).unwrap();
    s.add(d, &[0]).unwrap();
    s.end(d, false).unwrap();
    assert_eq!((s.init_as(Some(c)).unwrap().0, s.state()), (d, State::Empty));
    // Another one has taken over.
    s.init();
    assert_eq!(s.init_as(Some(d)), Err(TransactionError::Fenced));
}

#[test]
fn a_producer_without_an_epoch_left_goes_on_with_another_id() {
    let mut s = Script::new();
    s.init();
    let wear_out = |s: &mut Script| {
        let mut worn = s.machine.get("x").unwrap().clone();
        worn.epoch = i16::MAX - 2;
        s.machine.apply("x", Some(worn));
        s.init()
    };
    let last = wear_out(&mut s);
    s.add(last, &[0]).unwrap();
    let (next, _) = s.init_as(Some(last)).unwrap();
    assert_eq!((next, s.init_as(Some(last)).unwrap()), ((102, 0), ((102, 0), None)));
    // Timed out, which took the epoch that is there to fence it.
    let last = wear_out(&mut s);
    s.add(last, &[0]).unwrap();
    s.now += i64::from(TIMEOUT);
    let change = s.machine.expire("x", s.now, s.now).unwrap();
    s.apply(&change);
    assert_eq!(s.machine.get("x").unwrap().epoch, i16::MAX);
    let (next, _) = s.init_as(Some(last)).unwrap();
    assert_eq!((next, s.init_as(Some(last)).unwrap()), ((103, 0), ((103, 0), None)));
    s.add(next, &[0]).unwrap();
    assert_eq!(s.init_as(Some(last)), Err(TransactionError::Fenced));
}

#[test]
fn epochs_run_out_into_a_new_producer_id() {
    let mut s = Script::new();
    s.init();
    let mut worn = s.machine.get("x").unwrap().clone();
    worn.epoch = i16::MAX - 2;
    s.machine.apply("x", Some(worn));
    let last = s.init();
    assert_eq!(last, (101, i16::MAX - 1));
    s.add(last, &[0]).unwrap();
    let (next, change) = s.init_as(None).unwrap();
    assert_eq!(next, (102, 0));
    let write = change.unwrap().write;
    assert_eq!((write.producer_id, write.producer_epoch), (101, i16::MAX), "the old one is fenced for good");
    // The last epoch is none to go on with where it fences.
    for (epoch, wanted) in [(i16::MAX - 3, (102, i16::MAX - 1)), (i16::MAX - 2, (103, 0))] {
        let mut worn = s.machine.get("x").unwrap().clone();
        (worn.producer_id, worn.epoch) = (102, epoch);
        s.machine.apply("x", Some(worn));
        s.add((102, epoch), &[0]).unwrap();
        let (next, change) = s.init_as(None).unwrap();
        let write = change.unwrap().write;
        assert_eq!((next, (write.producer_id, write.producer_epoch)), (wanted, (102, epoch + 1)));
    }
}

#[test]
fn an_id_is_forgotten_when_its_time_is_over_by_both_clocks() {
    let mut s = Script::new();
    let (_, change) = s.init_as(None).unwrap();
    // The wall clock was set since the start, and is set again: forward, back to where it was, and on.
    let (ahead, expiration) = (5_000_000, TransactionSettings::default().expiration_ms);
    let mut change = change.unwrap();
    let (_, stored) = change.stamped(ahead);
    assert_eq!(Transaction::decode(&stored.unwrap()).unwrap().since, ahead, "what another start reads");
    s.machine.apply("x", change.after.clone());
    assert!(s.machine.due(1000, ahead + 2 * expiration).is_empty() && s.machine.next_look(1000) == Some(expiration));
    assert!(s.machine.due(expiration, expiration).is_empty());
    assert!(s.machine.expire("x", expiration, expiration + ahead - 1).is_none());
    assert_eq!(s.machine.next_look(expiration), None, "nothing to wait for but the wall clock");
    assert_eq!(s.machine.due(expiration, ahead + expiration), ["x"]);
    assert!(s.machine.expire("x", expiration, ahead + expiration).unwrap().after.is_none());
}

#[test]
fn time_aborts_and_fences_and_in_the_end_forgets() {
    let mut s = Script::new();
    let a = s.init();
    s.now = 10;
    s.add(a, &[0]).unwrap();
    s.now = 500;
    s.add(a, &[1]).unwrap();
    assert_eq!(s.machine.deadline(), Some(10 + i64::from(TIMEOUT)), "counted from its begin");
    s.now = 1009;
    assert!(s.machine.due(s.now, s.now).is_empty() && s.machine.expire("x", s.now, s.now).is_none());
    s.now = 1010;
    assert_eq!(s.machine.due(s.now, s.now), ["x"]);
    let change = s.machine.expire("x", s.now, s.now).unwrap();
    assert_eq!((change.write.producer_epoch, change.write.ending.as_ref().unwrap().commit), (1, false));
    s.apply(&change);
    assert_eq!(s.state(), State::Aborted);
    assert_eq!(s.end(a, true), Err(TransactionError::Fenced));
    assert_eq!(s.init(), (101, 2));
    s.now += TransactionSettings::default().expiration_ms;
    let change = s.machine.expire("x", s.now, s.now).unwrap();
    assert_eq!((change.after.clone(), change.write.ending.clone()), (None, None));
    s.apply(&change);
    assert_eq!((s.machine.get("x"), s.machine.deadline()), (None, None));
    assert_eq!(s.init(), (102, 0));
}

#[test]
fn offsets_count_with_the_commit() {
    let mut s = Script::new();
    let a = s.init();
    let offsets = || vec![(key(0), at(5)), (key(1), at(6))];
    let early = s.machine.add_offsets("x", a, "g", false, offsets(), s.now);
    assert_eq!(early, Err(TransactionError::InvalidState), "the group is not part of it");
    for commit in [false, true] {
        let added = s.machine.add_group("x", a, "g", s.now);
        s.run(added).unwrap();
        let added = s.machine.add_offsets("x", a, "g", false, offsets(), s.now);
        s.run(added).unwrap();
        assert!(s.machine.is_pending("g", &key(1)) && !s.machine.is_pending("g", &key(2)));
        assert_eq!(s.machine.pending_of("g").count(), 2);
        let ended = s.end(a, commit).unwrap().unwrap();
        assert_eq!(ended.offsets.len(), if commit { 2 } else { 0 });
        assert!(!s.machine.is_pending("g", &key(1)));
    }
}

#[test]
fn offsets_that_are_deleted_do_not_come_with_the_commit() {
    let mut s = Script::new();
    let a = s.init();
    for group in ["g", "h"] {
        let offsets = vec![(key(0), at(5)), (key(1), at(6)), (key(2), at(7))];
        let added = s.machine.add_offsets("x", a, group, true, offsets, s.now);
        s.run(added).unwrap();
    }
    assert_eq!(s.machine.holders("g"), ["x"]);
    let forget = |s: &mut Script, group: &str, keys: Option<&[OffsetKey]>| {
        let keys = keys.map(|keys| keys.iter().collect());
        let change = s.machine.forget_offsets("x", group, keys.as_ref());
        if let Some(change) = &change {
            assert_eq!((change.write.ending.clone(), change.offsets.len()), (None, 0));
            s.apply(change);
        }
        change.is_some()
    };
    assert!(forget(&mut s, "g", Some(&[key(1), key(9)])));
    assert!(!forget(&mut s, "g", Some(&[key(1)])) && !forget(&mut s, "nobody", None));
    assert_eq!((s.machine.pending_of("g").count(), s.machine.pending_of("h").count()), (2, 3));
    assert!(forget(&mut s, "h", None));
    assert_eq!((s.machine.holders("h"), s.machine.pending().len()), (vec![], 2));
    // It goes on, and the group is still part of it.
    let added = s.machine.add_offsets("x", a, "h", false, vec![(key(1), at(8))], s.now);
    s.run(added).unwrap();
    let ended = s.end(a, true).unwrap().unwrap();
    let kept: Vec<_> = ended.offsets.iter().map(|(group, key, c)| (group.as_str(), key.partition, c.offset)).collect();
    assert_eq!(kept, [("g", 0, 5), ("g", 2, 7), ("h", 1, 8)]);
}

#[test]
fn each_end_raises_the_epoch() {
    let mut s = Script::new();
    let a = s.init();
    assert_eq!(s.raise(a, true), Err(TransactionError::InvalidState), "nothing has begun");
    s.add(a, &[0]).unwrap();
    let (b, change) = s.raise(a, true).unwrap();
    let write = change.unwrap().write;
    assert_eq!((b, write.producer_id, write.producer_epoch), ((101, 1), 101, 1));
    assert_eq!(write.ending, Some(Ending { commit: true, partitions: vec![place(0)] }));
    assert_eq!(s.raise(a, true), Ok((b, None)), "the answer was lost");
    assert_eq!(s.raise(a, false), Err(TransactionError::InvalidState), "it was committed");
    assert_eq!(s.add(a, &[0]), Err(TransactionError::Fenced), "late");
    s.add(b, &[1]).unwrap();
    assert_eq!(s.raise(a, true), Err(TransactionError::Fenced), "the next one has begun");
    let (c, change) = s.raise(b, false).unwrap();
    assert_eq!((c, change.unwrap().write.ending.unwrap().commit), ((101, 2), false));
    assert_eq!(s.raise(b, false), Ok((c, None)));
    assert_eq!(s.raise(b, true), Err(TransactionError::InvalidState), "it was aborted");
    // What never began may be aborted, once and again.
    let (d, change) = s.raise(c, false).unwrap();
    assert_eq!((d, change.unwrap().write.ending.unwrap().partitions.len()), ((101, 3), 0));
    assert_eq!(s.raise((999, 3), false), Err(TransactionError::InvalidProducerId));
    // A successor, and a timeout.
    s.add(d, &[0]).unwrap();
    let e = s.init();
    assert_eq!((e, s.raise(d, true)), ((101, 5), Err(TransactionError::Fenced)));
    s.add(e, &[0]).unwrap();
    s.now += i64::from(TIMEOUT);
    let change = s.machine.expire("x", s.now, s.now).unwrap();
    s.apply(&change);
    assert_eq!(s.raise(e, true), Err(TransactionError::InvalidState));
    assert_eq!(s.raise(e, false), Ok(((101, 6), None)), "time has done so already");
    assert_eq!(s.end(e, false), Err(TransactionError::Fenced), "the older way");
}

#[test]
fn both_ways_to_end_go_on_side_by_side() {
    let mut s = Script::new();
    let a = s.init();
    s.add(a, &[0]).unwrap();
    s.end(a, true).unwrap();
    s.add(a, &[0]).unwrap();
    let (b, _) = s.raise(a, true).unwrap();
    s.add(b, &[0]).unwrap();
    assert!(s.end(b, true).unwrap().is_some());
    assert_eq!(s.end(a, true), Err(TransactionError::Fenced));
    assert_eq!(s.init_as(Some(b)).unwrap().0, (101, 2));
}

#[test]
fn an_end_without_an_epoch_left_gives_another_producer_id() {
    let mut s = Script::new();
    s.init();
    let mut worn = s.machine.get("x").unwrap().clone();
    worn.epoch = i16::MAX - 2;
    s.machine.apply("x", Some(worn));
    let last = s.init();
    s.add(last, &[0]).unwrap();
    let (next, change) = s.raise(last, true).unwrap();
    let write = change.unwrap().write;
    assert_eq!((next, write.producer_id, write.producer_epoch), ((102, 0), 101, i16::MAX));
    assert_eq!(s.raise(last, true), Ok((next, None)), "the answer was lost");
    s.add(next, &[0]).unwrap();
    assert_eq!(s.raise(last, true), Err(TransactionError::InvalidProducerId));
    assert_eq!(s.raise(next, true).unwrap().0, (102, 1));
}

#[test]
fn offsets_join_by_themselves_in_the_newer_way() {
    let mut s = Script::new();
    let a = s.init();
    let added = s.machine.add_offsets("x", a, "g", true, vec![(key(0), at(5))], s.now);
    s.run(added).unwrap();
    assert_eq!(s.state(), State::Ongoing);
    let (b, change) = s.raise(a, true).unwrap();
    assert_eq!(change.unwrap().offsets.len(), 1);
    let late = s.machine.add_offsets("x", a, "g", true, vec![(key(0), at(6))], s.now);
    assert_eq!((late, b.1), (Err(TransactionError::Fenced), 1));
}

#[test]
fn limits_hold() {
    let mut s = Script::with(TransactionSettings { ids_max: 1, bytes_max: 2000, ..TransactionSettings::default() });
    let a = s.init();
    let request = |id: &str, timeout_ms| InitRequest { id: id.into(), timeout_ms, expected: None };
    assert_eq!(s.machine.init(&request("y", 1), None, 0), Err(TransactionError::TooMany));
    assert_eq!(s.machine.init(&request("", 1), None, 0), Err(TransactionError::EmptyId));
    for timeout in [0, -1, 900_001] {
        assert_eq!(s.machine.init(&request("x", timeout), None, 0), Err(TransactionError::InvalidTimeout));
    }
    let many: Vec<i32> = (0..100).collect();
    assert_eq!(s.add(a, &many), Err(TransactionError::TooMany));
    assert!(s.add(a, &many[..5]).is_ok());
    let stored = s.machine.get("x").unwrap().encode();
    for cut in 0..stored.len() {
        assert_eq!(Transaction::decode(&stored[..cut]), None);
    }
}
