//! A number for every label id of many: where nearly all ids up to the largest occur, as they do in the public data sets,
//! a plain array is many times faster than a hash map or a search.

use std::collections::HashMap;

/// From label ids to numbers.
#[derive(Debug)]
pub(super) enum IdTable {
    /// By id; [`NONE`] where there is none.
    Dense(Vec<u32>),
    Sparse(HashMap<u32, u32>),
}

const NONE: u32 = u32::MAX;

impl IdTable {
    /// A table for ids up to `largest`, of which there are about `count`.
    pub fn new(largest: u32, count: usize) -> Self {
        let wanted = largest as usize + 1;
        // A hash map takes some 20 bytes an id, and an array 4.
        match wanted / 4 <= count {
            true => Self::Dense(vec![NONE; wanted]),
            false => Self::Sparse(HashMap::new()),
        }
    }

    /// The number of an id.
    pub fn get(&self, id: u32) -> Option<u32> {
        match self {
            Self::Dense(numbers) => numbers.get(id as usize).copied().filter(|number| *number != NONE),
            Self::Sparse(numbers) => numbers.get(&id).copied(),
        }
    }

    /// The number of an id, which is `new` if it has none yet.
    ///
    /// # Panics
    /// If the id is beyond the largest, or the number is `u32::MAX`.
    pub fn get_or_insert(&mut self, id: u32, new: u32) -> u32 {
        assert_ne!(new, NONE, "it stands for none");
        match self {
            Self::Dense(numbers) => {
                let number = &mut numbers[id as usize];
                if *number == NONE {
                    *number = new;
                }
                *number
            }
            Self::Sparse(numbers) => *numbers.entry(id).or_insert(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_numbers_however_many_there_are() {
        for (largest, count, dense) in [(9, 5, true), (9, 1, false), (u32::MAX, 5, false), (0, 0, true)] {
            let mut table = IdTable::new(largest, count);
            assert_eq!(matches!(table, IdTable::Dense(_)), dense);
            assert_eq!(table.get(largest), None);
            assert_eq!(table.get_or_insert(largest, 7), 7);
            assert_eq!(table.get_or_insert(largest, 8), 7);
            assert_eq!((table.get(largest), table.get(largest.wrapping_add(1))), (Some(7), None));
        }
    }
}
