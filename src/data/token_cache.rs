//! Token ids of many texts: ragged, compact, in a file that is memory-mapped or in memory.
//!
//! Layout, little-endian: a header (magic, version, bytes per id, key, rows, ids, texts cut, checksum), the ids of all
//! rows as `u16` or `u32`, and `rows + 1` offsets into them as `u64`. The key is a hash of everything the ids depend
//! on, so a cache is never out of date: another text, tokenizer or length has another key and another file.
//! A cache is only ever a saving. A damaged one is made again, and where none can be written the ids stay in memory.

use std::{
    fs::{self, File},
    io::{Cursor, Seek, SeekFrom, Write},
    ops::Deref,
    path::{Path, PathBuf},
    slice::ChunksExact,
};

use memmap2::Mmap;
use tracing::warn;

use super::{TextTokenizer, hash::Fnv128};
use crate::{
    atomic,
    error::{Error, Place, Result},
};

const MAGIC: [u8; 8] = *b"ELMOTOKS";
/// To be raised whenever the layout, or the ids of the same texts, change.
pub(super) const VERSION: u32 = 1;
const HEADER: usize = 72;
/// Texts tokenised at a time: enough for all cores, and a bound on the memory for texts.
const CHUNK_TEXTS: usize = 8192;
const CHUNK_BYTES: usize = 32 << 20;

/// Rows of token ids.
#[derive(Debug)]
pub(super) struct TokenStore {
    bytes: Bytes,
    layout: Layout,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Bytes per id: 2 or 4.
    width: usize,
    rows: usize,
    ids: usize,
    /// Texts that were longer than allowed.
    truncated: usize,
}

/// How [`TokenStore::open_or_build`] came by its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// They were in the cache.
    Cache,
    /// They were made, and are in the cache now.
    Texts,
    /// They were made, and are in memory: there is no cache, or it cannot be written.
    Memory,
}

/// What went wrong while a store was made.
#[derive(Debug)]
enum Fault {
    /// Texts could not be read or tokenised.
    Texts(Error),
    /// The store could not be written.
    Store(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// The file of a cache that has the tokens called `name` of what `key` is the hash of.
pub(super) fn path(dir: &Path, name: &str, key: u128) -> PathBuf {
    dir.join(format!("{name}-{key:032x}.tokens"))
}

impl TokenStore {
    /// The tokens of `texts` from the cache, a folder and the key of what the tokens depend on; or made and put there.
    ///
    /// `texts` gives the texts from the first one, each time it is called.
    ///
    /// # Errors
    /// What `texts` and the tokenizer return. Trouble with the cache is a warning.
    pub fn open_or_build<T>(
        cache: Option<(&Path, u128)>,
        name: &str,
        tokenizer: &TextTokenizer,
        max_len: usize,
        texts: impl Fn() -> Result<T>,
    ) -> Result<(Self, Origin)>
    where
        T: Iterator<Item = Result<String>>,
    {
        let vocab = tokenizer.vocab_size();
        if let Some((dir, key)) = cache {
            let path = path(dir, name, key);
            if path.exists() {
                match Self::open(&path, key, vocab) {
                    Ok(store) => return Ok((store, Origin::Cache)),
                    Err(error) => warn!("making the token cache again: {error}"),
                }
            }
            let write = || -> Result<Layout, Fault> {
                fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
                atomic::write(&path, |sink| {
                    let writer = Writer::start(sink, &path, vocab)?;
                    writer.encode_all(texts().map_err(Fault::Texts)?, tokenizer, max_len, key)
                })
            };
            match write() {
                Ok(_) => return Ok((Self::open(&path, key, vocab)?, Origin::Texts)),
                Err(Fault::Texts(error)) => return Err(error),
                Err(Fault::Store(error)) => warn!("keeping tokens in memory: {error}"),
            }
        }
        let store =
            Self::in_memory(vocab, |writer| writer.encode_all(texts().map_err(Fault::Texts)?, tokenizer, max_len, 0))?;
        Ok((store, Origin::Memory))
    }

    /// These rows, in memory.
    pub fn from_rows(rows: &[Vec<u32>]) -> Self {
        let vocab = rows.iter().flatten().max().map_or(0, |&id| id as usize + 1);
        Self::in_memory(vocab, |mut writer| {
            for row in rows {
                writer.push(row)?;
            }
            Ok(writer.finish(0)?)
        })
        .expect("writing to memory does not fail")
    }

    fn in_memory(vocab: usize, write: impl FnOnce(Writer<Cursor<Vec<u8>>>) -> Result<Layout, Fault>) -> Result<Self> {
        let mut sink = Cursor::new(Vec::new());
        let layout = write(Writer::start(&mut sink, Path::new("memory"), vocab)?);
        let layout = layout.map_err(|(Fault::Texts(error) | Fault::Store(error))| error)?;
        Ok(Self { bytes: Bytes::Owned(sink.into_inner()), layout })
    }

    /// Maps a cache and checks all of it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Data`] if anything in it is not as it was written.
    fn open(path: &Path, key: u128, vocab: usize) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        // SAFETY: nobody writes to a cache file under its own name; it is made under a temporary one and renamed, so a
        // process that makes it again leaves the inode mapped here alone.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", path))?;
        let layout = check(&map, key, vocab).map_err(|(expected, found)| Error::Data {
            place: Place::file(path),
            expected,
            found,
            hint: None,
        })?;
        Ok(Self { bytes: Bytes::Mapped(map), layout })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.layout.rows
    }

    /// Number of ids in all rows.
    pub fn total(&self) -> usize {
        self.layout.ids
    }

    /// Number of texts that were cut.
    pub fn truncated(&self) -> usize {
        self.layout.truncated
    }

    /// Number of ids of a row.
    pub fn length(&self, row: usize) -> usize {
        self.offset(row + 1) - self.offset(row)
    }

    pub fn tokens(&self, row: usize) -> Tokens<'_> {
        let Layout { width, .. } = self.layout;
        let [start, end] = [row, row + 1].map(|row| HEADER + width * self.offset(row));
        Tokens(self.bytes[start..end].chunks_exact(width))
    }

    fn offset(&self, row: usize) -> usize {
        assert!(row <= self.layout.rows, "no row {row}");
        let at = HEADER + self.layout.width * self.layout.ids + 8 * row;
        read_u64(&self.bytes[at..]) as usize
    }
}

/// The token ids of one row.
#[derive(Debug, Clone)]
pub struct Tokens<'a>(ChunksExact<'a, u8>);

impl Iterator for Tokens<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.next().map(|bytes| match *bytes {
            [a, b] => u16::from_le_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("ids have 2 or 4 bytes"),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Tokens<'_> {}

/// Writes a store from front to back, and then its header.
struct Writer<'a, W> {
    sink: &'a mut W,
    path: &'a Path,
    width: usize,
    offsets: Vec<u64>,
    truncated: usize,
    hash: Fnv128,
    buffer: Vec<u8>,
}

impl<'a, W: Write + Seek> Writer<'a, W> {
    fn start(sink: &'a mut W, path: &'a Path, vocab: usize) -> Result<Self> {
        sink.write_all(&[0; HEADER]).map_err(Error::io("write", path))?;
        Ok(Self {
            sink,
            path,
            width: if vocab <= 1 << 16 { 2 } else { 4 },
            offsets: vec![0],
            truncated: 0,
            hash: Fnv128::new(),
            buffer: Vec::new(),
        })
    }

    fn encode_all(
        mut self,
        mut texts: impl Iterator<Item = Result<String>>,
        tokenizer: &TextTokenizer,
        max_len: usize,
        key: u128,
    ) -> Result<Layout, Fault> {
        let mut chunk = Vec::new();
        loop {
            let mut bytes = 0;
            chunk.clear();
            while chunk.len() < CHUNK_TEXTS
                && bytes < CHUNK_BYTES
                && let Some(text) = texts.next()
            {
                let text = text.map_err(Fault::Texts)?;
                bytes += text.len();
                chunk.push(text);
            }
            if chunk.is_empty() {
                return Ok(self.finish(key)?);
            }
            for (ids, cut) in tokenizer.encode_counted(&chunk, max_len).map_err(Fault::Texts)? {
                self.truncated += usize::from(cut);
                self.push(&ids)?;
            }
        }
    }

    fn push(&mut self, ids: &[u32]) -> Result<()> {
        for id in ids {
            self.buffer.extend(&id.to_le_bytes()[..self.width]);
        }
        self.offsets.push(self.ids() + ids.len() as u64);
        self.write_buffer()
    }

    fn ids(&self) -> u64 {
        self.offsets[self.offsets.len() - 1]
    }

    fn write_buffer(&mut self) -> Result<()> {
        self.hash.write(&self.buffer);
        self.sink.write_all(&self.buffer).map_err(Error::io("write", self.path))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, key: u128) -> Result<Layout> {
        self.buffer = self.offsets.iter().flat_map(|o| o.to_le_bytes()).collect();
        self.write_buffer()?;
        let layout = Layout {
            width: self.width,
            rows: self.offsets.len() - 1,
            ids: self.ids() as usize,
            truncated: self.truncated,
        };
        let header = header(layout, key, self.hash.finish());
        self.sink
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.sink.write_all(&header))
            .map_err(Error::io("write", self.path))?;
        Ok(layout)
    }
}

fn header(layout: Layout, key: u128, checksum: u128) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((layout.width as u32).to_le_bytes());
    header.extend(key.to_le_bytes());
    for number in [layout.rows, layout.ids, layout.truncated] {
        header.extend((number as u64).to_le_bytes());
    }
    header.extend(checksum.to_le_bytes());
    header
}

/// Checks a cache from header to last id, or says what was expected and found.
fn check(bytes: &[u8], key: u128, vocab: usize) -> Result<Layout, (String, String)> {
    let fail = |expected: &str, found: String| Err((expected.to_owned(), found));
    let Some((head, body)) = bytes.split_at_checked(HEADER) else {
        return fail("a token cache", format!("{} bytes", bytes.len()));
    };
    if head[..8] != MAGIC {
        return fail("a token cache", format!("magic {:?}", &head[..8]));
    }
    let [version, width] = [8, 12].map(|at| read_u64(&head[at..]) as u32);
    if version != VERSION {
        return fail(&format!("version {VERSION}"), version.to_string());
    }
    let mut expected_key = [0; 16];
    expected_key.copy_from_slice(&head[16..32]);
    if u128::from_le_bytes(expected_key) != key {
        return fail("the cache of these texts", "that of others".into());
    }
    if !matches!(width, 2 | 4) {
        return fail("2 or 4 bytes per id", width.to_string());
    }
    let [rows, ids, truncated] = [32, 40, 48].map(|at| read_u64(&head[at..]));
    let offset_bytes = rows.checked_add(1).and_then(|n| n.checked_mul(8));
    let id_bytes = ids.checked_mul(u64::from(width));
    let body_bytes = offset_bytes.and_then(|offsets| offsets.checked_add(id_bytes?));
    if body_bytes != Some(body.len() as u64) {
        let promised = format!("the {rows} rows with {ids} ids of its header");
        return fail(&promised, format!("{} bytes", bytes.len()));
    }
    let mut hash = Fnv128::new();
    hash.write(body);
    if hash.finish().to_le_bytes() != head[56..] {
        return fail("its checksum", "another".into());
    }
    let layout =
        Layout { width: width as usize, rows: rows as usize, ids: ids as usize, truncated: truncated as usize };
    let (id_bytes, offsets) = body.split_at(layout.ids * layout.width);
    let offsets = || offsets.chunks_exact(8).map(read_u64);
    if offsets().next() != Some(0) || offsets().next_back() != Some(ids) || !offsets().is_sorted() {
        return fail("offsets in rising order", "others".into());
    }
    let largest = Tokens(id_bytes.chunks_exact(layout.width)).max();
    match largest {
        Some(id) if id as usize >= vocab => fail(&format!("ids below {vocab}"), id.to_string()),
        _ => Ok(layout),
    }
}

/// The first eight bytes as a number.
fn read_u64(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::data::testing::tokenizer;

    const TEXTS: [&str; 3] = ["white wine", "", "a long text about bread and cheese and milk"];

    /// The rows, where they came from, and how often the texts were read.
    fn load(dir: Option<&Path>) -> (Vec<Vec<u32>>, Origin, usize) {
        let reads = Cell::new(0);
        let (store, origin) = TokenStore::open_or_build(dir.map(|dir| (dir, 5)), "trn", tokenizer(), 8, || {
            reads.set(reads.get() + 1);
            Ok(TEXTS.iter().map(|text| Ok((*text).to_owned())))
        })
        .unwrap();
        assert_eq!(store.truncated(), 1);
        let rows: Vec<Vec<_>> = (0..store.len()).map(|r| store.tokens(r).collect()).collect();
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(row.len(), store.length(i));
            assert_eq!(*row, tokenizer().encode(TEXTS[i], 8).unwrap());
        }
        (rows, origin, reads.get())
    }

    #[test]
    fn the_second_load_is_from_the_cache_and_equal() {
        let dir = tempfile::tempdir().unwrap();
        let (first, origin, reads) = load(Some(dir.path()));
        assert_eq!((origin, reads), (Origin::Texts, 1));
        let (second, origin, reads) = load(Some(dir.path()));
        assert_eq!((origin, reads), (Origin::Cache, 0));
        assert_eq!(first, second);
        assert_eq!(first, load(None).0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(load(Some(&file.join("cache"))).1, Origin::Memory);
    }

    #[test]
    fn rows_of_large_ids_are_kept() {
        let rows = [vec![70_000, 1], vec![], vec![65_535]];
        let store = TokenStore::from_rows(&rows);
        let back: Vec<Vec<_>> = (0..3).map(|row| store.tokens(row).collect()).collect();
        assert_eq!(back, rows);
    }

    /// A sound cache, changed by `attack`; with `resealed` its checksum is made right again.
    fn attacked(resealed: bool, attack: impl FnOnce(&mut Vec<u8>)) -> String {
        let dir = tempfile::tempdir().unwrap();
        load(Some(dir.path()));
        let path = dir.path().join(format!("trn-{:032x}.tokens", 5));
        let mut bytes = fs::read(&path).unwrap();
        attack(&mut bytes);
        if resealed {
            let mut hash = Fnv128::new();
            hash.write(&bytes[HEADER..]);
            bytes[56..HEADER].copy_from_slice(&hash.finish().to_le_bytes());
        }
        fs::write(&path, &bytes).unwrap();
        let error = TokenStore::open(&path, 5, tokenizer().vocab_size()).unwrap_err();
        let origins = [(); 2].map(|()| load(Some(dir.path())).1);
        assert_eq!(origins, [Origin::Texts, Origin::Cache], "made again, once");
        error.to_string()
    }

    #[test]
    fn attack_truncated() {
        assert!(attacked(false, |b| b.truncate(b.len() - 1)).contains("of its header"));
        assert!(attacked(false, |b| b.truncate(40)).contains("found 40 bytes"));
        assert!(attacked(false, Vec::clear).contains("found 0 bytes"));
    }

    #[test]
    fn attack_wrong_magic_version_key_or_width() {
        assert!(attacked(false, |b| b[0] = b'X').contains("a token cache"));
        assert!(attacked(false, |b| b[8] = 9).contains("version 1, found 9"));
        assert!(attacked(false, |b| b[12] = 3).contains("2 or 4 bytes"));
        assert!(attacked(false, |b| b[16] ^= 1).contains("that of others"));
    }

    #[test]
    fn attack_lengths_that_overflow_or_lie() {
        for at in [32, 40] {
            let overflowing = |b: &mut Vec<u8>| b[at..at + 8].fill(0xff);
            assert!(attacked(true, overflowing).contains("of its header"));
            assert!(attacked(true, |b| b[at] += 1).contains("of its header"));
        }
    }

    #[test]
    fn attack_one_bit() {
        assert!(attacked(false, |b| b[HEADER] ^= 1).contains("its checksum"));
    }

    #[test]
    fn attack_id_out_of_range() {
        let attack = |b: &mut Vec<u8>| b[HEADER..HEADER + 2].copy_from_slice(&[0xff, 0xff]);
        assert!(attacked(true, attack).contains("ids below 1000, found 65535"));
    }

    #[test]
    fn attack_offsets_out_of_order() {
        let attack = |b: &mut Vec<u8>| {
            let second = b.len() - 24;
            b[second..second + 8].fill(0xff);
        };
        assert!(attacked(true, attack).contains("offsets in rising order"));
    }
}
