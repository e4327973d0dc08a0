//! The description of a model: made from a configuration once, and all that is needed to put the model together.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{XmcModel, saved};
use crate::{
    classifier::{ClassifierConfig, Format, Initializer},
    config::{self, Config, Implementation},
    data::TextTokenizer,
    device::Compute,
    encoder::{Activations, EncoderConfig, TransformerConfig},
    error::{Error, Result},
    hardware::Hardware,
    memory::Estimate,
    setup,
};

/// What a model is, apart from its weights. A run keeps it as `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The encoder's architecture.
    pub encoder: EncoderConfig,
    /// Probability that an element of the embedding is dropped in training.
    pub embed_dropout: f64,
    /// What the classifier is. What depends on the device, the sizes of buffers and chunks, is not saved.
    #[serde(with = "saved")]
    pub classifier: ClassifierConfig,
}

/// What a job does with the model, as far as its memory is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Whether it trains.
    pub training: bool,
    /// Rows of its batches.
    pub batch: usize,
    /// The longest row in tokens.
    pub max_len: usize,
    /// What a training keeps of the encoder's layers for the way back.
    pub activations: Activations,
}

impl Job {
    /// What `config` asks of a training, or of an evaluation or prediction.
    pub fn new(config: &Config, training: bool) -> Self {
        let data = &config.dataset.data;
        let batch = if training { data.batch_size } else { data.test_batch_size };
        let activations = match config.dataset.model.encoder.activations {
            config::Activations::Auto | config::Activations::Balanced => Activations::Balanced,
            config::Activations::Least => Activations::Least,
        };
        Self { training, batch, max_len: data.max_len, activations }
    }

    /// The same, and with less kept of the encoder's layers if the configuration leaves that open and a GPU says that
    /// it has not enough free memory.
    pub fn fitted(self, config: &Config, spec: &ModelSpec, compute: &Compute) -> Self {
        let is_open = config.dataset.model.encoder.activations == config::Activations::Auto && !compute.is_cpu();
        match is_open.then(|| Hardware::of(compute).free_memory).flatten() {
            Some(free) if spec.training_bytes(self, compute) > free => Self { activations: Activations::Least, ..self },
            _ => self,
        }
    }
}

impl ModelSpec {
    /// The model that `config` asks for, with this encoder and this many labels.
    pub fn new(config: &Config, encoder: EncoderConfig, labels: usize) -> Self {
        Self {
            classifier: classifier(config, labels, encoder.dim()),
            embed_dropout: config.dataset.model.encoder.embed_dropout,
            encoder,
        }
    }

    /// The model with its initial weights on the autodiff device of `compute`: the encoder's from `pretrained`, a Hugging
    /// Face folder or a file, if there is one, all others drawn.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Weights`]
    pub fn init(&self, pretrained: Option<&Path>, compute: &Compute) -> Result<XmcModel> {
        let device = compute.device.clone().autodiff();
        let encoder = match pretrained {
            Some(weights) => self.encoder.load_pretrained(weights, &device)?,
            None => self.encoder.init(&device),
        };
        Ok(XmcModel {
            encoder: encoder.with_embedding_dropout(self.embed_dropout),
            classifier: self.classifier_on(compute).init(&device),
        })
    }

    /// Reads what was written as JSON. A key that came later than the file has its default.
    ///
    /// # Errors
    /// What is wrong with it, if a key is missing or unknown or a value is not what it can be.
    pub(crate) fn from_json(json: &Value) -> Result<Self, String> {
        let spec = Self::deserialize(json).map_err(|error| format!("damaged: {error}"))?;
        let known = serde_json::to_value(&spec).map_err(|error| error.to_string())?;
        if let Some(key) = unknown_key(json, &known) {
            return Err(format!("unknown key `{key}`: damaged, or written by a newer elmo"));
        }
        if spec.encoder.dim() != spec.classifier.dim {
            return Err(format!(
                "damaged: the encoder gives {} features, and the classifier takes {}",
                spec.encoder.dim(),
                spec.classifier.dim
            ));
        }
        if !(0.0..=1.0).contains(&spec.embed_dropout) {
            return Err(format!("damaged: `embed_dropout` is {}", spec.embed_dropout));
        }
        Ok(spec)
    }

    /// The same with the chunks that `config` asks for; they change memory and speed, never the result.
    pub(crate) fn with_chunks(mut self, config: &Config) -> Self {
        self.classifier.chunk = chunk(config, self.classifier.labels);
        self
    }

    /// The classifier's description with the device's buffer limit.
    pub(crate) fn classifier_on(&self, compute: &Compute) -> ClassifierConfig {
        ClassifierConfig { segment_bytes: compute.segment_bytes, ..self.classifier.clone() }
    }

    /// About the bytes that a training takes on a GPU.
    fn training_bytes(&self, job: Job, compute: &Compute) -> u64 {
        let number = compute.float_format().bits() as u64 / 8;
        // Values, gradients, two moments, and in 16 bits a compensation.
        let copies = if number < 4 { 5 } else { 4 };
        let encoder = self.encoder.parameters() * copies
            + self.encoder.activations(job.batch * job.max_len, Some(job.activations));
        number * encoder + self.classifier.bytes() + self.classifier.step_bytes(job.batch)
    }

    /// Whether what a job holds in memory fits the CPU. GPUs are not asked.
    ///
    /// # Errors
    /// [`Error::Memory`] if it is more than the machine has free.
    pub fn check_memory(&self, job: Job, compute: &Compute) -> Result<()> {
        if !compute.is_cpu() {
            return Ok(());
        }
        // Values, gradients, two moments, and the copy that is alive while the optimizer steps.
        let copies = if job.training { 5 } else { 1 };
        let tokens = job.max_len.next_multiple_of(8);
        // With what to do about each if it is the largest.
        let is_smallest = self.classifier.precision == Format::E4m3 && self.classifier.head.is_none();
        let fewer = match is_smallest {
            true => {
                "lower dataset.data.num_labels if it is more than the data has, or choose an encoder with fewer features"
            }
            false => "store the classifier in 8 bits (dataset.model.xmc.implementation=fp8chunked)",
        };
        let parts = [
            ("classifier weights", self.classifier.bytes(), fewer),
            (
                "classifier step",
                self.classifier.step_bytes(job.batch),
                "lower dataset.data.batch_size, or dataset.model.xmc.chunk_size if it is set",
            ),
            (
                "encoder parameters and their optimizer",
                4 * self.encoder.parameters() * copies,
                "choose a smaller encoder",
            ),
            (
                "encoder activations",
                4 * self.encoder.activations(job.batch * tokens, job.training.then_some(job.activations)),
                "lower dataset.data.batch_size or dataset.data.max_len, or choose a smaller encoder",
            ),
        ];
        let mut estimate = Estimate::default();
        for (part, bytes, _) in parts {
            estimate.add(part, bytes);
        }
        let largest = parts.iter().max_by_key(|(_, bytes, _)| *bytes).map(|(part, _, help)| (*part, *help));
        estimate.check_cpu(match largest {
            Some((_, help)) if job.training => help,
            Some(("classifier step" | "encoder activations", _)) => {
                "lower dataset.data.test_batch_size in the run's config.toml, or use a larger machine"
            }
            _ => "use a larger machine",
        })
    }
}

/// The architecture that `config` asks for: that of a pretrained encoder, or one from scratch for `tokenizer`.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`]; [`Error::Weights`] if it has fewer tokens than the tokenizer.
pub fn encoder_config(config: &Config, tokenizer: &TextTokenizer) -> Result<EncoderConfig> {
    let Some(encoder) = pretrained_encoder(config)? else {
        return with_output(scratch(config, tokenizer), config);
    };
    if tokenizer.vocab_size() > encoder.vocab_size() {
        return Err(Error::Weights {
            path: PathBuf::from(&config.dataset.model.encoder.encoder_model),
            message: format!(
                "the tokenizer has {} tokens, the encoder embeds {}",
                tokenizer.vocab_size(),
                encoder.vocab_size()
            ),
            hint: Some("use the tokenizer that came with the encoder".into()),
        });
    }
    Ok(encoder)
}

/// The architecture of the pretrained encoder that `config` names; `None` if it asks for one from scratch. Its weights
/// are known to be there, and are not read.
///
/// # Errors
/// As [`EncoderConfig::from_pretrained`] and [`EncoderConfig::check_weights`]; [`Error::Weights`] if there is no folder of
/// that name, neither on disk nor in the Hugging Face cache; [`Error::Config`] if `max_len` is more than it can take, or
/// `feature_layers` more than it has.
pub fn pretrained_encoder(config: &Config) -> Result<Option<EncoderConfig>> {
    let Some(dir) = setup::encoder_folder(config)? else {
        return Ok(None);
    };
    let encoder = EncoderConfig::from_pretrained(&dir)?;
    if config.dataset.data.max_len.next_multiple_of(8) > encoder.max_tokens() {
        return Err(Error::Config {
            origin: "configuration".into(),
            key: "dataset.data.max_len".into(),
            expected: format!("at most {} (the encoder's positions)", encoder.max_tokens()),
            found: config.dataset.data.max_len.to_string(),
            hint: None,
        });
    }
    let encoder = with_output(encoder, config)?;
    if let Some(weights) = setup::pretrained_weights(config)? {
        encoder.check_weights(&weights)?;
    }
    Ok(Some(encoder))
}

/// The encoder with what `config` wants behind its layers.
fn with_output(encoder: EncoderConfig, config: &Config) -> Result<EncoderConfig> {
    let encoder = EncoderConfig { output: config.dataset.model.output(), ..encoder };
    match encoder.check() {
        Ok(()) => Ok(encoder),
        Err((field, expected, found)) => Err(Error::Config {
            origin: "configuration".into(),
            key: format!("dataset.model.encoder.{field}"),
            expected,
            found,
            hint: None,
        }),
    }
}

fn scratch(config: &Config, tokenizer: &TextTokenizer) -> EncoderConfig {
    let scratch = &config.dataset.model.encoder.scratch;
    EncoderConfig::bert(TransformerConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: scratch.hidden_size,
        num_hidden_layers: scratch.num_hidden_layers,
        num_attention_heads: scratch.num_attention_heads,
        intermediate_size: scratch.intermediate_size,
        max_position_embeddings: config.dataset.data.max_len.next_multiple_of(8),
        hidden_dropout_prob: scratch.dropout,
        attention_probs_dropout_prob: scratch.dropout,
        pad_token_id: tokenizer.pad_id() as usize,
        ..TransformerConfig::default()
    })
}

/// The first key of `json` that `known` does not have, with its path.
fn unknown_key(json: &Value, known: &Value) -> Option<String> {
    json.as_object()?.iter().find_map(|(key, value)| match known.get(key) {
        None => Some(key.clone()),
        Some(known) => unknown_key(value, known).map(|rest| format!("{key}.{rest}")),
    })
}

/// Labels whose logits exist at one time, if `config` says.
fn chunk(config: &Config, labels: usize) -> Option<usize> {
    let xmc = &config.dataset.model.xmc;
    xmc.chunk_size.or(xmc.num_chunks.map(|chunks| labels.div_ceil(chunks)))
}

/// What the classifier is to be.
fn classifier(config: &Config, labels: usize, dim: usize) -> ClassifierConfig {
    let xmc = &config.dataset.model.xmc;
    let training = &config.dataset.training;
    let mut classifier = ClassifierConfig::new(labels, dim).with_seed(training.seed);
    classifier.weight_decay = training.xmc.wd;
    classifier.chunk = chunk(config, labels);
    match xmc.implementation {
        Implementation::Chunked => {
            classifier =
                classifier.with_precision(xmc.dtype).with_initializer(Initializer::Normal { standard_deviation: 0.02 });
        }
        Implementation::Fp8Chunked | Implementation::Fp8ChunkedHeadKahan => {
            let operands = match training.xmc.simulated_fp8 {
                true => Format::Bf16,
                false => Format::E4m3,
            };
            classifier = classifier.with_operands(operands);
        }
    }
    if xmc.implementation == Implementation::Fp8ChunkedHeadKahan {
        let head = (training.fp8.head_ratio * labels as f64).round() as usize;
        classifier = classifier.with_head(head, xmc.compensation);
    }
    classifier
}
