//! The file of a checkpoint that holds the weights.

use std::{fs::File, ops::Range, path::Path};

use burn::{
    module::Module,
    store::{ModuleSnapshot, SafetensorsStore},
    tensor::Device,
};
use memmap2::Mmap;
use safetensors::SafeTensors;

use crate::{
    classifier::{Classifier, ClassifierConfig, Stored},
    device::Compute,
    encoder::Encoder,
    error::{Error, Result},
    model::{ModelSpec, XmcModel},
};

/// Writes the weights of a model and waits until they are on disk.
///
/// # Errors
/// [`Error::Run`], [`Error::Io`]
pub(super) fn save(model: &XmcModel, path: &Path) -> Result<()> {
    let mut store = SafetensorsStore::from_file(path).overwrite(true);
    model.save_into(&mut store).map_err(|error| Error::Run {
        path: path.to_owned(),
        message: format!("cannot be written: {error}"),
        hint: Some("is the disk full?".into()),
    })?;
    (File::open(path).and_then(|file| file.sync_all())).map_err(Error::io("write", path))
}

/// Reads the model that `spec` describes, off the autodiff graph. Nothing random is drawn.
///
/// # Errors
/// [`Error::Run`] if the file is damaged or of another model.
pub(super) fn load(spec: &ModelSpec, path: &Path, compute: &Compute) -> Result<XmcModel> {
    let damaged = |message: String| Error::Run {
        path: path.to_owned(),
        message,
        hint: Some("the file is damaged or of another model; train again".into()),
    };
    if !path.is_file() {
        return Err(damaged("missing".into()));
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    // SAFETY: undefined only if another process cuts or rewrites the file while it is read.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", path))?;
    let tensors = SafeTensors::deserialize(&map).map_err(|error| damaged(format!("cannot be read: {error}")))?;
    let encoder = encoder(spec, path, &compute.device).map_err(damaged)?;
    let classifier = classifier(&spec.classifier_on(compute), &tensors, &compute.device).map_err(damaged)?;
    Ok(XmcModel { encoder, classifier })
}

fn encoder(spec: &ModelSpec, path: &Path, device: &Device) -> Result<Encoder, String> {
    /// Names in the file begin with `encoder.`.
    #[derive(Module, Debug)]
    struct Part {
        encoder: Encoder,
    }
    let mut part = Part {
        encoder: spec.encoder.init(device),
    };
    let mut store = SafetensorsStore::from_file(path).with_regex("^encoder\\.");
    let result = (part.load_from(&mut store)).map_err(|error| format!("cannot be read: {error}"))?;
    if let Some((name, _)) = result.missing.first() {
        return Err(format!("tensor `{name}` is missing"));
    }
    if let Some(error) = result.errors.first() {
        return Err(error.to_string());
    }
    if let Some(name) = result.unused.iter().find(|name| name.starts_with("encoder.")) {
        return Err(format!("tensor `{name}` is not part of the model"));
    }
    Ok(part.encoder.with_embedding_dropout(spec.embed_dropout))
}

fn classifier(config: &ClassifierConfig, tensors: &SafeTensors, device: &Device) -> Result<Classifier, String> {
    let [weights, compensation] = [("weights", Stored::Weights), ("compensation", Stored::Compensation)]
        .map(|(name, stored)| Rows::find(tensors, name, config.stored_shape(stored)));
    let (weights, compensation) = (weights?, compensation?);
    config.load(device, |stored, rows, words| {
        match stored {
            Stored::Weights => &weights,
            Stored::Compensation => &compensation,
        }
        .read(rows, words);
        Ok(())
    })
}

/// Rows of words that lie in several tensors of a file, one behind the other.
struct Rows<'a> {
    tensors: Vec<&'a [u8]>,
    row_bytes: usize,
}

impl<'a> Rows<'a> {
    /// `[rows, words a row]` in the tensors `classifier.NAME.0`, `.1` and so on, each of which has whole rows.
    fn find(tensors: &'a SafeTensors, name: &str, [rows, row_words]: [usize; 2]) -> Result<Self, String> {
        let row_bytes = 4 * row_words;
        let mut found = Vec::new();
        let mut left = rows * row_bytes;
        while left > 0 {
            let name = format!("classifier.{name}.{}", found.len());
            let tensor = tensors
                .tensor(&name)
                .map_err(|_| format!("tensor `{name}` is missing"))?;
            let bytes = tensor.data();
            if bytes.is_empty() || bytes.len() > left || !bytes.len().is_multiple_of(row_bytes) {
                return Err(format!(
                    "tensor `{name}` has {} bytes, expected whole rows of {row_bytes}, {left} bytes at most",
                    bytes.len()
                ));
            }
            left -= bytes.len();
            found.push(bytes);
        }
        Ok(Self {
            tensors: found,
            row_bytes,
        })
    }

    fn read(&self, rows: Range<usize>, mut words: &mut [u32]) {
        let mut skip = rows.start * self.row_bytes;
        for tensor in &self.tensors {
            let Some(bytes) = tensor.get(skip..) else {
                skip -= tensor.len();
                continue;
            };
            let (now, later) = words.split_at_mut(words.len().min(bytes.len() / 4));
            for (word, bytes) in now.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            words = later;
            skip = 0;
        }
    }
}
