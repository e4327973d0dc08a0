//! Where the answers of a command go, and that a file is complete or not there.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Seek, Write},
    path::{Path, PathBuf},
    process,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;

use super::{complain, interrupt::on_interrupt, wrong_argument};
use crate::{atomic::Draft, error::Error};

/// The temporary file of the output, for whoever interrupts.
static DRAFT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Where answers go: standard output, or a file.
pub struct Output {
    /// The file as it was named; standard output has no name.
    path: Option<PathBuf>,
    sink: Sink,
}

enum Sink {
    /// Standard output, a device or a named pipe.
    Stream(Box<dyn Write>),
    /// A file that gets its name when it is complete.
    File(Draft),
}

impl Output {
    /// Opens the file `path`, which must not exist; `-` or nothing is standard output. A device or a named pipe is
    /// written to as it is.
    ///
    /// # Errors
    /// [`Error::Io`] if there is such a file, or it cannot be made; [`Error::Usage`] for a folder.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.filter(|path| *path != Path::new("-"));
        Ok(Self {
            path: path.map(Path::to_owned),
            sink: match path {
                Some(path) => Sink::open(path)?,
                None => Sink::Stream(Box::new(BufWriter::new(io::stdout()))),
            },
        })
    }

    /// Writes and passes on what `write` does.
    pub fn write(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let sink: &mut dyn Write = match &mut self.sink {
            Sink::Stream(sink) => sink,
            Sink::File(draft) => draft,
        };
        let written = write(sink).and_then(|()| sink.flush());
        written.map_err(|error| match &self.path {
            Some(path) => Error::io("write", path)(error).into(),
            // Not wrapped: that the reader has gone is no failure.
            None => error.into(),
        })
    }

    /// Replaces the first bytes of the file.
    ///
    /// # Panics
    /// If it is not [a file](Self::is_file).
    pub fn replace_start(&mut self, bytes: &[u8]) -> Result<()> {
        let (Sink::File(draft), Some(path)) = (&mut self.sink, &self.path) else {
            panic!("only a file has a start to go back to");
        };
        let written = draft.rewind().and_then(|()| draft.write_all(bytes));
        Ok(written.map_err(Error::io("write", path))?)
    }

    /// Whether it is a file, which has its name when it is finished.
    pub fn is_file(&self) -> bool {
        matches!(self.sink, Sink::File(_))
    }

    /// Gives a file its name.
    pub fn finish(self) -> Result<()> {
        if let Sink::File(draft) = self.sink {
            let mut temporary = DRAFT.lock().unwrap_or_else(PoisonError::into_inner);
            draft.finish(false)?;
            *temporary = None;
        }
        Ok(())
    }
}

impl Sink {
    fn open(path: &Path) -> Result<Self> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            let target = fs::metadata(path).unwrap_or(metadata);
            if target.is_dir() {
                let found = format!("{}, which is a folder", path.display());
                return Err(wrong_argument("--output", "a new file", &found, "name a file in it").into());
            }
            if target.is_file() || target.is_symlink() {
                let exists = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(Error::io("create", path)(exists).into());
            }
            let device = File::options().write(true).open(path).map_err(Error::io("write", path))?;
            return Ok(Self::Stream(Box::new(BufWriter::new(device))));
        }
        on_interrupt(|| {
            // The lock is kept: nobody may give the file its name now.
            let draft = DRAFT.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(path) = &*draft {
                let _ = fs::remove_file(path);
                complain("error: interrupted\n  help: the output was not made");
            }
            process::exit(1);
        })?;
        let mut temporary = DRAFT.lock().unwrap_or_else(PoisonError::into_inner);
        let draft = Draft::begin(path)?;
        *temporary = Some(draft.temporary().to_owned());
        Ok(Self::File(draft))
    }
}

/// Refuses to read texts from the file that answers go to.
///
/// # Errors
/// [`Error::Usage`]
pub fn refuse_same(input: &Path, output: &Path) -> Result<()> {
    let same = matches!((input.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b && a.is_file());
    if !same {
        return Ok(());
    }
    let found = format!("{} for both", output.display());
    let hint = "the texts are read while the answers are written; name a new file";
    Err(wrong_argument("--output", "another file than --input", &found, hint).into())
}
