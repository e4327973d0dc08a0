//! A learning rate that falls when training gets no better.

/// A better value is better by this share of the best one, as in PyTorch.
const THRESHOLD: f64 = 1e-4;

/// Multiplies a learning rate by `gamma` whenever more than `patience` values in a row were no better than the best
/// one: `ReduceLROnPlateau` of PyTorch with its relative threshold, of a value that is to rise.
#[derive(Debug, Clone, PartialEq)]
pub struct Plateau {
    gamma: f64,
    patience: usize,
    best: Option<f64>,
    /// Values since the best one, or since the last fall.
    waited: usize,
    factor: f64,
}

impl Plateau {
    /// One that has seen nothing yet.
    pub fn new(gamma: f64, patience: usize) -> Self {
        Self { gamma, patience, best: None, waited: 0, factor: 1.0 }
    }

    /// What the learning rate is multiplied with now.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes in the next value. One that is not a number is no better.
    pub fn see(&mut self, value: f64) {
        let is_better = match self.best {
            None => !value.is_nan(),
            Some(best) => value > best + best.abs() * THRESHOLD,
        };
        if is_better {
            self.best = Some(value);
            self.waited = 0;
            return;
        }
        self.waited += 1;
        if self.waited > self.patience {
            self.waited = 0;
            self.factor *= self.gamma;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(patience: usize, values: &[f64]) -> Vec<f64> {
        let mut plateau = Plateau::new(0.5, patience);
        values
            .iter()
            .map(|value| {
                plateau.see(*value);
                plateau.factor()
            })
            .collect()
    }

    #[test]
    fn it_falls_after_more_than_the_patience() {
        assert_eq!(factors(1, &[0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3]), [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
        assert_eq!(factors(0, &[1.0, 1.0, 2.0, 1.0]), [1.0, 0.5, 0.5, 0.25]);
        // Better by less than the threshold is no better, also below 0.
        assert_eq!(factors(0, &[1.0, 1.00009, 1.0002]), [1.0, 0.5, 0.5]);
        assert_eq!(factors(0, &[-2.0, -1.9999, -1.5, f64::NAN]), [1.0, 0.5, 0.5, 0.25]);
        assert_eq!(factors(1, &[f64::NAN, 0.1]), [1.0, 1.0]);
    }
}
