//! What is made of the texts of a data set once, and kept beside the run folders: tokenizers and tokens.

use std::{cell::Cell, fs, path::Path, sync::Arc};

use tracing::warn;

use super::{
    Progress, Source, TextTokenizer, Vocabulary, Watch,
    formats::{Files, Labelling, Part},
    hash::{Fnv128, Hashes},
    titles::Titles,
    token_cache::{self, Origin, TokenStore},
    tokenizer::Training,
};
use crate::error::{Error, Place, Result};

/// Trains a tokenizer on the training texts and the label titles of a data set. `watch` is told how far it has come.
///
/// # Errors
/// As [`Corpus::load`](super::Corpus::load) for the files; [`Error::Config`] if the vocabulary leaves no room beside the special tokens.
pub fn train_tokenizer(source: &Source, wanted: Vocabulary, watch: &Watch) -> Result<TextTokenizer> {
    let files = Files::find(source)?;
    let mut training = Training::new(wanted);
    for file in texts_of_words(&files) {
        for text in file.texts("learning words from", watch)? {
            training.add(text?)?;
        }
    }
    training.finish(|tokens| {
        watch.tell(&Progress {
            doing: "learning the tokens of",
            file: source.dir,
            done: tokens as u64,
            total: wanted.size as u64,
            rows: 0,
        });
    })
}

/// What [`train_tokenizer`] gives, from `cache_dir` where it has been put there for the same texts.
///
/// # Errors
/// As [`train_tokenizer`]. Trouble with the cache is a warning.
pub fn trained_tokenizer(
    source: &Source,
    wanted: Vocabulary,
    cache_dir: Option<&Path>,
    watch: &Watch,
) -> Result<TextTokenizer> {
    let Some(dir) = cache_dir else {
        return train_tokenizer(source, wanted, watch);
    };
    let files = Files::find(source)?;
    let hashes = Hashes::new(watch);
    let mut key = Fnv128::new();
    key.write(&TOKENIZER_VERSION.to_le_bytes());
    for part in texts_of_words(&files) {
        key.write(&part.hash_texts(&hashes)?.to_le_bytes());
    }
    key.write(format!("{wanted:?}").as_bytes());
    let path = dir.join(format!("tokenizer-{:032x}.json", key.finish()));
    if path.exists() {
        match TextTokenizer::from_file(&path) {
            Ok(tokenizer) => return Ok(tokenizer),
            Err(error) => warn!("training the tokenizer again: {error}"),
        }
    }
    let tokenizer = train_tokenizer(source, wanted, watch)?;
    if source.keep_tokens
        && let Err(error) =
            fs::create_dir_all(dir).map_err(Error::io("create", dir)).and_then(|()| tokenizer.save(&path))
    {
        warn!("the tokenizer is not kept: {error}");
    }
    Ok(tokenizer)
}

/// To be raised whenever the same texts give another tokenizer.
const TOKENIZER_VERSION: u32 = 1;

/// The texts that a tokenizer learns from.
fn texts_of_words(files: &Files) -> impl Iterator<Item = &Part> {
    let titles = match &files.labelling {
        Labelling::Ids(list) => list.as_ref(),
        Labelling::Names | Labelling::Subjects(_) => None,
    };
    [Some(&files.train), titles].into_iter().flatten()
}

/// Where tokens come from.
pub(super) struct Cache<'a> {
    /// `None` once it has turned out that nothing can be written there.
    dir: Cell<Option<&'a Path>>,
    /// Whether what is not there is put there.
    keep: bool,
    tokenizer: &'a TextTokenizer,
    max_len: usize,
    watch: &'a Watch,
    hashes: Hashes<'a>,
}

/// What is tokenised.
#[derive(Clone, Copy)]
pub(super) enum Texts<'a> {
    /// The texts of the rows of a file.
    Of(&'a Part),
    /// Titles in memory.
    Titles(&'a Titles),
}

impl<'a> Texts<'a> {
    /// The texts, in order.
    fn read(self, watch: &Watch) -> Result<Box<dyn Iterator<Item = Result<String>> + 'a>> {
        Ok(match self {
            Self::Of(part) => Box::new(part.texts("tokenising", watch)?),
            Self::Titles(titles) => Box::new(titles.iter().map(|title| Ok(title.to_owned()))),
        })
    }

    /// A hash of them.
    fn hash(self, hashes: &Hashes) -> Result<u128> {
        match self {
            Self::Of(part) => part.hash_texts(hashes),
            Self::Titles(titles) => {
                let mut hash = Fnv128::new();
                for title in titles.iter() {
                    hash.write(title.as_bytes());
                    hash.write(b"\n");
                }
                Ok(hash.finish())
            }
        }
    }
}

impl<'a> Cache<'a> {
    /// The cache in `dir`, if there is to be one.
    pub fn new(dir: Option<&'a Path>, source: &Source, tokenizer: &'a TextTokenizer, watch: &'a Watch) -> Self {
        let Source { max_len, keep_tokens: keep, .. } = *source;
        Self { dir: Cell::new(dir), keep, tokenizer, max_len, watch, hashes: Hashes::new(watch) }
    }

    /// The tokens of all texts, and whether they were in the cache, where they are called `name`.
    pub fn tokens(&self, texts: Texts, name: &str, rows: usize) -> Result<(Arc<TokenStore>, bool)> {
        let keyed = |dir| Ok((dir, self.key(texts)?));
        let cache = self.dir.get().map(keyed).transpose()?;
        let wanted = |(dir, key): &(&Path, u128)| self.keep || token_cache::path(dir, name, *key).exists();
        let cache = cache.filter(wanted);
        let read = || texts.read(self.watch);
        let (store, origin) = TokenStore::open_or_build(cache, name, self.tokenizer, self.max_len, read)?;
        if cache.is_some() && origin == Origin::Memory {
            self.dir.set(None);
        }
        match texts {
            Texts::Of(part) if store.len() != rows => Err(Error::Data {
                place: Place::file(&part.path),
                expected: format!("{rows} rows"),
                found: format!("{} when read again", store.len()),
                hint: Some("the file must not change while it is read".into()),
            }),
            _ => Ok((Arc::new(store), origin == Origin::Cache)),
        }
    }

    /// A hash of all that the tokens of a file depend on.
    fn key(&self, texts: Texts) -> Result<u128> {
        let mut key = Fnv128::new();
        key.write(&token_cache::VERSION.to_le_bytes());
        key.write(&texts.hash(&self.hashes)?.to_le_bytes());
        key.write(&self.tokenizer.fingerprint().to_le_bytes());
        key.write(&(self.max_len as u64).to_le_bytes());
        Ok(key.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{folder, source, tokenizer, vocabulary};

    const ROWS: &str = "{\"title\": \"a\", \"target_ind\": [0]}\n{\"title\": \"b\", \"target_ind\": [1]}\n";

    /// Also when it cannot be kept.
    #[test]
    fn a_tokenizer_is_trained_once_for_the_same_texts() {
        let dir = folder(&[("trn.json", ROWS), ("tst.json", ROWS), ("file", "")]);
        let (cache, watch) = (tempfile::tempdir().unwrap(), Watch::default());
        let kept = || fs::read_dir(cache.path()).unwrap().count();
        let trained =
            |size| trained_tokenizer(&source(dir.path()), vocabulary(size), Some(cache.path()), &watch).unwrap();
        let first = trained(200);
        let fresh = train_tokenizer(&source(dir.path()), vocabulary(200), &watch).unwrap();
        assert_eq!((first.fingerprint(), kept()), (fresh.fingerprint(), 1));
        assert_eq!((trained(200).fingerprint(), kept()), (first.fingerprint(), 1));
        trained(300);
        assert_eq!(kept(), 2);
        fs::write(dir.path().join("trn.json"), ROWS.replace('b', "c")).unwrap();
        assert_ne!(trained(200).fingerprint(), first.fingerprint());
        assert_eq!(kept(), 3);
        let nowhere = dir.path().join("file/cache");
        let unkept = trained_tokenizer(&source(dir.path()), vocabulary(200), Some(&nowhere), &watch).unwrap();
        assert_eq!(unkept.fingerprint(), trained(200).fingerprint());
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_given_up_at_once() {
        let dir = folder(&[("trn.json", ROWS), ("tst.json", ROWS), ("file", "")]);
        let watch = Watch::default();
        let nowhere = dir.path().join("file/cache");
        let source = source(dir.path());
        let files = Files::find(&source).unwrap();
        let cache = Cache::new(Some(&nowhere), &source, tokenizer(), &watch);
        assert!(!cache.tokens(Texts::Of(&files.train), "trn", 2).unwrap().1);
        assert_eq!(cache.dir.get(), None, "so that the next file does not warn again");
    }
}
