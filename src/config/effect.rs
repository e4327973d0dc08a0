//! Settings without effect, given the rest of the configuration: nothing is wrong, but the user expects something of
//! them.

use crate::data::Format;

use super::{Config, EncoderOptimizer, Implementation, Schedule, keys::Key, layers::Layers};

/// Warnings about what the user set although the rest of the configuration makes it void.
pub(super) fn warnings(config: &Config, layers: &Layers) -> Vec<String> {
    let (data, model, training) = (&config.dataset.data, &config.dataset.model, &config.dataset.training);
    let plain = !model.xmc.implementation.is_fp8();
    let head = model.xmc.implementation == Implementation::Fp8ChunkedHeadKahan;
    let pretrained = !model.encoder.is_scratch();
    let no_head = "only implementation = fp8chunkedheadkahan compensates";
    let (no_rise, no_fall) = ("only CosineScheduleWithWarmup warms up", "only MultiStepLR has milestones");
    let (no_factor, no_wait) = ("only MultiStepLR and ReduceLROnPlateau multiply", "only ReduceLROnPlateau waits");
    let encoder = training.encoder.lr_scheduler;
    let xmc = training.xmc.lr_scheduler;
    let falls = |schedule| matches!(schedule, Schedule::MultiStep | Schedule::Plateau);
    let is_sgd = training.encoder.optimizer == EncoderOptimizer::Sgd;
    let mut void = vec![
        (!plain, "dataset.model.xmc.dtype", "the weights of fp8 implementations are E4M3"),
        (plain, "dataset.training.xmc.simulated_fp8", "implementation = chunked has no FP8 weights"),
        (!head, "dataset.training.FP8.head_ratio", no_head),
        (!head, "dataset.model.xmc.compensation", no_head),
        (
            !model.encoder.use_ngame_encoder_weights,
            "dataset.model.encoder.ngame_checkpoint",
            "use_ngame_encoder_weights is false",
        ),
        (
            !model.bottleneck.use_bottleneck_layer,
            "dataset.model.bottleneck.bottleneck_size",
            "use_bottleneck_layer is false",
        ),
        (model.xmc.chunk_size.is_some(), "dataset.model.xmc.num_chunks", "chunk_size is set"),
        (encoder != Schedule::CosineScheduleWithWarmup, "dataset.training.encoder.warmup_steps", no_rise),
        (encoder != Schedule::MultiStep, "dataset.training.encoder.milestones", no_fall),
        (!falls(encoder), "dataset.training.encoder.gamma", no_factor),
        (encoder != Schedule::Plateau, "dataset.training.encoder.patience", no_wait),
        (xmc != Schedule::CosineScheduleWithWarmup, "dataset.training.xmc.warmup_steps", no_rise),
        (xmc != Schedule::MultiStep, "dataset.training.xmc.milestones", no_fall),
        (!falls(xmc), "dataset.training.xmc.gamma", no_factor),
        (xmc != Schedule::Plateau, "dataset.training.xmc.patience", no_wait),
        (!is_sgd, "dataset.training.encoder.momentum", "Adam has no momentum to set"),
        (
            model.encoder.dtype == elmo_kernels::Format::F32,
            "dataset.training.encoder.kahan",
            "the encoder's weights are float32",
        ),
        (
            training.fp8.use_fp8_encoder,
            "dataset.training.FP8.use_fp8_encoder",
            "the encoder computes in dataset.model.encoder.dtype; one in FP8 is not available in this version",
        ),
        (data.validation_fraction == 0.0, "dataset.data.validation_max", "validation_fraction is 0"),
    ];
    let columns = matches!(data.format, Format::Auto | Format::Table | Format::JsonLines);
    void.extend(
        ["dataset.data.text_column", "dataset.data.label_column", "dataset.data.label_separator"]
            .map(|key| (!columns, key, "only tables and JSON lines with label names have columns")),
    );
    void.extend(
        [
            "dataset.model.encoder.scratch.vocab_size",
            "dataset.model.encoder.scratch.lowercase",
            "dataset.model.encoder.scratch.strip_accents",
            "dataset.model.encoder.scratch.hidden_size",
            "dataset.model.encoder.scratch.num_hidden_layers",
            "dataset.model.encoder.scratch.num_attention_heads",
            "dataset.model.encoder.scratch.intermediate_size",
            "dataset.model.encoder.scratch.dropout",
        ]
        .map(|key| (pretrained, key, "encoder_model is a pretrained encoder")),
    );
    let given = !pretrained && model.encoder.encoder_tokenizer.is_some();
    void.extend(
        [
            "dataset.model.encoder.scratch.vocab_size",
            "dataset.model.encoder.scratch.lowercase",
            "dataset.model.encoder.scratch.strip_accents",
        ]
        .map(|key| (given, key, "encoder_tokenizer is set")),
    );
    void.into_iter()
        .filter(|(is_void, key, _)| {
            debug_assert!(Key::named(key).is_some(), "{key}");
            *is_void && layers.by_user(key)
        })
        .map(|(_, key, why)| format!("{}: `{key}` has no effect: {why}", layers.origin(key)))
        .collect()
}

impl Config {
    /// Warnings about a learning rate that is still rising when a good part of the training is over, given how many
    /// steps the classifier and the encoder take in all.
    pub fn warm_up_warnings(&self, classifier_steps: u64, encoder_steps: u64) -> Vec<String> {
        let training = &self.dataset.training;
        let (encoder, xmc) = (&training.encoder, &training.xmc);
        [
            ("encoder", encoder.lr_scheduler, encoder.warmup_steps as u64, encoder_steps),
            ("xmc", xmc.lr_scheduler, xmc.warmup_steps as u64, classifier_steps),
        ]
        .into_iter()
        .filter(|(_, schedule, warm_up, steps)| *schedule == Schedule::CosineScheduleWithWarmup && *warm_up > steps / 2)
        .map(|(section, _, warm_up, steps)| {
            let what = match warm_up < steps {
                true => "the learning rate rises in most of them",
                false => "the learning rate never reaches its full value",
            };
            let (key, less) = (format!("dataset.training.{section}.warmup_steps"), steps / 10);
            format!("{steps} steps in all, {warm_up} of them warm-up ({key}): {what}; {key}={less} is a tenth")
        })
        .collect()
    }
}
