//! From a configuration to what stands before the model: the data set and the tokenizer.

use std::path::{Path, PathBuf};

use crate::{
    classifier,
    config::Config,
    data::{Columns, Source, TextTokenizer, Vocabulary, Watch, trained_tokenizer},
    device::Compute,
    error::{Error, Result},
};

/// Opens the device called `name`, the best one if there is no name, for what `config` wants to compute there.
///
/// # Errors
/// As [`Compute::open`].
pub fn device(config: &Config, name: Option<&str>) -> Result<Compute> {
    let wants_bf16 = config.dataset.model.encoder.dtype == classifier::Format::Bf16;
    Compute::open(name, wants_bf16, config.dataset.training.seed)
}

/// How the data set of a configuration is to be read from `dir`.
pub fn source<'a>(config: &'a Config, dir: &'a Path) -> Source<'a> {
    let data = &config.dataset.data;
    Source {
        dir,
        name: &data.dataset,
        format: data.format,
        columns: Columns {
            text: data.text_column.as_deref(),
            labels: data.label_column.as_deref(),
            separator: data.label_separator.as_deref(),
        },
        text: data.text,
        augment_label_data: data.augment_label_data,
        use_filter_eval: data.use_filter_eval,
        num_labels: data.num_labels,
        max_len: data.max_len,
        label_sort: data.label_sort,
        validation_fraction: data.validation_fraction,
        validation_max: data.validation_max,
        seed: config.dataset.training.seed,
        keep_tokens: true,
    }
}

/// Whether the folder of a pretrained encoder is there, if the configuration names one.
///
/// # Errors
/// [`Error::Weights`]
pub fn check_encoder_folder(config: &Config) -> Result<()> {
    let encoder = &config.dataset.model.encoder;
    if encoder.is_scratch() || Path::new(&encoder.encoder_model).is_dir() {
        return Ok(());
    }
    let path = PathBuf::from(&encoder.encoder_model);
    Err(Error::Weights {
        message: match path.exists() {
            true => "a file, not a folder".into(),
            false => "no such folder".into(),
        },
        hint: Some(
            "dataset.model.encoder.encoder_model is a Hugging Face folder on disk, with config.json, \
             model.safetensors or pytorch_model.bin, and tokenizer.json or vocab.txt; nothing is downloaded"
                .into(),
        ),
        path,
    })
}

/// The tokenizer that the configuration names; for an encoder from scratch without one, a WordPiece vocabulary is
/// trained on the data set's own texts, and kept in `cache_dir`.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`]
pub fn tokenizer(config: &Config, source: &Source, cache_dir: Option<&Path>, watch: &Watch) -> Result<TextTokenizer> {
    let encoder = &config.dataset.model.encoder;
    match &encoder.encoder_tokenizer {
        Some(path) => TextTokenizer::from_file(Path::new(path)),
        None if encoder.is_scratch() => {
            let wanted = Vocabulary {
                size: encoder.scratch.vocab_size,
                lowercase: encoder.scratch.lowercase,
                strip_accents: encoder.scratch.strip_accents,
            };
            trained_tokenizer(source, wanted, cache_dir, watch)
        }
        None => TextTokenizer::from_file(Path::new(&encoder.encoder_model)),
    }
}
