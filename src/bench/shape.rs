//! Sizes of a classifier and of its batches: those of the paper's data sets, and any others.

use crate::error::{Error, Result};

/// Features and rows at most. More than any encoder or any training has; it keeps every product of sizes in 64 bits.
const MAX_SIDE: usize = 1 << 16;
/// Label indices on a device have 32 bits with a sign.
const MAX_LABELS: usize = i32::MAX as usize;

/// What one measurement is made on.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// A data set of the paper, or what the user calls it.
    pub name: String,
    /// Labels, `L`.
    pub labels: usize,
    /// Features, `D`.
    pub dim: usize,
    /// Rows of a batch, `B`.
    pub batch: usize,
    /// Positives of a row on average, at least 1.
    pub positives: f64,
}

/// Name, labels, features, batch, positives a row. All but the first two are the paper's, with its presets' batch sizes and
/// the averages of the Extreme Classification Repository.
const NAMED: [(&str, usize, usize, usize, f64); 10] = [
    ("small", 10_000, 128, 64, 3.0),
    ("wordnet-lf", 117_659, 384, 256, 2.0),
    ("lfamazontitles131k", 131_073, 768, 512, 2.3),
    ("lfwikiseealso320k", 312_330, 768, 128, 2.2),
    ("wiki500k", 501_070, 768, 128, 5.1),
    ("amazon670k", 670_091, 768, 64, 5.8),
    ("amazontitles670k", 670_091, 768, 256, 5.5),
    ("lfamazontitles1.3m", 1_305_265, 768, 512, 22.1),
    ("amazon3m", 2_812_281, 768, 128, 36.4),
    ("lfpaper2keywords", 8_623_847, 768, 128, 9.3),
];

impl Shape {
    /// The names that [`named`](Self::named) knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.into_iter().map(|shape| shape.0)
    }

    /// A shape by its name.
    pub fn named(name: &str) -> Option<Self> {
        (NAMED.into_iter().find(|shape| shape.0 == name)).map(|(name, labels, dim, batch, positives)| Self {
            name: name.into(),
            labels,
            dim,
            batch,
            positives,
        })
    }

    /// # Errors
    /// [`Error::Usage`] if a size is out of range.
    pub(super) fn check(&self) -> Result<()> {
        for (key, value, most) in
            [("--labels", self.labels, MAX_LABELS), ("--dim", self.dim, MAX_SIDE), ("--batch", self.batch, MAX_SIDE)]
        {
            if !(1..=most).contains(&value) {
                let expected = format!("a number from 1 to {most}");
                return Err(out_of_range(key, &expected, &value.to_string()));
            }
        }
        if !(1.0..=self.labels as f64).contains(&self.positives) {
            let expected = format!("an average from 1 to the {} labels", self.labels);
            let found = self.positives.to_string();
            return Err(out_of_range("--positives", &expected, &found));
        }
        Ok(())
    }
}

pub(super) fn out_of_range(key: &str, expected: &str, found: &str) -> Error {
    Error::Usage { argument: key.into(), expected: expected.into(), found: found.into(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_valid_shape() {
        for name in Shape::names() {
            Shape::named(name).unwrap().check().unwrap();
        }
        assert_eq!(Shape::named("amazon"), None);
    }

    #[test]
    fn sizes_out_of_range_are_named() {
        let small = Shape::named("small").unwrap();
        for (shape, part) in [
            (Shape { labels: 1 << 31, ..small.clone() }, "--labels"),
            (Shape { dim: usize::MAX, ..small.clone() }, "--dim"),
            (Shape { batch: 0, ..small.clone() }, "--batch"),
            (Shape { positives: 10_001.0, ..small.clone() }, "--positives"),
            (Shape { positives: f64::NAN, ..small }, "--positives"),
        ] {
            let error = shape.check().unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(part), "{error}");
        }
    }
}
