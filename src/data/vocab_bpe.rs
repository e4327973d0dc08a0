//! The tokenizer of a RoBERTa that came as `vocab.json` and `merges.txt`, as Python's `transformers` makes it of them.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::tokenizer_config::{self, Specials, TokenizerConfig, padding};
use crate::{
    downloaded,
    error::{Error, Place, Result},
};

/// The tokenizer's tokens and their ids.
pub(super) const FILE: &str = "vocab.json";

/// What is beside it: pairs of tokens that become one, the most frequent ones first.
const MERGES: &str = "merges.txt";

/// Reads `vocab.json` and `merges.txt`, with `tokenizer_config.json` beside them if that is there.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`]
pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    let text = downloaded::read_text(path)?;
    let vocabulary: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| downloaded::bad_json(path, &error))?;
    let merges_path = path.with_file_name(MERGES);
    let merges = downloaded::read_text(&merges_path)?;
    let merges = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merges: Vec<&str> = merges.collect();
    let settings = TokenizerConfig::beside(path)?;

    let mut specials = Specials::new(&settings, &vocabulary);
    let missing = |token: &str| Error::Data {
        place: Place::file(path),
        expected: format!("the vocabulary of a RoBERTa, with `{token}` in it"),
        found: format!("{} tokens without it", vocabulary.len()),
        hint: Some(format!(
            "the file is that of another model, or {} names other tokens: download both again",
            tokenizer_config::FILE
        )),
    };
    let mut special = |role: &str, usual: &str| specials.find(role, usual, missing);
    let cls = special("cls_token", "<s>")?;
    let pad = special("pad_token", "<pad>")?;
    let sep = special("sep_token", "</s>")?;
    special("unk_token", "<unk>")?;
    // Pretraining's alone, so some vocabularies go without.
    let _ = special("mask_token", "<mask>");

    let prefix = settings.flag("add_prefix_space").unwrap_or(false);
    let description = json!({
        "version": "1.0",
        "truncation": null,
        "padding": padding(pad),
        "added_tokens": specials.listed,
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true },
        "post_processor": {
            "type": "RobertaProcessing", "sep": sep, "cls": cls, "trim_offsets": true, "add_prefix_space": prefix,
        },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": merges,
        },
    });
    Tokenizer::from_bytes(description.to_string()).map_err(|error| Error::Data {
        place: Place::file(&merges_path),
        expected: format!("pairs of the tokens of {FILE}, one pair a line"),
        found: error.to_string(),
        hint: Some(format!("{FILE} and {MERGES} must be of the same model: download both again")),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde::Deserialize;

    use super::*;
    use crate::data::TextTokenizer;

    #[derive(Deserialize)]
    struct Expected {
        texts: Vec<String>,
        ids: Vec<Vec<u32>>,
        ids_with_prefix: Vec<Vec<u32>>,
    }

    fn fixture(name: &str) -> String {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/encoder/tiny-roberta");
        fs::read_to_string(dir.join(name)).unwrap()
    }

    /// A folder with both files.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in [FILE, MERGES] {
            fs::write(dir.path().join(name), fixture(name)).unwrap();
        }
        dir
    }

    #[test]
    fn the_tokens_are_those_of_transformers() {
        let expected: Expected = serde_json::from_str(&fixture("tokens.json")).unwrap();
        let dir = folder();
        let tokens = || {
            let tokenizer = TextTokenizer::from_file(dir.path()).unwrap();
            assert_eq!((tokenizer.pad_id(), tokenizer.special_tokens()), (1, 2));
            tokenizer.encode_batch(&expected.texts, 64).unwrap()
        };
        assert_eq!(tokens(), expected.ids);
        fs::write(dir.path().join(tokenizer_config::FILE), r#"{"add_prefix_space": true}"#).unwrap();
        assert_eq!(tokens(), expected.ids_with_prefix);
    }

    #[test]
    fn what_is_wrong_with_either_file_is_named() {
        let cases: [(&str, Option<&str>, &[&str]); 5] = [
            (MERGES, None, &["cannot read", "merges.txt"]),
            (MERGES, Some("#version: 0.2\nnot there\n"), &["merges.txt: expected pairs", "of the same model"]),
            (FILE, Some(r#"{"a": 0}"#), &["vocab.json: expected", "`<s>`", "found 1 tokens without it"]),
            (FILE, Some(r#"{"a": "#), &["vocab.json", "its beginning only"]),
            (tokenizer_config::FILE, Some(r#"{"sep_token": "[SEP]"}"#), &["`[SEP]`", "names other tokens"]),
        ];
        for (file, content, parts) in cases {
            let dir = folder();
            match content {
                Some(content) => fs::write(dir.path().join(file), content).unwrap(),
                None => fs::remove_file(dir.path().join(file)).unwrap(),
            }
            let error = TextTokenizer::from_file(dir.path()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{file}: {error}");
        }
    }
}
