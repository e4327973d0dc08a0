//! BERT (Devlin et al., 2019) in the words of the transformer.

use super::{
    facts::{Facts, Names},
    sizes::{Switches, TransformerConfig},
};

pub(super) const BERT: Facts = Facts {
    defaults: TransformerConfig::bert_base,
    keys: &[],
    switches: Switches { token_types: true, positions_after_padding: false },
    names: NAMES,
};

/// The names that BERT gave its tensors, and those who came after it kept.
pub(super) const NAMES: Names = Names {
    modules: &[
        ("embeddings.word", "embeddings.word_embeddings"),
        ("embeddings.position", "embeddings.position_embeddings"),
        ("embeddings.token_type", "embeddings.token_type_embeddings"),
        ("embeddings.norm", "embeddings.LayerNorm"),
    ],
    layers: "encoder.layer",
    layer_modules: &[
        ("attention.query", "attention.self.query"),
        ("attention.key", "attention.self.key"),
        ("attention.value", "attention.self.value"),
        ("attention.output", "attention.output.dense"),
        ("attention.norm", "attention.output.LayerNorm"),
        ("intermediate", "intermediate.dense"),
        ("output", "output.dense"),
        ("norm", "output.LayerNorm"),
    ],
    ignored: &["embeddings.position_ids", "embeddings.token_type_ids"],
};
