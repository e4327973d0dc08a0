//! The file of a checkpoint that holds the weights.
//!
//! The encoder's tensors are called `encoder.` and their path in the module. The classifier is `classifier.weights`,
//! one row of 32-bit words a label, and `classifier.compensation`, a row for each of the first labels, if there is one:
//! whatever device wrote it, and however many buffers its rows lay in.

use std::{collections::BTreeMap, ops::Range, path::Path};

use burn::{
    module::Module,
    store::{ModuleSnapshot, SafetensorsStore},
    tensor::Device,
};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{
    fingerprint::{Fingerprint, Hash, damage, open},
    tensors::{self, Sink, Source},
};
use crate::{
    classifier::{ClassifierConfig, Format, Stored},
    device::Compute,
    encoder::Encoder,
    error::{Error, Result},
    finite::are_finite,
    model::{ModelSpec, XmcModel},
};

/// Words that are made into bytes at a time.
const BLOCK: usize = 1 << 16;

/// Writes the weights of a model and waits until they are on disk.
///
/// # Errors
/// [`Error::Training`] if one is not finite; [`Error::Io`].
pub(super) fn save(model: &XmcModel, path: &Path) -> Result<Fingerprint> {
    let mut sources = BTreeMap::new();
    for tensor in model.encoder.collect(None, None, false) {
        let name = format!("encoder.{}", tensor.name);
        let dtype = tensors::name(tensor.dtype).expect("an encoder's parameters are floats");
        let shape = tensor.shape.to_vec();
        let of = name.clone();
        let write = move |sink: Sink| {
            let bytes = tensor.into_bytes().map_err(|error| Error::Run {
                path: path.to_owned(),
                message: format!("tensor `{of}` cannot be read from the device: {error}"),
                hint: None,
            })?;
            put_finite(&of, dtype, &bytes, sink)
        };
        let write = Box::new(write);
        sources.insert(name, Source { dtype, shape, write });
    }
    let classifier = &model.classifier;
    for stored in Stored::ALL {
        let shape = classifier.config().stored_shape(stored).to_vec();
        if shape[0] == 0 {
            continue;
        }
        let write = move |sink: Sink| {
            classifier.save(stored, |_, words| {
                words.chunks(BLOCK).try_for_each(|words| {
                    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    put_finite(name(stored), numbers(classifier.config(), stored), &bytes, sink)
                })
            })
        };
        let source = Source { dtype: Dtype::U32, shape, write: Box::new(write) };
        sources.insert(name(stored).to_owned(), source);
    }
    tensors::write(path, sources)
}

fn put_finite(name: &str, dtype: Dtype, bytes: &[u8], sink: Sink) -> Result<()> {
    if are_finite(dtype, bytes) {
        return sink(bytes);
    }
    Err(Error::Training {
        message: format!("the numbers are not finite any more (`{name}` holds infinities or NaN)"),
        hint: Some(
            "lower dataset.training.encoder.lr or dataset.training.xmc.lr; checkpoints of earlier epochs are intact"
                .into(),
        ),
    })
}

fn name(stored: Stored) -> &'static str {
    match stored {
        Stored::Weights => "classifier.weights",
        Stored::Compensation => "classifier.compensation",
    }
}

/// What numbers the words are made of.
fn numbers(config: &ClassifierConfig, stored: Stored) -> Dtype {
    let format = match (stored, config.head) {
        (Stored::Compensation, Some((_, format))) => format,
        (Stored::Compensation, None) => Format::Bf16,
        (Stored::Weights, _) => config.precision,
    };
    match format {
        Format::E4m3 => Dtype::F8_E4M3,
        Format::E5m2 => Dtype::F8_E5M2,
        Format::Bf16 => Dtype::BF16,
        Format::F16 => Dtype::F16,
        Format::F32 => Dtype::F32,
    }
}

/// Maps a file and checks that it is the one that was written.
///
/// # Errors
/// [`Error::Run`] if it is not, [`Error::Io`] if it cannot be read.
pub(super) fn map(path: &Path, fingerprint: Option<&Fingerprint>) -> Result<Mmap> {
    let file = open(path)?;
    // SAFETY: undefined only if another process cuts or rewrites the file while it is read.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", path))?;
    if let Some(fingerprint) = fingerprint {
        let mut hash = Hash::default();
        hash.update(&map);
        if let Some(difference) = fingerprint.difference(&hash.finish()) {
            return Err(damage(path, difference + if all_finite(&map) { "" } else { "; it is not finite" }));
        }
    }
    Ok(map)
}

/// Whether every number is finite, in a file that need not be whole.
fn all_finite(file: &[u8]) -> bool {
    SafeTensors::deserialize(file)
        .map_or(true, |tensors| tensors.iter().all(|(_, tensor)| are_finite(tensor.dtype(), tensor.data())))
}

/// Finds the rows of a classifier among tensors: `[rows, words a row]` of what is stored.
pub(super) type Layout = for<'a> fn(&SafeTensors<'a>, Stored, [usize; 2]) -> Result<Rows<'a>, String>;

/// Reads the model that `spec` describes, off the autodiff graph. Nothing random is drawn.
///
/// # Errors
/// [`Error::Run`] if the file is of another model, or its weights are not finite.
pub(super) fn load(spec: &ModelSpec, path: &Path, file: &[u8], layout: Layout, compute: &Compute) -> Result<XmcModel> {
    let damaged = |message: String| damage(path, message);
    let tensors = SafeTensors::deserialize(file).map_err(|error| damaged(format!("damaged: {error}")))?;
    let classifier = &spec.classifier;
    let rows = |stored| layout(&tensors, stored, classifier.stored_shape(stored));
    let weights = rows(Stored::Weights).map_err(damaged)?;
    let compensation = rows(Stored::Compensation).map_err(damaged)?;
    let known = |name: &str| {
        name.starts_with("encoder.") || weights.names.iter().chain(&compensation.names).any(|known| known == name)
    };
    let mut names = tensors.names();
    names.sort_unstable();
    if let Some(name) = names.iter().find(|name| !known(name)) {
        return Err(damaged(format!("tensor `{name}` is not part of the model")));
    }
    let mut float = None;
    for name in names.iter().filter(|name| name.starts_with("encoder.")) {
        let tensor = tensors.tensor(name).expect("it is one of the names");
        let found = tensor.dtype();
        if !matches!(found, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64) || *float.get_or_insert(found) != found
        {
            return Err(damaged(format!("tensor `{name}` is of type {found:?}, unlike the encoder's others")));
        }
        if !are_finite(found, tensor.data()) {
            return Err(not_finite(path, name));
        }
    }
    let encoder = encoder(spec, path, &compute.device).map_err(damaged)?;
    let classifier = spec.classifier_on(compute).load(&compute.device, |stored, range, words| {
        let rows = match stored {
            Stored::Weights => &weights,
            Stored::Compensation => &compensation,
        };
        match rows.read(range, words, numbers(classifier, stored)) {
            true => Ok(()),
            false => Err(not_finite(path, name(stored))),
        }
    })?;
    Ok(XmcModel { encoder, classifier })
}

fn not_finite(path: &Path, tensor: &str) -> Error {
    Error::Run {
        path: path.to_owned(),
        message: format!("tensor `{tensor}` is not finite: it holds infinities or NaN"),
        hint: Some(
            "the training had diverged when it was written: try the other checkpoint (--checkpoint best or last), or \
             train again with lower learning rates"
                .into(),
        ),
    }
}

fn encoder(spec: &ModelSpec, path: &Path, device: &Device) -> Result<Encoder, String> {
    /// Names in the file begin with `encoder.`.
    #[derive(Module, Debug)]
    struct Part {
        encoder: Encoder,
    }
    let mut part = Part { encoder: spec.encoder.init(device) };
    let mut store = SafetensorsStore::from_file(path).with_regex("^encoder\\.").validate(false).allow_partial(true);
    let result = (part.load_from(&mut store)).map_err(|error| format!("damaged: {error}"))?;
    if let Some(error) = result.errors.first() {
        return Err(format!("of another model: {error}"));
    }
    if let Some((name, _)) = result.missing.first() {
        return Err(format!("tensor `{name}` is missing"));
    }
    if let Some(name) = result.unused.iter().find(|name| name.starts_with("encoder.")) {
        return Err(format!("tensor `{name}` is not part of the model"));
    }
    Ok(part.encoder.with_embedding_dropout(spec.embed_dropout))
}

/// The rows of what is stored, where this version writes them: in one tensor.
pub(super) fn rows<'a>(tensors: &SafeTensors<'a>, stored: Stored, shape: [usize; 2]) -> Result<Rows<'a>, String> {
    let name = name(stored);
    let mut rows = Rows::new(shape[1]);
    if shape[0] == 0 {
        return Ok(rows);
    }
    let tensor = tensors.tensor(name).map_err(|_| format!("tensor `{name}` is missing"))?;
    if tensor.dtype() != Dtype::U32 || tensor.shape() != shape {
        return Err(format!(
            "tensor `{name}` is {:?} of {:?}, expected {shape:?} of U32",
            tensor.shape(),
            tensor.dtype()
        ));
    }
    rows.push(name.into(), tensor.data());
    Ok(rows)
}

/// Rows of words that lie in one tensor of a file or several, one behind the other.
pub(super) struct Rows<'a> {
    names: Vec<String>,
    tensors: Vec<&'a [u8]>,
    row_bytes: usize,
}

impl<'a> Rows<'a> {
    /// No rows yet.
    pub fn new(row_words: usize) -> Self {
        Self { names: Vec::new(), tensors: Vec::new(), row_bytes: 4 * row_words }
    }

    /// The rows of a tensor after those that are there.
    pub fn push(&mut self, name: String, bytes: &'a [u8]) {
        self.names.push(name);
        self.tensors.push(bytes);
    }

    /// Fills `words` with a run of rows, and returns whether the numbers in it are finite.
    pub fn read(&self, rows: Range<usize>, mut words: &mut [u32], numbers: Dtype) -> bool {
        let mut skip = rows.start * self.row_bytes;
        let mut finite = true;
        for tensor in &self.tensors {
            let Some(bytes) = tensor.get(skip..) else {
                skip -= tensor.len();
                continue;
            };
            let (now, later) = words.split_at_mut(words.len().min(bytes.len() / 4));
            finite &= are_finite(numbers, &bytes[..4 * now.len()]);
            for (word, bytes) in now.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words = later;
            skip = 0;
        }
        finite
    }
}
