//! The `k` of the metrics.

/// Metrics up to this `k` are always computed: P@1 chooses the best epoch, and the literature reports 1, 3 and 5.
const ALWAYS: usize = 5;

/// At which `k` the metrics are computed, and at which of them they are shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutoffs {
    /// Ascending, each once.
    all: Vec<usize>,
    shown: Vec<usize>,
}

impl Cutoffs {
    /// Those that are shown; beside them everything up to 5 is computed.
    ///
    /// # Panics
    /// If one of them is 0.
    pub fn new(shown: &[usize]) -> Self {
        assert!(!shown.contains(&0), "there is no metric at k = 0");
        let sorted = |mut ks: Vec<usize>| {
            ks.sort_unstable();
            ks.dedup();
            ks
        };
        Self { all: sorted(shown.iter().copied().chain(1..=ALWAYS).collect()), shown: sorted(shown.to_vec()) }
    }

    /// Every `k` at which metrics are computed, ascending.
    pub fn all(&self) -> &[usize] {
        &self.all
    }

    /// Those that are shown, ascending.
    pub fn shown(&self) -> &[usize] {
        &self.shown
    }

    /// The largest: so many labels of a row are ranked.
    pub fn max(&self) -> usize {
        self.all.last().copied().unwrap_or(ALWAYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_five_are_always_computed() {
        let cutoffs = Cutoffs::new(&[100, 3, 3]);
        assert_eq!(cutoffs.all(), [1, 2, 3, 4, 5, 100]);
        assert_eq!((cutoffs.shown(), cutoffs.max()), (&[3, 100][..], 100));
    }
}
