//! Where the dropouts of a pass get their random bits.

use elmo_kernels::{encoder::Dropout, random::hash};

/// The dropouts of one pass through an encoder: all of them a function of the pass's key, or none.
///
/// Burn draws one global sequence of random numbers for a device: a step could not be repeated. See [`Dropout`] for
/// what the bits depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropouts(Option<u32>);

impl Dropouts {
    /// Outside of training.
    pub const NONE: Self = Self(None);
    /// The place of the embedding of a text; those of the layers count from 0.
    pub const EMBEDDING: u32 = u32::MAX;

    /// Those of the pass with this key.
    pub fn of_pass(key: u64) -> Self {
        Self(Some(hash(key as u32 ^ hash((key >> 32) as u32))))
    }

    /// That of one place of the pass.
    pub fn at(self, place: u32, probability: f64) -> Dropout {
        match self.0 {
            Some(key) => Dropout::new(key, place, probability),
            None => Dropout::NONE,
        }
    }
}
