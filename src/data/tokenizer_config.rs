//! `tokenizer_config.json`: the settings beside a vocabulary from which Python's `transformers` makes a tokenizer.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, Result, downloaded};

/// What the file is called.
pub(super) const FILE: &str = "tokenizer_config.json";

/// The settings of a tokenizer.
pub(super) struct TokenizerConfig(Map<String, Value>);

impl TokenizerConfig {
    /// Reads the file beside `vocabulary`; no file is no settings.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Data`]
    pub fn beside(vocabulary: &Path) -> Result<Self> {
        let path = vocabulary.with_file_name(FILE);
        if !path.exists() {
            return Ok(Self(Map::new()));
        }
        let text = downloaded::read_text(&path)?;
        serde_json::from_str(&text).map(Self).map_err(|error| downloaded::bad_json(&path, &error))
    }

    /// A setting that is true or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.0.get(key).and_then(Value::as_bool)
    }

    /// The token that has this role, as `cls_token`; `usual` if nothing is said.
    pub fn token(&self, role: &str, usual: &str) -> String {
        // A name, or an object that holds it.
        let given = self.0.get(role).map(|value| value.get("content").unwrap_or(value));
        given.and_then(Value::as_str).unwrap_or(usual).to_owned()
    }
}

/// The special tokens of a vocabulary, found one after the other.
pub(super) struct Specials<'a> {
    settings: &'a TokenizerConfig,
    vocabulary: &'a Map<String, Value>,
    /// As the file of a tokenizer lists them.
    pub listed: Vec<Value>,
}

impl<'a> Specials<'a> {
    pub fn new(settings: &'a TokenizerConfig, vocabulary: &'a Map<String, Value>) -> Self {
        Self { settings, vocabulary, listed: Vec::new() }
    }

    /// The token that has this role, as [`TokenizerConfig::token`], and its id.
    ///
    /// # Errors
    /// `missing`, told of the token, if the vocabulary does not have it.
    pub fn find(&mut self, role: &str, usual: &str, missing: impl Fn(&str) -> Error) -> Result<(String, Value)> {
        let token = self.settings.token(role, usual);
        let id = self.vocabulary.get(&token).cloned().ok_or_else(|| missing(&token))?;
        self.listed.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        }));
        Ok((token, id))
    }
}

/// How a tokenizer fills up shorter texts, as its file says it.
pub(super) fn padding((token, id): (String, Value)) -> Value {
    json!({
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": id, "pad_type_id": 0, "pad_token": token,
    })
}
