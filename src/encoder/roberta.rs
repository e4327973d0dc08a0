//! RoBERTa (Liu et al., 2019) in the words of the transformer: BERT's names, other positions.

use super::{
    bert::NAMES,
    facts::Facts,
    sizes::{Switches, TransformerConfig},
};

pub(super) const ROBERTA: Facts = Facts {
    defaults: roberta_base,
    keys: &[],
    switches: Switches { token_types: true, positions_after_padding: true },
    names: NAMES,
};

/// What a `config.json` means that says nothing else.
fn roberta_base() -> TransformerConfig {
    TransformerConfig { vocab_size: 50265, pad_token_id: 1, ..TransformerConfig::bert_base() }
}
