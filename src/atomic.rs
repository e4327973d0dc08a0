//! Files that are either complete or not there.

use std::{
    fs::File,
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};

/// A file in the making, beside the place where it belongs. Unless it is given its name, it goes when it is dropped.
///
/// Its temporary name is its own: no other file is touched, whatever it is called. It has the rights that the umask
/// gives.
#[derive(Debug)]
pub(crate) struct Draft {
    sink: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl Draft {
    /// Begins the file `path`.
    ///
    /// # Errors
    /// [`Error::Io`] with action `create`.
    pub fn begin(path: &Path) -> Result<Self> {
        let mut prefix = path.file_name().unwrap_or_default().to_owned();
        prefix.push(".");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = (Builder::new().prefix(&prefix).suffix(".tmp"))
            // Not the builder's own way to open it, with which only the owner may read.
            .make_in(folder.unwrap_or(Path::new(".")), |path| {
                File::options().read(true).write(true).create_new(true).open(path)
            })
            .map_err(Error::io("create", path))?;
        Ok(Self { sink: BufWriter::new(file), path: path.to_owned() })
    }

    /// The temporary file.
    #[cfg(feature = "cli")]
    pub fn temporary(&self) -> &Path {
        self.sink.get_ref().path()
    }

    /// Syncs the file to the disk and gives it its name. A file that has the name already is `replaced`, or the error.
    ///
    /// # Errors
    /// [`Error::Io`] with action `write`. The temporary file is gone then.
    pub fn finish(mut self, replace: bool) -> Result<()> {
        let flushed = self.sink.flush();
        flushed
            .and_then(|()| self.sink.get_ref().as_file().sync_all())
            .and_then(|()| self.sink.into_inner().map_err(io::IntoInnerError::into_error))
            .and_then(|file| match replace {
                true => file.persist(&self.path).map_err(|error| error.error),
                false => file.persist_noclobber(&self.path).map_err(|error| error.error),
            })
            .map_err(Error::io("write", &self.path))?;
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Seek for Draft {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.sink.seek(to)
    }
}

/// Calls `write` on a temporary file beside `path`, syncs it to the disk and gives it its name.
///
/// Two processes that make the same file at the same time do not meet; the last one to finish wins, with a complete
/// file.
///
/// # Errors
/// [`Error::Io`] with action `create` or `write`, or whatever `write` returns. The temporary file is gone then.
pub(crate) fn write<T, E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<NamedTempFile>) -> Result<T, E>,
) -> Result<T, E> {
    let mut draft = Draft::begin(path)?;
    let value = write(&mut draft.sink)?;
    draft.finish(true)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let failed = write(&path, |sink| -> Result<()> {
            sink.write_all(b"new").unwrap();
            Err(Error::Interrupted { hint: None })
        });
        assert!(failed.is_err());
        let mut draft = Draft::begin(&path).unwrap();
        draft.write_all(b"new").unwrap();
        assert!(draft.finish(false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_told_without_the_temporary_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Draft::begin(&dir.path().join("no/file")).unwrap_err().to_string();
        assert!(error.contains("no/file: No such") && !error.contains("tmp\""), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn rights_are_those_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        write(&dir.path().join("ours"), |_| Ok::<(), Error>(())).unwrap();
        fs::write(dir.path().join("any"), "").unwrap();
        assert_eq!(mode("ours"), mode("any"));
    }
}
