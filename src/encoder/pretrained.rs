//! Weight import from a Hugging Face folder.
//!
//! Everything is checked before use, and one error lists all the tensors that do not fit: with a
//! wrong file there are usually many, and the first alone seldom tells what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Bytes, DType, Device, Shape, Tensor, TensorData},
};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use super::{Bert, BertConfig};
use crate::{Error, Result, error::Place};

/// Before the names of a checkpoint that carries heads as well.
const PREFIX: &str = "bert.";

/// Tensors of no use here: beginnings of names, without [`PREFIX`].
const IGNORED: [&str; 3] = ["pooler.", "cls.", "embeddings.position_ids"];

/// How many names an error lists.
const LISTED: usize = 8;

/// Reads `model.safetensors` of the folder, whose configuration is `config`.
pub(super) fn load(dir: &Path, config: &BertConfig, device: &Device) -> Result<Bert> {
    let path = dir.join("model.safetensors");
    let file = File::open(&path).map_err(Error::io("read", &path))?;
    // SAFETY: undefined only if another process cuts or rewrites the file while it is read.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", &path))?;
    import(config.init(device), &map).map_err(|message| Error::Weights {
        hint: Some("config.json and model.safetensors must be of the same BERT model".into()),
        message,
        path,
    })
}

pub(super) fn read_config(path: &Path) -> Result<BertConfig> {
    /// Read first: in the config of another family nothing else means what it means here.
    #[derive(Deserialize)]
    struct Family {
        model_type: Option<String>,
    }

    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    // The field's name is in serde_json's message.
    let invalid = |error: serde_json::Error| Error::Data {
        place: Place::line(path, error.line()),
        expected: "the configuration of a BERT model".into(),
        found: error.to_string(),
        hint: None,
    };
    // For what is only seen once the file is parsed: a field's line is where its name stands.
    let wrong = |field: &str, expected: String, found: String, hint: Option<String>| {
        let name = format!("\"{field}\"");
        let line = text.lines().position(|line| line.contains(&name));
        Error::Data {
            place: Place {
                line: line.map(|line| line + 1),
                ..Place::file(path)
            }
            .field(field),
            expected,
            found,
            hint,
        }
    };

    let family: Family = serde_json::from_str(&text).map_err(invalid)?;
    if family.model_type.as_deref() != Some("bert") {
        return Err(wrong(
            "model_type",
            "`bert`".into(),
            family
                .model_type
                .map_or_else(|| "nothing".into(), |family| format!("`{family}`")),
            Some("only BERT encoders can be loaded".into()),
        ));
    }
    let config: BertConfig = serde_json::from_str(&text).map_err(invalid)?;
    match config.violation() {
        Some((field, expected, found)) => Err(wrong(field, expected, found, None)),
        None => Ok(config),
    }
}

/// The module with the weights of a safetensors file, or a message that names what does not fit.
fn import(bert: Bert, file: &[u8]) -> Result<Bert, String> {
    let tensors =
        SafeTensors::deserialize(file).map_err(|error| format!("not a complete safetensors file: {error}"))?;
    let mut importer = Importer {
        path: Vec::new(),
        unused: tensors
            .iter()
            .map(|(name, view)| (canonical(name), view))
            .filter(|(name, _)| !IGNORED.iter().any(|start| name.starts_with(start)))
            .collect(),
        missing: BTreeSet::new(),
        unfit: BTreeSet::new(),
    };
    let bert = bert.map(&mut importer);

    let problems: Vec<_> = [
        ("missing", importer.missing),
        ("unknown", importer.unused.into_keys().collect()),
        ("unfit", importer.unfit),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what} tensors: {}", list(&names)))
    .collect();
    if problems.is_empty() {
        Ok(bert)
    } else {
        Err(problems.join("; "))
    }
}

/// A tensor's name without [`PREFIX`], and with the names that TensorFlow's norms had for theirs.
fn canonical(name: &str) -> String {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    name.replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
}

fn list(names: &BTreeSet<String>) -> String {
    let shown: Vec<_> = names.iter().take(LISTED).map(|n| format!("`{n}`")).collect();
    let rest = names.len() - shown.len();
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}

/// Walks the module and puts the file's tensors in place of its parameters, whose own
/// initialization, being lazy, never runs.
struct Importer<'a> {
    /// Field names from the root to the parameter.
    path: Vec<String>,
    /// The file's tensors that no parameter has taken yet.
    unused: BTreeMap<String, TensorView<'a>>,
    missing: BTreeSet<String>,
    /// Wrong shape or type, with the explanation.
    unfit: BTreeSet<String>,
}

impl ModuleMapper for Importer<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = hugging_face_name(&self.path.join("."));
        let Some(view) = self.unused.remove(&name) else {
            self.missing.insert(name);
            return param;
        };
        // Linear layers: PyTorch keeps [out, in], Burn [in, out].
        let transposed = D == 2 && !name.starts_with("embeddings.");
        let mut expected = param.lazy_shape().to_vec();
        if transposed {
            expected.reverse();
        }
        let dtype = match view.dtype() {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                self.unfit.insert(format!("{name} of type {other:?}"));
                return param;
            }
        };
        if view.shape() != expected {
            let shape = view.shape();
            self.unfit
                .insert(format!("{name} of shape {shape:?}, expected {expected:?}"));
            return param;
        }
        let bytes = Bytes::from_bytes_vec(view.data().to_vec());
        let data = TensorData::from_bytes(bytes, Shape::from(expected), dtype);
        // No type given: the device's own, to which the data are converted.
        let tensor = Tensor::<D>::from_data(data, &param.lazy_device());
        let tensor = if transposed { tensor.transpose() } else { tensor };
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}

/// The name in a Hugging Face file of the parameter at `path` in [`Bert`].
fn hugging_face_name(path: &str) -> String {
    let (module, parameter) = path.rsplit_once('.').expect("parameters lie in layers");
    let parameter = match parameter {
        "gamma" => "weight",
        "beta" => "bias",
        same => same,
    };
    let module = match module.strip_prefix("layers.") {
        None => match module {
            "embeddings.word" => "embeddings.word_embeddings",
            "embeddings.position" => "embeddings.position_embeddings",
            "embeddings.token_type" => "embeddings.token_type_embeddings",
            "embeddings.norm" => "embeddings.LayerNorm",
            other => unreachable!("no name for {other}"),
        }
        .to_owned(),
        Some(rest) => {
            let (layer, module) = rest.split_once('.').expect("layers have fields");
            let module = match module {
                "attention.query" => "attention.self.query",
                "attention.key" => "attention.self.key",
                "attention.value" => "attention.self.value",
                "attention.output" => "attention.output.dense",
                "attention.norm" => "attention.output.LayerNorm",
                "intermediate" => "intermediate.dense",
                "output" => "output.dense",
                "norm" => "output.LayerNorm",
                other => unreachable!("no name for {other}"),
            };
            format!("encoder.layer.{layer}.{module}")
        }
    };
    format!("{module}.{parameter}")
}
