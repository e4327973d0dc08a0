//! Inverse propensities: how much a hit on a rare label counts.

/// Inverse propensity `w_l = 1 + C (N_l + B)^-A` of every label, with `C = (ln N - 1)(B + 1)^A`.
///
/// `N` is the number of training rows, `N_l` the number of those that carry label `l`. Rare labels are more often
/// missing from the ground truth than frequent ones, so a hit on one of them stands for more (Jain et al., KDD 2016,
/// section 4). `A` and `B` belong to the data set: 0.5 and 0.4 for Wikipedia, 0.6 and 2.6 for Amazon, otherwise
/// 0.55 and 1.5.
#[derive(Debug, Clone, PartialEq)]
pub struct Propensity {
    inverse: Vec<f64>,
    /// Of labels beyond these: none of them was seen in training.
    unseen: f64,
}

impl Propensity {
    /// Weights of labels `0..train_label_freq.len()` from their frequencies in `train_rows` training rows.
    ///
    /// A label unseen in training (frequency 0) has the largest weight. Below three rows the formula's `C` is
    /// negative, which would count hits on rare labels less, or negatively; it is taken as 0 there, so that every
    /// weight is 1.
    pub fn new(train_label_freq: &[u32], train_rows: usize, a: f64, b: f64) -> Self {
        let c = ((train_rows as f64).ln() - 1.0).max(0.0) * (b + 1.0).powf(a);
        let weight = |freq: u32| 1.0 + c * (f64::from(freq) + b).powf(-a);
        Self { inverse: train_label_freq.iter().map(|freq| weight(*freq)).collect(), unseen: weight(0) }
    }

    /// The weight of `label`. A label beyond those that frequencies were given for was not seen in training.
    pub fn inverse(&self, label: u32) -> f64 {
        self.inverse.get(label as usize).copied().unwrap_or(self.unseen)
    }
}
