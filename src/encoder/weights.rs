//! The weights of a Hugging Face folder: found, checked by the heads of the files, and then read.
//!
//! burn-store reads the files and puts tensors into the modules. Here it is decided which tensor is which parameter's,
//! and one error names all that does not fit: with a wrong file there are usually many, and the first alone seldom
//! tells what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use burn::{
    store::{
        FloatCastAdapter, ModuleAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, PytorchStore,
        SafetensorsStore, SafetensorsStoreError, burn_pack::Tensor as StoredTensor,
    },
    tensor::{DType, Device},
};
use safetensors::{Dtype, SafeTensorError};
use tracing::info;

use super::{Encoder, EncoderConfig, facts::Names, folder, folder::WeightFiles, shown::list, sizes::Parameter};
use crate::{
    Result,
    downloaded::{self, AGAIN},
    error::Error,
    finite::are_finite,
};

/// Tensors for all the parameters of an encoder, of the right shapes, not read yet.
pub(super) struct Weights {
    /// The file to name in errors.
    path: PathBuf,
    /// Named as the transformer's parameters.
    tensors: Vec<StoredTensor>,
    /// Names of what the files hold beside the encoder.
    left_out: BTreeSet<String>,
}

impl EncoderConfig {
    /// Whether the weights of a Hugging Face folder, or of a file, are those of this encoder, by the heads of its files:
    /// no weight is read.
    ///
    /// # Errors
    /// As [`load_pretrained`](Self::load_pretrained), but for what the weights themselves hold.
    pub fn check_weights(&self, place: &Path) -> Result<()> {
        find(place, self).map(|_| ())
    }

    /// An encoder with the weights of a Hugging Face folder, or of a file, of which this is the configuration.
    ///
    /// They are read from `model.safetensors` or `pytorch_model.bin`, either of them also in parts with an index. They
    /// may be F64, F32, F16 or BF16; they take the type of the device's floats. Whatever stands before the names of the
    /// encoder's tensors does not matter, and what is not the encoder's, such as task heads, is left out.
    ///
    /// # Errors
    /// - [`Error::Io`](crate::Error::Io) if a file cannot be read;
    /// - [`Error::Weights`](crate::Error::Weights) if the folder holds no weights, or damaged ones, or if tensors are
    ///   missing, unknown, not finite, or of another shape than the configuration says; it names them.
    pub fn load_pretrained(&self, place: &Path, device: &Device) -> Result<Encoder> {
        find(place, self)?.load(self, device)
    }
}

/// Finds the weights for `config` in a folder or a file. Heads of files are read, weights are not.
pub(super) fn find(place: &Path, config: &EncoderConfig) -> Result<Weights> {
    let files = match place.is_dir() {
        true => folder::weight_files(place)?,
        false => WeightFiles::one(place.to_owned()),
    };
    let tensors = open(&files)?;
    let path = files.name;
    let (tensors, left_out) = assign(tensors, config).map_err(|message| Error::Weights {
        message,
        hint: Some("config.json and the weights must be of the same model".into()),
        path: path.clone(),
    })?;
    Ok(Weights { path, tensors, left_out })
}

impl Weights {
    /// Reads them into an encoder.
    pub fn load(self, config: &EncoderConfig, device: &Device) -> Result<Encoder> {
        if !self.left_out.is_empty() {
            let path = self.path.display();
            info!("{path}: left out, as not the encoder's: {}", list(&self.left_out));
        }
        check_finite(&self.path, &self.tensors, &config.family.facts().names)?;
        let mut encoder = config.init(device);
        let float = device.settings().float_dtype.into();
        let adapter = PyTorchToBurnAdapter.chain(FloatCastAdapter::to(float));
        let result = encoder.bert.apply(self.tensors, None, Some(Box::new(adapter)), false);
        match result.errors.first() {
            None => Ok(encoder),
            Some(error) => Err(Error::Weights {
                path: self.path,
                message: error.to_string(),
                hint: Some("the file is damaged: download it again".into()),
            }),
        }
    }
}

/// Whether no tensor holds infinities or NaN. They are read one by one.
fn check_finite(path: &Path, tensors: &[StoredTensor], names: &Names) -> Result<()> {
    let wrong = |tensor: &StoredTensor, what: &str| Error::Weights {
        path: path.to_owned(),
        message: format!("tensor `{}` {what}", names.in_file(&tensor.name)),
        hint: Some("the file is damaged, or its training had diverged: download it again, or take another".into()),
    };
    for tensor in tensors {
        let bytes = tensor.to_bytes().map_err(|error| wrong(tensor, &format!("cannot be read: {error}")))?;
        if !is_finite(tensor.dtype, &bytes) {
            return Err(wrong(tensor, "is not finite: it holds infinities or NaN"));
        }
    }
    Ok(())
}

/// All tensors of the files.
fn open(files: &WeightFiles) -> Result<Vec<StoredTensor>> {
    let mut tensors = Vec::new();
    let mut lacking = BTreeSet::new();
    for path in &files.parts {
        downloaded::check(path, "the weights of an encoder")?;
        let part = match path.extension().is_some_and(|extension| extension == "safetensors") {
            true => open_safetensors(path)?,
            false => open_pytorch(path)?,
        };
        let promised = files.index.iter().filter(|(_, file)| *file == path);
        lacking.extend(promised.map(|(name, _)| name.clone()).filter(|name| !part.contains_key(name)));
        tensors.extend(part.into_values());
    }
    if lacking.is_empty() {
        return Ok(tensors);
    }
    Err(Error::Weights {
        path: files.name.clone(),
        message: format!("of the tensors that it names, {} are not in their files", list(&lacking)),
        hint: Some("the index and its parts must be of the same model: download them again".into()),
    })
}

fn open_safetensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    let mut store = SafetensorsStore::from_file(path);
    store.get_all_tensors().cloned().map_err(|error| {
        let (message, hint) = match &error {
            SafetensorsStoreError::Safetensors(
                SafeTensorError::HeaderTooSmall
                | SafeTensorError::InvalidHeaderLength
                | SafeTensorError::MetadataIncompleteBuffer,
            ) => ("incomplete, or with something behind its end".into(), AGAIN.into()),
            SafetensorsStoreError::Safetensors(error) => {
                (format!("not a safetensors file: {error}"), "download it again".to_owned())
            }
            other => (format!("cannot be read: {other}"), "save it as F32, F16 or BF16".into()),
        };
        Error::Weights { path: path.to_owned(), message, hint: Some(hint) }
    })
}

fn open_pytorch(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    // Layers keep their numbers: a missing one is to be found missing.
    let mut store = PytorchStore::from_file(path).map_indices_contiguous(false);
    store.get_all_tensors().cloned().map_err(|error| {
        // Of a zip file the end is looked at first.
        let (message, hint) = match error.to_string() {
            text if text.contains("zip archive error") => ("incomplete".to_owned(), AGAIN),
            text => (text, "the file is incomplete, or no checkpoint of PyTorch: download it again"),
        };
        Error::Weights { path: path.to_owned(), message: format!("cannot be read: {message}"), hint: Some(hint.into()) }
    })
}

/// The tensors under the names of the transformer's parameters, and the names of those that are not the encoder's; or a
/// message that names what does not fit.
fn assign(tensors: Vec<StoredTensor>, config: &EncoderConfig) -> Result<(Vec<StoredTensor>, BTreeSet<String>), String> {
    let facts = config.family.facts();
    let parameters = config.transformer.shapes(facts.switches).into_iter();
    let mut missing: BTreeMap<String, Parameter> =
        parameters.map(|parameter| (facts.names.in_file(&parameter.path), parameter)).collect();
    let prefix = prefix(&tensors, &missing)?;

    let mut assigned = Vec::new();
    let [mut unknown, mut unfit, mut left_out] = [(); 3].map(|()| BTreeSet::new());
    for mut tensor in tensors {
        let own = tensor.name.strip_prefix(prefix.as_str()).map(modern);
        let Some(name) = own.filter(|name| facts.names.owns(name)) else {
            left_out.insert(tensor.name);
            continue;
        };
        let Some(parameter) = missing.remove(&name) else {
            unknown.insert(tensor.name);
            continue;
        };
        let mut shape = parameter.shape;
        if parameter.linear {
            shape.reverse();
        }
        if !tensor.dtype.is_float() {
            unfit.insert(format!("{} of type {:?}", tensor.name, tensor.dtype));
        } else if tensor.shape.to_vec() != shape {
            let found = tensor.shape.to_vec();
            unfit.insert(format!("{} of shape {found:?}, expected {shape:?}", tensor.name));
        }
        tensor.name = parameter.path;
        assigned.push(tensor);
    }
    let missing = missing.into_keys().map(|name| format!("{prefix}{name}")).collect();
    let problems = [("missing", missing), ("unknown", unknown), ("unfit", unfit)].into_iter();
    let problems = problems.filter(|(_, names)| !names.is_empty());
    let problems: Vec<_> = problems.map(|(what, names)| format!("{what} tensors: {}", list(&names))).collect();
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    Ok((assigned, left_out))
}

/// What NGAME has before the names of its encoder's tensors; a copy of them may stand elsewhere in the same file.
const NGAME: &str = "embedding_labels.encoder.transformer.0.auto_model.";

/// What stands before the names of the encoder's tensors: that with which most of the `expected` ones are found.
fn prefix(tensors: &[StoredTensor], expected: &BTreeMap<String, Parameter>) -> Result<String, String> {
    let mut found = BTreeMap::<&str, usize>::new();
    for tensor in tensors {
        let name = tensor.name.as_str();
        let ends = [0].into_iter().chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        for end in ends.filter(|end| expected.contains_key(&modern(&name[*end..]))) {
            *found.entry(&name[..end]).or_default() += 1;
        }
    }
    let most = found.values().copied().max().unwrap_or(0);
    let best: BTreeSet<_> =
        (found.iter()).filter(|(_, count)| **count == most).map(|(prefix, _)| (*prefix).to_owned()).collect();
    match best.len() {
        2.. if best.contains(NGAME) => Ok(NGAME.into()),
        2.. if most == expected.len() => Err(format!("several encoders, whose names begin with {}", list(&best))),
        _ => Ok(best.into_iter().next().unwrap_or_default()),
    }
}

/// The name of today for a tensor's: TensorFlow's norms had others.
fn modern(name: &str) -> String {
    let renamed = [(".gamma", ".weight"), (".beta", ".bias")].into_iter();
    let mut renamed = renamed.filter_map(|(old, new)| Some(name.strip_suffix(old)?.to_owned() + new));
    renamed.next().unwrap_or_else(|| name.to_owned())
}

/// Whether every number of a tensor of floats is finite.
fn is_finite(dtype: DType, bytes: &[u8]) -> bool {
    let dtype = match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => return true,
    };
    are_finite(dtype, bytes)
}
