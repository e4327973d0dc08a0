//! What reading a data set takes its time for.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::data::{Progress, Watch};

/// The first line comes after this long, and the others follow at this distance.
const INTERVAL: Duration = Duration::from_secs(2);

/// Prints on standard error how far the work is, every few seconds.
pub(super) fn printed() -> Watch {
    let state = Mutex::new((Instant::now(), None::<Piece>));
    Watch::new(move |progress| {
        let (last, piece) = &mut *state.lock().unwrap_or_else(PoisonError::into_inner);
        if piece.as_ref().is_none_or(|piece| !piece.is_of(progress)) {
            *piece = Some(Piece::begin(progress));
        }
        if last.elapsed() >= INTERVAL {
            *last = Instant::now();
            let seconds = piece.as_ref().map_or(0.0, |piece| piece.since.elapsed().as_secs_f64());
            super::complain(&line(progress, seconds));
        }
    })
}

/// The work that goes on, and since when.
struct Piece {
    doing: &'static str,
    file: PathBuf,
    since: Instant,
}

impl Piece {
    fn begin(progress: &Progress) -> Self {
        Self { doing: progress.doing, file: progress.file.to_owned(), since: Instant::now() }
    }

    fn is_of(&self, progress: &Progress) -> bool {
        self.doing == progress.doing && self.file == progress.file
    }
}

/// How far the work is, `seconds` after it began.
fn line(progress: &Progress, seconds: f64) -> String {
    let Progress { doing, file, done, total, rows } = progress;
    let name = file.file_name().unwrap_or(file.as_os_str()).display();
    let mut line = format!("{doing} {name}");
    if *total > 0 {
        line += &format!(": {}%", 100 * done / total);
    }
    if *rows > 0 {
        line += &format!(", {rows} rows");
    }
    // Nothing is known of the speed at the beginning.
    if *rows > 0 && seconds >= 0.5 {
        line += &format!(", {:.0} rows/s", *rows as f64 / seconds);
    }
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_how_far_it_is() {
        let file = Path::new("data/docs/trn.json");
        let mut progress = Progress { doing: "reading", file, done: 3, total: 4, rows: 0 };
        assert_eq!(line(&progress, 2.0), "reading trn.json: 75%");
        progress.rows = 5000;
        assert_eq!(line(&progress, 2.0), "reading trn.json: 75%, 5000 rows, 2500 rows/s");
        assert_eq!(line(&progress, 0.1), "reading trn.json: 75%, 5000 rows");
        progress.total = 0;
        assert_eq!(line(&progress, 2.0), "reading trn.json, 5000 rows, 2500 rows/s");
    }

    #[test]
    fn the_clock_starts_anew_with_every_piece() {
        let progress = |doing, file| Progress { doing, file: Path::new(file), done: 0, total: 0, rows: 0 };
        let piece = Piece::begin(&progress("reading", "trn.json"));
        assert!(piece.is_of(&progress("reading", "trn.json")));
        assert!(!piece.is_of(&progress("reading", "tst.json")));
        assert!(!piece.is_of(&progress("tokenising", "trn.json")));
    }
}
