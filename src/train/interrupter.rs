//! How a training is stopped from outside.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A handle that stops a training after its current step. Clones are the same handle.
#[derive(Clone, Debug, Default)]
pub struct Interrupter {
    stop: Arc<AtomicBool>,
}

impl Interrupter {
    /// Asks the training to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it has been asked to stop.
    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The same, for loops that hand it on.
    pub(super) fn check(&self) -> ControlFlow<()> {
        match self.should_stop() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
