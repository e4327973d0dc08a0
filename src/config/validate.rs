//! Values that have the right type and are wrong all the same: out of range, or at odds with another.

use super::{Config, Implementation, Schedule, keys::KEYS, layers::Layers};
use crate::{Result, encoder::PoolMode};

/// Tokens of a text at most for a pretrained encoder.
const LONGEST_PRETRAINED: usize = 512;

/// What is said of a schedule that waits for something to get better where nothing is measured.
const BLIND: (&str, &str) = (
    "another schedule than ReduceLROnPlateau where no rows are held out and no loss is computed",
    "dataset.data.validation_fraction=0.05 holds out rows, dataset.training.loss_every=10 computes the loss",
);

/// Checks that every key has a value that it may have.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for the first that has not.
pub(super) fn ranges(layers: &Layers) -> Result<()> {
    match KEYS.iter().find(|key| !key.admits(layers.value(key.name))) {
        Some(key) => Err(layers.refused(key)),
        None => Ok(()),
    }
}

/// Checks the values that must fit each other.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for the first that does not. Where only the other one was set, its place is
/// named.
pub(super) fn conflicts(config: &Config, layers: &Layers) -> Result<()> {
    let encoder = &config.dataset.model.encoder;
    let scratch = &encoder.scratch;
    let training = &config.dataset.training;
    let watched = config.dataset.data.validation_fraction > 0.0 || training.loss_every > 0;
    for (holds, key, other, expected, hint) in [
        (
            encoder.is_scratch() || config.dataset.data.max_len <= LONGEST_PRETRAINED,
            "dataset.data.max_len",
            "dataset.model.encoder.encoder_model",
            format!("a whole number from 8 to {LONGEST_PRETRAINED}"),
            "only an encoder from scratch reads longer texts than that",
        ),
        (
            scratch.hidden_size.is_multiple_of(scratch.num_attention_heads),
            "dataset.model.encoder.scratch.hidden_size",
            "dataset.model.encoder.scratch.num_attention_heads",
            format!("a multiple of num_attention_heads = {}", scratch.num_attention_heads),
            "every attention head takes an equal part of the width",
        ),
        (
            encoder.feature_layers == 1 || encoder.pool_mode == PoolMode::LastNhiddenConlast,
            "dataset.model.encoder.feature_layers",
            "dataset.model.encoder.pool_mode",
            format!("1 with pool_mode = {}", word(&encoder.pool_mode)),
            "pool_mode=last_nhidden_conlast pools several layers",
        ),
        (
            !(encoder.is_scratch() && encoder.use_ngame_encoder_weights),
            "dataset.model.encoder.use_ngame_encoder_weights",
            "dataset.model.encoder.encoder_model",
            "false with encoder_model = scratch".into(),
            "NGAME's weights are those of a pretrained encoder: name in encoder_model the folder that describes it",
        ),
        (
            config.dataset.data.label_sort
                || config.dataset.model.xmc.implementation != Implementation::Fp8ChunkedHeadKahan,
            "dataset.data.label_sort",
            "dataset.model.xmc.implementation",
            "true with implementation=fp8chunkedheadkahan".into(),
            "the compensation belongs to the most frequent labels, which must come first",
        ),
        (
            watched || training.encoder.lr_scheduler != Schedule::Plateau,
            "dataset.training.encoder.lr_scheduler",
            "dataset.training.loss_every",
            BLIND.0.into(),
            BLIND.1,
        ),
        (
            watched || training.xmc.lr_scheduler != Schedule::Plateau,
            "dataset.training.xmc.lr_scheduler",
            "dataset.training.loss_every",
            BLIND.0.into(),
            BLIND.1,
        ),
    ] {
        if !holds {
            let place = if layers.is_set(key) { key } else { other };
            return Err(layers.error(key, place, expected, Some(hint.into())));
        }
    }
    Ok(())
}

/// A word as a configuration has it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}
