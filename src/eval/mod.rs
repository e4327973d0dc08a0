//! How good a ranking of labels is: ranking candidates, propensities, and the metrics of the field.
//!
//! The definitions are those of pyxclib (`xclib/evaluation/xc_metrics.py`), which the extreme classification
//! literature reports, with ties broken: equal scores are ranked lower label first ([`rank`]), where
//! pyxclib leaves them to the order in which a sort happens to put them.
//!
//! Nothing here knows a tensor. Per test row: [`rank`] the candidates, [`Evaluator::add`] them; at the end
//! [`Evaluator::finish`] gives the [`Metrics`]. Evaluators of separate parts of a test set [`Evaluator::merge`].

mod evaluator;
mod metrics;
mod propensity;
mod rank;
#[cfg(test)]
mod tests;

/// Labels of a row that are ranked for the metrics: P@k and its kin up to this k.
pub const METRIC_K: usize = 5;
/// The k of the metrics that are shown.
pub const REPORTED_K: [usize; 3] = [1, 3, 5];

pub use evaluator::Evaluator;
pub use metrics::Metrics;
pub use propensity::Propensity;
pub use rank::rank;
