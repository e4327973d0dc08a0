//! The one error of the library: what is wrong, where, what was expected, what was found, what to do.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong because of what a user gave, or of the machine it runs on.
///
/// A violated contract between two functions of this crate is a bug and panics instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), io_help(source.kind()))]
    Io {
        /// What was tried, as a verb: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// The content of a file is not what its format asks for.
    #[error("{place}: expected {expected}, found {found}{}", help(hint))]
    Data {
        /// The file, and where in it.
        place: Place,
        /// What is right there.
        expected: String,
        /// What is there instead.
        found: String,
        /// What to do.
        hint: Option<String>,
    },

    /// A configuration key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", help(hint))]
    UnknownKey {
        /// Where it stands: "command line", "my.toml:12".
        origin: String,
        /// The key, as it was typed.
        key: String,
        /// What to do.
        hint: Option<String>,
    },

    /// A configuration value of the wrong type, out of range, or in conflict with another.
    #[error("{origin}: `{key}`: expected {expected}, found {found}{}", help(hint))]
    Config {
        /// Where it was set: "command line", "my.toml:12".
        origin: String,
        /// The key, as it was typed.
        key: String,
        /// What is right there.
        expected: String,
        /// What is there instead.
        found: String,
        /// What to do.
        hint: Option<String>,
    },

    /// An argument of a command that it cannot work with.
    #[error("command line: `{argument}`: expected {expected}, found {found}{}", help(hint))]
    Usage {
        /// The argument, as `--device` or the text itself.
        argument: String,
        /// What is right there.
        expected: String,
        /// What is there instead.
        found: String,
        /// What to do.
        hint: Option<String>,
    },

    /// Pretrained weights do not fit the model that their `config.json` describes.
    #[error("{}: {message}{}", path.display(), help(hint))]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },

    /// A run folder or a checkpoint that is incomplete, damaged, or of another version.
    #[error("{}: {message}{}", path.display(), help(hint))]
    Run {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },

    /// The job would not fit the machine; found out before anything was allocated.
    #[error(
        "not enough memory {on}: {what} needs about {}, and {} is available{}",
        bytes(*needed), bytes(*available), help(hint)
    )]
    Memory {
        /// "on the CPU", "on cuda:0".
        on: String,
        /// The part of the job that needs the most.
        what: String,
        /// Bytes that the job holds.
        needed: u64,
        /// Bytes that are free.
        available: u64,
        /// What to do.
        hint: Option<String>,
    },

    /// The device asked for is not compiled in, or not there.
    #[error("device `{device}`: {message}{}", help(hint))]
    Device {
        /// The device, as it was typed.
        device: String,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },

    /// Training met numbers it cannot go on with.
    #[error("{message}{}", help(hint))]
    Training {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },

    /// A trained model answers with infinities or NaN: its weights are no longer numbers.
    #[error("the scores of the model are not finite{}", help(hint))]
    NotFinite {
        /// What to do.
        hint: Option<String>,
    },

    /// The user stopped it.
    #[error("interrupted{}", help(hint))]
    Interrupted {
        /// How to go on.
        hint: Option<String>,
    },
}

impl Error {
    /// For `map_err` on file operations: `fs::read(p).map_err(Error::io("read", p))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the command was typed or configured wrongly (exit code 2) rather than failed (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::UnknownKey { .. } | Self::Config { .. } | Self::Usage { .. })
    }
}

/// A place in a file: the path, and the line (from 1) and field where they are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The field of that line.
    pub field: Option<String>,
}

impl Place {
    /// The file as a whole.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), line: None, field: None }
    }

    /// Line `line`, counted from 1.
    pub fn line(path: impl AsRef<Path>, line: usize) -> Self {
        Self { line: Some(line), ..Self::file(path) }
    }

    /// The same place, at this field of it.
    pub fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": `{field}`")?;
        }
        Ok(())
    }
}

fn help(hint: &Option<String>) -> String {
    hint.as_ref().map_or_else(String::new, |h| format!("\n  help: {h}"))
}

/// What to do about the common failures of files.
fn io_help(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "\n  help: check the path; it is relative to the folder you are in",
        io::ErrorKind::PermissionDenied => "\n  help: check who may read and write the file and its folder",
        io::ErrorKind::AlreadyExists => "\n  help: choose another name, or move it away",
        io::ErrorKind::InvalidData => "\n  help: the file must be text in UTF-8",
        io::ErrorKind::StorageFull => "\n  help: free some space on the disk",
        _ => "",
    }
}

/// An [`Error::Data`].
#[cfg(feature = "train")]
pub(crate) fn wrong(place: Place, expected: impl Into<String>, found: impl Into<String>, hint: Option<&str>) -> Error {
    Error::Data { place, expected: expected.into(), found: found.into(), hint: hint.map(Into::into) }
}

/// A byte count as a person reads it: `1.50 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_what_to_do() {
        let error = Error::Data {
            place: Place::line("trn.json", 7).field("target_ind"),
            expected: "an id below 437".into(),
            found: "900".into(),
            hint: Some("ids are the line numbers of lbl.json, from 0".into()),
        };
        assert_eq!(
            error.to_string(),
            "trn.json:7: `target_ind`: expected an id below 437, found 900\n  \
             help: ids are the line numbers of lbl.json, from 0"
        );
    }

    #[test]
    fn byte_counts_are_readable() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(3 << 29), "1.50 GiB");
    }
}
