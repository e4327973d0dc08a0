//! What a classifier stores, written and read as rows of 32-bit words: one row a label, in the order of the labels.
//!
//! How the rows are spread over buffers depends on the device, so it stays in here: what was written from one device
//! can be read on another. Rows pass through the host a piece at a time.

use std::{convert::Infallible, ops::Range, sync::Arc};

use burn::tensor::Device;
use elmo_kernels::{Segment, initial_words};

use super::{
    Classifier, ClassifierConfig, Control,
    buffer::{self, PIECE, SharedWords},
};

/// The two things that a classifier stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The weights: a row for every label.
    Weights,
    /// What rounding has taken from the weights of the most frequent labels: a row for each of these.
    Compensation,
}

impl Stored {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Weights, Self::Compensation];

    fn words_of(self, segment: &Segment) -> usize {
        match self {
            Self::Weights => segment.words(),
            Self::Compensation => segment.compensation_words(),
        }
    }
}

impl ClassifierConfig {
    /// Rows, and 32-bit words of a row.
    pub fn stored_shape(&self, stored: Stored) -> [usize; 2] {
        match (stored, self.head) {
            (Stored::Weights, _) => [self.labels, self.precision.row_words(self.dim)],
            (Stored::Compensation, Some((labels, compensation))) => {
                [labels.min(self.labels), compensation.row_words(self.dim)]
            }
            (Stored::Compensation, None) => [0, 0],
        }
    }

    /// A classifier with initial weights on the device.
    ///
    /// They are drawn on the CPU, one segment at a time, so they are the same on every device.
    pub fn init(&self, device: &Device) -> Classifier {
        let device = device.clone().without_autodiff();
        #[cfg(test)]
        drawn::TIMES.with(|times| times.set(times.get() + 1));
        let weights = |segment: &Segment| {
            let words = initial_words(segment, self.initializer, self.seed);
            buffer::upload_words(words, &device)
        };
        let compensation = |segment: &Segment| {
            buffer::upload(segment.compensation_words(), &device, |_, words| {
                words.fill(0);
                Ok::<_, Infallible>(())
            })
            .unwrap_or_else(|never| match never {})
        };
        let segments = self.segments();
        let weights = segments.iter().map(weights).map(SharedWords::new).collect();
        let compensation = segments.iter().map(compensation).map(SharedWords::new).collect();
        self.assemble(segments, weights, compensation)
    }

    /// A classifier with weights from elsewhere, which lie on the device as initial ones would. No weight is drawn.
    ///
    /// `read` fills a run of rows with their words, wherever they come from. Runs come in ascending order, weights
    /// first.
    ///
    /// # Errors
    /// The first one of `read`.
    pub fn load<E>(
        &self,
        device: &Device,
        mut read: impl FnMut(Stored, Range<usize>, &mut [u32]) -> Result<(), E>,
    ) -> Result<Classifier, E> {
        let device = device.clone().without_autodiff();
        let segments = self.segments();
        let mut buffers = |stored: Stored| {
            let [_, row_words] = self.stored_shape(stored);
            (segments.iter())
                .map(|segment| {
                    let first = segment.first_label as usize;
                    let words = stored.words_of(segment);
                    let fill = |at: Range<usize>, words: &mut [u32]| {
                        read(stored, first + at.start / row_words..first + at.end / row_words, words)
                    };
                    buffer::upload_rows(words, row_words, &device, fill).map(SharedWords::new)
                })
                .collect::<Result<_, E>>()
        };
        let weights = buffers(Stored::Weights)?;
        let compensation = buffers(Stored::Compensation)?;
        Ok(self.assemble(segments, weights, compensation))
    }

    fn assemble(
        &self,
        segments: Vec<Segment>,
        weights: Vec<SharedWords>,
        compensation: Vec<SharedWords>,
    ) -> Classifier {
        Classifier {
            weights,
            compensation,
            control: Control { config: Arc::new(self.clone()), segments: segments.into(), steps: Arc::default() },
        }
    }
}

impl Classifier {
    /// Hands out what is stored, a run of rows after the other: the counterpart of [`ClassifierConfig::load`].
    ///
    /// # Errors
    /// The first one of `write`.
    pub fn save<E>(
        &self,
        stored: Stored,
        mut write: impl FnMut(Range<usize>, &[u32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let [_, row_words] = self.config().stored_shape(stored);
        let buffers = match stored {
            Stored::Weights => &self.weights,
            Stored::Compensation => &self.compensation,
        };
        for (buffer, segment) in buffers.iter().zip(self.control.segments.iter()) {
            let first = segment.first_label as usize;
            let length = stored.words_of(segment);
            let step = (PIECE / row_words.max(1)).max(1) * row_words.max(1);
            for from in (0..length).step_by(step) {
                let to = (from + step).min(length);
                let words: Vec<u32> = buffer.get().narrow(0, from, to - from).into_data().iter().collect();
                write(first + from / row_words..first + to / row_words, &words)?;
            }
        }
        Ok(())
    }
}

/// How often this thread has drawn the initial weights of a classifier.
#[cfg(test)]
pub(crate) mod drawn {
    thread_local! {
        pub(crate) static TIMES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::classifier::{Format, Positives};

    /// Through the host and back, into buffers of another size.
    #[test]
    fn what_was_saved_is_loaded_whatever_the_buffers() {
        let device = Device::flex();
        let config = ClassifierConfig::new(300, 20).with_head(100, Format::Bf16);
        let classifier = config.init(&device);
        let positives = Positives::new(vec![(0, 0), (150, 1), (299, 1)]);
        let step = |classifier: &Classifier| {
            classifier.step(Tensor::ones([2, 20], &device), &positives, 0.3, false);
            classifier.weights()
        };
        step(&classifier);
        let mut saved = [Vec::new(), Vec::new()];
        for (stored, all) in Stored::ALL.into_iter().zip(&mut saved) {
            let mut next = 0;
            classifier
                .save(stored, |rows, words| {
                    assert_eq!(rows.start, next);
                    next = rows.end;
                    all.extend_from_slice(words);
                    Ok::<_, Infallible>(())
                })
                .unwrap();
            let [rows, row_words] = config.stored_shape(stored);
            assert_eq!((next, all.len()), (rows, rows * row_words));
        }
        let cut = ClassifierConfig { segment_bytes: 32 * 77, ..config.clone() };
        let loaded = cut
            .load(&device, |stored, rows, words| {
                let all = &saved[stored as usize];
                let [_, row_words] = config.stored_shape(stored);
                words.copy_from_slice(&all[rows.start * row_words..rows.end * row_words]);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        loaded.set_steps(classifier.steps());
        assert_eq!(loaded.weights.len(), 4);
        assert_eq!(loaded.weights(), classifier.weights());
        // The compensation is the same too.
        assert_eq!(step(&loaded), step(&classifier));
    }

    #[test]
    fn an_error_of_the_reader_ends_the_loading() {
        let config = ClassifierConfig::new(30, 8);
        let result = config.load(&Device::flex(), |_, rows, _| Err(rows));
        assert_eq!(result.unwrap_err(), 0..30);
    }
}
