//! From a configuration and a data set's frequencies to what rankings are scored by.

use std::sync::Arc;

use crate::{
    config::{Evaluation, Protocol},
    data::Frequencies,
    eval::{Cutoffs, Groups, Propensity, Scoring},
};

/// Settings of an evaluation that replace those of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// At which `k` metrics are shown.
    pub ks: Option<Vec<usize>>,
    /// The propensity constants A and B.
    pub constants: Option<(f64, f64)>,
    /// Which training rows the propensities are of.
    pub protocol: Option<Protocol>,
}

impl Changes {
    /// Makes them.
    pub fn apply(&self, evaluation: &mut Evaluation) {
        if let Some(ks) = &self.ks {
            evaluation.ks.clone_from(ks);
        }
        if let Some((a, b)) = self.constants {
            (evaluation.a, evaluation.b) = (a, b);
        }
        evaluation.propensity = self.protocol.unwrap_or(evaluation.propensity);
    }
}

/// What `evaluation` asks for. Without frequencies there are neither propensities nor metrics by frequency.
pub fn scoring(evaluation: &Evaluation, frequencies: Option<&Frequencies>) -> Scoring {
    let propensity = |frequencies: &Frequencies| {
        let of = |rows: &Frequencies| Propensity::new(&rows.counts, rows.rows, evaluation.a, evaluation.b);
        match evaluation.propensity {
            Protocol::Published => of(frequencies),
            Protocol::Reference => of(&frequencies.augmented()),
        }
    };
    Scoring {
        cutoffs: Arc::new(Cutoffs::new(&evaluation.ks)),
        propensity: frequencies.map(|frequencies| Arc::new(propensity(frequencies))),
        // Whatever the protocol: a label's own title does not make it frequent.
        groups: frequencies.map(|frequencies| Arc::new(Groups::new(frequencies.counts.clone()))),
    }
}
