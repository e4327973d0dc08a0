//! What is being read, and how far it is, for whoever waits.

use std::{fmt, path::Path, sync::Arc};

/// How far a piece of work has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What is done with the file: "reading", "tokenising".
    pub doing: &'static str,
    /// The file.
    pub file: &'a Path,
    /// How much of `total` is done, in whatever unit.
    pub done: u64,
    /// All there is to do; 0 where nobody knows.
    pub total: u64,
    /// Rows that were read; 0 where the work is not done row by row.
    pub rows: u64,
}

/// A callback that is told of [`Progress`], often; nobody by default.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<Told>>);

type Told = dyn Fn(&Progress) + Send + Sync;

impl Watch {
    /// Calls `told`, from the thread that does the work, some hundred times a second.
    pub fn new(told: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    pub(crate) fn tell(&self, progress: &Progress) {
        if let Some(told) = &self.0 {
            told(progress);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
