//! How good a ranking of labels is: ranking candidates, propensities, and the metrics of the field.
//!
//! The definitions are those of pyxclib (`xclib/evaluation/xc_metrics.py`), which the extreme classification
//! literature reports, with ties broken: equal scores are ranked lower label first ([`rank`]), where
//! pyxclib leaves them to the order in which a sort happens to put them.
//!
//! Nothing here knows a tensor. Per test row: [`rank`] the candidates, [`Evaluator::add`] them; at the end
//! [`Evaluator::finish`] gives the [`Metrics`]. Evaluators of separate parts of a test set [`Evaluator::merge`].
//! A [`Scorer`] does the same by label frequency as well: [`Groups`].

mod cutoffs;
mod evaluator;
mod groups;
mod metrics;
mod propensity;
mod rank;
mod scorer;
#[cfg(test)]
mod tests;

pub use cutoffs::Cutoffs;
pub use evaluator::Evaluator;
pub use groups::{Group, Groups};
pub use metrics::Metrics;
pub use propensity::Propensity;
pub use rank::rank;
pub use scorer::{GroupMetrics, Scorer, Scoring};
