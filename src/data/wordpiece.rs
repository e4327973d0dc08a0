//! A WordPiece vocabulary learnt from texts, the same bytes for the same texts.
//!
//! The trainer of the `tokenizers` crate numbers the pieces in the order of a randomly seeded hash map, breaks ties by
//! these numbers, and so gives another vocabulary in every process. A run would not be reproducible from its seed.
//! This one does the same merges (the most frequent pair of neighbours first) and breaks ties by the order of the
//! sorted alphabet. Hash maps are only looked up in, or summed over.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap},
};

use rayon::prelude::*;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    normalizers::{BertNormalizer, NFC, NormalizerWrapper, Sequence},
    pre_tokenizers::bert::BertPreTokenizer,
};

/// Special tokens, at the ids they have: padding is 0.
pub(super) const SPECIALS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
pub(super) const CLS: u32 = 2;
pub(super) const SEP: u32 = 3;
/// Marks a piece that continues a word.
pub(super) const PREFIX: &str = "##";
/// Longer words become `[UNK]` as a whole, so nothing is learnt from them.
pub(super) const MAX_WORD_CHARS: usize = 100;
/// A pair seen once makes a piece that would not be used again.
const MIN_COUNT: u64 = 2;

/// Which differences between words are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folding {
    /// That of capital letters.
    pub lowercase: bool,
    /// That of accents and other marks on letters.
    pub accents: bool,
}

impl Folding {
    /// What BERT's models do to a text: no control characters, Chinese characters one by one; and these differences.
    ///
    /// Where accents stay, a letter with an accent is one character however it was written.
    pub fn normalizer(self) -> NormalizerWrapper {
        let bert = BertNormalizer::new(true, true, Some(self.accents), self.lowercase);
        match self.accents {
            true => bert.into(),
            false => Sequence::new(vec![NFC.into(), bert.into()]).into(),
        }
    }

    /// Calls `word` with every word of a text.
    fn words(self, text: &str, mut word: impl FnMut(&str)) -> tokenizers::Result<()> {
        let mut text = NormalizedString::from(text);
        self.normalizer().normalize(&mut text)?;
        let mut words = PreTokenizedString::from(text);
        BertPreTokenizer.pre_tokenize(&mut words)?;
        let words = words.get_splits(OffsetReferential::Normalized, OffsetType::None);
        words.into_iter().for_each(|(text, ..)| word(text));
        Ok(())
    }
}

/// How often each word occurs in the texts seen so far. Accents are kept.
#[derive(Debug)]
pub(super) struct WordCounts {
    folding: Folding,
    counts: HashMap<String, u64>,
    /// Words that are too long.
    long: u64,
}

/// What a vocabulary of a certain size leaves unknown, in words of the texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Words with a character that is not in the vocabulary.
    pub rare: u64,
    /// Words of more than [`MAX_WORD_CHARS`] characters.
    pub long: u64,
    /// All words.
    pub of: u64,
}

impl WordCounts {
    pub fn new(lowercase: bool) -> Self {
        Self { folding: Folding { lowercase, accents: false }, counts: HashMap::new(), long: 0 }
    }

    /// Counts the words of these texts, on all cores.
    pub fn add(&mut self, texts: &[impl AsRef<str> + Sync]) -> tokenizers::Result<()> {
        let folding = self.folding;
        let parts: Vec<_> = texts
            .par_chunks(1024)
            .map(|texts| {
                let mut part = Self::new(folding.lowercase);
                for text in texts {
                    folding.words(text.as_ref(), |word| part.count(word, 1))?;
                }
                Ok(part)
            })
            .collect::<tokenizers::Result<_>>()?;
        for part in parts {
            self.long += part.long;
            for (word, count) in part.counts {
                *self.counts.entry(word).or_insert(0) += count;
            }
        }
        Ok(())
    }

    fn count(&mut self, word: &str, times: u64) {
        match word.chars().count() > MAX_WORD_CHARS {
            true => self.long += times,
            false => *self.counts.entry(word.to_owned()).or_insert(0) += times,
        }
    }

    /// The number of words that would fall together with another one without their accents, and two of them.
    pub fn differing_in_accents(&self) -> tokenizers::Result<Option<(usize, [&str; 2])>> {
        let normalizer = self.without_accents().normalizer();
        let mut accented: Vec<&str> = self.counts.keys().map(String::as_str).filter(|word| !word.is_ascii()).collect();
        accented.sort_unstable();
        let mut groups = BTreeMap::<String, Vec<&str>>::new();
        for word in accented {
            let mut plain = NormalizedString::from(word);
            normalizer.normalize(&mut plain)?;
            groups.entry(plain.get().trim().to_owned()).or_default().push(word);
        }
        for (plain, words) in &mut groups {
            if let Some((word, _)) = self.counts.get_key_value(plain)
                && word.is_ascii()
            {
                words.insert(0, word);
            }
        }
        groups.retain(|_, words| words.len() > 1);
        let words = groups.values().map(Vec::len).sum();
        let first = groups.into_values().next();
        Ok(first.map(|group| (words, [group[0], group[1]])))
    }

    fn without_accents(&self) -> Folding {
        Folding { accents: true, ..self.folding }
    }

    /// The counts of the same words without their accents.
    pub fn fold_accents(self) -> tokenizers::Result<Self> {
        let folding = self.without_accents();
        let mut folded = Self { folding, counts: HashMap::with_capacity(self.counts.len()), long: self.long };
        for (word, count) in self.counts {
            match word.is_ascii() {
                true => *folded.counts.entry(word).or_insert(0) += count,
                false => folding.words(&word, |word| folded.count(word, count))?,
            }
        }
        Ok(folded)
    }

    pub fn folding(&self) -> Folding {
        self.folding
    }

    /// At most `size` tokens: the special ones, characters at the start of a word and within, and pieces by falling
    /// frequency; and what they leave unknown. `progress` is told of the number of tokens.
    ///
    /// Every character has a place, at the start and within, if that takes no more than half of the vocabulary. Else
    /// characters have a place only where they occur, and the most frequent come first: a longer piece only makes a
    /// text shorter, but a word with a character that has no place is unknown as a whole.
    ///
    /// # Panics
    /// If `size` leaves no room beside the special tokens.
    pub fn vocabulary(self, size: usize, progress: impl Fn(usize)) -> (Vec<String>, Unknown) {
        assert!(size > SPECIALS.len(), "a vocabulary of {size} tokens");
        let room = size - SPECIALS.len();
        let mut words: Vec<_> = self.counts.into_iter().collect();
        words.sort_unstable();

        // Whether it is within a word, and the character.
        let mut frequency = BTreeMap::<(bool, char), u64>::new();
        for (word, count) in &words {
            for (i, c) in word.chars().enumerate() {
                *frequency.entry((i > 0, c)).or_default() += count;
            }
        }
        let characters: BTreeSet<char> = frequency.keys().map(|(_, c)| *c).collect();
        let mut alphabet: Vec<_> = if characters.len() <= room / 4 {
            let both = |c: char| [(false, c), (true, c)];
            characters.into_iter().flat_map(both).collect()
        } else {
            let mut places: Vec<_> = frequency.into_iter().collect();
            places.sort_by_key(|&(_, count)| Reverse(count));
            places.truncate(room);
            places.into_iter().map(|(place, _)| place).collect()
        };
        alphabet.sort_unstable();

        let mut pieces = Pieces::default();
        for special in SPECIALS {
            pieces.id(special.to_owned());
        }
        let piece = |(within, c): (bool, char)| format!("{}{c}", if within { PREFIX } else { "" });
        for place in alphabet {
            pieces.id(piece(place));
        }
        let mut unknown = Unknown { rare: 0, long: self.long, of: self.long };
        let mut merger = Merger::new(words.iter().filter_map(|(word, count)| {
            unknown.of += count;
            let places = word.chars().enumerate().map(|(i, c)| piece((i > 0, c)));
            let symbols = places.map(|piece| pieces.ids.get(&piece).copied()).collect::<Option<Vec<_>>>();
            if symbols.is_none() {
                unknown.rare += count;
            }
            Some((symbols?, *count))
        }));
        while pieces.tokens.len() < size
            && let Some(pair) = merger.most_frequent()
        {
            let [left, right] = [pair.0, pair.1].map(|id| &pieces.tokens[id as usize]);
            let joined = format!("{left}{}", right.strip_prefix(PREFIX).unwrap_or(right));
            let id = pieces.id(joined);
            merger.merge(pair, id);
            progress(pieces.tokens.len());
        }
        (pieces.tokens, unknown)
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

    fn counted(texts: &[&str]) -> WordCounts {
        let mut counts = WordCounts::new(true);
        counts.add(texts).unwrap();
        counts
    }

    fn learn(texts: &[&str], size: usize) -> Vec<String> {
        let (tokens, unknown) = counted(texts).fold_accents().unwrap().vocabulary(size, |_| ());
        assert!(tokens.len() <= size);
        if size > 90 {
            assert_eq!((unknown.rare, unknown.long), (0, 0));
        }
        tokens
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
    fn every_character_has_a_place_while_there_is_room() {
        // 1500 Chinese characters, once each but for the last: each is a word of its own.
        let text: String = (0..1500).filter_map(|i| char::from_u32(0x4e00 + i)).chain(['\u{4e00}'; 9]).collect();
        let (tokens, unknown) = counted(&[&text]).vocabulary(16_384, |_| ());
        assert_eq!((tokens.len(), unknown.rare, unknown.of), (5 + 2 * 1500, 0, 1509));
        let (tokens, unknown) = counted(&[&text]).vocabulary(1600, |_| ());
        assert_eq!((tokens.len(), unknown.rare), (5 + 1500, 0));
        let (tokens, unknown) = counted(&[&text]).vocabulary(105, |_| ());
        assert_eq!((tokens.len(), unknown.rare), (105, 1400));
        assert!(tokens.contains(&"\u{4e00}".to_owned()));
        // Of the extension beyond 16 bits too.
        let (tokens, _) = counted(&["\u{20000}\u{2a6d6}"]).vocabulary(100, |_| ());
        assert!(tokens.contains(&"\u{2a6d6}".to_owned()));
    }

    #[test]
    fn words_too_long_to_learn_from_are_counted() {
        let (_, unknown) = counted(&["a b", &"c".repeat(101)]).vocabulary(100, |_| ());
        assert_eq!((unknown.long, unknown.rare, unknown.of), (1, 0, 3));
    }

    #[test]
    fn words_that_differ_in_accents_only_are_found_in_any_language() {
        for (texts, expected) in [
            (&["schon schön wohl"][..], Some((2, ["schon", "schön"]))),
            (&["schön", "SCHÖN Scho\u{308}n"], None),
            (&["café naïve"], None),
            (&["résumé resumé", "resume"], Some((3, ["resume", "resumé"]))),
            // Hindi, tomorrow and total: a vowel sign.
            (&["कल कुल"], Some((2, ["कल", "कुल"]))),
            // Japanese, oyster and brat: the mark of a voiced consonant.
            (&["かき がき"], Some((2, ["かき", "がき"]))),
            // Arabic with and without a mark that doubles a letter.
            (&["درس درّس"], Some((2, ["درس", "درّس"]))),
            // Turkish: the dot is no accent, so the words stay apart either way.
            (&["ısı isi"], None),
            (&["plain words"], None),
        ] {
            assert_eq!(counted(texts).differing_in_accents().unwrap(), expected, "{texts:?}");
        }
    }

    #[test]
    fn the_size_is_never_exceeded() {
        let texts = ["the quick brown fox jumps over the lazy dog, twice: the quick brown fox"];
        for size in 6..80 {
            learn(&texts, size);
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
