//! The `config.json` of a Hugging Face folder.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Output, config::EncoderConfig, family::Family, folder, shown::shown, sizes::TransformerConfig};
use crate::{
    Result, downloaded,
    error::{Error, Place},
};

/// Keys that are supported with one value only.
fn demanded() -> [(&'static str, Value); 3] {
    [
        ("position_embedding_type", json!("absolute")),
        ("is_decoder", json!(false)),
        ("add_cross_attention", json!(false)),
    ]
}

impl EncoderConfig {
    /// Reads the `config.json` of a Hugging Face folder.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::Weights`](crate::Error::Weights) if there is none;
    /// [`Error::Data`](crate::Error::Data) if it is not that of an encoder that can be read, with the key at fault.
    pub fn from_pretrained(dir: &Path) -> Result<Self> {
        read(dir)
    }
}

fn read(dir: &Path) -> Result<EncoderConfig> {
    let path = dir.join("config.json");
    if dir.is_dir() && !path.exists() {
        return Err(folder::without_config(dir));
    }
    let text = downloaded::read_text(&path)?;
    let file = File { path: &path, text: &text };
    let keys: Map<String, Value> = serde_json::from_str(&text).map_err(|error| downloaded::bad_json(&path, &error))?;

    let family = match keys.get("model_type").filter(|value| !value.is_null()) {
        None => return Err(file.wrong("model_type", Family::READ.into(), "nothing".into())),
        // Looked at first: in the config of another family nothing else means what it means here.
        Some(name) => Family::deserialize(name)
            .map_err(|_| file.wrong("model_type", Family::READ.into(), format!("`{}`", plain(name))))?,
    };
    for (key, only) in demanded() {
        if let Some(value) = keys.get(key).filter(|value| **value != only && !value.is_null()) {
            return Err(file.wrong(key, format!("`{}`", plain(&only)), format!("`{}`", plain(value))));
        }
    }
    let facts = family.facts();
    let given = |field: &str| keys.get(facts.key(field)).cloned();
    let fields = (facts.defaults)().to_fields();
    let wrong = |(field, expected, found): (&str, String, String)| file.wrong(facts.key(field), expected, found);
    let transformer = TransformerConfig::from_fields(fields, given)
        .map_err(|(field, expected, found)| wrong((&field, expected, found)))?;
    let config = EncoderConfig { family, transformer, output: Output::default() };
    config.check().map_err(wrong)?;
    Ok(config)
}

/// A string without its quotes, and any other value as it is.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| shown(value), str::to_owned)
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    /// The error for a key; its line is where its name stands.
    fn wrong(&self, key: &str, expected: String, found: String) -> Error {
        let name = format!("\"{key}\"");
        let line = self.text.lines().position(|line| line.contains(&name));
        let hint = match key {
            "model_type" if found == "`mpnet`" => {
                "MPNet adds a bias for the distance between two tokens to its attention, which is not available in this \
                 version; a BERT, a DistilBERT or a RoBERTa can be loaded"
            }
            "model_type" => "encoders of other families cannot be loaded",
            "hidden_act" | "activation" => "an encoder with another activation would give other embeddings",
            _ => "",
        };
        Error::Data {
            place: Place { line: line.map(|line| line + 1), ..Place::file(self.path) }.field(key),
            expected,
            found,
            hint: (!hint.is_empty()).then(|| hint.into()),
        }
    }
}
