//! The transformer encoder: one layer, the embeddings and the mean over a text, forward and backward, on packed texts.

#[cfg(feature = "flex")]
mod cpu;
#[cfg(feature = "cube")]
mod gpu;
mod ops;
mod problem;
pub mod reference;
mod texts;
mod weights;

pub use ops::{EncoderOps, Forward, LayerGradients, embed, layer, mean};
pub use problem::{Activation, Activations, Dropout, EmbeddingCall, Kept, LayerCall, MeanCall};
pub use texts::{PackedTexts, TextLayout};
pub use weights::{Affine, EmbeddingWeights, LayerWeights, Norm};
