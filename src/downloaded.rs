//! Files that somebody downloaded: whether they came whole, and are themselves.

use std::{fs::File, io::Read, path::Path};

#[cfg(feature = "train")]
use crate::data::text::read_to_string;
use crate::error::{Error, Place, Result};

/// What to do about a file that stops before its end.
pub(crate) const AGAIN: &str = "the file is incomplete: download it again";

/// What the first bytes say is wrong with a file, and what to do.
fn flaw(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let head = head.trim_ascii_start().to_ascii_lowercase();
    if head.is_empty() {
        return Some(("an empty file", AGAIN));
    }
    if head.starts_with(b"version https://git-lfs") {
        let hint = "git left it in place of the file: run `git lfs pull` in the folder, or download the file by itself";
        return Some(("a git-lfs pointer", hint));
    }
    if head.starts_with(b"<!doctype html") || head.starts_with(b"<html") {
        return Some(("a web page", "download the file itself, not the page that shows it"));
    }
    None
}

/// Whether a file is what it claims to be, as far as its first bytes tell. `what` it should be is said in the error.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] if it is empty, a git-lfs pointer or a web page.
pub(crate) fn check(path: &Path, what: &str) -> Result<()> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    file.take(64).read_to_end(&mut head).map_err(Error::io("read", path))?;
    match flaw(&head) {
        None => Ok(()),
        Some((found, hint)) => Err(Error::Data {
            place: Place::file(path),
            expected: what.into(),
            found: found.into(),
            hint: Some(hint.into()),
        }),
    }
}

/// The text of a small file, read as those of data sets are: plain or in gzip, without a byte order mark.
///
/// # Errors
/// As [`check`]; [`Error::Io`] and [`Error::Data`] if it is not text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    check(path, "its text")?;
    read_to_string(path)
}

/// The reader that knows gzip and names other encodings comes with the data.
#[cfg(not(feature = "train"))]
fn read_to_string(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

/// The error for a file that is no JSON object.
pub(crate) fn bad_json(path: &Path, error: &serde_json::Error) -> Error {
    let cut = error.is_eof();
    Error::Data {
        place: Place::line(path, error.line().max(1)),
        expected: "an object in JSON".into(),
        found: match cut {
            true => "its beginning only".into(),
            false if error.is_data() => "something else in JSON".into(),
            false => format!("something else from column {} on", error.column()),
        },
        hint: cut.then(|| AGAIN.into()),
    }
}
