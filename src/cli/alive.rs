//! Signs of life of jobs that take long.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A line this often, the first one after this time.
const INTERVAL: Duration = Duration::from_secs(2);

/// Says on standard error how a job stands, until it is dropped.
pub struct Alive {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Alive {
    /// Begins. `line` gets the time since now and gives what there is to say, if anything.
    pub fn start(mut line: impl FnMut(Duration) -> Option<String> + Send + 'static) -> Self {
        let start = Instant::now();
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Some(line) = line(start.elapsed()) {
                    super::complain(&line);
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say any more, not even that it panicked.
            let _ = thread.join();
        }
    }
}
