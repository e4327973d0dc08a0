//! The texts of a batch, one behind the other, without padding.

use std::ops::Range;

/// Rows of the encoder's matrices are a multiple of this, whatever the number of tokens is: whole tiles of the products.
const ROWS: usize = 128;

/// How many texts and tokens a batch has, and where their numbers lie in [`PackedTexts::words`].
///
/// The encoder's matrices have a row for each token, text by text, and rows behind them that belong to no token: those
/// hold finite numbers that nothing depends on, and their gradients are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextLayout {
    /// Texts; some may be empty.
    pub texts: usize,
    /// Tokens of all texts together.
    pub tokens: usize,
    /// Tokens of the longest text.
    pub longest: usize,
    /// Token ids that occur.
    pub distinct: usize,
}

impl TextLayout {
    /// Rows of a matrix of the encoder; at least one block, also for no token.
    pub fn rows(&self) -> usize {
        self.tokens.next_multiple_of(ROWS).max(ROWS)
    }

    /// `[texts + 1]`: the row at which each text begins, and the number of tokens.
    pub fn starts(&self) -> Range<usize> {
        0..self.texts + 1
    }

    /// `[texts]`: the texts, longest first.
    pub fn order(&self) -> Range<usize> {
        after(self.starts(), self.texts)
    }

    /// `[tokens]`: the token ids.
    pub fn ids(&self) -> Range<usize> {
        after(self.order(), self.tokens)
    }

    /// `[tokens]`: the text of each token.
    pub fn texts_of_rows(&self) -> Range<usize> {
        after(self.ids(), self.tokens)
    }

    /// `[distinct]`: the ids that occur, ascending.
    pub fn distinct_ids(&self) -> Range<usize> {
        after(self.texts_of_rows(), self.distinct)
    }

    /// `[distinct + 1]`: where the rows of each of these ids begin in [`rows_by_id`](Self::rows_by_id).
    pub fn id_starts(&self) -> Range<usize> {
        after(self.distinct_ids(), self.distinct + 1)
    }

    /// `[tokens]`: the rows, by id, then ascending.
    pub fn rows_by_id(&self) -> Range<usize> {
        after(self.id_starts(), self.tokens)
    }

    /// `[longest + 1]`: where the rows of each position begin in [`rows_by_position`](Self::rows_by_position). The
    /// position of a token is its place in its text, from 0.
    pub fn position_starts(&self) -> Range<usize> {
        after(self.rows_by_id(), self.longest + 1)
    }

    /// `[tokens]`: the rows, by position, then ascending.
    pub fn rows_by_position(&self) -> Range<usize> {
        after(self.position_starts(), self.tokens)
    }

    /// Words of all these lists together.
    pub fn words(&self) -> usize {
        self.rows_by_position().end
    }
}

fn after(range: Range<usize>, length: usize) -> Range<usize> {
    range.end..range.end + length
}

/// A batch of texts as the encoder's operations read them: all lists of [`TextLayout`] in one array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedTexts {
    /// The sizes of the lists.
    pub layout: TextLayout,
    /// The lists, one behind the other.
    pub words: Vec<u32>,
}

impl PackedTexts {
    /// Packs texts, given as their token ids.
    ///
    /// # Panics
    /// If there are 2^32 tokens or more.
    pub fn new<T: AsRef<[u32]>>(texts: &[T]) -> Self {
        let lengths: Vec<usize> = texts.iter().map(|text| text.as_ref().len()).collect();
        let ids: Vec<u32> = texts.iter().flat_map(|text| text.as_ref().iter().copied()).collect();
        Self::from_ids(&ids, &lengths)
    }

    /// Packs texts of these `lengths`, whose token ids lie one behind the other.
    ///
    /// # Panics
    /// If there are more or fewer ids than that, or 2^32 or more.
    pub fn from_ids(ids: &[u32], lengths: &[usize]) -> Self {
        let tokens = ids.len();
        assert_eq!(tokens, lengths.iter().sum::<usize>(), "token ids");
        assert!(u32::try_from(tokens).is_ok(), "{tokens} tokens in a batch");
        let mut words = Vec::new();

        let mut start = 0;
        words.push(0);
        words.extend(lengths.iter().map(|length| {
            start += *length as u32;
            start
        }));
        let mut order: Vec<u32> = (0..lengths.len() as u32).collect();
        order.sort_by_key(|text| (std::cmp::Reverse(lengths[*text as usize]), *text));
        words.extend(order);

        words.extend(ids);
        for (text, length) in lengths.iter().enumerate() {
            words.extend(std::iter::repeat_n(text as u32, *length));
        }

        let mut by_id: Vec<u32> = (0..tokens as u32).collect();
        by_id.sort_by_key(|row| (ids[*row as usize], *row));
        let starts: Vec<usize> =
            (0..tokens).filter(|at| *at == 0 || ids[by_id[*at] as usize] != ids[by_id[at - 1] as usize]).collect();
        words.extend(starts.iter().map(|at| ids[by_id[*at] as usize]));
        words.extend(starts.iter().map(|at| *at as u32));
        words.push(tokens as u32);
        words.extend(by_id);

        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut by_position = Vec::with_capacity(tokens);
        for position in 0..longest {
            words.push(by_position.len() as u32);
            let mut start = 0;
            for length in lengths {
                if position < *length {
                    by_position.push((start + position) as u32);
                }
                start += length;
            }
        }
        words.push(tokens as u32);
        words.extend(by_position);

        let layout = TextLayout { texts: lengths.len(), tokens, longest, distinct: starts.len() };
        assert_eq!(words.len(), layout.words());
        Self { layout, words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_where_everything_is() {
        let packed = PackedTexts::new(&[vec![7, 3, 7], vec![], vec![3], vec![9, 7]]);
        let PackedTexts { layout, words } = packed;
        assert_eq!(layout, TextLayout { texts: 4, tokens: 6, longest: 3, distinct: 3 });
        assert_eq!(layout.rows(), 128);
        assert_eq!(words[layout.starts()], [0, 3, 3, 4, 6]);
        assert_eq!(words[layout.order()], [0, 3, 2, 1]);
        assert_eq!(words[layout.ids()], [7, 3, 7, 3, 9, 7]);
        assert_eq!(words[layout.texts_of_rows()], [0, 0, 0, 2, 3, 3]);
        assert_eq!(words[layout.distinct_ids()], [3, 7, 9]);
        assert_eq!(words[layout.id_starts()], [0, 2, 5, 6]);
        assert_eq!(words[layout.rows_by_id()], [1, 3, 0, 2, 5, 4]);
        assert_eq!(words[layout.position_starts()], [0, 3, 5, 6]);
        assert_eq!(words[layout.rows_by_position()], [0, 3, 4, 1, 5, 2]);
    }

    #[test]
    fn nothing_is_a_batch_too() {
        for texts in [vec![], vec![vec![]; 3]] {
            let packed = PackedTexts::new(&texts);
            assert_eq!((packed.layout.tokens, packed.layout.rows()), (0, 128));
            assert_eq!(packed.words.len(), packed.layout.words());
        }
        let full = PackedTexts::new(&vec![vec![1; 128]; 3]);
        assert_eq!(full.layout.rows(), 384);
    }
}
