//! Values that have the right type and are wrong all the same: out of range, or not available in this version.

use super::{Config, Implementation, PoolMode, layers::Layers};
use crate::{Error, Result};
use std::ops::RangeInclusive;

/// Texts of a batch at most: what the GPU kernels take along one axis.
const GPU_AXIS: usize = 65_535;

/// Labels of a chunk at most; kernels take less where a batch is large.
const LARGEST_CHUNK: usize = 1 << 24;

/// Tokens of a text at most, for a pretrained encoder and for one from scratch. Together with [`GPU_AXIS`] and the
/// limits of the encoder from scratch it keeps any product of sizes within 64 bits.
const LONGEST: (usize, usize) = (512, 4096);

/// Whether this can be the name of a file or folder, on any system.
pub(super) fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\\'])
}

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
        self.fits(holds, key, key, expected, hint)
    }

    /// Refuses the value of `key` unless the condition holds, which `other` is part of too: where only that was set,
    /// its place is named.
    fn fits(&self, holds: bool, key: &str, other: &str, expected: &str, hint: Option<&str>) -> Result<()> {
        debug_assert!(self.0.knows(key) && self.0.knows(other), "{key}, {other}");
        if holds {
            return Ok(());
        }
        let place = if self.0.is_set(key) { key } else { other };
        Err(Error::Config {
            origin: self.0.origin(place),
            key: key.into(),
            expected: expected.into(),
            found: self.0.value(key),
            hint: hint.map(str::to_owned),
        })
    }

    fn positive(&self, value: usize, key: &str) -> Result<()> {
        self.that(value > 0, key, "a whole number, 1 or more", None)
    }

    fn within(&self, value: usize, range: RangeInclusive<usize>, key: &str) -> Result<()> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.that(range.contains(&value), key, &expected, None)
    }

    fn not_negative(&self, value: f64, key: &str) -> Result<()> {
        self.that(value.is_finite() && value >= 0.0, key, "a number, 0 or more", None)
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

    /// A name that becomes one part of a path.
    fn part_of_a_path(&self, value: &str, key: &str, hint: &str) -> Result<()> {
        let expected = "a name that is not empty, `.` or `..` and has no `/` or `\\` in it";
        self.that(is_name(value), key, expected, Some(hint))
    }

    /// What the reference can do and this version cannot.
    fn available(&self, config: &Config) -> Result<()> {
        let encoder = &config.dataset.model.encoder;
        let training = &config.dataset.training;
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
                config.dataset.model.xmc.using_dropout,
                "dataset.model.xmc.using_dropout",
                "a dropout of the classifier's own is not available in this version; set it to false: \
                 dataset.model.encoder.embed_dropout drops elements of the same vector",
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
        if let Some(name) = &config.log_fname {
            let hint = "`--runs` says in which folder the run folder is made";
            self.part_of_a_path(name, "log_fname", hint)?;
        }
        let data = &config.dataset.data;
        self.part_of_a_path(
            &data.dataset,
            "dataset.data.dataset",
            "dataset_path and dataset.data.folder say where its files lie",
        )?;
        self.named(data.folder.as_deref(), "dataset.data.folder")?;
        // Labels are numbered by 32 bits with a sign.
        self.within(data.num_labels, 0..=i32::MAX as usize, "dataset.data.num_labels")?;
        let longest = match config.dataset.model.encoder.is_scratch() {
            true => LONGEST.1,
            false => LONGEST.0,
        };
        self.within(data.max_len, 8..=longest, "dataset.data.max_len")?;
        self.within(data.batch_size, 1..=GPU_AXIS, "dataset.data.batch_size")?;
        self.within(data.test_batch_size, 1..=GPU_AXIS, "dataset.data.test_batch_size")?;
        self.share(data.validation_fraction, "dataset.data.validation_fraction")
    }

    fn model(&self, config: &Config) -> Result<()> {
        let encoder = &config.dataset.model.encoder;
        self.named(Some(&encoder.encoder_model), "dataset.model.encoder.encoder_model")?;
        self.named(
            encoder.encoder_tokenizer.as_deref(),
            "dataset.model.encoder.encoder_tokenizer",
        )?;
        self.share(encoder.embed_dropout, "dataset.model.encoder.embed_dropout")?;

        let scratch = &encoder.scratch;
        self.that(
            scratch.vocab_size >= 100,
            "dataset.model.encoder.scratch.vocab_size",
            "a whole number, 100 or more",
            Some("the special tokens and every letter have a place in it too"),
        )?;
        for (value, most, key) in [
            (
                scratch.num_hidden_layers,
                256,
                "dataset.model.encoder.scratch.num_hidden_layers",
            ),
            (
                scratch.num_attention_heads,
                1024,
                "dataset.model.encoder.scratch.num_attention_heads",
            ),
            (scratch.hidden_size, 65_536, "dataset.model.encoder.scratch.hidden_size"),
            (
                scratch.intermediate_size,
                65_536,
                "dataset.model.encoder.scratch.intermediate_size",
            ),
        ] {
            self.within(value, 1..=most, key)?;
        }
        self.fits(
            scratch.hidden_size.is_multiple_of(scratch.num_attention_heads),
            "dataset.model.encoder.scratch.hidden_size",
            "dataset.model.encoder.scratch.num_attention_heads",
            &format!("a multiple of num_attention_heads = {}", scratch.num_attention_heads),
            Some("every attention head takes an equal part of the width"),
        )?;
        self.share(scratch.dropout, "dataset.model.encoder.scratch.dropout")?;

        let xmc = &config.dataset.model.xmc;
        self.positive(xmc.num_chunks.unwrap_or(1), "dataset.model.xmc.num_chunks")?;
        self.within(
            xmc.chunk_size.unwrap_or(1),
            1..=LARGEST_CHUNK,
            "dataset.model.xmc.chunk_size",
        )?;
        self.fits(
            config.dataset.data.label_sort || xmc.implementation != Implementation::Fp8ChunkedHeadKahan,
            "dataset.data.label_sort",
            "dataset.model.xmc.implementation",
            "true with implementation=fp8chunkedheadkahan",
            Some("the compensation belongs to the most frequent labels, which must come first"),
        )
    }

    fn training(&self, config: &Config) -> Result<()> {
        let training = &config.dataset.training;
        self.within(training.epochs, 1..=1_000_000, "dataset.training.epochs")?;
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
                value > 0.0 && value <= 100.0,
                key,
                "a number above 0, at most 100",
                None,
            )?;
        }
        Ok(())
    }
}
