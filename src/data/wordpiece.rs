//! A WordPiece vocabulary learnt from texts, the same bytes for the same texts.
//!
//! The trainer of the `tokenizers` crate numbers the pieces in the order of a randomly seeded hash map, breaks ties by
//! these numbers, and so gives another vocabulary in every process. A run would not be reproducible from its seed.
//! This one does the same merges (the most frequent pair of neighbours first) and breaks ties by the order of the
//! sorted alphabet. Hash maps are only looked up in, or summed over.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use rayon::prelude::*;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    normalizers::BertNormalizer, pre_tokenizers::bert::BertPreTokenizer,
};

/// Special tokens, at the ids they have: padding is 0.
pub(super) const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
pub(super) const CLS: u32 = 2;
pub(super) const SEP: u32 = 3;
/// Marks a piece that continues a word.
pub(super) const PREFIX: &str = "##";
/// Longer words become `[UNK]` as a whole, so nothing is learnt from them.
pub(super) const MAX_WORD_CHARS: usize = 100;
/// As in Hugging Face's BERT trainer: rarer characters (other scripts, emoji) become `[UNK]`.
const MAX_ALPHABET: usize = 1000;
/// A pair seen once makes a piece that would not be used again.
const MIN_COUNT: u64 = 2;

/// Lower case, no accents, no control characters: what BERT's uncased models do.
pub(super) fn normalizer() -> BertNormalizer {
    BertNormalizer::new(true, true, Some(true), true)
}

/// How often each word occurs in the texts seen so far.
#[derive(Debug, Default)]
pub(super) struct WordCounts(HashMap<String, u64>);

impl WordCounts {
    /// Counts the words of these texts, on all cores.
    pub fn add(&mut self, texts: &[impl AsRef<str> + Sync]) -> tokenizers::Result<()> {
        let counts: Vec<_> = texts
            .par_chunks(1024)
            .map(|texts| {
                let mut counts = HashMap::new();
                for text in texts {
                    let mut text = NormalizedString::from(text.as_ref());
                    normalizer().normalize(&mut text)?;
                    let mut words = PreTokenizedString::from(text);
                    BertPreTokenizer.pre_tokenize(&mut words)?;
                    let words = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
                    for (word, ..) in words {
                        if word.chars().count() <= MAX_WORD_CHARS {
                            *counts.entry(word.to_owned()).or_insert(0) += 1;
                        }
                    }
                }
                Ok(counts)
            })
            .collect::<tokenizers::Result<_>>()?;
        for (word, count) in counts.into_iter().flatten() {
            *self.0.entry(word).or_insert(0) += count;
        }
        Ok(())
    }

    /// At most `size` tokens: the special ones, every frequent character at the start of a word and within, and pieces
    /// by falling frequency.
    ///
    /// # Panics
    /// If `size` leaves no room beside the special tokens.
    pub fn vocabulary(self, size: usize) -> Vec<String> {
        assert!(size > SPECIALS.len(), "a vocabulary of {size} tokens");
        let mut words: Vec<_> = self.0.into_iter().collect();
        words.sort_unstable();

        let mut frequency = BTreeMap::<char, u64>::new();
        for (word, count) in &words {
            for c in word.chars() {
                *frequency.entry(c).or_default() += count;
            }
        }
        // A character takes two tokens; half of the vocabulary stays for longer pieces.
        let mut alphabet: Vec<_> = frequency.into_iter().collect();
        alphabet.sort_by_key(|&(_, count)| Reverse(count));
        alphabet.truncate(MAX_ALPHABET.min((size - SPECIALS.len()) / 4));
        alphabet.sort_unstable();

        let mut pieces = Pieces::default();
        for special in SPECIALS {
            pieces.id(special.to_owned());
        }
        for (c, _) in &alphabet {
            pieces.id(c.to_string());
        }
        for (c, _) in &alphabet {
            pieces.id(format!("{PREFIX}{c}"));
        }
        let mut merger = Merger::new(words.iter().filter_map(|(word, count)| {
            let mut symbols = Vec::with_capacity(word.len());
            for (i, c) in word.chars().enumerate() {
                let prefix = if i == 0 { "" } else { PREFIX };
                symbols.push(*pieces.ids.get(&format!("{prefix}{c}"))?);
            }
            Some((symbols, *count))
        }));
        while pieces.tokens.len() < size
            && let Some(pair) = merger.most_frequent()
        {
            let [left, right] = [pair.0, pair.1].map(|id| &pieces.tokens[id as usize]);
            let joined = format!("{left}{}", right.strip_prefix(PREFIX).unwrap_or(right));
            let id = pieces.id(joined);
            merger.merge(pair, id);
        }
        pieces.tokens
    }
}

#[derive(Default)]
struct Pieces {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Pieces {
    /// The id of a piece, a new one if it has none: two merges may lead to the same piece.
    fn id(&mut self, token: String) -> u32 {
        *self.ids.entry(token).or_insert_with_key(|token| {
            self.tokens.push(token.clone());
            self.tokens.len() as u32 - 1
        })
    }
}

type Pair = (u32, u32);

#[derive(Default)]
struct Occurrences {
    count: u64,
    /// Words that had the pair when it was formed, some twice. They may have lost it since.
    words: Vec<u32>,
}

/// Words as sequences of pieces, and the pairs of neighbours in them.
struct Merger {
    words: Vec<(Vec<u32>, u64)>,
    pairs: HashMap<Pair, Occurrences>,
    /// Highest count first, then the smallest pair. Counts may be out of date; `pairs` is right.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Merger {
    fn new(words: impl Iterator<Item = (Vec<u32>, u64)>) -> Self {
        let words: Vec<_> = words.collect();
        let mut pairs = HashMap::<_, Occurrences>::new();
        for (w, (symbols, count)) in words.iter().enumerate() {
            for pair in neighbours(symbols) {
                let pair = pairs.entry(pair).or_default();
                pair.count += count;
                pair.words.push(w as u32);
            }
        }
        let queue = pairs.iter().map(|(&p, o)| (o.count, Reverse(p))).collect();
        Self { words, pairs, queue }
    }

    /// The pair to merge next.
    fn most_frequent(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.pairs.get(&pair).map_or(0, |pair| pair.count);
            if now < MIN_COUNT {
                continue;
            }
            if now == count {
                return Some(pair);
            }
            self.queue.push((now, Reverse(pair)));
        }
        None
    }

    /// Puts `id` in the place of `pair` in every word.
    fn merge(&mut self, pair: Pair, id: u32) {
        let holders = self.pairs.remove(&pair).unwrap_or_default().words;
        let mut formed = Vec::new();
        for w in holders {
            let (symbols, count) = &mut self.words[w as usize];
            let merged = replaced(symbols, pair, id);
            if merged.len() == symbols.len() {
                continue;
            }
            for old in neighbours(symbols) {
                if let Some(old) = self.pairs.get_mut(&old) {
                    old.count -= *count;
                }
            }
            for new in neighbours(&merged) {
                let occurrences = self.pairs.entry(new).or_default();
                occurrences.count += *count;
                if new.0 == id || new.1 == id {
                    occurrences.words.push(w);
                    formed.push(new);
                }
            }
            *symbols = merged;
        }
        formed.sort_unstable();
        formed.dedup();
        for pair in formed {
            self.queue.push((self.pairs[&pair].count, Reverse(pair)));
        }
    }
}

fn neighbours(symbols: &[u32]) -> impl Iterator<Item = Pair> {
    symbols.windows(2).map(|pair| (pair[0], pair[1]))
}

fn replaced(symbols: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(symbols.len());
    let mut i = 0;
    while i < symbols.len() {
        if symbols.get(i + 1) == Some(&pair.1) && symbols[i] == pair.0 {
            merged.push(id);
            i += 2;
        } else {
            merged.push(symbols[i]);
            i += 1;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(texts: &[&str], size: usize) -> Vec<String> {
        let mut counts = WordCounts::default();
        counts.add(texts).unwrap();
        counts.vocabulary(size)
    }

    #[test]
    fn frequent_pairs_are_merged_first_and_ties_go_to_the_first_letters() {
        let vocabulary = learn(&["abc abc Ábc!", "bd bd", "ca ca"], 100);
        let expected = [
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", "a", "b", "c", "d", "##!", "##a", "##b", "##c", "##d",
            "ab", "abc", "bd", "ca",
        ];
        assert_eq!(vocabulary, expected);
    }

    #[test]
    fn a_pair_that_overlaps_itself_is_counted_right() {
        let vocabulary = learn(&["aaaaa aaaaa aaaaa"], 100);
        assert_eq!(vocabulary[5..], ["a", "##a", "##aa", "aaa", "aaaaa"]);
    }

    #[test]
    fn the_size_is_never_exceeded() {
        let texts = ["the quick brown fox jumps over the lazy dog, twice: the quick brown fox"];
        for size in 6..80 {
            assert!(learn(&texts, size).len() <= size);
        }
    }

    #[test]
    fn the_order_of_the_texts_does_not_matter() {
        let texts = ["pear apple", "apple pie", "plum pie", "applet peas"];
        let mut reversed = texts;
        reversed.reverse();
        assert_eq!(learn(&texts, 60), learn(&reversed, 60));
    }
}
