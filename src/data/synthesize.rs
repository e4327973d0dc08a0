//! Data sets that are made up: of any size, the same for a seed, with labels that can be learnt from the texts.
//!
//! A label is two words. A row has labels whose frequencies follow Zipf's law, the words of these among its own, and
//! frequent words that mean nothing. Nothing is kept in memory but the rows that are being written.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use rayon::prelude::*;

use super::{
    Progress, Watch,
    hash::{Random, mix},
};
use crate::{
    atomic::Draft,
    error::{Error, Result},
};

/// What is made up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthesis {
    /// Training rows.
    pub rows: u32,
    /// Test rows.
    pub test_rows: u32,
    /// Labels, at least 1.
    pub labels: u32,
    /// Labels of a row on average, at least 1.
    pub labels_per_row: f64,
    /// Words of a row on average, beside those of its labels.
    pub words: u32,
    /// The label of rank `r` occurs in proportion to `r` to the power of minus this; 0 makes all equal.
    pub exponent: f64,
    /// The same seed gives the same files.
    pub seed: u64,
}

/// Rows that are made at a time, on all cores.
const CHUNK: u32 = 1 << 14;
/// Labels of a row at most.
const MOST_LABELS: usize = 100;
/// Words that labels are made of: three syllables each.
const LABEL_WORDS: u64 = (SYLLABLES * SYLLABLES * SYLLABLES) as u64;
/// Words that mean nothing: two syllables each.
const COMMON_WORDS: u32 = 2000;
const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 5] = b"aeiou";
const SYLLABLES: usize = CONSONANTS.len() * VOWELS.len();

/// Streams of random numbers that no row has.
const OF_LABELS: u64 = 1 << 40;
const OF_TEST: u64 = 1 << 41;

impl Synthesis {
    /// Writes `trn.json`, `tst.json` and `lbl.json` into the folder `dir`, which is made. `watch` is told how far it is;
    /// once `goes_on` is false no more is written.
    ///
    /// # Errors
    /// [`Error::Io`], also if `dir` has such files; [`Error::Interrupted`]. A file is there as a whole or not at all.
    pub fn write(&self, dir: &Path, watch: &Watch, goes_on: impl Fn() -> bool) -> Result<()> {
        for name in ["lbl.json", "trn.json", "tst.json"] {
            let path = dir.join(name);
            if path.exists() {
                return Err(Error::io("create", &path)(io::ErrorKind::AlreadyExists.into()));
            }
        }
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let write = |name: &str, count: u32, line: &(dyn Fn(u32, &mut String) + Sync)| {
            let path = dir.join(name);
            let mut draft = Draft::begin(&path)?;
            let mut done = 0;
            while done < count {
                let until = done.saturating_add(CHUNK).min(count);
                let lines: Vec<String> = (done..until)
                    .collect::<Vec<_>>()
                    .par_chunks(512)
                    .map(|rows| {
                        let mut lines = String::new();
                        rows.iter().for_each(|row| line(*row, &mut lines));
                        lines
                    })
                    .collect();
                lines
                    .iter()
                    .try_for_each(|lines| draft.write_all(lines.as_bytes()))
                    .map_err(Error::io("write", &path))?;
                done = until;
                let (made, total) = (u64::from(done), u64::from(count));
                watch.tell(&Progress { doing: "writing", file: &path, done: made, total, rows: made });
                if !goes_on() {
                    return Err(Error::Interrupted { hint: Some("what is written so far is of no use".into()) });
                }
            }
            draft.finish(false)
        };
        write("lbl.json", self.labels, &|label, out| {
            let [first, second] = self.words_of(label);
            out.push_str(&format!("{{\"uid\": \"L{label}\", \"title\": \"{first} {second}\"}}\n"));
        })?;
        write("trn.json", self.rows, &|row, out| self.row(row, 0, out))?;
        write("tst.json", self.test_rows, &|row, out| self.row(row, OF_TEST, out))
    }

    /// The two words of a label.
    fn words_of(&self, label: u32) -> [String; 2] {
        let mut random = Random::new(self.seed, OF_LABELS | u64::from(label));
        [(); 2].map(|()| word(random.next() % LABEL_WORDS, 3))
    }

    /// Adds the line of a row.
    fn row(&self, row: u32, stream: u64, out: &mut String) {
        let mut random = Random::new(self.seed, stream | u64::from(row));
        let mut labels = Vec::new();
        let wanted = self.label_count(&mut random);
        // A row may get fewer: frequent labels are drawn again and again.
        for _ in 0..2 * wanted {
            let label = self.label(&mut random);
            if labels.len() < wanted && !labels.contains(&label) {
                labels.push(label);
            }
        }
        let spread = u64::from(self.words) + 1;
        let count = u64::from(self.words) / 2 + random.next() % spread;
        let common = (0..count).map(|_| word(zipf(uniform(&mut random), COMMON_WORDS, 1.0).into(), 2));
        let mut words: Vec<String> = common.chain(labels.iter().flat_map(|label| self.words_of(*label))).collect();
        random.shuffle(&mut words);
        let title = words.len().min(4);
        out.push_str(&format!("{{\"uid\": \"R{row}\", \"title\": \"{}\", \"content\": \"", words[..title].join(" ")));
        out.push_str(&words[title..].join(" "));
        out.push_str("\", \"target_ind\": [");
        for (at, label) in labels.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { ", " });
            out.push_str(&label.to_string());
        }
        out.push_str("]}\n");
    }

    /// How many labels a row has: one and a geometric number.
    fn label_count(&self, random: &mut Random) -> usize {
        let more = self.labels_per_row - 1.0;
        let chance = more / (more + 1.0);
        let most = MOST_LABELS.min(self.labels as usize);
        let mut count = 1;
        while count < most && uniform(random) < chance {
            count += 1;
        }
        count
    }

    /// A label by its frequency. Which label has which rank follows from the seed.
    fn label(&self, random: &mut Random) -> u32 {
        let rank = u64::from(zipf(uniform(random), self.labels, self.exponent));
        let count = u64::from(self.labels);
        // Prime and above any number of labels, so that it shares no factor with one: ranks are permuted.
        const STEP: u64 = 4_294_967_311;
        ((rank * (STEP % count) + mix(self.seed) % count) % count) as u32
    }
}

/// A number in `[0, 1)`, of 53 random bits.
fn uniform(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// A rank from 0, below `count`, that occurs in proportion to `rank + 1` to the power of `-exponent`: the inverse of the
/// integral in the place of the sum, which is nearly the same and needs no table.
fn zipf(uniform: f64, count: u32, exponent: f64) -> u32 {
    let end = f64::from(count) + 1.0;
    let at = match (1.0 - exponent).abs() < 1e-9 {
        true => end.powf(uniform),
        false => (1.0 + uniform * (end.powf(1.0 - exponent) - 1.0)).powf(1.0 / (1.0 - exponent)),
    };
    (at as u32).clamp(1, count) - 1
}

/// The word of this number, of so many syllables.
fn word(mut number: u64, syllables: usize) -> String {
    let mut word = String::with_capacity(2 * syllables);
    for _ in 0..syllables {
        let syllable = number as usize % SYLLABLES;
        number /= SYLLABLES as u64;
        word.push(CONSONANTS[syllable / VOWELS.len()].into());
        word.push(VOWELS[syllable % VOWELS.len()].into());
    }
    word
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::data::{inspect, testing::source};

    const SMALL: Synthesis =
        Synthesis { rows: 3000, test_rows: 200, labels: 500, labels_per_row: 2.5, words: 8, exponent: 1.0, seed: 7 };

    fn files(synthesis: &Synthesis) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        synthesis.write(dir.path(), &Watch::default(), || true).unwrap();
        ["trn.json", "tst.json", "lbl.json"].map(|name| fs::read(dir.path().join(name)).unwrap()).into()
    }

    #[test]
    fn what_is_made_up_can_be_read_and_is_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        SMALL.write(dir.path(), &Watch::default(), || true).unwrap();
        let found = inspect(&source(dir.path()), None, 10, &Watch::default()).unwrap();
        assert_eq!((found.fault_count, found.labels), (0, 500));
        assert_eq!((found.train.rows, found.test.rows, found.train.unlabelled), (3000, 200, 0));
        let labels = found.train.labels_a_row.unwrap();
        assert!((labels.mean - 2.5).abs() < 0.2, "{labels:?}");
        // Words of their own, and two of each label.
        let words = found.train.words.unwrap();
        assert!((words.mean - (8.0 + 2.0 * labels.mean)).abs() < 0.3, "{words:?}");
        let rows = found.rows_a_label.unwrap();
        assert!(rows.values[6] > 20 * rows.values[2], "frequencies fall: {rows:?}");
    }

    #[test]
    fn files_follow_from_the_seed() {
        let once = files(&SMALL);
        assert_eq!(once, files(&SMALL));
        assert_ne!(once, files(&Synthesis { seed: 8, ..SMALL }));
        let more = files(&Synthesis { rows: 4000, ..SMALL });
        assert!(more[0].starts_with(&once[0]), "more rows are the same and some more");
        assert_eq!(more[1..], once[1..]);
    }

    #[test]
    fn every_rank_has_a_label_of_its_own() {
        for labels in [1, 2, 6, 97, 1000] {
            let synthesis = Synthesis { labels, exponent: 0.0, ..SMALL };
            let mut random = Random::new(1, 1);
            let seen: HashSet<u32> = (0..40 * labels).map(|_| synthesis.label(&mut random)).collect();
            assert_eq!(seen.len(), labels as usize);
            assert!(seen.iter().all(|label| *label < labels));
        }
    }

    #[test]
    fn ranks_follow_the_power_that_was_asked_for() {
        for exponent in [0.0, 0.5, 1.0, 1.5] {
            let mut random = Random::new(3, 3);
            let mut counts = BTreeMap::new();
            for _ in 0..200_000 {
                *counts.entry(zipf(uniform(&mut random), 1000, exponent)).or_insert(0) += 1;
            }
            assert!(counts.keys().all(|rank| *rank < 1000));
            // Between ranks 10 and 99, and 100 and 999, where the integral is close to the sum.
            let between =
                |from: u32, to: u32| -> f64 { counts.range(from..to).map(|(_, count)| f64::from(*count)).sum() };
            let sum = |from: u32, to: u32| -> f64 { (from..to).map(|rank| f64::from(rank + 1).powf(-exponent)).sum() };
            let ratio = between(99, 999) / between(9, 99);
            let expected = sum(99, 999) / sum(9, 99);
            assert!((ratio / expected - 1.0).abs() < 0.05, "{exponent}: {ratio} {expected}");
        }
    }

    #[test]
    fn files_that_are_there_are_left_alone_and_an_end_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tst.json"), "mine").unwrap();
        let message = SMALL.write(dir.path(), &Watch::default(), || true).unwrap_err().to_string();
        assert!(message.contains("tst.json"), "{message}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let empty = tempfile::tempdir().unwrap();
        let error = SMALL.write(empty.path(), &Watch::default(), || false).unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }));
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_largest_numbers_are_within_bounds() {
        let largest = Synthesis { labels: u32::MAX, rows: u32::MAX, labels_per_row: 1000.0, ..SMALL };
        let mut line = String::new();
        largest.row(u32::MAX - 1, OF_TEST, &mut line);
        let row: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(row["target_ind"].as_array().unwrap().len() > 1);
    }
}
