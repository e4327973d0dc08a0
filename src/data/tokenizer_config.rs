//! `tokenizer_config.json`: the settings beside a vocabulary from which Python's `transformers` makes a tokenizer.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Result, downloaded};

/// What the file is called.
pub(super) const FILE: &str = "tokenizer_config.json";

/// The settings of a tokenizer.
pub(super) struct TokenizerConfig(Map<String, Value>);

impl TokenizerConfig {
    /// Reads the file beside `vocabulary`; no file is no settings.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Data`](crate::Error::Data)
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

/// A special token as the file of a tokenizer lists it.
pub(super) fn added(id: &Value, content: &str) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    })
}
