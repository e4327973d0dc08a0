//! What reading a data set takes its time for.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::data::{Progress, Watch};

/// The first line comes after this long, and the others follow at this distance.
const INTERVAL: Duration = Duration::from_secs(2);

/// Prints on standard error how far the work is, every few seconds.
pub(super) fn printed() -> Watch {
    let last = Mutex::new(Instant::now());
    Watch::new(move |progress| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= INTERVAL {
            *last = Instant::now();
            super::complain(&line(progress));
        }
    })
}

fn line(progress: &Progress) -> String {
    let Progress { doing, file, done, total } = progress;
    let name = file.file_name().unwrap_or(file.as_os_str()).display();
    match total {
        0 => format!("{doing} {name}"),
        _ => format!("{doing} {name}: {}%", 100 * done / total),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_how_far_it_is() {
        let mut progress = Progress { doing: "reading", file: Path::new("data/docs/trn.json"), done: 3, total: 4 };
        assert_eq!(line(&progress), "reading trn.json: 75%");
        progress.total = 0;
        assert_eq!(line(&progress), "reading trn.json");
    }
}
