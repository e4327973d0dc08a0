//! DistilBERT (Sanh et al., 2019) in the words of the transformer.

use super::{
    facts::{Facts, Names},
    sizes::{Switches, TransformerConfig},
};

pub(super) const DISTILBERT: Facts = Facts {
    defaults: distilbert_base,
    keys: &[
        ("hidden_size", "dim"),
        ("num_hidden_layers", "n_layers"),
        ("num_attention_heads", "n_heads"),
        ("intermediate_size", "hidden_dim"),
        ("hidden_act", "activation"),
        ("hidden_dropout_prob", "dropout"),
        ("attention_probs_dropout_prob", "attention_dropout"),
    ],
    switches: Switches { token_types: false, positions_after_padding: false },
    names: Names {
        modules: &[
            ("embeddings.word", "embeddings.word_embeddings"),
            ("embeddings.position", "embeddings.position_embeddings"),
            ("embeddings.norm", "embeddings.LayerNorm"),
        ],
        layers: "transformer.layer",
        layer_modules: &[
            ("attention.query", "attention.q_lin"),
            ("attention.key", "attention.k_lin"),
            ("attention.value", "attention.v_lin"),
            ("attention.output", "attention.out_lin"),
            ("attention.norm", "sa_layer_norm"),
            ("intermediate", "ffn.lin1"),
            ("output", "ffn.lin2"),
            ("norm", "output_layer_norm"),
        ],
        ignored: &["embeddings.position_ids"],
    },
};

/// What a `config.json` means that says nothing else.
fn distilbert_base() -> TransformerConfig {
    TransformerConfig { num_hidden_layers: 6, type_vocab_size: 0, ..TransformerConfig::bert_base() }
}
