//! Every key: what it may be, in one table. Defaults stand in `config/default.toml`, meanings there and at the structs.

use super::optional::NONE;
use std::{fmt, str::FromStr};
use toml::Value;

/// A key and the values that it may have.
pub(super) struct Key {
    /// Full path, as `dataset.training.epochs`.
    pub name: &'static str,
    kind: Kind,
    /// `none` is a value too.
    optional: bool,
    /// What to do if a value is refused.
    hint: Option<&'static str>,
}

enum Kind {
    /// True or false.
    Flag,
    /// A feature that this version lacks: false only.
    No,
    /// A whole number within these bounds, both included.
    Whole(u64, u64),
    /// Whole numbers within these bounds, at least one.
    Wholes(u64, u64),
    /// Numbers above 0 and below 1, at least one.
    Shares,
    /// A number of which the condition holds, and the condition in words.
    Number(&'static str, fn(f64) -> bool),
    /// A text that is not empty, and what it says.
    Text(&'static str),
    /// A text that becomes one part of a path.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
}

use Kind::{Flag, Name, No, Number, Shares, Text, Whole, Wholes, Word};

/// The largest whole number that TOML can hold, for keys that have no other limit.
const LARGEST: u64 = i64::MAX as u64;

/// Texts of a batch at most: what the GPU kernels take along one axis.
const GPU_AXIS: u64 = 65_535;

/// Labels, chunks and word pieces are numbered by 32 bits with a sign.
const INDEX: u64 = i32::MAX as u64;

/// Labels of a chunk at most; kernels take less where a batch is large.
const LARGEST_CHUNK: u64 = 1 << 24;

/// Tokens of a text at most. Together with [`GPU_AXIS`] and the limits of the encoder from scratch it keeps any product
/// of sizes within 64 bits.
const LONGEST: u64 = 4096;

const POSITIVE_OR_ZERO: Kind = Number("a finite number, 0 or more", |x| x.is_finite() && x >= 0.0);
const BELOW_ONE: Kind = Number("a number from 0 up to, but not including, 1", |x| (0.0..1.0).contains(&x));
const UP_TO_ONE: Kind = Number("a number from 0 to 1", |x| (0.0..=1.0).contains(&x));
const PROPENSITY: Kind = Number("a number above 0, at most 100", |x| x > 0.0 && x <= 100.0);
const SCHEDULE: Kind = Word(&["CosineScheduleWithWarmup", "Constant", "MultiStepLR", "ReduceLROnPlateau"]);
const DTYPE: Kind = Word(&["float32", "bfloat16"]);
const AS_A_LIST: &str = "in a file milestones = [0.5, 0.75], on the command line milestones=0.5,0.75";
const NO_FLOAT16: &str = "float16 is not available in this version; bfloat16 takes as much memory";

/// Every key of `config/default.toml`, in its order.
// One line a key, as a table is read.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("dataset_path", Text("a folder (`.` for this one)")),
    key("log_fname", Name).or_none().hint("`--runs` says in which folder the run folder is made"),

    key("dataset.data.dataset", Name).hint("dataset_path and dataset.data.folder say where its files lie"),
    key("dataset.data.folder", Text("a folder under dataset_path")).or_none(),
    key("dataset.data.format", Word(&[
        "auto", "label-features", "four-files", "sparse", "pecos", "table", "json-lines", "annif"])),
    key("dataset.data.text_column", Text("the name of a column")).or_none(),
    key("dataset.data.label_column", Text("the name of a column")).or_none(),
    key("dataset.data.label_separator", Text("a text such as `;`, or `space`, or `tab`")).or_none(),
    key("dataset.data.text", Word(&["auto", "title", "title+content"])),
    key("dataset.data.augment_label_data", Flag),
    key("dataset.data.use_filter_eval", Flag),
    key("dataset.data.num_labels", Whole(0, INDEX)),
    key("dataset.data.max_len", Whole(8, LONGEST)).hint(
        "a pretrained encoder takes at most 512, or the positions that it has"),
    key("dataset.data.batch_size", Whole(1, GPU_AXIS)),
    key("dataset.data.test_batch_size", Whole(1, GPU_AXIS)),
    key("dataset.data.label_sort", Flag),
    key("dataset.data.validation_fraction", BELOW_ONE),
    key("dataset.data.validation_max", Whole(0, LARGEST)),

    key("dataset.model.encoder.encoder_model", Text("a Hugging Face folder, or `scratch`")),
    key("dataset.model.encoder.encoder_tokenizer", Text("the folder of a tokenizer")).or_none(),
    key("dataset.model.encoder.pool_mode", Word(&["last_hidden_avg", "last_hidden_weighted_avg", "last_nhidden_conlast"])),
    key("dataset.model.encoder.feature_layers", Whole(1, 256)).hint("the embeddings count as one more layer"),
    key("dataset.model.encoder.embed_dropout", BELOW_ONE),
    key("dataset.model.encoder.dtype", DTYPE).hint(NO_FLOAT16),
    key("dataset.model.encoder.activations", Word(&["auto", "balanced", "least"])),
    key("dataset.model.encoder.use_ngame_encoder_weights", Flag),
    key("dataset.model.encoder.ngame_checkpoint", Text("a file of PyTorch or safetensors")).or_none(),
    key("dataset.model.encoder.scratch.vocab_size", Whole(100, INDEX)).hint(
        "the special tokens and every letter have a place in it too"),
    key("dataset.model.encoder.scratch.lowercase", Flag),
    key("dataset.model.encoder.scratch.strip_accents", Word(&["auto", "always", "never"])),
    key("dataset.model.encoder.scratch.hidden_size", Whole(1, 65_536)),
    key("dataset.model.encoder.scratch.num_hidden_layers", Whole(1, 256)),
    key("dataset.model.encoder.scratch.num_attention_heads", Whole(1, 1024)),
    key("dataset.model.encoder.scratch.intermediate_size", Whole(1, 65_536)),
    key("dataset.model.encoder.scratch.dropout", BELOW_ONE),

    key("dataset.model.bottleneck.use_bottleneck_layer", Flag),
    key("dataset.model.bottleneck.bottleneck_size", Whole(1, 65_536)),

    key("dataset.model.xmc.implementation", Word(&["chunked", "fp8chunked", "fp8chunkedheadkahan"])),
    key("dataset.model.xmc.dtype", DTYPE).hint(NO_FLOAT16),
    key("dataset.model.xmc.num_chunks", Whole(1, INDEX)).or_none(),
    key("dataset.model.xmc.chunk_size", Whole(1, LARGEST_CHUNK)).or_none(),
    key("dataset.model.xmc.using_dropout", No).hint(
        "a dropout of the classifier's own is not available in this version; set it to false: \
         dataset.model.encoder.embed_dropout drops elements of the same vector"),
    key("dataset.model.xmc.compensation", Word(&["bfloat16", "e5m2"])),

    key("dataset.training.seed", Whole(0, LARGEST)),
    key("dataset.training.epochs", Whole(1, 1_000_000)),
    key("dataset.training.loss_fn", Word(&["bce"])),
    key("dataset.training.loss_every", Whole(0, LARGEST)),

    key("dataset.training.encoder.optimizer", Word(&["adam", "adamw", "sgd"])),
    key("dataset.training.encoder.momentum", BELOW_ONE),
    key("dataset.training.encoder.lr", POSITIVE_OR_ZERO),
    key("dataset.training.encoder.wd", POSITIVE_OR_ZERO),
    key("dataset.training.encoder.lr_scheduler", SCHEDULE),
    key("dataset.training.encoder.warmup_steps", Whole(0, LARGEST)),
    key("dataset.training.encoder.milestones", Shares).hint(AS_A_LIST),
    key("dataset.training.encoder.gamma", UP_TO_ONE),
    key("dataset.training.encoder.patience", Whole(0, LARGEST)),
    key("dataset.training.encoder.grad_accum_step", Whole(1, LARGEST)),
    key("dataset.training.encoder.max_grad_norm", POSITIVE_OR_ZERO),
    key("dataset.training.encoder.kahan", Flag),

    key("dataset.training.xmc.optimizer", Word(&["sgd"])),
    key("dataset.training.xmc.lr", POSITIVE_OR_ZERO),
    key("dataset.training.xmc.wd", POSITIVE_OR_ZERO),
    key("dataset.training.xmc.momentum", Number("0", |x| x == 0.0)).hint(
        "momentum would need as much memory as the weights; it is not available in this version. The reference keeps it \
         and does not use it"),
    key("dataset.training.xmc.lr_scheduler", SCHEDULE),
    key("dataset.training.xmc.warmup_steps", Whole(0, LARGEST)),
    key("dataset.training.xmc.milestones", Shares).hint(AS_A_LIST),
    key("dataset.training.xmc.gamma", UP_TO_ONE),
    key("dataset.training.xmc.patience", Whole(0, LARGEST)),
    key("dataset.training.xmc.simulated_fp8", Flag),

    key("dataset.training.FP8.use_fp8_encoder", Flag),
    key("dataset.training.FP8.head_ratio", UP_TO_ONE),

    key("dataset.training.evaluation.A", PROPENSITY),
    key("dataset.training.evaluation.B", PROPENSITY),
    key("dataset.training.evaluation.propensity", Word(&["published", "reference"])),
    key("dataset.training.evaluation.ks", Wholes(1, GPU_AXIS)).hint(
        "in a file ks = [1, 3, 5], on the command line ks=1,3,5"),
    key("dataset.training.evaluation.test_evaluate_every", Whole(0, LARGEST)),
    key("dataset.training.evaluation.train_evaluate", Flag),
    key("dataset.training.evaluation.train_evaluate_every", Whole(1, LARGEST)),
];

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, optional: false, hint: None }
}

impl Key {
    const fn or_none(mut self) -> Self {
        self.optional = true;
        self
    }

    const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The key of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The first of these values that has the key's type.
    pub fn typed(&self, candidates: &[Value]) -> Option<Value> {
        candidates.iter().find_map(|candidate| match (&self.kind, candidate) {
            (_, Value::String(text)) if self.optional && text.eq_ignore_ascii_case(NONE) => Some(NONE.into()),
            (Flag | No, Value::Boolean(_)) | (Whole(..), Value::Integer(_)) | (Number(..), Value::Float(_)) => {
                Some(candidate.clone())
            }
            (Number(..), Value::Integer(whole)) => Some((*whole as f64).into()),
            (Wholes(..), Value::Array(_)) => Some(candidate.clone()),
            (Shares, Value::Array(list)) => list.iter().map(number).collect::<Option<Vec<f64>>>().map(Value::from),
            (Shares, Value::Float(_) | Value::Integer(_)) => number(candidate).map(|share| vec![share].into()),
            (Shares, Value::String(text)) => numbers::<f64>(text).map(Value::from),
            (Wholes(..), Value::Integer(_)) => Some(vec![candidate.clone()].into()),
            (Wholes(..), Value::String(text)) => numbers::<i64>(text).map(Value::from),
            (Text(_) | Name | Word(_), Value::String(_)) => Some(candidate.clone()),
            _ => None,
        })
    }

    /// Whether a value of the right type is one that the key may have.
    pub fn admits(&self, value: &Value) -> bool {
        match (&self.kind, value) {
            (_, Value::String(text)) if self.optional && text == NONE => true,
            (Flag, Value::Boolean(_)) => true,
            (No, Value::Boolean(yes)) => !yes,
            (Whole(least, most), whole) => is_whole(whole, *least, *most),
            (Wholes(least, most), Value::Array(list)) => {
                !list.is_empty() && list.iter().all(|whole| is_whole(whole, *least, *most))
            }
            (Shares, Value::Array(list)) => {
                let is_share = |value: &Value| number(value).is_some_and(|share| share > 0.0 && share < 1.0);
                !list.is_empty() && list.iter().all(is_share)
            }
            (Number(_, holds), Value::Float(number)) => holds(*number),
            (Text(_), Value::String(text)) => !text.is_empty(),
            (Name, Value::String(text)) => is_name(text),
            (Word(words), Value::String(text)) => words.contains(&text.as_str()),
            _ => false,
        }
    }

    /// What to do about a value that the key may not have.
    pub fn help(&self, found: &str) -> Option<String> {
        if matches!(self.kind, Name) && is_reserved(found.trim_matches('"')) {
            return Some("this name is reserved: tokens are cached in .cache, beside the run folders".into());
        }
        let Word(words) = self.kind else {
            return self.hint.map(str::to_owned);
        };
        let near = nearest(found.trim_matches('"'), words.iter().copied());
        self.hint.map(str::to_owned).or_else(|| did_you_mean(&near))
    }
}

/// What a value should be, as `expected ...` says it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Flag => write!(f, "true or false"),
            No => write!(f, "false"),
            Whole(least, most) if least == most => write!(f, "{least}"),
            Whole(least, most) => write!(f, "a whole number from {least} to {most}"),
            Wholes(least, most) => write!(f, "whole numbers from {least} to {most}"),
            Shares => write!(f, "numbers above 0 and below 1"),
            Number(words, _) | Text(words) => write!(f, "{words}"),
            Name => {
                write!(f, "a name that is not empty, `.`, `..` or `.cache` and has no `/`, `\\` or line break in it")
            }
            Word([word]) => write!(f, "`{word}`"),
            Word(words) => write!(f, "one of `{}`", words.join("`, `")),
        }?;
        if self.optional { write!(f, ", or none") } else { Ok(()) }
    }
}

fn is_whole(value: &Value, least: u64, most: u64) -> bool {
    let whole = value.as_integer().and_then(|whole| u64::try_from(whole).ok());
    whole.is_some_and(|whole| (least..=most).contains(&whole))
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// The numbers of `1,3,5`, with brackets around them or not.
fn numbers<T: FromStr>(text: &str) -> Option<Vec<T>> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    inner.split(',').map(|number| number.trim().parse().ok()).collect()
}

/// Whether this can be the name of a file or folder, on any system, and is not what the token cache is called.
pub(super) fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && !is_reserved(text)
        && !text.contains(|c: char| c.is_control() || matches!(c, '/' | '\\'))
}

/// Whether it is what the token cache is called, on systems that do not tell upper from lower case too.
fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case(".cache")
}

/// The candidates that are the fewest edits away from what was typed, at most three.
///
/// A key need not be typed from its beginning: `epoch` is one edit from `dataset.training.epochs`. There are none
/// where even the nearest differs in half of what was typed: they would only mislead.
pub(super) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let parts = typed.split('.').count();
    let distance = |name: &str| strsim::osa_distance(&typed.to_lowercase(), &name.to_lowercase());
    let mut ranked: Vec<(usize, &str)> =
        candidates.into_iter().map(|key| (distance(key).min(distance(tail(key, parts))), key)).collect();
    // Stable: where several are as near, those that were named first stay first.
    ranked.sort_by_key(|(distance, _)| *distance);
    let least = ranked.first().map_or(usize::MAX, |(distance, _)| *distance);
    if least.saturating_mul(2) >= typed.chars().count() {
        return Vec::new();
    }
    let as_near = ranked.into_iter().take_while(|(distance, _)| *distance == least);
    as_near.map(|(_, key)| key).take(3).collect()
}

/// `did you mean` these, for a hint.
pub(super) fn did_you_mean(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("did you mean `{}`?", names.join("` or `")))
}

/// The last `parts` parts of a key.
fn tail(key: &str, parts: usize) -> &str {
    key.rmatch_indices('.').nth(parts - 1).map_or(key, |(dot, _)| &key[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(nearest("fod", ["food", "things"]), ["food"]);
        assert_eq!(nearest("FOOD", ["things", "food"]), ["food"]);
        assert!(nearest("zzzz", ["food", "things"]).is_empty());
        assert!(nearest("", ["food", "things"]).is_empty());
    }

    #[test]
    fn knows_a_key_by_its_end() {
        let keys = ["a.lr", "b.lr", "a.flr"];
        assert_eq!(nearest("lr", keys), ["a.lr", "b.lr"]);
        assert_eq!(did_you_mean(&nearest("lr", keys)).unwrap(), "did you mean `a.lr` or `b.lr`?");
    }
}
