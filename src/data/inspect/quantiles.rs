//! What many numbers look like.

use std::fmt;

/// Quantiles of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantiles {
    /// The mean.
    pub mean: f64,
    /// The smallest, those that 25, 50, 75, 90 and 99 of 100 do not exceed, and the largest.
    pub values: [u32; 7],
}

/// What the values are called.
pub(super) const NAMES: [&str; 7] = ["min", "25%", "50%", "75%", "90%", "99%", "max"];

impl Quantiles {
    /// Those of `numbers`; `None` if there are none.
    pub(super) fn of(mut numbers: Vec<u32>) -> Option<Self> {
        let last = numbers.len().checked_sub(1)?;
        numbers.sort_unstable();
        let sum: u64 = numbers.iter().map(|number| u64::from(*number)).sum();
        // The nearest rank, so that every one is a number that occurs.
        let rank = |percent: usize| numbers[(percent * numbers.len()).div_ceil(100).saturating_sub(1).min(last)];
        let values = [numbers[0], rank(25), rank(50), rank(75), rank(90), rank(99), numbers[last]];
        Some(Self { mean: sum as f64 / numbers.len() as f64, values })
    }
}

/// A row of the table of quantiles.
impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.2}", self.mean)?;
        self.values.iter().try_for_each(|value| write!(f, "{value:>9}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numbers_that_occur() {
        let quantiles = Quantiles::of((1..=100).rev().collect()).unwrap();
        assert_eq!(quantiles, Quantiles { mean: 50.5, values: [1, 25, 50, 75, 90, 99, 100] });
        assert_eq!(Quantiles::of(vec![7]).unwrap().values, [7; 7]);
        assert_eq!(Quantiles::of(vec![4, 0]).unwrap().values, [0, 0, 0, 4, 4, 4, 4]);
        assert_eq!(Quantiles::of(vec![]), None);
    }
}
