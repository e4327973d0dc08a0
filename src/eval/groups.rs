//! Head, torso and tail: labels by how often they occur in training.

use std::fmt;

/// A third of the training pairs, by the frequency of their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The most frequent labels: as few as carry a third of the pairs of training row and label.
    Head,
    /// The next most frequent ones, with the second third.
    Torso,
    /// All others, those that training has not seen included.
    Tail,
}

impl Group {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Head, Self::Torso, Self::Tail];
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Head => "head",
            Self::Torso => "torso",
            Self::Tail => "tail",
        })
    }
}

/// Which label is in which [`Group`]. Labels that are equally frequent are in the same one, so that a group may be
/// somewhat larger than a third, and a later one empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    train_label_freq: Vec<u32>,
    /// The smallest frequency in each group.
    least: [u32; 3],
}

impl Groups {
    /// The groups of labels that occur so often in training.
    pub fn new(train_label_freq: Vec<u32>) -> Self {
        let mut sorted = train_label_freq.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let pairs: u64 = sorted.iter().map(|freq| u64::from(*freq)).sum();
        // An unseen label is in the tail, whatever the others are.
        let least_of = |thirds: u64| {
            let mut sum = 0;
            let reaches = |freq: &&u32| {
                sum += u64::from(**freq);
                3 * sum >= thirds * pairs
            };
            sorted.iter().find(reaches).map_or(1, |freq| (*freq).max(1))
        };
        Self { least: [least_of(1), least_of(2), 0], train_label_freq }
    }

    /// The group of `label`.
    pub fn of(&self, label: u32) -> Group {
        let freq = self.train_label_freq.get(label as usize).copied().unwrap_or(0);
        match freq {
            freq if freq >= self.least[0] => Group::Head,
            freq if freq >= self.least[1] => Group::Torso,
            _ => Group::Tail,
        }
    }

    /// The training rows that a label of the group has at least.
    pub fn least(&self, group: Group) -> u32 {
        self.least[group as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_carries_a_third_of_the_pairs() {
        // 12 pairs: 4, then 3 + 1, then four of 1 each; equals stay together.
        let groups = Groups::new(vec![1, 4, 0, 3, 1, 1, 1, 1]);
        let of: Vec<_> = (0..9).map(|label| groups.of(label)).collect();
        use Group::*;
        assert_eq!(of, [Torso, Head, Tail, Torso, Torso, Torso, Torso, Torso, Tail]);
        let groups = Groups::new(vec![6, 3, 3, 2, 2, 1, 1]);
        assert_eq!(Group::ALL.map(|group| groups.least(group)), [6, 3, 0]);
    }

    #[test]
    fn what_is_not_seen_is_tail() {
        for freq in [vec![], vec![0, 0]] {
            assert_eq!(Groups::new(freq).of(1), Group::Tail);
        }
        assert_eq!(Groups::new(vec![5]).of(0), Group::Head);
    }
}
