//! Hashes and random orders that mean the same in every version of this crate and its dependencies.
//!
//! `std::hash` and `rand`'s default generator promise nothing between versions. A token cache must be found again, and
//! a resumed run must see the rows in the order that the interrupted one would have: so both are defined here.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{Progress, Watch};
use crate::error::{Error, Result};

/// FNV-1a with 128 bits (draft-eastlake-fnv).
///
/// It names and checks caches that the user's own machine wrote. 128 bits exclude chance collisions; nobody gains by
/// forging one, so a cryptographic hash would only cost time and a dependency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fnv128(u128);

impl Fnv128 {
    pub fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }

    pub fn finish(self) -> u128 {
        self.0
    }
}

/// Hashes of files, each of which is read once.
pub(super) struct Hashes<'a> {
    watch: &'a Watch,
    known: RefCell<HashMap<PathBuf, u128>>,
}

impl<'a> Hashes<'a> {
    /// Tells `watch` how far it is.
    pub fn new(watch: &'a Watch) -> Self {
        Self { watch, known: RefCell::default() }
    }

    /// Hash of the bytes of a file, as they lie on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn of_file(&self, path: &Path) -> Result<u128> {
        if let Some(hash) = self.known.borrow().get(path) {
            return Ok(*hash);
        }
        let hash = of_file(path, self.watch)?;
        self.known.borrow_mut().insert(path.to_owned(), hash);
        Ok(hash)
    }
}

/// Bytes of a file that are hashed at a time on one core; a part of what the hash is.
const BLOCK: usize = 1 << 20;

/// The hash of the hashes of its blocks, so that all cores have something to do.
fn of_file(path: &Path, watch: &Watch) -> Result<u128> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let total = file.metadata().map_or(0, |metadata| metadata.len());
    let (mut hash, mut done, mut buffer) = (Fnv128::new(), 0, Vec::new());
    loop {
        buffer.clear();
        // Whole blocks but for the last one, however many bytes a call reads.
        (&mut file).take(16 * BLOCK as u64).read_to_end(&mut buffer).map_err(Error::io("read", path))?;
        let blocks = buffer.par_chunks(BLOCK).map(|block| {
            let mut hash = Fnv128::new();
            hash.write(block);
            hash.finish()
        });
        let blocks: Vec<u128> = blocks.collect();
        if blocks.is_empty() {
            return Ok(hash.finish());
        }
        blocks.iter().for_each(|block| hash.write(&block.to_le_bytes()));
        done += buffer.len() as u64;
        watch.tell(&Progress { doing: "looking in the cache for", file: path, done: done.min(total), total, rows: 0 });
    }
}

/// A bijection of 64 bits that looks random: the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// SplitMix64: random enough to order rows and to make up data, and the same bits for ever.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// The generator for one `stream` (an epoch, a row) of `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(mix(seed.wrapping_add(Self::STEP)) ^ stream.wrapping_mul(Self::STEP)))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Self::STEP);
        mix(self.0)
    }

    /// Fisher-Yates. A multiply and shift takes the place of the remainder; its bias is below `len / 2^64`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = (u128::from(self.next()) * (last as u128 + 1)) >> 64;
            items.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_a_file_counts_and_so_does_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes: Vec<u8> = (0..20 * BLOCK + 17).map(|at| (at / BLOCK) as u8).collect();
        let mut seen = std::collections::HashSet::new();
        let mut hash = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let hash = of_file(&path, &Watch::default()).unwrap();
            assert_eq!(hash, of_file(&path, &Watch::default()).unwrap());
            assert!(seen.insert(hash), "as another file");
        };
        hash(b"");
        hash(&bytes);
        hash(&bytes[..20 * BLOCK]);
        hash(&bytes[BLOCK..]);
        for at in [0, BLOCK, 20 * BLOCK + 16] {
            bytes[at] ^= 1;
            hash(&bytes);
        }
        bytes.swap(3, 18 * BLOCK);
        hash(&bytes);
    }

    #[test]
    fn fnv_gives_the_published_values() {
        let of = |text: &str| {
            let mut hash = Fnv128::new();
            hash.write(text.as_bytes());
            hash.finish()
        };
        assert_eq!(of(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(of("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(of("foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }

    #[test]
    fn splitmix_gives_the_published_values() {
        let mut random = Random(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_near_uniform() {
        let mut first = [0u32; 4];
        for stream in 0..4000 {
            let mut items = [0, 1, 2, 3];
            Random::new(7, stream).shuffle(&mut items);
            first[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3]);
        }
        assert!(first.iter().all(|&n| (850..1150).contains(&n)), "{first:?}");
    }
}
