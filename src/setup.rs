//! From a configuration to what stands before the model: the data set and the tokenizer.

use std::path::{Path, PathBuf};

use crate::{
    classifier,
    config::Config,
    data::{Columns, Source, TextTokenizer, Vocabulary, Watch, trained_tokenizer},
    device::Compute,
    error::{Error, Result},
    hub,
};

const ENCODER: &str = "dataset.model.encoder.encoder_model";
const TOKENIZER: &str = "dataset.model.encoder.encoder_tokenizer";

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

/// Whether the pretrained encoder is there, if the configuration names one.
///
/// # Errors
/// [`Error::Weights`]
pub fn check_encoder_folder(config: &Config) -> Result<()> {
    encoder_folder(config).map(|_| ())
}

/// The Hugging Face folder of the pretrained encoder: one on disk, or in the cache of the hub's programs. `None` if the
/// encoder is to be one from scratch.
///
/// # Errors
/// [`Error::Weights`] if it is not there.
pub fn encoder_folder(config: &Config) -> Result<Option<PathBuf>> {
    let encoder = &config.dataset.model.encoder;
    (!encoder.is_scratch()).then(|| hub::find(&encoder.encoder_model, ENCODER)).transpose()
}

/// Where the weights of the pretrained encoder are, a folder or a file; `None` if there is to be one from scratch.
///
/// # Errors
/// [`Error::Weights`]
pub fn pretrained_weights(config: &Config) -> Result<Option<PathBuf>> {
    let encoder = &config.dataset.model.encoder;
    if !encoder.use_ngame_encoder_weights {
        return encoder_folder(config);
    }
    let usual = || Path::new("NGAME_ENCODERS").join(&config.dataset.data.dataset).join("state_dict.pt");
    let path = encoder.ngame_checkpoint.as_ref().map_or_else(usual, PathBuf::from);
    if path.is_file() {
        return Ok(Some(path));
    }
    Err(Error::Weights {
        message: "no such file".into(),
        hint: Some(
            "dataset.model.encoder.use_ngame_encoder_weights=true reads the encoder of an NGAME model: \
             dataset.model.encoder.ngame_checkpoint says in which file it is; false starts from encoder_model"
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
        // A tokenizer may be a file of its own.
        Some(path) if Path::new(path).is_file() => TextTokenizer::from_file(Path::new(path)),
        Some(name) => TextTokenizer::from_file(&hub::find(name, TOKENIZER)?),
        None if encoder.is_scratch() => {
            let wanted = Vocabulary {
                size: encoder.scratch.vocab_size,
                lowercase: encoder.scratch.lowercase,
                strip_accents: encoder.scratch.strip_accents,
            };
            trained_tokenizer(source, wanted, cache_dir, watch)
        }
        None => TextTokenizer::from_file(&hub::find(&encoder.encoder_model, ENCODER)?),
    }
}
