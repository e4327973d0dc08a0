//! The tokenizer of a BERT that came as `vocab.txt`, as Python's `transformers` makes it of that file.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::tokenizer_config::{FILE as SETTINGS, Specials, TokenizerConfig, padding};
use crate::{
    data::text::CR_ALONE,
    downloaded,
    error::{Error, Place, Result},
};

/// The tokenizer's tokens, one a line; the line's number, from 0, is the id.
pub(super) const FILE: &str = "vocab.txt";

/// Reads `vocab.txt`, with `tokenizer_config.json` beside it if that is there.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`]
pub(super) fn read(path: &Path) -> Result<Tokenizer> {
    let text = downloaded::read_text(path)?;
    let vocabulary: Map<String, Value> =
        (text.lines().zip(0u32..)).map(|(token, id)| (token.to_owned(), id.into())).collect();
    let settings = TokenizerConfig::beside(path)?;
    let flag = |key: &str| settings.flag(key);

    let mut specials = Specials::new(&settings, &vocabulary);
    let missing = |token: &str| Error::Data {
        place: Place::file(path),
        expected: format!("the vocabulary of a BERT, with `{token}` as a line of its own"),
        found: match vocabulary.len() {
            _ if text.trim().contains('\r') => CR_ALONE.0.into(),
            1 => "one line without it".into(),
            n => format!("{n} lines without it"),
        },
        hint: Some(match text.trim().contains('\r') {
            true => CR_ALONE.1.into(),
            false => format!("the file is incomplete, or {SETTINGS} names other tokens: download both again"),
        }),
    };
    let mut special = |role: &str, usual: &str| specials.find(role, usual, missing);
    let pad = special("pad_token", "[PAD]")?;
    let (unknown, _) = special("unk_token", "[UNK]")?;
    let (cls, cls_id) = special("cls_token", "[CLS]")?;
    let (sep, sep_id) = special("sep_token", "[SEP]")?;
    // Pretraining's alone, so some vocabularies go without.
    let _ = special("mask_token", "[MASK]");

    let description = json!({
        "version": "1.0",
        "truncation": null,
        "padding": padding(pad),
        "added_tokens": specials.listed,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": flag("strip_accents"),
            "lowercase": flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": [sep, sep_id], "cls": [cls, cls_id] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    });
    Tokenizer::from_bytes(description.to_string()).map_err(|error| Error::Data {
        place: Place::file(path),
        expected: "the vocabulary of a BERT".into(),
        found: error.to_string(),
        hint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{TextTokenizer, testing};

    const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nnaive\n##te\nNaïve\n\u{4e2d}\n";

    #[test]
    fn a_vocabulary_is_a_tokenizer_as_its_settings_say() {
        for (settings, vocabulary, expected) in [
            // Lower case and without accents, unless told otherwise.
            (None, VOCABULARY, [2, 5, 6, 8, 3]),
            (None, &VOCABULARY.replace('\n', "\r\n")[..], [2, 5, 6, 8, 3]),
            (None, &format!("\u{feff}{VOCABULARY}")[..], [2, 5, 6, 8, 3]),
            (Some(r#"{"do_lower_case": true}"#), VOCABULARY, [2, 5, 6, 8, 3]),
            (Some(r#"{"do_lower_case": false}"#), VOCABULARY, [2, 7, 6, 8, 3]),
            (Some(r#"{"cls_token": {"content": "[MASK]"}, "sep_token": "[PAD]"}"#), VOCABULARY, [4, 5, 6, 8, 0]),
        ] {
            let mut files = vec![(FILE, vocabulary)];
            files.extend(settings.map(|settings| (SETTINGS, settings)));
            let folder = testing::folder(&files);
            let tokenizer = TextTokenizer::from_file(folder.path()).unwrap();
            assert_eq!(tokenizer.encode("Naïvete\u{4e2d}", 8).unwrap(), expected, "{settings:?}");
        }
    }

    #[test]
    fn a_vocabulary_without_its_special_tokens_is_named() {
        let folder = testing::folder(&[(FILE, "[PAD]\n[UNK]\n[CLS]\nbread\n")]);
        let error = TextTokenizer::from_file(folder.path()).unwrap_err().to_string();
        for part in ["vocab.txt: expected", "`[SEP]`", "found 4 lines without it"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_folder_without_a_tokenizer_says_what_is_missing() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:6a\nsize 466062\n";
        for (file, content, parts) in [
            ("spiece.model", "", ["holds `spiece.model`, but no tokenizer.json", "save_pretrained"]),
            ("config.json", "{}", ["no tokenizer.json, vocab.txt or vocab.json", "download tokenizer.json"]),
            ("tokenizer.json", pointer, ["found a git-lfs pointer", "git lfs pull"]),
            ("tokenizer.json", "", ["found an empty file", "download it again"]),
            ("tokenizer.json", r#"{"version": "1.0", "#, ["its beginning only", "download it again"]),
            ("vocab.txt", pointer, ["found a git-lfs pointer", "git lfs pull"]),
            ("vocab.txt", "[PAD]\r[UNK]\r", ["lines that end in CR alone", "`tr "]),
            ("vocab.txt", "[PAD]\n", ["one line without", "download both again"]),
        ] {
            let folder = testing::folder(&[(file, content)]);
            let error = TextTokenizer::from_file(folder.path()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{file}: {error}");
        }
    }
}
