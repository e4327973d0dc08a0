//! What a Hugging Face folder holds: its weights in the forms that are read, and a word on the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::shown::list;
use crate::{Result, downloaded, error::Error};

/// The forms of weights, the best one first: whole, and the index of one in parts.
const READ: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Forms of weights that are not read: how a name ends, what it is, how Python's `transformers` is told to read it.
const FOREIGN: [(&str, &str, Option<&str>); 9] = [
    (".h5", "TensorFlow", Some("from_tf=True")),
    (".ckpt.index", "TensorFlow", Some("from_tf=True")),
    (".msgpack", "Flax", Some("from_flax=True")),
    (".onnx", "ONNX", None),
    (".gguf", "GGUF", None),
    (".ot", "rust-bert", None),
    (".mlmodel", "Core ML", None),
    (".mlpackage", "Core ML", None),
    (".xml", "OpenVINO", None),
];

/// The files that hold the weights of one encoder.
pub(super) struct WeightFiles {
    /// The file to name where the weights as a whole are meant: the only one, or the index.
    pub name: PathBuf,
    pub parts: Vec<PathBuf>,
    /// Which part has which tensor, by the index.
    pub index: BTreeMap<String, PathBuf>,
}

impl WeightFiles {
    /// All in one file.
    pub fn one(name: PathBuf) -> Self {
        Self { parts: vec![name.clone()], index: BTreeMap::new(), name }
    }
}

/// Finds the weights of a folder.
///
/// # Errors
/// [`Error::Weights`] if there are none that can be read: what is there instead, and what to do;
/// [`Error::Data`] for an index that is none.
pub(super) fn weight_files(dir: &Path) -> Result<WeightFiles> {
    let Some(name) = READ.iter().map(|name| dir.join(name)).find(|path| path.exists()) else {
        return Err(without_weights(dir));
    };
    if name.extension().is_none_or(|extension| extension != "json") {
        return Ok(WeightFiles::one(name));
    }
    let index = read_index(dir, &name)?;
    let parts: BTreeSet<_> = index.values().cloned().collect();
    let missing = parts.iter().filter(|path| !path.exists()).map(|path| file_name(path));
    let missing: BTreeSet<_> = missing.collect();
    if !missing.is_empty() {
        return Err(Error::Weights {
            message: format!("of the files that it names, {} are missing", list(&missing)),
            hint: Some("download them into the same folder".into()),
            path: name,
        });
    }
    Ok(WeightFiles { parts: parts.into_iter().collect(), index, name })
}

/// The part of every tensor.
fn read_index(dir: &Path, path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let text = downloaded::read_text(path)?;
    let index: Map<String, Value> = serde_json::from_str(&text).map_err(|error| downloaded::bad_json(path, &error))?;
    let map = index.get("weight_map").map(BTreeMap::<String, String>::deserialize);
    let wrong =
        |message: String| Error::Weights { path: path.to_owned(), message, hint: Some("download it again".into()) };
    let map = match map {
        Some(Ok(map)) if !map.is_empty() => map,
        _ => return Err(wrong("`weight_map`: expected the file of every tensor".into())),
    };
    (map.into_iter())
        .map(|(tensor, file)| match Path::new(&file).file_name() {
            Some(name) if name == file.as_str() => Ok((tensor, dir.join(file))),
            _ => Err(wrong(format!("`{tensor}`: expected the name of a file beside it, found `{file}`"))),
        })
        .collect()
}

fn without_weights(dir: &Path) -> Error {
    let names = names(dir);
    let ending = |end: &str| names.iter().find(|name| name.ends_with(end));
    let error = |message: String, hint: String| Error::Weights { path: dir.to_owned(), message, hint: Some(hint) };
    if let Some(part) = names.iter().find(|name| name.contains("-of-")) {
        let index = match part.ends_with(".bin") {
            true => READ[3],
            false => READ[1],
        };
        return error(
            format!("holds weights in parts, as `{part}`, without their index"),
            format!("download `{index}` into the same folder"),
        );
    }
    let read = "read are model.safetensors and pytorch_model.bin, whole or in parts with their index";
    let foreign = (FOREIGN.iter()).find_map(|(end, what, option)| Some((ending(end)?, what, option)));
    match foreign {
        Some((file, what, Some(option))) => error(
            format!("holds {what} weights only, `{file}`"),
            format!(
                "{read}; convert it with Python's transformers: \
                 AutoModel.from_pretrained(\"{}\", {option}).save_pretrained(\"NEW\")",
                dir.display()
            ),
        ),
        Some((file, what, None)) => error(
            format!("holds {what} weights only, `{file}`"),
            format!("{read}; download the model's PyTorch or safetensors weights"),
        ),
        None => error(
            format!("holds no weights; it holds {}", list(&names)),
            format!("{read}; download one of them into it"),
        ),
    }
}

/// The error for a folder without `config.json`.
pub(super) fn without_config(dir: &Path) -> Error {
    let names = names(dir);
    // Sentence-transformers keep the encoder in a folder of its own, as `0_Transformer`.
    let inner = names.iter().find(|name| dir.join(name).join("config.json").exists());
    Error::Weights {
        path: dir.to_owned(),
        message: match names.is_empty() {
            true => "an empty folder".into(),
            false => format!("no config.json in it; it holds {}", list(&names)),
        },
        hint: Some(match inner {
            Some(inner) => format!("the encoder is in {}: name that folder", dir.join(inner).display()),
            None => "an encoder is a Hugging Face folder: config.json, model.safetensors or pytorch_model.bin, and \
                     tokenizer.json or vocab.txt"
                .into(),
        }),
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| file_name(&entry.path())).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
