//! Text to token ids.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use tokenizers::{
    AddedToken, PaddingParams, PostProcessor, Tokenizer, TruncationDirection,
    decoders::wordpiece::WordPiece as WordPieceDecoder, models::wordpiece::WordPiece,
    pre_tokenizers::bert::BertPreTokenizer, processors::bert::BertProcessing,
};
use tracing::{info, warn};

use super::{
    hash::Fnv128,
    text::read_to_string,
    vocab_bpe, vocab_txt,
    wordpiece::{self, Unknown, WordCounts},
};
use crate::{
    atomic, downloaded,
    error::{Error, Place, Result},
};

/// The name of the file in a model's folder.
const FILE: &str = "tokenizer.json";

/// A tokenizer in Hugging Face's format, with the truncation and padding of this crate.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// What the file said about padding; kept for [`TextTokenizer::save`], else batches do their own.
    padding: Option<PaddingParams>,
    pad_id: u32,
    vocab_size: usize,
    /// Ids of tokens that stand for no part of a text.
    special: HashSet<u32>,
    fingerprint: u128,
}

impl TextTokenizer {
    /// Reads `tokenizer.json`, or `vocab.txt` of a BERT, or `vocab.json` and `merges.txt` of a RoBERTa; `path` is the file
    /// or its folder.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Data`] if it is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let path = match path.is_dir() {
            true => file_in(path)?,
            false => path.to_owned(),
        };
        if path.extension().is_some_and(|extension| extension == "txt") {
            return Self::new(vocab_txt::read(&path)?);
        }
        if path.file_name().is_some_and(|name| name == vocab_bpe::FILE) {
            return Self::new(vocab_bpe::read(&path)?);
        }
        downloaded::check(&path, "a tokenizer")?;
        let text = read_to_string(&path)?;
        let tokenizer = Tokenizer::from_bytes(&text).map_err(|error| {
            const AGAIN: &str = "download it again, or save it with the library";
            match serde_json::from_str::<BTreeMap<String, IgnoredAny>>(&text) {
                Err(error) => match downloaded::bad_json(&path, &error) {
                    Error::Data { place, expected, found, hint } => {
                        Error::Data { place, expected, found, hint: hint.or_else(|| Some(AGAIN.into())) }
                    }
                    other => other,
                },
                Ok(_) => Error::Data {
                    place: Place::file(&path),
                    expected: "a tokenizer of the Hugging Face `tokenizers` library".into(),
                    found: format!("another object in JSON ({error})"),
                    hint: Some(AGAIN.into()),
                },
            }
        })?;
        Self::new(tokenizer)
    }

    fn new(mut inner: Tokenizer) -> Result<Self> {
        let padding = inner.get_padding().cloned();
        inner.with_padding(None);
        inner.with_truncation(None).map_err(library_error)?;
        let pad_id = padding
            .as_ref()
            .map(|padding| padding.pad_id)
            .or_else(|| inner.token_to_id("[PAD]"))
            .or_else(|| inner.token_to_id("<pad>"))
            .unwrap_or(0);
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let added = inner.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        let mut hash = Fnv128::new();
        hash.write(inner.to_string(false).map_err(library_error)?.as_bytes());
        Ok(Self { inner, padding, pad_id, vocab_size, special, fingerprint: hash.finish() })
    }

    /// Writes the tokenizer to the file `path`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tokenizer = self.inner.clone();
        tokenizer.with_padding(self.padding.clone());
        let json = tokenizer.to_string(true).map_err(library_error)?;
        atomic::write(path, |sink| sink.write_all(json.as_bytes()).map_err(Error::io("write", path)))
    }

    /// The tokens of `text` with the tokenizer's special tokens, at most `max_len` in all: what is cut is cut from the
    /// end of the text, never the special tokens.
    ///
    /// # Errors
    /// [`Error::Config`] if `max_len` leaves no room for text; [`Error::Data`] if the tokenizer lacks a token for
    /// something in the text and has no unknown token.
    pub fn encode(&self, text: &str, max_len: usize) -> Result<Vec<u32>> {
        Ok(self.encode_within(text, self.room(max_len)?)?.0)
    }

    /// [`TextTokenizer::encode`] for many texts, on all cores.
    ///
    /// # Errors
    /// As [`TextTokenizer::encode`].
    pub fn encode_batch(&self, texts: &[String], max_len: usize) -> Result<Vec<Vec<u32>>> {
        let encoded = self.encode_counted(texts, max_len)?;
        Ok(encoded.into_iter().map(|(ids, _)| ids).collect())
    }

    /// Tokens, and whether the text was cut.
    pub(super) fn encode_counted(&self, texts: &[String], max_len: usize) -> Result<Vec<(Vec<u32>, bool)>> {
        let room = self.room(max_len)?;
        texts.par_iter().map(|text| self.encode_within(text, room)).collect()
    }

    fn encode_within(&self, text: &str, room: usize) -> Result<(Vec<u32>, bool)> {
        let mut encoding = self.inner.encode_fast(text, false).map_err(library_error)?;
        let cut = encoding.len() > room;
        encoding.truncate(room, 0, TruncationDirection::Right);
        encoding.take_overflowing();
        let encoding = self.inner.post_process(encoding, None, true).map_err(library_error)?;
        Ok((encoding.get_ids().to_vec(), cut))
    }

    /// Tokens of text that fit beside the special ones.
    fn room(&self, max_len: usize) -> Result<usize> {
        let specials = self.special_tokens();
        if max_len <= specials {
            return Err(Error::Config {
                origin: "data set".into(),
                key: "max_len".into(),
                expected: format!("more than the {specials} special tokens of a row"),
                found: max_len.to_string(),
                hint: None,
            });
        }
        Ok(max_len - specials)
    }

    /// Tokens that a text has beside its own: one with no more than these has no words that the tokenizer knows of.
    pub fn special_tokens(&self) -> usize {
        let processor = self.inner.get_post_processor();
        processor.map_or(0, |processor| processor.added_tokens(false))
    }

    /// The id that fills short rows of a batch.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// One more than the largest id: the rows that the encoder's token embedding must have.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Whether the token stands for no part of a text: `[CLS]`, `[UNK]` and their like.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// A hash of all that decides which ids a text becomes.
    pub fn fingerprint(&self) -> u128 {
        self.fingerprint
    }
}

/// Whether accents, and other marks on letters, are left out of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StripAccents {
    /// If no two words of the texts differ in them alone. So nothing that the texts tell apart is lost, and a text that
    /// writes or leaves out an accent on its own is understood all the same.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a tokenizer learnt from texts is to be.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary {
    /// Tokens at most, the special ones included.
    pub size: usize,
    /// Whether capital letters are read as small ones.
    pub lowercase: bool,
    /// Whether letters are read without their accents.
    pub strip_accents: StripAccents,
}

/// A WordPiece tokenizer in the making: words are counted as texts come in, the texts are not kept.
#[derive(Debug)]
pub(super) struct Training {
    wanted: Vocabulary,
    counts: WordCounts,
    pending: Vec<String>,
}

impl Training {
    /// Enough texts for all cores.
    const CHUNK: usize = 1 << 15;

    pub fn new(wanted: Vocabulary) -> Self {
        Self { wanted, counts: WordCounts::new(wanted.lowercase), pending: Vec::new() }
    }

    pub fn add(&mut self, text: String) -> Result<()> {
        self.pending.push(text);
        if self.pending.len() == Self::CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.counts.add(&self.pending).map_err(library_error)?;
        self.pending.clear();
        Ok(())
    }

    /// The tokenizer; the same texts give the same one. What it folds or cannot know is warned of.
    ///
    /// # Errors
    /// [`Error::Config`] if the size leaves no room beside the five special tokens.
    pub fn finish(mut self, progress: impl Fn(usize)) -> Result<TextTokenizer> {
        let size = self.wanted.size;
        if size <= wordpiece::SPECIALS.len() {
            return Err(Error::Config {
                origin: "tokenizer".into(),
                key: "vocab_size".into(),
                expected: format!("more than the {} special tokens", wordpiece::SPECIALS.len()),
                found: size.to_string(),
                hint: None,
            });
        }
        self.flush()?;
        let mut counts = self.counts;
        if strips(self.wanted.strip_accents, &counts).map_err(library_error)? {
            counts = counts.fold_accents().map_err(library_error)?;
        }
        let normalizer = counts.folding().normalizer();
        let (tokens, unknown) = counts.vocabulary(size, progress);
        warn_of_unknown(unknown, size);
        let vocabulary: serde_json::Map<_, _> = (tokens.into_iter()).zip((0u32..).map(Into::into)).collect();
        // The crate's builder takes a map of a type that it does not export; its file format is the open door.
        let model = serde_json::json!({
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": wordpiece::PREFIX,
            "max_input_chars_per_word": wordpiece::MAX_WORD_CHARS,
            "vocab": vocabulary,
        });
        let model: WordPiece = serde_json::from_str(&model.to_string()).map_err(|error| library_error(error.into()))?;

        let mut tokenizer = Tokenizer::new(model);
        tokenizer
            .with_normalizer(Some(normalizer))
            .map_err(library_error)?
            .with_pre_tokenizer(Some(BertPreTokenizer))
            .with_post_processor(Some(BertProcessing::new(
                ("[SEP]".into(), wordpiece::SEP),
                ("[CLS]".into(), wordpiece::CLS),
            )))
            .with_decoder(Some(WordPieceDecoder::default()))
            .with_padding(Some(PaddingParams::default()))
            .add_special_tokens(wordpiece::SPECIALS.map(|token| AddedToken::from(token, true)))
            .map_err(library_error)?;
        TextTokenizer::new(tokenizer)
    }
}

/// Decides about accents, and says so where words differ in them.
fn strips(wanted: StripAccents, counts: &WordCounts) -> tokenizers::Result<bool> {
    const KEY: &str = "dataset.model.encoder.scratch.strip_accents";
    let differing = match wanted {
        StripAccents::Never => None,
        _ => counts.differing_in_accents()?,
    };
    let Some((words, [one, other])) = differing else {
        return Ok(wanted != StripAccents::Never);
    };
    let differ = format!("{words} words differ from another one in accents alone, as `{one}` and `{other}`");
    let strip = wanted == StripAccents::Always;
    match strip {
        true => warn!("{differ}: they are read as the same words ({KEY}=never keeps them apart)"),
        false => info!("{differ}: accents are kept ({KEY}=always leaves them out)"),
    }
    Ok(strip)
}

fn warn_of_unknown(unknown: Unknown, size: usize) {
    let share =
        |words: u64| format!("{words} of {} words ({:.2}%)", unknown.of, 100.0 * words as f64 / unknown.of as f64);
    if unknown.rare > 0 {
        warn!(
            "{} have a character for which a vocabulary of {size} tokens has no room, and are read as unknown words; \
             raise dataset.model.encoder.scratch.vocab_size",
            share(unknown.rare)
        );
    }
    if unknown.long > 0 {
        let most = wordpiece::MAX_WORD_CHARS;
        warn!("{} are longer than {most} characters, and are read as unknown words", share(unknown.long));
    }
}

/// The file of a folder that holds its tokenizer.
///
/// # Errors
/// [`Error::Data`] if there is none.
fn file_in(dir: &Path) -> Result<PathBuf> {
    let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    if let Some(path) = [FILE, vocab_txt::FILE, vocab_bpe::FILE].into_iter().find_map(file) {
        return Ok(path);
    }
    // Tokenizers of other kinds, in the files that `transformers` alone puts together.
    let other = ["spiece.model", "sentencepiece.bpe.model", "tokenizer.model"];
    let other = other.into_iter().find(|name| file(name).is_some());
    Err(Error::Data {
        place: Place::file(dir),
        expected: "a folder with a tokenizer".into(),
        found: match other {
            Some(other) => format!("one that holds `{other}`, but no tokenizer.json"),
            None => "one with no tokenizer.json, vocab.txt or vocab.json".into(),
        },
        hint: Some(match other {
            Some(_) => format!(
                "make one with Python's transformers: \
                 AutoTokenizer.from_pretrained(\"{0}\").save_pretrained(\"{0}\")",
                dir.display()
            ),
            None => "download tokenizer.json into it, or name another folder in \
                     dataset.model.encoder.encoder_tokenizer"
                .into(),
        }),
    })
}

/// The `tokenizers` crate reports boxed messages; all of them are about the tokenizer's own definition.
fn library_error(error: tokenizers::Error) -> Error {
    Error::Data {
        place: Place::file(PathBuf::from(FILE)),
        expected: "a tokenizer that can encode any text".into(),
        found: error.to_string(),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::{Watch, testing, train_tokenizer};

    /// Learnt from these texts.
    fn learnt(texts: &[&str], strip_accents: StripAccents) -> TextTokenizer {
        let mut training = Training::new(Vocabulary { size: 500, lowercase: true, strip_accents });
        texts.iter().for_each(|text| training.add((*text).to_owned()).unwrap());
        training.finish(|_| ()).unwrap()
    }

    #[test]
    fn accents_are_left_out_where_nothing_is_lost_by_it() {
        use StripAccents::{Always, Auto, Never};
        let (one, two) = (&["café crème"][..], &["schon schön"][..]);
        for (texts, strip, same) in [(one, Auto, true), (one, Never, false), (two, Auto, false), (two, Always, true)] {
            let tokenizer = learnt(texts, strip);
            let ids = |text: &str| tokenizer.encode(text, 16).unwrap();
            assert_eq!(ids("cafe schon") == ids("café schön"), same, "{texts:?} {strip:?}");
            // However the letter was written.
            assert_eq!(ids("schön"), ids("scho\u{308}n"));
            assert_eq!(ids("SCHÖN"), ids("schön"));
        }
    }

    #[test]
    fn a_setting_keeps_capital_letters() {
        let mut training = Training::new(Vocabulary { size: 500, lowercase: false, strip_accents: StripAccents::Auto });
        training.add("Polish polish".into()).unwrap();
        let tokenizer = training.finish(|_| ()).unwrap();
        assert_ne!(tokenizer.encode("Polish", 16).unwrap(), tokenizer.encode("polish", 16).unwrap());
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        let folder = testing::food();
        let json = || {
            let tokenizer =
                train_tokenizer(&testing::source(&folder), testing::vocabulary(700), &Watch::default()).unwrap();
            tokenizer.inner.to_string(true).unwrap()
        };
        let first = json();
        for _ in 0..3 {
            assert_eq!(json(), first);
        }
    }

    #[test]
    fn a_saved_tokenizer_comes_back_from_file_and_folder() {
        let tokenizer = testing::tokenizer();
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(&dir.path().join(FILE)).unwrap();
        for path in [dir.path().to_owned(), dir.path().join(FILE)] {
            let back = TextTokenizer::from_file(&path).unwrap();
            assert_eq!(back.fingerprint(), tokenizer.fingerprint());
            assert_eq!((back.pad_id(), back.vocab_size()), (0, 1000));
        }
    }

    #[test]
    fn truncation_keeps_cls_and_sep() {
        let tokenizer = testing::tokenizer();
        let long = tokenizer.encode("white wine with a bit of cheese", 64).unwrap();
        let short = tokenizer.encode("white wine with a bit of cheese", 5).unwrap();
        assert!(long.len() > 5);
        assert_eq!((long[0], *long.last().unwrap()), (wordpiece::CLS, wordpiece::SEP));
        assert_eq!(short[..4], long[..4]);
        assert_eq!(short[4..], [wordpiece::SEP]);
        assert_eq!(tokenizer.encode("", 5).unwrap(), [wordpiece::CLS, wordpiece::SEP]);
        assert!(tokenizer.encode("a", 2).unwrap_err().is_usage());
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_not_applied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let tokenizer = testing::tokenizer();
        let mut json: serde_json::Value = serde_json::from_str(&tokenizer.inner.to_string(false).unwrap()).unwrap();
        json["truncation"] = serde_json::json!(
            {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = serde_json::json!({"strategy": {"Fixed": 128}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]"});
        fs::write(&path, json.to_string()).unwrap();
        let back = TextTokenizer::from_file(&path).unwrap();
        let text = "white wine with a bit of cheese";
        assert_eq!(back.encode(text, 64).unwrap(), tokenizer.encode(text, 64).unwrap());
        assert_eq!((back.pad_id(), back.fingerprint()), (7, tokenizer.fingerprint()));
    }

    #[test]
    fn a_batch_equals_its_texts_one_by_one() {
        let tokenizer = testing::tokenizer();
        let texts = ["bread", "Café au lait, café crème", ""].map(String::from);
        let one_by_one = texts.iter().map(|t| tokenizer.encode(t, 8).unwrap());
        let one_by_one: Vec<_> = one_by_one.collect();
        assert_eq!(tokenizer.encode_batch(&texts, 8).unwrap(), one_by_one);
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        for (content, part) in [
            ("{}", "tokenizer.json: expected a tokenizer"),
            ("[1]", "tokenizer.json:1: expected an object in JSON, found something else in JSON"),
            ("{\"version\": ", "found its beginning only"),
            ("{\"version\": \"1", "found its beginning only"),
        ] {
            let dir = testing::folder(&[(FILE, content)]);
            let message = TextTokenizer::from_file(dir.path()).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains("download it again"), "{content}: {message}");
        }
    }
}
