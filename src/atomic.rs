//! Files that are either complete or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::error::{Error, Result};

/// Calls `write` on a temporary file beside `path`, syncs it to the disk and gives it its name.
///
/// The temporary name is unique to the process and the call, so two processes that make the same file at the same
/// time do not meet; the last one to finish wins, with a complete file.
///
/// # Errors
/// [`Error::Io`], or whatever `write` returns. The temporary file is gone then.
pub(crate) fn write<T, E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<T, E>,
) -> Result<T, E> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}-{call}.tmp", process::id()));
    let temporary = path.with_file_name(name);

    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)
        .map_err(Error::io("create", &temporary))?;
    let mut sink = BufWriter::new(file);
    let written = write(&mut sink).and_then(|value| {
        sink.flush()
            .and_then(|()| sink.get_ref().sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(Error::io("write", path))?;
        Ok(value)
    });
    if written.is_err() {
        // The error that brought us here is the one worth reporting.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
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
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
