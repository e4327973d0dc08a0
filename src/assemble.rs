//! From a configuration to the parts that training, evaluation and prediction share.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};

use crate::{
    classifier::{Classifier, ClassifierConfig, Format, Initializer},
    config::{self, Config, Implementation},
    data::{Source, TextTokenizer, train_tokenizer},
    device::Compute,
    encoder::{BertConfig, Encoder},
    error::{Error, Result},
    memory::Estimate,
    model::{ClassifierSchedule, XmcModel},
    optim::Schedule,
};

/// How the data set of a configuration is to be read from `dir`.
pub fn source<'a>(config: &'a Config, dir: &'a Path) -> Source<'a> {
    let data = &config.dataset.data;
    Source {
        dir,
        name: &data.dataset,
        is_lf_data: data.is_lf_data,
        augment_label_data: data.augment_label_data,
        use_filter_eval: data.use_filter_eval,
        num_labels: data.num_labels,
        max_len: data.max_len,
        label_sort: data.label_sort,
        validation_fraction: data.validation_fraction,
        validation_max: data.validation_max,
        seed: config.dataset.training.seed,
    }
}

/// The tokenizer that the configuration names; for an encoder from scratch without one, a WordPiece vocabulary is
/// trained on the data set's own texts.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`]
pub fn tokenizer(config: &Config, source: &Source) -> Result<TextTokenizer> {
    let encoder = &config.dataset.model.encoder;
    if !encoder.is_scratch() && !Path::new(&encoder.encoder_model).is_dir() {
        return Err(Error::Weights {
            path: PathBuf::from(&encoder.encoder_model),
            message: "no such folder".into(),
            hint: Some(
                "dataset.model.encoder.encoder_model is a Hugging Face folder on disk, with config.json, \
                 model.safetensors and tokenizer.json; nothing is downloaded"
                    .into(),
            ),
        });
    }
    match &encoder.encoder_tokenizer {
        Some(path) => TextTokenizer::from_file(Path::new(path)),
        None if encoder.is_scratch() => train_tokenizer(source, encoder.scratch.vocab_size),
        None => TextTokenizer::from_file(Path::new(&encoder.encoder_model)),
    }
}

/// The encoder's architecture: from scratch for this tokenizer, or that of a pretrained one.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`]; [`Error::Config`] if `max_len` is more than it can take; [`Error::Weights`] if it
/// has fewer tokens than the tokenizer.
pub fn encoder_config(config: &Config, tokenizer: &TextTokenizer) -> Result<BertConfig> {
    let wanted = &config.dataset.model.encoder;
    let bert = if wanted.is_scratch() {
        scratch(config, tokenizer)
    } else {
        BertConfig::from_pretrained(Path::new(&wanted.encoder_model))?
    };
    check_fits(config, tokenizer, &bert)?;
    Ok(bert)
}

/// The encoder with its initial weights.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`], [`Error::Weights`]
pub fn encoder(config: &Config, bert: &BertConfig, device: &Device) -> Result<Encoder> {
    let wanted = &config.dataset.model.encoder;
    if wanted.is_scratch() {
        return Ok(Encoder::scratch(bert, device));
    }
    let (encoder, _) = Encoder::from_pretrained(Path::new(&wanted.encoder_model), device)?;
    Ok(encoder)
}

fn scratch(config: &Config, tokenizer: &TextTokenizer) -> BertConfig {
    let scratch = &config.dataset.model.encoder.scratch;
    BertConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: scratch.hidden_size,
        num_hidden_layers: scratch.num_hidden_layers,
        num_attention_heads: scratch.num_attention_heads,
        intermediate_size: scratch.intermediate_size,
        max_position_embeddings: config.dataset.data.max_len.next_multiple_of(8),
        hidden_dropout_prob: scratch.dropout,
        attention_probs_dropout_prob: scratch.dropout,
        pad_token_id: tokenizer.pad_id() as usize,
        ..BertConfig::default()
    }
}

fn check_fits(config: &Config, tokenizer: &TextTokenizer, bert: &BertConfig) -> Result<()> {
    let widest = config.dataset.data.max_len.next_multiple_of(8);
    if widest > bert.max_position_embeddings {
        return Err(Error::Config {
            origin: "configuration".into(),
            key: "dataset.data.max_len".into(),
            expected: format!("at most {} (the encoder's positions)", bert.max_position_embeddings),
            found: config.dataset.data.max_len.to_string(),
            hint: None,
        });
    }
    if tokenizer.vocab_size() > bert.vocab_size {
        return Err(Error::Weights {
            path: PathBuf::from(&config.dataset.model.encoder.encoder_model),
            message: format!(
                "the tokenizer has {} tokens, the encoder embeds {}",
                tokenizer.vocab_size(),
                bert.vocab_size
            ),
            hint: Some("use the tokenizer that came with the encoder".into()),
        });
    }
    Ok(())
}

/// What the classifier is to be.
pub fn classifier(config: &Config, labels: usize, dim: usize, compute: &Compute) -> ClassifierConfig {
    let xmc = &config.dataset.model.xmc;
    let training = &config.dataset.training;
    let mut classifier = ClassifierConfig::new(labels, dim).with_seed(training.seed);
    classifier.segment_bytes = compute.segment_bytes;
    classifier.weight_decay = training.xmc.wd;
    classifier.chunk = xmc.chunk_size.or(xmc.num_chunks.map(|chunks| labels.div_ceil(chunks)));
    match xmc.implementation {
        Implementation::Chunked => {
            classifier = classifier
                .with_precision(xmc.dtype)
                .with_initializer(Initializer::Normal {
                    standard_deviation: 0.02,
                });
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

/// How the classifier learns, given the number of its steps.
pub fn classifier_schedule(config: &Config, steps: u64) -> ClassifierSchedule {
    let training = &config.dataset.training;
    ClassifierSchedule {
        learning_rate: training.xmc.lr,
        schedule: schedule(training.xmc.lr_scheduler, training.xmc.warmup_steps, steps),
        loss_every: training.loss_every as u64,
        accumulation: training.encoder.grad_accum_step,
    }
}

/// A schedule over `steps` steps.
pub fn schedule(kind: config::Schedule, warmup: usize, steps: u64) -> Schedule {
    match kind {
        config::Schedule::Constant => Schedule::Constant,
        config::Schedule::CosineScheduleWithWarmup => Schedule::CosineWithWarmup {
            warmup: warmup as u64,
            total: steps,
        },
    }
}

/// The whole model on `device`.
pub fn model(config: &Config, encoder: Encoder, classifier: Classifier, schedule: ClassifierSchedule) -> XmcModel {
    XmcModel::new(
        encoder,
        config.dataset.model.encoder.embed_dropout,
        classifier,
        schedule,
    )
}

/// What a job will hold in memory on the CPU.
///
/// # Errors
/// [`Error::Memory`] if that is more than the machine has free.
pub fn check_memory(
    config: &Config,
    bert: &BertConfig,
    classifier: &ClassifierConfig,
    training: bool,
    compute: &Compute,
) -> Result<()> {
    if !compute.is_cpu() {
        return Ok(());
    }
    let data = &config.dataset.data;
    let batch = match training {
        true => data.batch_size,
        false => data.test_batch_size,
    };
    let parameters = 4 * encoder_parameters(bert);
    // Values, gradients, two moments, and the copy that is alive while the optimizer steps.
    let copies = if training { 5 } else { 1 };
    let mut estimate = Estimate::default();
    estimate
        .add("classifier weights", classifier.bytes())
        .add("classifier step", classifier.step_bytes(batch))
        .add("encoder parameters and their optimizer", parameters * copies)
        .add(
            "encoder activations",
            activation_bytes(bert, batch, data.max_len, training),
        );
    estimate.check_cpu(match training {
        true => {
            "lower dataset.data.batch_size or dataset.data.max_len, choose a smaller encoder, or store the classifier in \
             8 bits (dataset.model.xmc.implementation=fp8chunked)"
        }
        false => "lower dataset.data.test_batch_size in the run's config.toml, or use a larger machine",
    })
}

/// Weights of a BERT.
fn encoder_parameters(bert: &BertConfig) -> u64 {
    let (h, i) = (bert.hidden_size as u64, bert.intermediate_size as u64);
    let embeddings = bert.vocab_size + bert.max_position_embeddings + bert.type_vocab_size;
    let layer = 4 * h * (h + 1) + 2 * h * i + i + h + 4 * h;
    embeddings as u64 * h + 2 * h + bert.num_hidden_layers as u64 * layer
}

/// What the encoder keeps of a batch: for training everything that the backward pass needs, else one layer's worth.
fn activation_bytes(bert: &BertConfig, batch: usize, max_len: usize, training: bool) -> u64 {
    let width = max_len.next_multiple_of(8) as u64;
    let tokens = batch as u64 * width;
    let (h, i) = (bert.hidden_size as u64, bert.intermediate_size as u64);
    // Tensors that a layer's graph holds, as measured: MiniLM with 64 rows of 64 tokens peaks at 1.4 GiB in all.
    let layer = tokens * (12 * h + 3 * i + 3 * bert.num_attention_heads as u64 * width);
    4 * layer * if training { bert.num_hidden_layers as u64 } else { 1 }
}

/// The format of the encoder's numbers.
pub fn float_format(compute: &Compute) -> Format {
    match DType::from(compute.float) {
        DType::BF16 => Format::Bf16,
        _ => Format::F32,
    }
}
