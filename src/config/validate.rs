//! Values that have the right type and are wrong all the same: out of range, or not available in this version.

use super::{Config, PoolMode, layers::Layers};
use crate::{Error, Result};

/// Checks every value.
///
/// # Errors
/// [`Error::Config`] for the first that is out of range or asks for what this version cannot do.
pub(super) fn validate(config: &Config, layers: &Layers) -> Result<()> {
    let check = Check(layers);
    check.available(config)?;
    check.data(config)?;
    check.model(config)?;
    check.training(config)
}

struct Check<'a>(&'a Layers);

impl Check<'_> {
    /// Refuses the value of `key` unless the condition holds.
    fn that(&self, holds: bool, key: &str, expected: &str, hint: Option<&str>) -> Result<()> {
        debug_assert!(self.0.knows(key), "{key}");
        if holds {
            return Ok(());
        }
        Err(Error::Config {
            origin: self.0.origin(key),
            key: key.into(),
            expected: expected.into(),
            found: self.0.value(key),
            hint: hint.map(str::to_owned),
        })
    }

    fn positive(&self, value: usize, key: &str) -> Result<()> {
        self.that(value > 0, key, "a whole number, 1 or more", None)
    }

    fn not_negative(&self, value: f64, key: &str) -> Result<()> {
        self.that(
            value.is_finite() && value >= 0.0,
            key,
            "a number, 0 or more",
            None,
        )
    }

    /// A share or a rate that leaves something.
    fn share(&self, value: f64, key: &str) -> Result<()> {
        self.that(
            (0.0..1.0).contains(&value),
            key,
            "a number from 0 up to, but not including, 1",
            None,
        )
    }

    fn named(&self, value: Option<&str>, key: &str) -> Result<()> {
        self.that(value != Some(""), key, "a name that is not empty", None)
    }

    /// What the reference can do and this version cannot.
    fn available(&self, config: &Config) -> Result<()> {
        let encoder = &config.dataset.model.encoder;
        let training = &config.dataset.training;
        let evaluation = &training.evaluation;
        const METRICS: &str =
            "only P@k and PSP@k (eval_psp) are available in this version; set it to false";
        for (is_asked_for, key, hint) in [
            (
                training.fp8.use_fp8_encoder,
                "dataset.training.FP8.use_fp8_encoder",
                "the FP8 encoder is not available in this version; set it to false: the encoder then computes in \
                 dataset.model.encoder.dtype, and the classifier's weights stay FP8",
            ),
            (
                config.dataset.model.bottleneck.use_bottleneck_layer,
                "dataset.model.bottleneck.use_bottleneck_layer",
                "the bottleneck layer is not available in this version; set it to false",
            ),
            (
                encoder.use_ngame_encoder_weights,
                "dataset.model.encoder.use_ngame_encoder_weights",
                "NGAME weights are not available in this version; set it to false and \
                 dataset.model.encoder.encoder_model to a Hugging Face folder",
            ),
            (
                evaluation.eval_recall,
                "dataset.training.evaluation.eval_recall",
                METRICS,
            ),
            (
                evaluation.eval_ndcg,
                "dataset.training.evaluation.eval_ndcg",
                METRICS,
            ),
            (
                evaluation.eval_psr,
                "dataset.training.evaluation.eval_psr",
                METRICS,
            ),
        ] {
            self.that(!is_asked_for, key, "false", Some(hint))?;
        }
        self.that(
            encoder.pool_mode == PoolMode::LastHiddenAvg,
            "dataset.model.encoder.pool_mode",
            "`last_hidden_avg`",
            Some("other ways of pooling are not available in this version"),
        )?;
        self.that(
            encoder.feature_layers == 1,
            "dataset.model.encoder.feature_layers",
            "1",
            Some("pooling over several layers is not available in this version"),
        )?;
        self.that(
            training.xmc.momentum == 0.0,
            "dataset.training.xmc.momentum",
            "0",
            Some("momentum would need as much memory as the weights; it is not available in this version"),
        )
    }

    fn data(&self, config: &Config) -> Result<()> {
        self.that(
            !config.dataset_path.as_os_str().is_empty(),
            "dataset_path",
            "a folder (`.` for this one)",
            None,
        )?;
        self.named(config.log_fname.as_deref(), "log_fname")?;
        let data = &config.dataset.data;
        self.named(Some(&data.dataset), "dataset.data.dataset")?;
        self.named(data.folder.as_deref(), "dataset.data.folder")?;
        self.that(
            (8..=512).contains(&data.max_len),
            "dataset.data.max_len",
            "a whole number from 8 to 512",
            None,
        )?;
        self.positive(data.batch_size, "dataset.data.batch_size")?;
        self.positive(data.test_batch_size, "dataset.data.test_batch_size")?;
        self.share(data.validation_fraction, "dataset.data.validation_fraction")
    }

    fn model(&self, config: &Config) -> Result<()> {
        let encoder = &config.dataset.model.encoder;
        self.named(
            Some(&encoder.encoder_model),
            "dataset.model.encoder.encoder_model",
        )?;
        self.named(
            encoder.encoder_tokenizer.as_deref(),
            "dataset.model.encoder.encoder_tokenizer",
        )?;
        self.share(encoder.embed_dropout, "dataset.model.encoder.embed_dropout")?;

        let scratch = &encoder.scratch;
        for (value, key) in [
            (
                scratch.vocab_size,
                "dataset.model.encoder.scratch.vocab_size",
            ),
            (
                scratch.num_hidden_layers,
                "dataset.model.encoder.scratch.num_hidden_layers",
            ),
            (
                scratch.num_attention_heads,
                "dataset.model.encoder.scratch.num_attention_heads",
            ),
            (
                scratch.hidden_size,
                "dataset.model.encoder.scratch.hidden_size",
            ),
            (
                scratch.intermediate_size,
                "dataset.model.encoder.scratch.intermediate_size",
            ),
        ] {
            self.positive(value, key)?;
        }
        self.that(
            scratch
                .hidden_size
                .is_multiple_of(scratch.num_attention_heads),
            "dataset.model.encoder.scratch.hidden_size",
            &format!(
                "a multiple of num_attention_heads = {}",
                scratch.num_attention_heads
            ),
            Some("every attention head takes an equal part of the width"),
        )?;
        self.share(scratch.dropout, "dataset.model.encoder.scratch.dropout")?;

        let xmc = &config.dataset.model.xmc;
        self.positive(xmc.num_chunks.unwrap_or(1), "dataset.model.xmc.num_chunks")?;
        self.positive(xmc.chunk_size.unwrap_or(1), "dataset.model.xmc.chunk_size")?;
        self.share(xmc.embed_dropout, "dataset.model.xmc.embed_dropout")
    }

    fn training(&self, config: &Config) -> Result<()> {
        let training = &config.dataset.training;
        self.positive(training.epochs, "dataset.training.epochs")?;
        self.positive(
            training.encoder.grad_accum_step,
            "dataset.training.encoder.grad_accum_step",
        )?;
        self.not_negative(training.encoder.lr, "dataset.training.encoder.lr")?;
        self.not_negative(training.encoder.wd, "dataset.training.encoder.wd")?;
        self.not_negative(training.xmc.lr, "dataset.training.xmc.lr")?;
        self.not_negative(training.xmc.wd, "dataset.training.xmc.wd")?;
        self.that(
            (0.0..=1.0).contains(&training.fp8.head_ratio),
            "dataset.training.FP8.head_ratio",
            "a number from 0 to 1",
            None,
        )?;
        let evaluation = &training.evaluation;
        for (value, key) in [
            (evaluation.a, "dataset.training.evaluation.A"),
            (evaluation.b, "dataset.training.evaluation.B"),
        ] {
            self.that(
                value.is_finite() && value > 0.0,
                key,
                "a number above 0",
                None,
            )?;
        }
        Ok(())
    }
}
