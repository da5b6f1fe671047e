//! COUNT_DISTINCT: exact for few values, then HyperLogLog.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Builder};
use millpond_sql::functions::ResultType;
use millpond_types::{Error, Result, SqlType};

use super::codec::Reader;
use super::{Aggregate, AggregateSite, ResultColumn, State, UpdateResult, Updater, fatal_state, foreign_state};
use crate::expr::{EvalContext, deep};
use crate::functions::{Builtin, Def, T, exact, param};

/// Hashes that are kept as they are before registers take over.
const EXACT_MAX: usize = 256;
/// 2^12 registers: a standard error of 1.6 %.
const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;

/// Distinct values seen, by their hashes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sketch {
    /// Sorted.
    Exact(Vec<u64>),
    Registers(Vec<u8>),
}

impl Sketch {
    fn new() -> Self {
        Self::Exact(Vec::new())
    }

    fn insert(&mut self, hash: u64) {
        match self {
            Self::Exact(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return };
                if hashes.len() < EXACT_MAX {
                    hashes.insert(at, hash);
                    return;
                }
                let mut registers = vec![0; REGISTERS];
                hashes.iter().for_each(|h| register(&mut registers, *h));
                register(&mut registers, hash);
                *self = Self::Registers(registers);
            }
            Self::Registers(registers) => register(registers, hash),
        }
    }

    fn merge(&mut self, other: &Self) {
        match other {
            Self::Exact(hashes) => hashes.iter().for_each(|h| self.insert(*h)),
            Self::Registers(theirs) => {
                let mut mine = match std::mem::replace(self, Self::new()) {
                    Self::Registers(mine) => mine,
                    Self::Exact(hashes) => {
                        let mut registers = vec![0; REGISTERS];
                        hashes.iter().for_each(|h| register(&mut registers, *h));
                        registers
                    }
                };
                mine.iter_mut().zip(theirs).for_each(|(a, b)| *a = (*a).max(*b));
                *self = Self::Registers(mine);
            }
        }
    }

    fn estimate(&self) -> i64 {
        match self {
            Self::Exact(hashes) => hashes.len() as i64,
            Self::Registers(registers) => {
                let m = REGISTERS as f64;
                let sum: f64 = registers.iter().map(|r| 2f64.powi(-i32::from(*r))).sum();
                let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
                let zeros = registers.iter().filter(|r| **r == 0).count();
                let estimate = if raw <= 2.5 * m && zeros > 0 { m * (m / zeros as f64).ln() } else { raw };
                estimate.round() as i64
            }
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Exact(hashes) => {
                out.push(0);
                out.extend_from_slice(&(hashes.len() as u32).to_le_bytes());
                hashes.iter().for_each(|h| out.extend_from_slice(&h.to_le_bytes()));
            }
            Self::Registers(registers) => {
                out.push(1);
                out.extend_from_slice(registers);
            }
        }
    }

    pub fn decode(r: &mut Reader<'_>) -> Result<Self> {
        match r.byte()? {
            0 => {
                let n = r.count()?;
                let hashes: Vec<u64> = (0..n).map(|_| r.array().map(u64::from_le_bytes)).collect::<Result<_>>()?;
                if hashes.len() > EXACT_MAX || !hashes.is_sorted_by(|a, b| a < b) {
                    return Err(Error::corrupt("a COUNT_DISTINCT state is damaged"));
                }
                Ok(Self::Exact(hashes))
            }
            1 => Ok(Self::Registers(r.take(REGISTERS)?.to_vec())),
            _ => Err(Error::corrupt("a COUNT_DISTINCT state is damaged")),
        }
    }
}

fn register(registers: &mut [u8], hash: u64) {
    let index = (hash >> (64 - PRECISION)) as usize;
    let rank = ((hash << PRECISION) | 1 << (PRECISION - 1)).leading_zeros() as u8 + 1;
    if let Some(r) = registers.get_mut(index) {
        *r = (*r).max(rank);
    }
}

/// A stable 64-bit hash (FNV-1a with a final mix).
fn hash(bytes: &[u8]) -> u64 {
    let mut h = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

struct CountDistinct;

struct Bound<'a> {
    column: &'a ArrayRef,
    key: Vec<u8>,
}

impl Updater for Bound<'_> {
    fn update(&mut self, state: &mut State, row: usize) -> UpdateResult {
        let State::Distinct(sketch) = state else { return Err(fatal_state()) };
        if self.column.is_valid(row) {
            self.key.clear();
            deep::encode(self.column, row, &mut self.key);
            sketch.insert(hash(&self.key));
        }
        Ok(())
    }
}

struct Results(Int64Builder);

impl ResultColumn for Results {
    fn append(&mut self, state: &State) -> Result<()> {
        let State::Distinct(sketch) = state else { return Err(foreign_state()) };
        self.0.append_value(sketch.estimate());
        Ok(())
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(mut self: Box<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(self.0.finish()))
    }
}

impl Aggregate for CountDistinct {
    fn create(&self) -> State {
        State::Distinct(Box::new(Sketch::new()))
    }

    fn bind<'a>(&'a self, args: &'a [ArrayRef], _: &'a mut EvalContext) -> Result<Box<dyn Updater + 'a>> {
        let column = args.first().ok_or_else(|| Error::bug("COUNT_DISTINCT needs an argument"))?;
        Ok(Box::new(Bound { column, key: Vec::new() }))
    }

    fn merge(&self, state: &mut State, other: &State) -> UpdateResult {
        match (state, other) {
            (State::Distinct(a), State::Distinct(b)) => a.merge(b),
            _ => return Err(fatal_state()),
        }
        Ok(())
    }

    fn results(&self, capacity: usize) -> Box<dyn ResultColumn + '_> {
        Box::new(Results(Int64Builder::with_capacity(capacity)))
    }
}

pub fn register_functions(b: &mut Builtin) {
    b.add(
        "COUNT_DISTINCT",
        "AGGREGATE",
        "approximate number of distinct values",
        vec![Def::aggregate(
            vec![param("value", T)],
            ResultType::Of(exact(SqlType::BigInt)),
            |_: &AggregateSite<'_>| Ok(Arc::new(CountDistinct) as Arc<dyn Aggregate>),
        )],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_near_and_merging_is_union() {
        let mut all = Sketch::new();
        let (mut left, mut right) = (Sketch::new(), Sketch::new());
        for i in 0..100_000u64 {
            let h = hash(&i.to_le_bytes());
            all.insert(h);
            if i % 2 == 0 { left.insert(h) } else { right.insert(h) }
        }
        left.merge(&right);
        assert_eq!(left, all);
        assert!((all.estimate() - 100_000).abs() < 5_000, "{}", all.estimate());
        let mut few = Sketch::new();
        (0..200u64).for_each(|i| few.insert(hash(&(i % 100).to_le_bytes())));
        assert_eq!(few.estimate(), 100);
    }
}
